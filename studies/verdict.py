"""What a race shows: each hyp's paired difference to the base with a 95 % interval, and whether one is better. Pure.

Paired: a difference is taken under one seed, which both hyps share. How far such a difference moves from seed to seed
is pooled over the finalists, since the few pairs of one hyp tell too little of it; the study's noise floor, where it is
of trainings as long as the race's, counts as two degrees of freedom more. The leader was picked because it did well, so
that the interval is as wide as it takes to cover even where all hyps are equal: see `critical_value`. How often the
intervals cover, also where one hyp is noisier than another, is simulated in tests/studies/test_verdict.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from studies.noise import NoiseFloor
from studies.race import Entrant, Race, Rounds, Run, rank

LEVEL = 0.95
POWER = 0.8
FLOOR_DEGREES = 2  # that a noise floor counts for at most: the hyps that it comes from are others
SIMULATED = 20_000
MANY_SEEDS = 1_000


@dataclass(frozen=True)
class Result:
    """One entrant's runs: the mean fitness of the `n` that gave one, and the mean paired difference to the base.

    `margin` is half the width of its interval (None: too few pairs). `metrics` and `final` are means over the runs.
    """

    entrant: Entrant
    n: int
    failed: int
    mean: float | None
    difference: float | None = None
    margin: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.difference is None or self.margin is None:
            return None
        return self.difference - self.margin, self.difference + self.margin


@dataclass(frozen=True)
class Verdict:
    """The results of the base and of its challengers: finalists first, the fittest before the others; failures last.

    `winner` is the fittest finalist if its interval lies above 0; None: the base stays. `seeds_to_settle` is how many
    seeds would confirm the leader in 8 of 10 cases if it is as much better than the base as it seems (None: it does not
    seem better, or it would take more than a thousand). `expected` is the leader's fitness as it probably is: its mean,
    less the luck that made it the leader.
    """

    base: Result
    challengers: tuple[Result, ...]
    seeds: tuple[int, ...]
    winner: int | None = None
    seeds_to_settle: int | None = None
    expected: float | None = None

    @property
    def leader(self) -> Result | None:
        """The fittest finalist; None where all failed."""
        return next((found for found in self.challengers[:1] if found.difference is not None), None)

    @property
    def best(self) -> Result:
        """The winner's result, or that of the base where it stays."""
        return self.base if self.winner is None else self.challengers[0]


def judge(race: Race, runs: Sequence[Run], floor: NoiseFloor | None = None) -> Verdict:
    """What the runs of a race show. `floor` is that of trainings as long as the race's, None if it is not known.

    A seed under which the base failed makes no pair; a challenger that failed under any seed is out.
    """
    reached = {run.heat.entrant for run in runs if run.heat.round == max(run.heat.round for run in runs)}
    whole = rank(race.challengers, runs)
    finalists = [entrant for entrant in whole if entrant in reached]
    pairs = {entrant: _differences(entrant, runs) for entrant in whole}
    sd, factor = _spread([pairs[entrant] for entrant in finalists], race.rounds, floor)

    def result(entrant: Entrant) -> Result:
        found = _summarise(entrant, runs)
        if not (own := pairs.get(entrant, ()) if entrant is not None else ()):
            return found
        margin = None if math.isnan(sd) else factor * sd / math.sqrt(len(own))
        return replace(found, difference=fmean(own), margin=margin)

    order = sorted(race.challengers, key=lambda e: (e not in finalists, whole.index(e) if e in whole else len(whole)))
    verdict = Verdict(result(None), tuple(map(result, order)), tuple(sorted({run.heat.seed for run in runs})))
    if (leader := verdict.leader) is None or leader.difference is None or leader.mean is None:
        return verdict
    first = [[run.fitness for run in runs if run.heat.entrant == entrant and run.heat.round == 1] for entrant in whole]
    verdict = replace(verdict, expected=float(without_luck(np.array(first, float), np.array(leader.mean), leader.n)))
    if leader.interval is None:
        return verdict
    winner = leader.entrant if leader.interval[0] > 0 else None
    return replace(verdict, winner=winner, seeds_to_settle=seeds_to_settle(leader.difference, sd))


def seeds_to_settle(difference: float, sd: float) -> int | None:
    """How many pairs, whose differences have this standard deviation, confirm one that is so large in 8 of 10 cases.

    Guenther's approximation of the power of the t test: "Sample size formulas for normal theory t tests", The American
    Statistician 35 (1981). None for more than a thousand.
    """
    if difference <= 0:
        return None
    level, power = (NormalDist().inv_cdf(p) for p in ((1 + LEVEL) / 2, POWER))
    needed = ((level + power) * sd / difference) ** 2 + level**2 / 2
    return max(2, math.ceil(needed)) if needed <= MANY_SEEDS else None


