"""The loop: a configuration in, the best hyp out; each step is a function below or a file of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from evolve.advising import brief
from evolve.bucket import Uploads, open_bucket
from evolve.budget import Budget, Stop, seconds_of
from evolve.clusters import Cluster, open_cluster
from evolve.config import EvolveConfig, complete, dump_config
from evolve.describing import describe
from evolve.following import Follower
from evolve.goals import settle_goals
from evolve.joining import note_config
from evolve.outcomes import fitnesses_of, stale_of, standing_of
from evolve.paths import RunPaths
from evolve.pool import run_pool
from evolve.racing import expected_race_s, race_or_say_why_not, unfinished_race
from evolve.renewing import Renewing
from evolve.standing import NoResult
from evolve.tracking import Tracker, Tracking, trackers_of
from evolve.warm_start import read_sources
from evolve.watcher import Opened, Sending, Silence, Watcher
from evolve.work import Work, ended, open_work
from evolve.worker import PAUSE_S, run_trials
from studies import BestHyp, trials_of, write_atomically
from studies.calls import Call, call
from studies.lease import Listener
from studies.note import leave_note
from studies.study import requeue_lost
from studies.trials import counts
from trainer.process import quote_end_of


def evolve(config: EvolveConfig, watcher: Watcher | None = None) -> BestHyp:
    """Run the study to the end of its generations, resuming it where there is one, and return the best hyp.

    Raises ConfigError, SpaceError, DataError or StudyError before the first trial where something was asked wrongly,
    StudyError and OSError later where storage or disk give out, NoResult where there is no result to be had. A
    KeyboardInterrupt (Ctrl-C, SIGTERM) passes through when the running trial is queued again and all is closed.
    """
    began = time.monotonic()
    config = settle_goals(complete(config))
    paths = RunPaths(Path(config.runs) / config.study)
    sources = read_sources(config)
    watcher = Renewing(watcher_with_uploads(watcher or Silence(), config, paths), config, paths)
    trackers = trackers_of(config, paths)
    with open_cluster(config) as cluster, open_work(config, paths, watcher, sources) as work:
        work = with_tracking(work, trackers)
        watcher = work.watcher
        asked = dump_config(replace(work.config, device=config.device))
        write_atomically(paths.config, asked)
        note_config(work, asked)
        leave_note(work.study, describe(work.study))
        config = work.config
        standing = standing_of(work.study, work.space)
        budget = budget_of(config)
        follower = Follower(work, standing)
        loop = Loop(work, cluster, budget, follower, began)
        told = work.prepared.summary, standing, work.pinned, budget.earlier, budget.seconds, work.notes
        fitnesses = fitnesses_of(work.study)
        watcher.opened(Opened(config.study, paths.root, config.generations, config.epochs, *told, fitnesses))
        for warning in work.prepared.warnings:
            watcher.warned(warning)
        reason, no_race, cut = "ended by an error", "", True
        hints: Callable[[], Sequence[str]] = tuple
        try:
            work.records.catch_up()
            work.shelf.catch_up(work.records.front)
            stop = unfinished_race(work) or loop.run()
            reason, hints = stop.reason, partial(brief, work.study, work.space, paths.root)
            if not stop.reached:
                tell_last_failure(work)
            else:
                no_race = race_or_say_why_not(work, cluster)
            leave_note(work.study, describe(work.study))
            cut = False
        except KeyboardInterrupt:
            reason = "interrupted; the same command goes on from here"
            raise
        finally:
            watcher.ended(replace(ended(work, follower.standing, reason, no_race), hints=hints, cut=cut))
        return result(work.records.chosen, stop, next_step(work))


@dataclass
class Loop:
    """A study that goes on until its budget stops it, whoever trains; `follower` knows where it stands.

    `began` is when this run did, by the monotonic clock.
    """

    work: Work
    cluster: Cluster | None
    budget: Budget
    follower: Follower
    began: float

    def run(self) -> Stop:
        """Train here, or have workers train and watch them. What ends the study is called to all who work on it."""
        study = self.work.study
        call(study, None)
        if self.cluster is None:
            stop = run_trials(self.work, self.stop, told=self.follower.look)
        else:
            stop = run_pool(self.work, self.cluster, self.stop, self.follower)
        call(study, Call("trial", stop.reason, reached=stop.reached))
        self._wait_for_others()
        return stop

    def _wait_for_others(self) -> None:
        """Until the trials that workers from elsewhere are at have ended: a race is about all of them."""
        listener = Listener()
        while any(trial.state == TrialState.RUNNING for trial in trials_of(self.work.study)):
            self.follower.look(at_running=True)
            requeue_lost(self.work.study, listener=listener, retries=self.work.config.retries)
            time.sleep(PAUSE_S)
        self.follower.look()

    def stop(self, trials: Sequence[FrozenTrial]) -> Stop | None:
        standing = self.follower.look(trials)
        if self.budget.patience is not None:
            standing = replace(standing, stale=stale_of(self.work.study))
        race_s = expected_race_s(self.work.study, self.work.config) if self.budget.seconds is not None else 0.0
        return self.budget.stop(standing, time.monotonic() - self.began, race_s)


def tell_last_failure(work: Work) -> None:
    """Show the end of the log of the trial that failed last, if it was trained with this run folder."""
    last = last_failed(work.study)
    if last is not None and (log := work.paths.train_log(last.number)).exists():
        work.watcher.warned(f"trial {last.number} failed{quote_end_of(log)}")


def next_step(work: Work) -> str:
    """What to do about a study whose trials fail, to follow the reason."""
    last, name = last_failed(work.study), work.config.study
    if last is None:
        return ""
    return f"; `evolve show {last.number} {name}` tells more, and the same command goes on when that is mended"


def last_failed(study: Study) -> FrozenTrial | None:
    """The trial that failed last."""
    failed = [trial for trial in trials_of(study) if counts(trial) and trial.state == TrialState.FAIL]
    return max(failed, key=lambda trial: (trial.datetime_complete, trial.number), default=None)


def budget_of(config: EvolveConfig) -> Budget:
    seconds = seconds_of(config.budget) if config.budget is not None else None
    return Budget(config.generations, config.max_failures, seconds, config.patience, config.target)


def watcher_with_uploads(watcher: Watcher, config: EvolveConfig, paths: RunPaths) -> Watcher:
    """The watcher, in front of one that copies the run folder to the bucket if there is one. Raises ConfigError."""
    if config.bucket is None:
        return watcher
    warnings: deque[str] = deque()
    uploads = Uploads(open_bucket(config.bucket), paths.root, warnings.append, paths.for_others)
    return Sending(watcher, [uploads], warnings)


def with_tracking(work: Work, trackers: Sequence[Tracker]) -> Work:
    """The same work, whose trials become runs there."""
    warnings: deque[str] = deque()
    senders = [Tracking(one, work.study, work.space, work.paths, warnings.append) for one in trackers]
    return replace(work, watcher=Sending(work.watcher, senders, warnings)) if senders else work


def result(best: BestHyp | None, stop: Stop, step: str = "") -> BestHyp:
    """The best hyp of a study that reached its end; NoResult tells of any other end, and what to do then."""
    if best is None:
        raise NoResult(f"no trial completed: {stop.reason}{step}")
    if not stop.reached:
        raise NoResult(stop.reason + step)
    return best
