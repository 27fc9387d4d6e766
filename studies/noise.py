"""How far the fitness of one hyp moves from training seed to training seed: the noise floor of a study."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from operator import itemgetter
from statistics import fmean
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from studies.study import NOISE
from studies.trials import KNOWN, hyp_of, notes_of, trials_of


@dataclass(frozen=True)
class NoiseFloor:
    """The standard deviation of the fitness of a single training, and the degrees of freedom (>= 1) behind it."""

    sd: float
    degrees: int


def noise_floor(trials: Iterable[FrozenTrial]) -> NoiseFloor | None:
    """The standard deviation within hyps that were trained more than once, pooled; None while there is no such hyp."""
    spreads = [_spread([value_of(trial) for trial in group]) for group in by_hyp(trials) if len(group) > 1]
    degrees = sum(count for _, count in spreads)
    if not degrees:
        return None
    return NoiseFloor(math.sqrt(sum(squares for squares, _ in spreads) / degrees), degrees)


def by_hyp(trials: Iterable[FrozenTrial], *, known: bool = False) -> list[list[FrozenTrial]]:
    """The trials that measured something, those of equal params together; in the order of the first of each.

    `known`: those whose result was taken over from an earlier study, too.
    """
    groups: dict[Hashable, list[FrozenTrial]] = {}
    for trial in filter(has_fitness if known else is_measured, trials):
        hyp = hyp_of(trial)
        names, values_in = _in_order(tuple(hyp))
        groups.setdefault((names, values_in(hyp)), []).append(trial)
    return list(groups.values())


@lru_cache(maxsize=16)
def _in_order(names: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any]]:
    """These names in one order, whatever theirs, and what has the values in that order: a study's hyps share it."""
    ordered = tuple(sorted(names))
    return ordered, itemgetter(*ordered) if ordered else lambda _: ()


def is_measured(trial: FrozenTrial) -> bool:
    """Whether a training of this study ended with a fitness."""
    return has_fitness(trial) and KNOWN not in trial.user_attrs


def has_fitness(trial: FrozenTrial) -> bool:
    """Whether it is COMPLETE with a fitness. What is not finite is none, though Optuna stores it."""
    return trial.state == TrialState.COMPLETE and trial.values is not None and all(map(math.isfinite, trial.values))


def value_of(trial: FrozenTrial) -> float:
    """The fitness of a trial that measured one; of several goals, what it reached in the first."""
    assert trial.values is not None
    return float(trial.values[0])


def mean_values(group: Sequence[FrozenTrial]) -> list[float]:
    """What trials that measured something reached in each goal, on average."""
    values = [trial.values for trial in group if trial.values is not None]
    return [*values[0]] if len(values) == 1 else [fmean(reached) for reached in zip(*values, strict=True)]


def note_noise(study: Study) -> None:
    """Leave the noise floor on the study, for people and dashboards; whoever computes takes it from the trials."""
    floor = noise_floor(trials_of(study))
    noted = None if floor is None else asdict(floor)
    if noted is not None and notes_of(study).get(NOISE) != noted:
        study.set_user_attr(NOISE, noted)


def _spread(values: Sequence[float]) -> tuple[float, int]:
    """Sum of squared deviations from the mean, and degrees of freedom."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values), len(values) - 1
