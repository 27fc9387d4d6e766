"""The default operator: many children are bred, and a small model of all trials so far chooses which one is trained.

Breeding is blind but bold; the model is timid but has read everything. Offspring come from five sources (SOURCES), the
best of them by the model's optimism breed again among themselves for a few rounds, and the best of all is trained. One
child in five is trained unseen by the model, which would otherwise never learn where it is wrong.

The model (`studies.surrogate`) sees at most SEEN trials: what a child costs does not grow with the study. A trial that
was pruned enters it with the fitness that it would have come to (`studies.expectation`): its last value is that of a
shorter training. One that is still running enters as an average one, so that workers do not crowd.

Of a detector's 27 hyps most random ones are hopeless, and a hopeful model loves what is far from all that it knows. So
steps are short, no longer with many genes than with few, and a child drawn at random is trained only unseen by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.linalg import LinAlgError
from numpy.random import Generator
from numpy.typing import NDArray

from search_spaces import Space, Value
from studies.cores import one_core
from studies.cube import Cube, Floats, cube_of, reflect
from studies.expectation import expect
from studies.genetics import TRIES, Child, Population, Scored, Tried, fresh, normalised
from studies.surrogate import Surrogate, fit_kernel

POOL = 100  # children bred of the trials
ROUNDS, BREEDERS = 4, 10  # how often the model's favourites breed on, and how many they are
OPTIMISM = 3.0  # so many standard deviations above the model's mean are hoped for, times |N(0, 1)|
UNSEEN = 0.2  # of the children are trained whatever the model says
COMPLETE, YOUNG = 3, 5  # trials that are complete, and finished ones in all, without which there is nothing to model

# Measured while it was made: regret after 30, 100 and 300 trials, on the development half of LCBench (17 tasks, 3
# seeds, noise .10; standard error about .03 .02 .02; the rule of ultralytics: .36 .23 .15) and on BBOB in 20 dimensions
# (11 functions, 2 seeds, noise .03; error about .02):
#                            LCBench           BBOB
#   OPTIMISM 0.5             .26 .18 .14
#   1                        .26 .18 .11       .48 .37 .30
#   2                        .27 .15 .10       .47 .35 .29
#   3                        .33 .12 .07       .47 .35 .29
#   1, rising to 3 by 60     .31 .16 .08       .46 .36 .29
#   2, steps as long as the elite is wide
#                            .26 .15 .09       .49 .38 .30
#   1, ROUNDS 2              .30 .21 .14
#   1, YOUNG 12              .34 .23 .15
# A timid model settles early on what it knows. What decides is how much it hopes; the rest hardly matters: a pool of
# 200, UNSEEN .1 or .3, UNIFORM .15, ELITE_LEAST 10, a noise that is fixed at the measured one, parents by the model's
# mean instead of their own fitness were no better or worse.
# Nor was training the best hyp again every 10 generations, up to 4 times: with it, without, error of the difference:
#   LCBench, final half, 4 seeds                     .341 .167 .104   .341 .163 .105   .018 .025 .013
#   BBOB, 4 seeds                                    .496 .390 .305   .499 .372 .294   .012 .015 .011
#   with the pruner, at the cost of 10, 30 and 60 trainings, 17 tasks, 10 seeds
#                                                    .443 .254 .178   .430 .234 .178

SOURCES = ("step", "mean", "difference", "base", "uniform")
DIFFERENCES = 0.3
RECOMBINED = 0.2  # of the steps start at the elite's mean instead of at one of them
UNIFORM = 0.05
FROM_BASE = 0.3  # while nothing beats the base; the less, the more trials do
ELITE, ELITE_LEAST, ELITE_MOST = 0.2, 5, 30

LENGTHS = (0.03, 0.5)  # of a step in the unit cube, as a root of squares: as far with all genes as with two
FINE_LENGTHS = (0.01, 0.3)  # of the model's favourites
STAYS = 0.2  # of the children that overshoot a bound stay on it
LEAST_MOVED = 2  # genes on average, up to all of them
LEAP = 0.2  # how often a categorical gene that is hit takes another value

SEEN = 250
FITTED = 150  # of these decide the model's scales
STRIDE, REFIT = 8, 16  # they are fitted again after 8 trials more, or a sixteenth of all
WINSOR = 2.0  # how far below the median a value counts in full, in units of (9th decile - median)
LEAST_SPAN = 1e-300  # of fitness: by less, nothing can be divided


@dataclass(frozen=True)
class Brood:
    """Children as points [n, d] of the cube, and what made each: its source, and the trials that it comes from."""

    points: Floats
    sources: NDArray[np.int64]
    parents: NDArray[np.int64]  # [n, 3], numbers of trials; -1 for none

    def pick(self, rows: NDArray[np.int64]) -> Brood:
        return Brood(self.points[rows], self.sources[rows], self.parents[rows])

    def join(self, other: Brood) -> Brood:
        return Brood(*(np.concatenate(both) for both in zip(_parts(self), _parts(other), strict=True)))


@dataclass(frozen=True)
class Modern:
    """The operator; its fields switch parts of it off, to measure what each of them buys.

    `unseen`: the share of children that the model does not choose. `censored`: whether pruned and failed trials
    enter the model.
    """

    unseen: float = UNSEEN
    censored: bool = True

    def __call__(self, population: Population, space: Space, rng: Generator) -> Child:
        """The child that the model prefers among some hundred, or one unseen by it.

        Everything is drawn from `rng` and computed from `population`. While fewer than 5 trials are complete the child
        is one of `normalised`. Raises SpaceError where nothing can evolve, SpaceExhausted where nothing new was found.
        """
        cube = cube_of(space)
        if len(population.scored) < COMPLETE or len(population.scored) + len(population.hopeless) < YOUNG:
            return _blind(population, space, cube, rng)
        population = _by_number(population)
        with one_core:
            brood = breed(population, cube, POOL, rng)
            told = population if self.censored else replace(population, hopeless=())
            if rng.random() >= self.unseen and (model := model_of(told, cube)) is not None:
                brood = brood.pick(np.flatnonzero(brood.sources != SOURCES.index("uniform")))
                brood = select(brood, model, cube, rng)
        return _first_new(brood, population, space, cube) or _blind(population, space, cube, rng)


modern = Modern()


def breed(population: Population, cube: Cube, n: int, rng: Generator) -> Brood:
    """n children of the elite, the fittest fifth: each of a source that is drawn for it."""
    ranked = population.ranked()
    count = max(ELITE_LEAST, min(int(ELITE * len(ranked)), ELITE_MOST))
    elite, numbers = cube.places(one.hyp for one in ranked[:count]), [one.number for one in ranked[:count]]
    weights = rank_weights(len(elite))
    mothers, fathers, others = (rng.choice(len(elite), size=n, p=p) for p in (weights, None, None))
    mean = weights @ np.where(cube.categorical, elite[0], elite)
    noise = rng.standard_normal((n, cube.d)) * cube.gains
    sources = rng.choice(len(SOURCES), size=n, p=shares(population))
    hit = masks(n, cube.d, LEAST_MOVED, rng)
    steps = stride(LENGTHS, hit, cube, rng)
    span = rng.uniform(0.3, 1, (n, 1)) * (elite[fathers] - elite[others]) * (rng.random((n, cube.d)) < 0.7)
    of = [(sources == i)[:, None] for i in range(len(SOURCES))]
    start = np.select(of, [elite[mothers], mean, elite[mothers], cube.base, rng.random((n, cube.d))])
    moves = [
        steps,
        steps,
        span + 0.01 * noise,
        steps,
        np.zeros(1),
    ]
    points = leap(start + np.select(of, moves), start, hit, cube, rng)
    points = undo_dead(cube.snap(bounded(points, rng)), cube.snap(start), cube)
    trio = np.array(numbers)[np.stack([mothers, fathers, others], axis=1)]
    known = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)[sources]
    return Brood(points, sources, np.where(known, trio, -1))


def select(brood: Brood, model: Surrogate, cube: Cube, rng: Generator) -> Brood:
    """The brood and what its favourites breed, by the model's optimism: its mean + OPTIMISM * |N(0, 1)| of its sds."""
    optimism = OPTIMISM * abs(rng.standard_normal())
    hopes = _hope(model, brood, cube, optimism)
    for _ in range(ROUNDS):
        favourites = np.argsort(-hopes, kind="stable")[:BREEDERS]
        ancestors = np.repeat(favourites, POOL // BREEDERS)
        start = brood.points[ancestors]
        hit = masks(len(start), cube.d, LEAST_MOVED, rng)
        points = start + stride(FINE_LENGTHS, hit, cube, rng)
        points = undo_dead(cube.snap(bounded(leap(points, start, hit, cube, rng), rng)), start, cube)
        bred = Brood(points, brood.sources[ancestors], brood.parents[ancestors])
        hopes = np.concatenate([hopes[favourites], _hope(model, bred, cube, optimism)])
        brood = brood.pick(favourites).join(bred)
    return brood.pick(np.argsort(-hopes, kind="stable"))


def model_of(population: Population, cube: Cube) -> Surrogate | None:
    """What all trials say; None where they say nothing, as when all have one fitness.

    The model's scales, and that of fitness, are those of the trials up to a number that moves on in strides: they are
    costly to fit and change little.
    """
    settled = _before(population, _settled(population))
    fitness = np.array([one.fitness for one in settled.scored])
    if len(fitness) < 2 or np.ptp(fitness) == 0:
        return None
    scale = Scale.of(fitness)
    try:
        kernel = fit_kernel(*_told(_seen(settled, FITTED), scale, cube))
        return Surrogate.of(*_told(_seen(population, SEEN), scale, cube), kernel)
    except LinAlgError:
        return None


@dataclass(frozen=True)
class Scale:
    """Fitness in units that suit a model: 0 at the median, 1 at the ninth decile, and far failures drawn near."""

    median: float
    span: float

    @classmethod
    def of(cls, fitness: Floats) -> Scale:
        median, high = np.quantile(fitness, [0.5, 0.9])
        spans = (float(high - median), float(np.ptp(fitness)), 1.0)
        return cls(float(median), next(span for span in spans if span > LEAST_SPAN))

    def of_fitness(self, fitness: Floats) -> Floats:
        z = (fitness - self.median) / self.span
        near: Floats = np.where(z < -WINSOR, -WINSOR - 0.3 * np.log1p(np.maximum(-WINSOR - z, 0)), z)
        return near


def shares(population: Population) -> Floats:
    """How often each source is drawn: the base's share shrinks with every trial that is fitter than the base."""
    from_base = FROM_BASE / (1 + population.better_than_base / 5)
    steps = 1 - DIFFERENCES - UNIFORM - from_base
    return np.array([steps * (1 - RECOMBINED), steps * RECOMBINED, DIFFERENCES, from_base, UNIFORM])


def rank_weights(n: int) -> Floats:
    """Weights [n] that fall with the logarithm of the rank and sum to 1, as the parents' in CMA-ES (Hansen, 2016)."""
    weights: Floats = np.log(n + 0.5) - np.log(np.arange(1, n + 1))
    weights /= weights.sum()
    return weights


def masks(n: int, d: int, least: float, rng: Generator) -> NDArray[np.bool_]:
    """Which genes [n, d] move: each child draws its own share, from `least` genes to all; at least one is hit."""
    rates = log_uniform(min(least / d, 0.5), 1.0, n, rng)
    hit = rng.random((n, d)) < rates
    hit[np.arange(n), rng.integers(d, size=n)] = True
    return hit


def stride(lengths: tuple[float, float], hit: NDArray[np.bool_], cube: Cube, rng: Generator) -> Floats:
    """A step [n, d] for each child over the genes that are hit, each of a length of its own."""
    sigma = log_uniform(*lengths, len(hit), rng) / np.sqrt(hit.sum(axis=1, keepdims=True))
    moved: Floats = hit * np.maximum(sigma * cube.gains, cube.cells) * rng.standard_normal(hit.shape)
    return moved


def bounded(points: Floats, rng: Generator) -> Floats:
    """Points within the cube: each child is reflected at its bounds, or stays on them, so that 0 can be reached."""
    stays = rng.random((len(points), 1)) < STAYS
    return np.where(stays, np.clip(points, 0, 1), reflect(points))


def leap(points: Floats, start: Floats, hit: NDArray[np.bool_], cube: Cube, rng: Generator) -> Floats:
    """The points with categorical genes as at the start, but for those hit ones that leap: they have no small step."""
    leaps = hit & (rng.random(points.shape) < LEAP)
    return np.where(cube.categorical, np.where(leaps, rng.random(points.shape), start), points)


def undo_dead(points: Floats, start: Floats, cube: Cube) -> Floats:
    """The points with genes that change nothing there as they were: a dead gene is not mutated alone."""
    return np.where(cube.dead(points), start, points)


def log_uniform(low: float, high: float, n: int, rng: Generator) -> Floats:
    """A column [n, 1]."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (n, 1)))


def _blind(population: Population, space: Space, cube: Cube, rng: Generator) -> Child:
    """A child of `normalised`; one that differs from its parent in dead genes only is made again, 100 times at most."""
    for _ in range(TRIES):
        child = normalised(population, space, rng)
        if not _is_idle(child, cube):
            break
    return child


def _is_idle(child: Child, cube: Cube) -> bool:
    """Whether all that moved is dead there: it would train as its parent did."""
    dead = cube.dead(cube.place(child.hyp)[None])[0]
    return bool(child.step) and child.step.keys() <= set(np.array(cube.names)[dead])


def _hope(model: Surrogate, brood: Brood, cube: Cube, optimism: float) -> Floats:
    mean, sd = model.predict(cube.features(brood.points))
    return mean + optimism * sd


def _told(population: Population, scale: Scale, cube: Cube) -> tuple[Floats, Floats]:
    """Points [n, d] and values [n] of all trials: those that were stopped as expected, running ones as the median."""
    values = scale.of_fitness(np.array([one.fitness for one in population.scored]))
    hopeless = scale.of_fitness(expect(population.scored, population.hopeless))
    values = np.concatenate([values, hopeless, np.zeros(len(population.running))])
    tried: list[Scored | Tried] = [*population.scored, *population.hopeless, *population.running]
    return cube.features(cube.places(one.hyp for one in tried)), values


def _by_number(population: Population) -> Population:
    """In whatever order trials are listed, they make the same child."""
    return replace(
        population,
        scored=sorted(population.scored, key=lambda one: one.number),
        hopeless=sorted(population.hopeless, key=lambda one: one.number),
        running=sorted(population.running, key=lambda one: one.number),
    )


def _seen(population: Population, most: int) -> Population:
    """At most so many trials: the fittest for half of them, then the latest."""
    running = population.running[-most // 5 :]
    room = most - len(running)
    best = {one.number for one in population.ranked()[: room // 2]}
    others = sorted({*_numbers(population.scored), *_numbers(population.hopeless)} - best)
    kept = best | set(others[len(best) - room :])
    return replace(
        population,
        scored=[one for one in population.scored if one.number in kept],
        hopeless=[one for one in population.hopeless if one.number in kept],
        running=running,
    )


def _before(population: Population, number: int) -> Population:
    """The finished trials below this number."""
    return replace(
        population,
        scored=[one for one in population.scored if one.number < number],
        hopeless=[one for one in population.hopeless if one.number < number],
        running=(),
    )


def _settled(population: Population) -> int:
    numbers = sorted([*_numbers(population.scored), *_numbers(population.hopeless)])
    stride = max(STRIDE, len(numbers) // REFIT)
    return numbers[max(len(numbers) // stride * stride, min(len(numbers), STRIDE)) - 1] + 1


def _first_new(brood: Brood, population: Population, space: Space, cube: Cube) -> Child | None:
    """The first of the brood that no trial has tried, and that differs from its parent in more than dead genes."""
    defaults = space.defaults()
    for point, source, parents in zip(*_parts(brood), strict=True):
        genes: dict[str, Value] = cube.hyp_at(point)
        hyp = {name: genes.get(name, value) for name, value in defaults.items()}
        if not fresh(hyp, space, population.taken):
            continue
        known = tuple(dict.fromkeys(int(number) for number in parents if number >= 0))
        start = cube.place(population.hyp_of(known[0])) if known else cube.base
        child = Child(hyp, known, SOURCES[source], cube.steps(start, cube.place(hyp)))
        if not _is_idle(child, cube):
            return child
    return None


def _parts(brood: Brood) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    return brood.points, brood.sources, brood.parents


def _numbers(trials: Sequence[Scored] | Sequence[Tried]) -> list[int]:
    return [one.number for one in trials]
