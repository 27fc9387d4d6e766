"""What a study tells beyond its best hyp: which hyps matter, which bounds bind, what never moved, what is dead.

All of it is data; who shows it is another matter. With several goals it is about the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search_spaces import Hyp, Param, Space, Value
from search_spaces.space import round_significant
from studies.importance import column_of, good_ones, importance
from studies.noise import NoiseFloor, by_hyp, has_fitness, noise_floor, value_of
from studies.study import goals_of
from studies.trials import BASE, hyp_of, is_lost, trials_of

LEAST_TRIALS = 25  # that have completed, before importances are reckoned
LEAST_GOOD = 5  # of them in the good part: PED-ANOVA compares densities, and fewer make none
GOOD_SHARE = 0.1  # of the trials, and of the hyps, that are taken for the good ones
SHUFFLES = 20  # of the fitnesses among the trials, to see what chance makes
AT_BOUND = 0.02  # of the range: so near to a bound a hyp sits at it
BINDING_SHARE = 0.5  # of the good hyps that sit there


@dataclass(frozen=True)
class Importance:
    """How much a hyp has to do with a trial's being among the best tenth.

    `share` is its part of all hyps' importances, in [0, 1]; `chance` is what that exceeds once in twenty times where
    fitness has nothing to do with any hyp.
    """

    name: str
    share: float
    chance: float

    @property
    def told_from_chance(self) -> bool:
        return self.share > self.chance


@dataclass(frozen=True)
class Binding:
    """A bound at which at least half of the good hyps sit, though values beyond it have a meaning.

    `share` is how many of them do; `wider` is the param with that bound moved outwards. A hyp that has the base's value
    does not count: nothing has pushed it there.
    """

    name: str
    side: str
    bound: float
    share: float
    wider: Param


@dataclass(frozen=True)
class Unmoved:
    """A hyp that has the base's value in all of the good hyps; `tried` trials of the study had another."""

    name: str
    value: Value
    tried: int


@dataclass(frozen=True)
class Insight:
    """What is known of a study's hyps.

    `completed` counts the trials with a fitness, known ones among them, `good` the hyps that are taken for the good
    ones: the best tenth, and whatever is within the noise floor of the best. `spread` is the standard deviation of the
    fitness over hyps (None of fewer than two). `importances`, the largest first, are empty below `LEAST_TRIALS`. `dead`
    are the hyps that were not evolved since they can have no effect, each with the reason. `shifted` are those of which
    all good values lie on one side of the base's: a search that has settled on a value early no longer tells, by
    importances, how much it gained by it.
    """

    goal: str
    completed: int
    good: int
    noise: NoiseFloor | None
    spread: float | None
    importances: Sequence[Importance] = ()
    binding: Sequence[Binding] = ()
    unmoved: Sequence[Unmoved] = ()
    shifted: Sequence[str] = ()
    dead: Mapping[str, str] = field(default_factory=dict)

    @property
    def idle(self) -> list[str]:
        """The hyps to --freeze: not told from chance where others are, not at a bound that binds, and not shifted."""
        kept = {*(binding.name for binding in self.binding), *self.shifted}
        idle = [one.name for one in self.importances if not one.told_from_chance and one.name not in kept]
        return idle if len(idle) < len(self.importances) else []


def insight_of(
    study: Study, space: Space, limits: Mapping[str, tuple[float, float]], dead: Mapping[str, str]
) -> Insight:
    """What the study's trials tell. `limits` says where a hyp has a meaning at all: no bound is to go beyond."""
    trials = trials_of(study)
    scores = _scores(study)
    good = _good(scores, noise := noise_floor(trials))
    hyps = [{**space.defaults(), **hyp_of(trials[number])} for number in good]
    completed = sum(map(has_fitness, trials))
    return Insight(
        goal=next(iter(goals_of(study))),
        completed=completed,
        good=len(good),
        noise=noise,
        spread=stdev(scores.values()) if len(scores) > 1 else None,
        importances=_importances(study, space) if completed >= LEAST_TRIALS else (),
        binding=_binding(hyps, study, space, limits),
        unmoved=_unmoved(hyps, study, space),
        shifted=_shifted(hyps, study, space),
        dead=dict(dead),
    )


def widened(space: Space, insight: Insight) -> Space:
    """The space with the bounds that bind moved outwards."""
    wider = {binding.name: binding.wider for binding in insight.binding}
    return replace(space, params=tuple(wider.get(param.name, param) for param in space.params))


def _scores(study: Study) -> dict[int, float]:
    """The mean of each hyp, by its first trial, more being better; a known trial is as good as one trained here."""
    sign = 1 if study.directions[0] == StudyDirection.MAXIMIZE else -1
    groups = by_hyp(trials_of(study), known=True)
    return {group[0].number: sign * fmean(map(value_of, group)) for group in groups}


