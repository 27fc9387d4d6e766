"""The genetic kernel: a population in, one child out. Pure numpy; knows no Optuna and keeps no state.

Two operators stand here; the default one is `studies.modern`. `yolo` is the classic rule of YOLOv3 to YOLOv7: multiply
some of the parent's genes by factors near 1. `normalised` steps through the unit cube of the space instead, so that a
gene at 0 can move, a gene with a small range moves as far in it as one with a large range, and a learning rate moves
by ratios.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from search_spaces import Hyp, Param, Space, SpaceError, Value

TRIES = 100  # of each way to make a child that is new, before the next way is tried

# YOLOv5 v7.0, train.py --evolve
YOLO_PARENTS = 5
YOLO_RATE = 0.8
YOLO_SIGMA = 0.2
YOLO_FACTORS = (0.3, 3.0)

# Chosen for some 27 genes and 30 to 300 noisy trials. Measured: the share of the way from the default to the optimum
# that the trial with the best noisy score had come (27 genes; sphere, ellipsoids, absolute and banana functions, six
# in all, 8 or 10 seeds; the optimum 0.08 or 0.2 a gene from the default; noise 5 % or 20 % of the way; standard error
# .02 to .03), and the normalised regret on the LCBench surrogate's 7 genes (lower is better, its error .04 to .06):
#   sigma          genes that move                    after 100    after 300    LCBench after 300
#   0.2            half of them, as Ultralytics       .20          .29          -.33
#   0.1            a fifth                            .42          .56          -.18
#   0.03 to 0.2    a tenth to half                    .44          .55
#   0.03 to 0.3    a tenth to half                    .41          .54          -.19
#   0.03 to 0.3    3 to 13 (of 27: the row above)     .41          .54          -.26
# So the one wide step that suits 7 genes is far too wide for 27. Where each child draws its own sigma and share, both
# are served, as long as the number of genes that move stays alike. Under large noise 9 parents beat 3; 5, 15, 25 tie.
PARENTS = 9
SIGMAS = (0.03, 0.3)
MOVED_GENES = (3.0, 13.0)

ALONE = (0.25, 0.25)  # of the values of a param by itself: how often uniform, and how often as they were
CATEGORICAL_RATE = 0.2  # a categorical gene has no small step, so it leaps more seldom than the others move


@dataclass(frozen=True)
class Scored:
    """A hyp that was trained to the end, its fitness (higher is better), its trial's number, and its learning curve."""

    hyp: Hyp
    fitness: float
    number: int
    curve: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tried:
    """A hyp that has no fitness, its trial's number, and the last epoch of a trial that was pruned, with its value."""

    hyp: Hyp
    number: int
    last: tuple[int, float] | None = None


@dataclass(frozen=True)
class Population:
    """What an operator breeds from; of a long study the fittest and the latest. Fitness: higher is better.

    `scored` were trained to the end, by number; `hopeless` were pruned or failed; `running` are in training or wait
    for it. A child has to differ from all of `taken`. `base_fitness` is the mean of the base, None while unknown.
    """

    scored: Sequence[Scored] = ()
    hopeless: Sequence[Tried] = ()
    running: Sequence[Tried] = ()
    taken: Collection[Hyp] = ()
    base_fitness: float | None = None

    @property
    def better_than_base(self) -> int:
        """How many trials were fitter than the base."""
        return 0 if self.base_fitness is None else sum(one.fitness > self.base_fitness for one in self.scored)

    def ranked(self) -> list[Scored]:
        """Each hyp once, the fittest first: one that was trained more than once counts with the mean of its fitness."""
        groups: dict[tuple[Value, ...], list[Scored]] = {}
        for one in self.scored:
            groups.setdefault(tuple(one.hyp.values()), []).append(one)
        found = [
            group[0] if len(group) == 1 else replace(group[0], fitness=statistics.fmean(one.fitness for one in group))
            for group in groups.values()
        ]
        return sorted(found, key=lambda one: (-one.fitness, one.number))

    def hyp_of(self, number: int) -> Hyp:
        """The hyp of the scored trial of that number."""
        return next(one.hyp for one in self.scored if one.number == number)


@dataclass(frozen=True)
class Child:
    """A hyp to train next, and where it comes from.

    `hyp` holds every param and fixed value in file order. `parents` are trial numbers, none where the space's defaults
    were the parent. `operator` is what made it: "yolo", "normalised", a source of `studies.modern` or, where nothing
    new was found, "uniform". `step` names the genes that differ from the first parent's: by what factor for numbers
    under "yolo", otherwise how far in the unit interval.
    """

    hyp: dict[str, Value]
    parents: tuple[int, ...]
    operator: str
    step: dict[str, float]


