"""Who else searches: the YOLO trainers' rules, written from their descriptions, and Optuna's samplers.

An arm is a name and how its sampler is made. All of them try the space's defaults first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from search_spaces import Param, Space, Value
from studies import GeneticSampler
from studies.genetics import Child, Population, Scored, choose_parent, reflect

Maker = Callable[[Space, int], BaseSampler]


@dataclass(frozen=True)
class Arm:
    """How a sampler is made from a space and a seed; so many first trials train the space's defaults.

    `chooses`: its study is also judged by the hyp of the highest smoothed score, not by the luckiest trial alone.
    `seeds`: how many seeds are enough, where it is slow.
    """

    make: Maker
    bases: int = 1
    chooses: bool = False
    seeds: int | None = None


# The rule of ultralytics 8.4.136 and later (engine/tuner.py).
PARENTS = 9
MUTATED = 0.5  # of the genes
SIGMA = 0.2
STALE_TRIALS, STALE_DECAY = 25, 0.2  # after so many trials without a new best the steps are that much shorter
ELITE_TRIALS, ELITE_SHARE, ELITE_MOST = 30, 0.2, 30
ELITE_STEPS = 0.4  # how often a step is drawn from the elite's covariance
TRIES = 100
DIGITS = 5


def ultralytics(population: Population, space: Space, rng: Generator) -> Child:
    """A child as the tuner of ultralytics makes it: one weighted parent, half of its genes moved in the linear cube.

    That rule knows no logarithmic genes: each is measured by its share of high - low. Steps have sigma 0.2 * gain, less
    when the best is stale; after 30 trials some follow the covariance of the best fifth around the parent. Only trials
    that were trained to the end count, since that tuner prunes none.
    """
    genes = space.evolving
    if not population.scored:
        return Child(space.defaults(), (), "base", {})
    history = [Scored(one.hyp, round(one.fitness, DIGITS), one.number) for one in population.scored]
    decay = 1 - STALE_DECAY * min(_stale(history) / STALE_TRIALS, 1)
    scale = np.array([_scale(gene, decay) for gene in genes])
    covariance, confidence = _elite(history, genes, scale, decay)
    tried = {tuple(hyp.get(gene.name) for gene in genes) for hyp in population.taken}
    for attempt in range(2 * TRIES):
        parent = choose_parent(history, PARENTS, rng)
        places = np.array([_place(gene, parent.hyp[gene.name]) for gene in genes])
        if attempt >= TRIES:
            places = rng.random(len(genes))
        else:
            mask = rng.random(len(genes)) < MUTATED
            if covariance is not None and rng.random() < ELITE_STEPS * confidence:
                drawn = rng.multivariate_normal(places, covariance)
                places = np.where(mask, [reflect(float(u)) for u in drawn], places)
            else:
                places = np.clip(places + mask * rng.standard_normal(len(genes)) * scale, 0, 1)
        values = {gene.name: _value(gene, float(u)) for gene, u in zip(genes, places, strict=True)}
        if tuple(values.values()) not in tried:
            return Child({**space.defaults(), **values}, (parent.number,), "ultralytics", {})
    raise RuntimeError("no new hyp was found")


def _stale(history: Sequence[Scored]) -> int:
    """How many trials came after the first of the highest fitness."""
    by_time = [one.fitness for one in sorted(history, key=lambda one: one.number)]
    return len(by_time) - 1 - int(np.argmax(by_time))


def _scale(gene: Param, decay: float) -> float:
    low, high = gene.bounds
    resolution = 1 if gene.kind == "int" else 10**-DIGITS
    return max(SIGMA * decay * gene.gain, resolution / (high - low))


def _elite(
    history: Sequence[Scored], genes: Sequence[Param], scale: NDArray[np.float64], decay: float
) -> tuple[NDArray[np.float64] | None, float]:
    """The covariance [n, n] of the elite's places, and how far it is to be trusted, from 0 to 1."""
    if len(history) < ELITE_TRIALS:
        return None, 0.0
    n_elite = min(math.ceil(ELITE_SHARE * len(history)), ELITE_MOST)
    elite = sorted(history, key=lambda one: (-one.fitness, one.number))[:n_elite]
    confidence = min(n_elite / len(genes), 1.0)
    places = np.array([[_place(gene, one.hyp[gene.name]) for gene in genes] for one in elite])
    covariance = np.atleast_2d(np.cov(places, rowvar=False)) * decay**2 * confidence
    return covariance + np.diag(scale**2 / len(genes)), confidence


def _place(gene: Param, value: Value) -> float:
    low, high = gene.bounds
    return (float(value) - low) / (high - low)


def _value(gene: Param, place: float) -> Value:
    low, high = gene.bounds
    value = low + place * (high - low)
    return gene.clip(round(value) if gene.kind == "int" else round(value, DIGITS))


def _genetic(operator: str | Callable[..., Child]) -> Maker:
    return lambda space, seed: GeneticSampler(space, seed=seed, operator=operator)


def _cmaes(space: Space, seed: int) -> BaseSampler:
    """Started at the defaults with Optuna's own step (a sixth of the range), which is said to leave in Optuna 6."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        start = {param.name: param.default for param in space.evolving}
        return samplers.CmaEsSampler(x0=start, seed=seed, warn_independent_sampling=False)


def _gp(space: Space, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)


RIVALS: Mapping[str, Arm] = {
    "random": Arm(lambda space, seed: samplers.RandomSampler(seed=seed)),
    "yolo": Arm(_genetic("yolo")),
    "ultralytics": Arm(_genetic(ultralytics)),
    "tpe": Arm(lambda space, seed: samplers.TPESampler(seed=seed)),
    "cmaes": Arm(_cmaes),
    "gp": Arm(_gp, seeds=2),
    "nsgaii": Arm(lambda space, seed: samplers.NSGAIISampler(seed=seed)),
}
