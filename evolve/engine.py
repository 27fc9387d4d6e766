"""The loop: a configuration in, the best hyp out; each step is a function below or a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evolve.advising import brief
from evolve.bucket import open_bucket
from evolve.budget import Budget, Stop, seconds_of
from evolve.config import EvolveConfig, complete, dump_config
from evolve.goals import settle_goals
from evolve.outcomes import change_of, stale_of, standing_of, tell, with_best
from evolve.paths import RunPaths
from evolve.racing import expected_race_s, race_or_say_why_not, unfinished_race
from evolve.standing import NoResult, Standing
from evolve.warm_start import read_sources
from evolve.watcher import Opened, Silence, Uploading, Watcher
from evolve.work import Work, ended, open_work
from studies import (
    BestHyp,
    StudyError,
    abandon,
    claim,
    generation_of,
    make_durable,
    storage_errors,
    suggest,
    write_atomically,
)
from studies.noise import note_noise


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
    watcher = watcher_with_uploads(watcher or Silence(), config, paths)
    with open_work(config, paths, watcher, sources) as work:
        config = work.config
        write_atomically(paths.config, dump_config(config))
        standing = standing_of(work.study, work.space)
        budget = budget_of(config)
        loop = Loop(work, budget, standing, began)
        told = work.prepared.summary, standing, work.pinned, budget.earlier, budget.seconds, work.notes
        watcher.opened(Opened(config.study, paths.root, config.generations, config.epochs, *told))
        for warning in work.prepared.warnings:
            watcher.warned(warning)
        reason, no_race = "ended by an error", ""
        hints: Callable[[], Sequence[str]] = tuple
        try:
            work.records.catch_up()
            stop = unfinished_race(work) or loop.run()
            reason, hints = stop.reason, partial(brief, work.study, work.space)
            if stop.reached:
                no_race = race_or_say_why_not(work)
        except KeyboardInterrupt:
            reason = "interrupted; the same command goes on from here"
            raise
        finally:
            watcher.ended(replace(ended(work, loop.standing, reason, no_race), hints=hints))
        return result(work.records.chosen, stop)


@dataclass
class Loop:
    """Trial after trial until the budget stops; `standing` is where the study stands then.

    `began` is when this run did, by the monotonic clock.
    """

    work: Work
    budget: Budget
    standing: Standing
    began: float

    def run(self) -> Stop:
        while (stop := self.stop()) is None:
            self.run_trial()
        return stop

    def stop(self) -> Stop | None:
        if self.budget.patience is not None:
            self.standing = replace(self.standing, stale=stale_of(self.work.study))
        race_s = expected_race_s(self.work) if self.budget.seconds is not None else 0.0
        return self.budget.stop(self.standing, time.monotonic() - self.began, race_s)

    def run_trial(self) -> None:
        """Ask, train, tell, write down. Whatever interrupts that, the hyp is queued again."""
        trial = None
        study, space, objective = self.work.study, self.work.space, self.work.objective
        held, watcher = objective.interrupts.held, self.work.watcher
        try:
            with held():
                trial = study.ask()
                claim(trial)
                hyp = suggest(trial, space)
                seed = objective.options.seed + generation_of(study, trial)
                watcher.started(trial.number)
            outcome = objective(trial, hyp, seed)
            with held():
                tell(study, trial, outcome, seed)
                note_noise(study)
                make_durable(study)  # before any file tells of it
                self.work.records.add_trial(trial.number)
                self.standing = with_best(self.standing.after(outcome), self.work.records.front)
                watcher.finished(replace(outcome, change=change_of(study, space, trial.number)), self.standing)
        except BaseException as error:
            if trial is not None:
                with suppress(StudyError), storage_errors():  # the error that came first is the one to tell
                    abandon(study, trial, f"{type(error).__name__} in the process that ran it")
            raise


def budget_of(config: EvolveConfig) -> Budget:
    seconds = seconds_of(config.budget) if config.budget is not None else None
    return Budget(config.generations, config.max_failures, seconds, config.patience, config.target)


def watcher_with_uploads(watcher: Watcher, config: EvolveConfig, paths: RunPaths) -> Watcher:
    """The watcher, in front of one that copies the run folder to the bucket if there is one. Raises ConfigError."""
    if config.bucket is None:
        return watcher
    return Uploading(watcher, open_bucket(config.bucket), paths.root, paths.for_others)


def result(best: BestHyp | None, stop: Stop) -> BestHyp:
    """The best hyp of a study that reached its end; NoResult tells of any other end."""
    if best is None:
        raise NoResult(f"no trial completed: {stop.reason}")
    if not stop.reached:
        raise NoResult(stop.reason)
    return best