class SpaceExhausted(SpaceError):
    """Of all the hyps that were drawn, none was new: a space of few ints and choices has been tried out."""


Operator = Callable[[Population, Space, Generator], Child]
Proposal = Callable[[Hyp, Sequence[Param], Generator], dict[str, Value]]


def normalised(population: Population, space: Space, rng: Generator) -> Child:
    """A child some masked Gaussian steps in the unit cube away from its parent.

    The parent, one of the 9 fittest, is taken whole. The child draws how many genes move on average (3 to 13) and how
    far (sigma 0.03 to 0.3); each of them steps by sigma * gain * N(0, 1), is reflected at the bounds and rounded by its
    param. It differs from its parent and from all that is taken: after 100 vain attempts its genes are drawn uniformly.
    With nothing scored the parent is the space's defaults. Raises SpaceError where nothing can evolve.
    """
    return _first_new({"normalised": step_in_unit_cube, "uniform": scatter}, PARENTS, population, space, rng)


def yolo(population: Population, space: Space, rng: Generator) -> Child:
    """A child by the classic rule, as in YOLOv5 v7.0 (train.py, --evolve), from a generator of its own.

    The parent is drawn from the 5 fittest; its genes are multiplied by `yolo_factors`, clipped to their bounds and
    rounded to 5 decimals. A gene at 0 stays there. Where the classic rule says nothing: a child that equals its parent
    or a hyp that is taken is made again, after 100 vain attempts as by `normalised`; ints go to the nearest step;
    a categorical gene leaps with probability 0.2. Raises SpaceError where nothing can evolve.
    """
    ways = {"yolo": multiply, "normalised": step_in_unit_cube, "uniform": scatter}
    return _first_new(ways, YOLO_PARENTS, population, space, rng)


def choose_parent(scored: Sequence[Scored], n: int, rng: Generator) -> Scored:
    """Draw one of the n fittest, in proportion to its lead over the least of them (all equal: uniformly).

    Of equals the earlier trial counts as fitter. What is not finite is passed over; ValueError if nothing is left.
    """
    finite = [candidate for candidate in scored if math.isfinite(candidate.fitness)]
    fittest = sorted(finite, key=lambda candidate: (-candidate.fitness, candidate.number))[:n]
    if not fittest:
        raise ValueError("there is no finite fitness to choose a parent by")
    lead = np.array([candidate.fitness for candidate in fittest], dtype=np.float64)
    lead -= lead.min()
    lead += 1e-6  # all equal would leave no weight to draw by
    return fittest[rng.choice(len(fittest), p=lead / lead.sum())]


def step_in_unit_cube(parent: Hyp, params: Sequence[Param], rng: Generator) -> dict[str, Value]:
    """The values of the genes that a Gaussian step chose to move; at least one is chosen."""
    sigma = _log_uniform(*SIGMAS, rng)
    rate = _log_uniform(*MOVED_GENES, rng) / len(params)
    hit = rng.random(len(params)) < rate
    if not hit.any():
        hit[rng.integers(len(params))] = True
    steps = rng.standard_normal(len(params))
    return {
        param.name: _stepped(param, parent[param.name], sigma, step, rng)
        for param, step, moves in zip(params, steps, hit, strict=True)
        if moves
    }


def multiply(parent: Hyp, params: Sequence[Param], rng: Generator) -> dict[str, Value]:
    """The parent's genes times `yolo_factors`, clipped and rounded to 5 decimals; categorical ones leap or stay."""
    numeric = [param for param in params if param.kind != "categorical"]
    factors = yolo_factors(np.array([param.gain for param in numeric]), rng)
    child = {
        param.name: _rounded_to_5_decimals(param, float(parent[param.name]) * float(factor))
        for param, factor in zip(numeric, factors, strict=True)
    }
    return child | {param.name: _leapt(param, parent[param.name], rng) for param in params if param.choices}


def scatter(parent: Hyp, params: Sequence[Param], rng: Generator) -> dict[str, Value]:
    """Every gene drawn uniformly from the unit interval."""
    return {param.name: param.from_unit(u) for param, u in zip(params, rng.random(len(params)), strict=True)}


