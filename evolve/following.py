"""What any worker of a study has done is seen in its storage; the files and whoever watches follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from evolve.outcomes import change_of, outcome_of, with_best
from evolve.standing import Standing
from evolve.work import Work
from studies import best_front_of, trials_of
from studies.noise import note_noise
from studies.trials import WORKER, counts
from studies.worker import this_worker


class Follower:
    """Tells the records and the watcher of a study what has happened in it since the last look."""

    def __init__(self, work: Work, standing: Standing, *, own: bool = False) -> None:
        """`standing` is where the study stands now. `own`: only tell the watcher, and of what this process trains."""
        self._work = work
        self._own = this_worker() if own else None
        self.standing = standing
        self._ended = {trial.number for trial in trials_of(work.study) if trial.state.is_finished()}
        self._epochs: dict[int, int] = {}  # of trials that run elsewhere: how many have been told

    def look(self, trials: Sequence[FrozenTrial] | None = None, *, at_running: bool = False) -> Standing:
        """Follow all trials that have ended, and those `at_running` where nobody else tells of them.

        `trials` are all of the study, where they have just been read.
        """
        trials = trials_of(self._work.study) if trials is None else trials
        news = [trial for trial in trials if trial.number not in self._ended]
        ended = [trial for trial in news if trial.state.is_finished()]
        for trial in news:  # first, as that is quick and the other may take its time
            if at_running and trial.state == TrialState.RUNNING:
                self._follow(trial)
        for trial in ended:
            self._ended.add(trial.number)
            self._epochs.pop(trial.number, None)
        if counted := [trial for trial in ended if counts(trial)]:
            self._follow_to_their_end(counted, trials)
        return self.standing

    def _follow(self, trial: FrozenTrial) -> None:
        watcher, known = self._work.watcher, self._epochs.get(trial.number)
        if known is None:
            watcher.started(trial.number)
        for epoch, fitness in sorted(trial.intermediate_values.items())[known or 0 :]:
            watcher.epoch(trial.number, epoch, fitness)
        self._epochs[trial.number] = len(trial.intermediate_values)

    def _follow_to_their_end(self, ended: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> None:
        """All at once: what many workers have done since the last look costs no more reading than what one has."""
        work = self._work
        if self._own is None:
            note_noise(work.study)
            work.records.add_trials([trial.number for trial in ended])
        front = best_front_of(work.study, work.space, trials) if self._own else work.records.front
        work.shelf.ended([trial.number for trial in ended], trials, front)
        for trial in ended:
            outcome = outcome_of(trial)
            self.standing = with_best(self.standing.after(outcome), front)
            if self._own in (None, trial.user_attrs.get(WORKER)):
                change = change_of(trials, work.space, trial.number)
                work.watcher.finished(replace(outcome, change=change), self.standing)
