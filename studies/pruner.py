"""When a trial is hopeless: asynchronous successive halving over epochs, and Optuna's own pruners by name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optuna import Study, pruners
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.space import did_you_mean
from studies.errors import StudyError
from studies.study import is_base

FIRST_RUNG = 0.1  # of the epochs: what is seen before says little about the end


@dataclass(frozen=True)
class AshaPruner(BasePruner):
    """Stops a trial at a rung unless it is among the best 1/eta of all trials that have reached this rung.

    Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020),
    stopping only: nothing waits, nothing is taken up again. Rungs are `rungs(...)`; steps are epochs from 1. Trials are
    compared by their mean over the last `window` reports up to the rung, without those from within the warm-up. Ties
    stay, and while fewer than `min_competitors` trials (itself among them) have reached a rung, all stay. Optuna's rule
    prunes from the second trial on, before there is anything to compare with.

    The base is never pruned: everything is measured against it. Failed trials are no competitors, their values may be
    those of a divergence. Running ones are if they are older, so that with one worker a decision depends on nothing but
    what was there when the trial began, and a resumed study decides alike.
    """

    epochs: int
    warmup_epochs: float = 0
    eta: int = 2
    window: int = 3
    min_competitors: int = 4

    @property
    def rungs(self) -> tuple[int, ...]:
        return rungs(self.epochs, self.warmup_epochs, self.eta)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        rung = self._rung_just_reached(trial)
        if rung is None or is_base(trial):
            return False
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        own = sign * self._smoothed(trial, rung)
        others = [
            sign * self._smoothed(other, rung)
            for other in study.get_trials(deepcopy=False)
            if _competes(other, trial) and _reached(other, rung)
        ]
        reached = len(others) + 1
        if reached < self.min_competitors:
            return False
        if math.isnan(own):
            return True
        return sum(other > own for other in others) >= reached // self.eta

    def _rung_just_reached(self, trial: FrozenTrial) -> int | None:
        """The highest rung that the last report reached and the one before had not; a trainer may leave epochs out."""
        last = trial.last_step
        if last is None or last >= self.epochs:  # at the end there is nothing left to save
            return None
        before = max((step for step in trial.intermediate_values if step < last), default=0)
        return max((rung for rung in self.rungs if before < rung <= last), default=None)

    def _smoothed(self, trial: FrozenTrial, rung: int) -> float:
        """Mean of the last reports up to the first that has reached the rung, which no warm-up outlasts."""
        values = trial.intermediate_values
        at = rung if rung in values else min(step for step in values if step >= rung)
        steps = sorted(step for step in values if self.warmup_epochs <= step <= at)[-self.window :]
        return sum(values[step] for step in steps) / len(steps)


def rungs(epochs: int, warmup_epochs: float = 0, eta: int = 2) -> tuple[int, ...]:
    """After which epochs trials are compared: 10 % of all but not within the warm-up, then times eta, before the last.

    >>> rungs(12, warmup_epochs=2), rungs(30, warmup_epochs=5), rungs(10, warmup_epochs=2.5)
    ((2, 4, 8), (5, 10, 20), (3, 6))
    """
    rung = max(math.ceil(FIRST_RUNG * epochs), math.ceil(warmup_epochs))
    found = []
    while rung < epochs:
        found.append(rung)
        rung *= eta
    return tuple(found)


@dataclass(frozen=True)
class Sparing(BasePruner):
    """Another pruner that spares the base, and whatever has reached the last epoch."""

    pruner: BasePruner
    epochs: int

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        last = trial.last_step
        return last is not None and last < self.epochs and not is_base(trial) and self.pruner.prune(study, trial)


def build_pruner(name: str, *, epochs: int, warmup_epochs: float = 0) -> BasePruner:
    """The pruner of that name, with arguments that suit trainings of so many epochs.

    "asha" is the one to use; "none" (or "nop") lets every trial end; the others are Optuna's, which spare the base here
    as well. "threshold" stops what has found nothing after half of the epochs: a fitness below 0.001. Raises StudyError
    for an unknown name.
    """
    if name not in PRUNERS:
        raise StudyError(f"unknown pruner {name!r}{did_you_mean(name, PRUNERS)}; known: {', '.join(PRUNERS)}")
    if name == "asha":
        return AshaPruner(epochs, warmup_epochs)
    if name in ("none", "nop"):
        return pruners.NopPruner()
    first = min(rungs(epochs, warmup_epochs)[:1], default=epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return Sparing(_STOCK[name](first, epochs), epochs)


def _median(first: int, _epochs: int) -> BasePruner:
    return pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=first)


_STOCK: Mapping[str, Callable[[int, int], BasePruner]] = {  # of the first epoch that may prune, and all epochs
    "median": _median,
    "percentile": lambda first, _: pruners.PercentilePruner(25.0, n_startup_trials=10, n_warmup_steps=first),
    "patient": lambda first, epochs: pruners.PatientPruner(_median(first, epochs), patience=math.ceil(epochs / 10)),
    "sha": lambda first, _: pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=2),
    "hyperband": lambda first, epochs: pruners.HyperbandPruner(first, max_resource=epochs, reduction_factor=3),
    "threshold": lambda first, epochs: pruners.ThresholdPruner(lower=1e-3, n_warmup_steps=max(first, epochs // 2)),
}
PRUNERS = ("asha", "none", "nop", *_STOCK)


def _competes(other: FrozenTrial, trial: FrozenTrial) -> bool:
    if other.state == TrialState.RUNNING:
        return other.number < trial.number
    return other.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _reached(trial: FrozenTrial, rung: int) -> bool:
    return rung in trial.intermediate_values or (trial.last_step or 0) >= rung