def _good(scores: Mapping[int, float], noise: NoiseFloor | None) -> list[int]:
    """The best tenth (five at least) and what is within the noise floor of the best; never more than half of all."""
    ranked = sorted(scores, key=lambda number: -scores[number])
    if not ranked:
        return []
    near = sum(score >= scores[ranked[0]] - (noise.sd if noise else 0.0) for score in scores.values())
    return ranked[: min(max(near, LEAST_GOOD, math.ceil(GOOD_SHARE * len(ranked))), len(ranked) // 2)]


def _importances(study: Study, space: Space) -> list[Importance]:
    """By PED-ANOVA (Watanabe et al., IJCAI 2023), beside what it finds where the fitnesses are shuffled."""
    trials = [trial for trial in trials_of(study) if trial.state == TrialState.COMPLETE]
    names = [param.name for param in space.evolving if all(param.name in trial.params for trial in trials)]
    trials = list(filter(has_fitness, trials))
    columns = {name: column_of(space[name], [trial.params[name] for trial in trials]) for name in names}
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1  # what is low is good
    losses = np.array([sign * value_of(trial) for trial in trials])

    def importances(losses: NDArray[np.float64]) -> dict[str, float]:
        good = good_ones(losses, max(GOOD_SHARE, LEAST_GOOD / len(trials)))
        return {name: importance(column, good) for name, column in columns.items()}

    found, rng = importances(losses), np.random.default_rng(0)
    shuffled = [importances(rng.permutation(losses)) for _ in range(SHUFFLES)]
    whole = math.fsum(found.values()) or 1.0
    told = (Importance(name, found[name] / whole, _chance([one[name] for one in shuffled]) / whole) for name in names)
    return sorted(told, key=lambda one: -one.share)


def _chance(shuffled: Sequence[float]) -> float:
    """What one in twenty exceeds, their logarithms taken as normal: an outlier moves that less than a maximum."""
    logs = [math.log(max(value, 1e-12)) for value in shuffled]
    return math.exp(fmean(logs) + NormalDist().inv_cdf(0.95) * stdev(logs))


def _binding(
    hyps: Sequence[Hyp], study: Study, space: Space, limits: Mapping[str, tuple[float, float]]
) -> list[Binding]:
    base, found = _base(study, space), []
    for param in space.evolving:
        if param.choices or not hyps:
            continue
        for side, bound in zip(("low", "high"), param.bounds, strict=True):
            moved = [hyp[param.name] for hyp in hyps if hyp[param.name] != base[param.name]]
            share = sum(sits_at(param, value, side) for value in moved) / len(hyps)
            wider = _wider(param, side, limits)
            if share >= BINDING_SHARE and getattr(wider, side) != bound:
                found.append(Binding(param.name, side, bound, share, wider))
    return found


def sits_at(param: Param, value: Value, side: str) -> bool:
    """Whether a value lies at the 'low' or the 'high' bound, or within `AT_BOUND` of it."""
    if param.kind == "int":
        return bool(value == getattr(param, side))
    place = param.to_unit(value)
    return place <= AT_BOUND if side == "low" else place >= 1 - AT_BOUND


def _wider(param: Param, side: str, limits: Mapping[str, tuple[float, float]]) -> Param:
    """The param with that bound moved by half of the range, where log by a quarter, but not to where it has no meaning.

    Where all beyond the bound has none, it is the param as it was.
    """
    low, high = param.bounds
    least, most = _meaning(param, limits)
    moved: float
    if param.step:
        away = param.step if side == "high" else -param.step
        places = range(max(1, int(high - low) // 2 // param.step), -1, -1)
        reached = (int(high if side == "high" else low) + place * away for place in places)
        moved = next(value for value in reached if least <= value <= most and (value > 0 or not param.log))
    else:
        ratio, width = (high / low) ** 0.25 if param.log else 1.0, (high - low) / 2
        outward = (high * ratio, low / ratio) if param.log else (high + width, low - width)
        moved = min(max(round_significant(outward[side == "low"], 2), least), most)
    return replace(param, low=min(moved, low)) if side == "low" else replace(param, high=max(moved, high))


def _meaning(param: Param, limits: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Where the values of a param mean something. If nothing is said of it, a bound of 0 is its end, and 0 to 1 too."""
    low, high = param.bounds
    least, most = limits.get(param.name, (0.0 if low >= 0 else -math.inf, 1.0 if (low, high) == (0, 1) else math.inf))
    return min(least, low), max(most, high)


def _unmoved(hyps: Sequence[Hyp], study: Study, space: Space) -> list[Unmoved]:
    base = _base(study, space)
    tried = [trial for trial in trials_of(study) if trial.state.is_finished() and not is_lost(trial)]
    return [
        Unmoved(name, base[name], sum(hyp_of(trial).get(name, base[name]) != base[name] for trial in tried))
        for name in (param.name for param in space.evolving)
        if hyps and all(hyp[name] == base[name] for hyp in hyps)
    ]


def _shifted(hyps: Sequence[Hyp], study: Study, space: Space) -> list[str]:
    base, found = _base(study, space), []
    for param in space.evolving if hyps else ():
        value, values = base[param.name], [hyp[param.name] for hyp in hyps]
        within = value in values if param.choices else min(values) <= value <= max(values)
        found += [] if within else [param.name]
    return found


def _base(study: Study, space: Space) -> dict[str, Any]:
    return {**space.defaults(), **study.user_attrs.get(BASE, {})}