def without_luck(first: NDArray[np.float64], mean: NDArray[np.float64], seeds: int) -> NDArray[np.float64]:
    """A leader's mean over so many seeds, drawn towards the mean of all challengers by the share of luck in it.

    `first` are the scores of the first round [..., challengers, seeds], before anyone was picked: what their means lie
    apart, against what noise alone would do to them, tells that share. The factor (k - 2) / (k - 1) is a compromise: an
    estimate of a variance from k means is skewed, so that 1 takes away too much and (k - 3) / (k - 1), which would be
    right for the mean itself (Efron & Morris, "Stein's Estimation Rule and Its Competitors", JASA 68, 1973), too
    little. Of one or two challengers too little is known, and the mean stays.
    """
    challengers, least = first.shape[-2:]
    if challengers < 3 or least < 2:
        return mean
    means, noise = first.mean(-1), first.var(-1, ddof=1).mean(-1)
    error, apart = noise / least * (challengers - 2) / (challengers - 1), means.var(-1, ddof=1)
    luck = np.divide(error, apart, out=np.ones_like(mean), where=apart > error)
    real = (1 - luck) * noise / least
    share = np.divide(real, real + luck * noise / seeds, out=np.ones_like(mean), where=noise > 0)
    centre = means.mean(-1)
    return np.asarray(centre + share * (mean - centre), dtype=np.float64)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rho; None where it has no meaning: fewer than three values, or all of them equal."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


@lru_cache
def critical_value(rounds: Rounds, floor_degrees: int = 0) -> float:
    """How many standard errors the leader's interval reaches to either side.

    That is the 97.5 % point of (its mean difference to the base) / (its standard error) in simulated races through
    these rounds among hyps that are all as good as the base: picking the best of equals flatters most. For one
    challenger and no noise floor it is Student's t.
    """
    rng = np.random.default_rng(0)
    seeds = sum(round.seeds for round in rounds)
    scores = rng.standard_normal((SIMULATED, rounds[0].challengers + 1, seeds))
    _, difference, squares, degrees = simulate_races(scores, rounds)
    if floor_degrees:  # the variance of a difference is twice that of a training
        squares, degrees = squares + 2 * rng.chisquare(floor_degrees, SIMULATED), degrees + floor_degrees
    return float(np.quantile(difference / np.sqrt(squares / degrees / seeds), (1 + LEVEL) / 2))


def simulate_races(
    scores: NDArray[np.float64], rounds: Rounds
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], int]:
    """Many races at once: `scores` [races, entrants, seeds], the base is entrant 0.

    Returns the leader of each [races], its mean difference to the base [races], the summed squares by which the
    finalists' differences deviate from their means [races], and how many degrees of freedom these have.
    """
    entrants = np.tile(np.arange(1, scores.shape[1]), (len(scores), 1))
    seen = 0
    for round in rounds:
        means = np.take_along_axis(scores[:, :, :seen].sum(2), entrants, 1)
        entrants = np.take_along_axis(entrants, np.argsort(-means, 1, kind="stable")[:, : round.challengers], 1)
        seen += round.seeds
    differences = np.take_along_axis(scores, entrants[:, :, None], 1) - scores[:, :1]
    means = differences.mean(2)
    squares = ((differences - means[:, :, None]) ** 2).sum((1, 2))
    lead = means.argmax(1)[:, None]
    leader, difference = (np.take_along_axis(of, lead, 1)[:, 0] for of in (entrants, means))
    return leader, difference, squares, entrants.shape[1] * (seen - 1)


def _spread(pairs: Sequence[Sequence[float]], rounds: Rounds, floor: NoiseFloor | None) -> tuple[float, float]:
    """The standard deviation of a paired difference (NaN: not known), and how many errors an interval reaches."""
    pairs = [own for own in pairs if own]
    squares = math.fsum((value - fmean(own)) ** 2 for own in pairs for value in own)
    degrees = sum(len(own) - 1 for own in pairs)
    counted = min(floor.degrees, FLOOR_DEGREES) if floor else 0
    if not pairs or not degrees + counted:
        return math.nan, math.nan
    sd = math.sqrt((squares + (2 * floor.sd**2 * counted if floor else 0)) / (degrees + counted))
    return sd, critical_value(_cut(rounds, len(pairs), len(pairs[0])), counted)


def _cut(rounds: Rounds, finalists: int, seeds: int) -> Rounds:
    """The rounds as far as they came: so many finalists are left, and so many seeds make a pair."""
    *before, last = rounds
    lost = sum(round.seeds for round in rounds) - seeds
    if lost >= last.seeds:
        return (replace(last, challengers=rounds[0].challengers, seeds=seeds),)
    return (*before, replace(last, challengers=finalists, seeds=last.seeds - lost))


def _differences(entrant: Entrant, runs: Sequence[Run]) -> list[float]:
    """The entrant's fitness minus the base's, for each seed that both have one of."""
    base = {run.heat.seed: run.fitness for run in runs if run.heat.entrant is None}
    found = {run.heat.seed: run.fitness for run in runs if run.heat.entrant == entrant}
    both = ((value, base.get(seed)) for seed, value in found.items())
    return [own - other for own, other in both if own is not None and other is not None]


def _summarise(entrant: Entrant, runs: Sequence[Run]) -> Result:
    own = [run for run in runs if run.heat.entrant == entrant]
    done = [run for run in own if run.fitness is not None]
    return Result(
        entrant,
        n=len(done),
        failed=len(own) - len(done),
        mean=fmean(run.fitness for run in done if run.fitness is not None) if done else None,
        metrics=_mean([run.metrics for run in done]),
        final=_mean([run.final for run in done]),
    )


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name that all have."""
    names = [name for name in (found[0] if found else {}) if all(name in one for one in found)]
    return {name: fmean(one[name] for one in found) for name in names}


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """From 0; equal values share the mean of their ranks."""
    given = np.asarray(values, dtype=float)
    below, equal = (given[:, None] > given).sum(1), (given[:, None] == given).sum(1)
    return np.asarray(below + (equal - 1) / 2, dtype=np.float64)
