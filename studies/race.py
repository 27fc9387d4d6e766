"""The final race: which hyps of a study are trained again, in which rounds and with which seeds. Pure.

The best of many noisy trainings looks better than it is, so the best few are trained again beside the base, under seeds
that the study never had, and only these trainings count. `studies.verdict` says what they show.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CHALLENGERS = 10  # at most, unless more are asked for
FIRST_SEEDS = 2
FINAL_SEEDS = 4
MOST_SEEDS = 8  # of a finalist, where a budget would pay for more
LEAST_TRAININGS = 6  # one challenger and the base under three seeds: with two, chance alone decides
FRESH = 1_000_000  # beyond a study's own seed: it trains with that plus the generation, and has fewer of these
APART = 1_000  # between the first seeds of a study's races

Entrant = int | None
"""A hyp of the study by the number of its first trial; None is the base."""


@dataclass(frozen=True)
class Round:
    """So many challengers, and the base, each trained under so many seeds that no round before had."""

    challengers: int
    seeds: int


Rounds = tuple[Round, ...]


@dataclass(frozen=True)
class Race:
    """Who runs: `challengers`, the best first, through `rounds`, under the seeds from `first_seed` on."""

    challengers: tuple[int, ...]
    rounds: Rounds
    first_seed: int

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + sum(round.seeds for round in self.rounds))


@dataclass(frozen=True)
class Heat:
    """One training of a race: the entrant's hyp under a seed, in round 1, 2, ..."""

    entrant: Entrant
    seed: int
    round: int


@dataclass(frozen=True)
class Run:
    """How a heat ended. `fitness` is None where the training failed; `final` are its scores on the test split."""

    heat: Heat
    fitness: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)


def rounds_within(trainings: int, most: int = CHALLENGERS) -> Rounds:
    """The rounds that so many trainings pay for; () where no race is worth it.

    Half of them, or a little more, see two seeds of every challenger; the others are the best third's. In simulated
    studies that delivers more than spreading them over more challengers: what the base loses to has to be confirmed,
    and the second seed of the seventh challenger confirms nothing (benchmarks/search/selection.py).

    >>> [[(r.challengers, r.seeds) for r in rounds_within(n)] for n in (5, 6, 12, 30)]
    [[], [(1, 3)], [(3, 2), (1, 2)], [(7, 2), (2, 4)]]
    """
    if trainings < LEAST_TRAININGS or most < 1:
        return ()
    challengers = min(most, trainings // 4)
    finalists = _finalists(challengers)
    left = trainings - FIRST_SEEDS * (challengers + 1)
    return _two_rounds(challengers, finalists, min(left // (finalists + 1), MOST_SEEDS - FIRST_SEEDS))


def rounds_for(challengers: int, seeds: int = FINAL_SEEDS) -> Rounds:
    """All challengers under two seeds, then the best third of them under more, up to `seeds`; () for no challenger.

    >>> [(r.challengers, r.seeds) for r in rounds_for(10)]
    [(10, 2), (3, 2)]
    """
    if challengers < 1:
        return ()
    if seeds <= FIRST_SEEDS:
        return (Round(challengers, seeds),)
    return _two_rounds(challengers, _finalists(challengers), seeds - FIRST_SEEDS)


def cost(rounds: Rounds) -> int:
    """How many trainings these rounds take, the base's among them."""
    return sum((round.challengers + 1) * round.seeds for round in rounds)


def first_seed(study_seed: int, number: int) -> int:
    """The first seed of a study's race number 1, 2, ...: one that neither the study nor another race of it has."""
    return study_seed + FRESH + APART * (number - 1)


def due_heats(race: Race, runs: Sequence[Run]) -> list[Heat]:
    """What is left, when these have been run, of the round that is under way; [] at the end of the race.

    These heats do not depend on one another. A seed's are in a row.
    """
    done = {(run.heat.entrant, run.heat.seed) for run in runs}
    first, entrants = race.first_seed, list(race.challengers)
    for number, round in enumerate(race.rounds, 1):
        entrants = rank(entrants, runs, round=number)[: round.challengers] if number > 1 else entrants
        pairs = itertools.product(range(first, first + round.seeds), (None, *entrants))
        if due := [Heat(entrant, seed, number) for seed, entrant in pairs if (entrant, seed) not in done]:
            return due
        first += round.seeds
    return []


def rank(entrants: Sequence[int], runs: Sequence[Run], *, round: int | None = None) -> list[int]:
    """Those whose every run before that round (None: any) gave a fitness, by their mean; of equals the first first."""
    values: dict[Entrant, list[float]] = {entrant: [] for entrant in entrants}
    for run in runs:
        if run.heat.entrant in values and (round is None or run.heat.round < round):
            values[run.heat.entrant].append(math.nan if run.fitness is None else run.fitness)
    means = {entrant: math.fsum(found) / len(found) for entrant in entrants if (found := values[entrant])}
    return sorted((entrant for entrant in means if math.isfinite(means[entrant])), key=lambda e: -means[e])


def _finalists(challengers: int) -> int:
    return max(1, challengers // 3)


def _two_rounds(challengers: int, finalists: int, more: int) -> Rounds:
    if more < 1:
        return (Round(challengers, FIRST_SEEDS),)
    if finalists == challengers:
        return (Round(challengers, FIRST_SEEDS + more),)
    return Round(challengers, FIRST_SEEDS), Round(finalists, more)