def vary_alone(scored: Sequence[Scored], param: Param, rng: Generator) -> Value:
    """The value of one evolving param: drawn uniformly, one of the 9 fittest's, or a step of `normalised` from that."""
    way = rng.random()
    if way < ALONE[0]:
        return param.from_unit(rng.random())
    parent = param.clip(choose_parent(scored, PARENTS, rng).hyp[param.name])
    return parent if way < sum(ALONE) else step_in_unit_cube({param.name: parent}, [param], rng)[param.name]


def yolo_factors(gains: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Factors [n] in [0.3, 3] for genes of these gains [n]; at least one is not 1, unless all gains are 0.

    v = clip(gain * [u < 0.8] * N(0, 1) * U * 0.2 + 1, 0.3, 3) with u and N drawn for each gene and U ~ U(0, 1) once for
    the genome, redrawn until some v is not 1: YOLOv5 v7.0, train.py. sd(v) = 0.104 at gain 1.
    """
    factors = np.ones(len(gains))
    for _ in range(TRIES):
        hit = rng.random(len(gains)) < YOLO_RATE
        step = gains * hit * rng.standard_normal(len(gains)) * rng.random() * YOLO_SIGMA
        factors = np.clip(step + 1, *YOLO_FACTORS)
        if (factors != 1).any():
            break
    return factors


def reflect(u: float) -> float:
    """`u` folded back into [0, 1] as by mirrors at 0 and 1."""
    u = abs(u) % 2
    return 2 - u if u > 1 else u


def fresh(hyp: Hyp, space: Space, taken: Iterable[Hyp]) -> bool:
    """Whether none of `taken` has these values of the space's params."""
    names = space.names
    return not any(all(other.get(name) == hyp[name] for name in names) for other in taken)


def _first_new(
    ways: Mapping[str, Proposal],
    n_parents: int,
    population: Population,
    space: Space,
    rng: Generator,
) -> Child:
    """The first child that is not taken: each way is tried up to TRIES times, one after the other."""
    evolving = space.evolving
    if not evolving:
        raise SpaceError(f"nothing can evolve in space {space.name!r}: every hyp is fixed, has gain 0 or low = high")
    chosen = choose_parent(population.scored, n_parents, rng) if population.scored else None
    start = {**space.defaults(), **(chosen.hyp if chosen else {})}
    parent = {param.name: param.clip(start[param.name]) for param in space.params}
    taken: list[Hyp] = [*population.taken, parent]
    for operator, propose in ways.items():
        for _ in range(TRIES):
            genes = parent | propose(parent, evolving, rng)
            if fresh(genes, space, taken):
                return Child(
                    hyp={name: genes[name] if name in genes else space.fixed[name] for name in space.order},
                    parents=(chosen.number,) if chosen else (),
                    operator=operator,
                    step=_steps(operator, parent, genes, space),
                )
    raise SpaceExhausted(f"no new hyp was found in space {space.name!r}: all that were drawn have been tried")


def _steps(operator: str, parent: Hyp, child: Hyp, space: Space) -> dict[str, float]:
    moved = [param for param in space.evolving if child[param.name] != parent[param.name]]
    if operator != "yolo":
        return {param.name: param.to_unit(child[param.name]) - param.to_unit(parent[param.name]) for param in moved}
    return {param.name: _factor(param, parent[param.name], child[param.name]) for param in moved}


def _factor(param: Param, parent: Value, child: Value) -> float:
    if param.choices or not parent:  # not a number, or a number below 5 decimals that rounding moved
        return param.to_unit(child) - param.to_unit(parent)
    return float(child) / float(parent)


def _stepped(param: Param, value: Value, sigma: float, step: float, rng: Generator) -> Value:
    if param.choices:
        return _leapt(param, value, rng)
    scale = sigma * param.gain
    if param.levels is not None:
        scale = max(scale, 1 / param.levels)  # as wide as one value at least, or rounding would undo most steps
    return param.from_unit(reflect(param.to_unit(value) + scale * step))


def _leapt(param: Param, value: Value, rng: Generator) -> Value:
    others = [choice for choice in param.choices if choice != value]
    return others[rng.integers(len(others))] if rng.random() < CATEGORICAL_RATE else value


def _rounded_to_5_decimals(param: Param, value: float) -> Value:
    clipped = param.clip(value)
    return clipped if param.kind == "int" else param.clip(round(float(clipped), 5))


def _log_uniform(low: float, high: float, rng: Generator) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
