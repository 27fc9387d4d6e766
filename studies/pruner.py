"""When a trial is hopeless: our own rule, and asynchronous successive halving."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from optuna import Study
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.trials import is_base, trials_of

FIRST_RUNG = 0.1  # of the epochs: what is seen before says little about the end

# How our own rule was chosen, on every second of TaskSet's tables (51 points, 150 curves a study; docs/pruning.md).
# Share of the epochs in random order, drawn from the best fifth, and from a share that gets better; largest regret:
#   rungs at 5, 10, 20, 40, the best half of all goes on (AshaPruner)            .33  .35  .51   .00
#   the predicted end, by a line through those of the complete, + 2 residuals    .30  .34  .34   .06
#   the same with 1.5 residuals                                                  .23  .20  .24   .58
#   no complete trial has gained since then what this one lacks                  .19  .18  .21   .20
#   worse than the worst of the 5 best complete was at this epoch                .26  .27  .29   .11
#   not in the best 20 % of all, fewer with 1 / epoch                            .21  .22  .24   .06
#   not in the best 25 % until 30 % of the epochs, then fewer with 1 / epoch^2   .24  .24  .29   .03
#   the same of the last 75 trials                                               .24  .24  .27   .03
# So extrapolation loses: what ends best often did not rise like the others. Blood cells and digits, whose first epochs
# tell little or nothing of the tenth, then asked for the two best and the noise floor.


@dataclass(frozen=True)
class EvolvePruner(BasePruner):
    """Stops a trial once neither its rank at this epoch nor what the best were at this epoch speaks for it.

    It is asked after every epoch from a tenth of the training on, never within the warm-up and not before epoch
    `ranked_from` (in trainings of less than ten epochs: 40 %): a few epochs are all warm-up. A trial goes on

    - while fewer than `startup` rivals have ended: there is nothing to learn from yet;
    - if it is among the best `share` of its rivals, until `plateau` of the epochs are over; after that the share falls
      with the square of the epoch. Rivals that were stopped earlier count as worse. Two may always go on;
    - if one of the `elite` best rivals was no better at this epoch: where early epochs tell nothing of the end, the
      best were low there, too, and nobody is stopped by chance;
    - if less than `doubt` noise floors at this epoch part it from either: what the base differs by from seed to seed.
      Both are noisy, so that they differ by the root of two of it without a reason.

    Rivals are the last `history` trials that ended or are older, so that a population that gets better is compared with
    what it is now, a decision costs the same in a study of any length, and a resumed study decides alike. Failed trials
    are none, their values may be those of a divergence. Values are means over the last twentieth of the epochs. Ties
    stay. What is at 0 where most rivals are above it is stopped from the third trial on, at whatever epoch.

    Never stopped: the base, as its trainings measure the noise; in a study that is not ours that is trial 0.

    Serves any single-objective Optuna study whose trials report at steps from 1 to `epochs`, or from 0: step 0 then
    counts as the first epoch.
    """

    epochs: int
    warmup_epochs: float = 0
    share: float = 0.22
    plateau: float = 1 / 3
    elite: int = 2
    doubt: float = 1.4
    ranked_from: int = 4
    startup: int = 3
    history: int = 75

    @property
    def first_epoch(self) -> int:
        """The first epoch that may end a trial which has found something."""
        return max(self._first_sign, min(self.ranked_from, math.ceil(0.4 * self.epochs)))

    @property
    def _first_sign(self) -> int:
        return max(1, round(FIRST_RUNG * self.epochs), math.ceil(self.warmup_epochs))

    def share_at(self, epoch: int) -> float:
        """Of which share of its rivals a trial must be after that epoch, whatever else speaks for it."""
        return self.share * min(1.0, self.plateau * self.epochs / epoch) ** 2

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        epoch = trial.last_step
        if epoch is None or is_base(trial):
            return False
        done = epoch + (0 in trial.intermediate_values)
        if not self._first_sign <= done < self.epochs:
            return False
        trials = trials_of(study)
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        rivals = list(islice((other for other in reversed(trials) if _competes(other, trial)), self.history))
        at_epoch = {rival.number: sign * self._value(rival, epoch) for rival in rivals if _reached(rival, epoch)}
        own = sign * self._value(trial, epoch)
        if own == 0 and len(at_epoch) > 1 and sum(value > 0 for value in at_epoch.values()) > len(at_epoch) / 2:
            return True
        if done < self.first_epoch or sum(rival.state.is_finished() for rival in rivals) < self.startup:
            return False
        own += self.doubt * self._noise(trials, epoch)
        room = max(2, self.share_at(done) * (len(rivals) + 1))
        if sum(value > own for value in at_epoch.values()) < room and not math.isnan(own):
            return False
        complete = [rival for rival in rivals if rival.state == TrialState.COMPLETE and rival.number in at_epoch]
        elite = sorted(complete, key=lambda rival: -sign * (rival.value or 0.0))[: self.elite]
        return not any(own >= at_epoch[rival.number] for rival in elite)

    def _value(self, trial: FrozenTrial, epoch: int) -> float:
        """The mean of the reports of the last epochs up to that one, none from within the warm-up; NaN without any.

        Of a trial that reports more seldom it is the last report.
        """
        values = trial.intermediate_values
        first = math.ceil(self.warmup_epochs)
        since = max(first, epoch - max(1, round(self.epochs / 20)) + 1)
        last = [values[step] for step in range(epoch, since - 1, -1) if step in values]
        if not last and (earlier := [step for step in values if first <= step <= epoch]):
            last = [values[max(earlier)]]
        return sum(last) / len(last) if last else math.nan

    def _noise(self, trials: Sequence[FrozenTrial], epoch: int) -> float:
        """The standard deviation of the base at that epoch from seed to seed; 0 where fewer than two of it ended.

        Looks at the first trials only: the base is trained at the start.
        """
        bases = (trial for trial in trials[: self.history] if is_base(trial) and trial.state == TrialState.COMPLETE)
        values = [value for base in bases if _reached(base, epoch) and math.isfinite(value := self._value(base, epoch))]
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class AshaPruner(BasePruner):
    """Stops a trial at a rung unless it is among the best 1/eta of all trials that have reached this rung.

    Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020),
    stopping only: nothing waits, nothing is taken up again. Rungs are `rungs(...)`; steps are epochs from 1. Trials are
    compared by their mean over the last `window` reports up to the rung, without those from within the warm-up. Ties
    stay, and while fewer than `min_competitors` trials (itself among them) have reached a rung, all stay. Optuna's rule
    prunes from the second trial on, before there is anything to compare with.

    The base is never pruned: others are measured against it. Failed trials are no competitors, their values may be
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


def _competes(other: FrozenTrial, trial: FrozenTrial) -> bool:
    if other.state == TrialState.RUNNING:
        return other.number < trial.number
    return other.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _reached(trial: FrozenTrial, rung: int) -> bool:
    return rung in trial.intermediate_values or (trial.last_step or 0) >= rung
