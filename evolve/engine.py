"""The loop: a configuration in, the best hyp out; each step is a function below or a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from optuna import Study

from evolve.advising import brief
from evolve.bucket import open_bucket
from evolve.budget import Budget, Stop, seconds_of
from evolve.config import EvolveConfig, complete, dump_config
from evolve.fitness import Fitness
from evolve.goals import Goals, settle_goals
from evolve.hyps import option_hyps, part, settle, variants
from evolve.interrupts import Interrupts
from evolve.lock import sole_use
from evolve.objective import Objective
from evolve.opening import identity_of, open_resumable, pin, space_of, storage_of, without_effect
from evolve.outcomes import change_of, stale_of, standing_of, tell, with_best
from evolve.paths import RunPaths
from evolve.records import Records, train_command
from evolve.standing import NoResult, Standing
from evolve.training import check_understood, process_trainer
from evolve.warm_start import offer_of, read_sources, take_over
from evolve.watcher import Ended, Opened, Silence, Uploading, Watcher
from search_spaces import Space
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
from studies.study import base_seeds_of


def evolve(config: EvolveConfig, watcher: Watcher | None = None) -> BestHyp:
    """Run the study to the end of its generations, resuming it where there is one, and return the best hyp.

    Raises ConfigError, SpaceError, DataError or StudyError before the first trial where something was asked wrongly,
    StudyError and OSError later where storage or disk give out, NoResult where there is no result to be had. A
    KeyboardInterrupt (Ctrl-C, SIGTERM) passes through when the running trial is queued again and all is closed.
    """
    began = time.monotonic()
    config = settle_goals(complete(config))
    goals = Goals.parse(config.objective)
    space = space_of(config)
    as_options = option_hyps(space, config.trainer)
    _, base = settle(space.defaults(), config.train_options(), as_options)
    config = replace(config, model=base.model, imgsz=base.imgsz)
    fitness = Fitness.parse(config.fitness)
    paths = RunPaths(Path(config.runs) / config.study)
    sources = read_sources(config)
    watcher = watcher_with_uploads(watcher or Silence(), config, paths)
    trainer = process_trainer(config, paths.worker_log)
    with (
        sole_use(paths),
        Interrupts() as interrupts,
        closing(trainer),
        storage_errors(config.storage or str(paths.database)),
    ):
        watcher.preparing(config.data)
        check_understood(part(space.defaults(), as_options)[1], trainer.hyps, config.trainer)
        options = replace(config.train_options(), fitness_weights=fitness.in_order)
        for variant in variants(space, options, as_options):  # at last the base's
            prepared = trainer.prepare(variant)
        goals.check_told(prepared.costs, config.trainer)
        storage = storage_of(config, paths, space)
        pinned = without_effect(config, storage, space, prepared)
        space = pin(space, pinned)
        offers = [offer_of(source, space, config.trainer) for source in sources]
        study = open_resumable(config, storage, space, identity_of(config, space, fitness, prepared, pinned))
        taken = [take_over(study, offer, space, config.trainer) for offer in offers]
        config = replace(config, base_seeds=base_seeds_of(study))
        write_atomically(paths.config, dump_config(config))
        records = Records(study, space, config, paths, watcher, pinned)
        objective = Objective(trainer.train, options, fitness, paths, records, watcher, interrupts, goals, as_options)
        standing = standing_of(study, space)
        budget = budget_of(config)
        loop = Loop(study, space, objective, records, budget, standing, began)
        notes = (*taken, *goals.tell(prepared.costs, config.sampler))
        told = prepared.summary, standing, pinned, budget.earlier, budget.seconds, notes
        watcher.opened(Opened(config.study, paths.root, config.generations, config.epochs, *told))
        for warning in prepared.warnings:
            watcher.warned(warning)
        reason = "ended by an error"
        hints: Callable[[], Sequence[str]] = tuple
        try:
            records.catch_up()
            stop = loop.run()
            reason, hints = stop.reason, partial(brief, study, space)
        except KeyboardInterrupt:
            reason = "interrupted; the same command goes on from here"
            raise
        finally:
            watcher.ended(replace(ended(config, paths, space, records, loop.standing, reason), hints=hints))
    return result(records.best, stop)


@dataclass
class Loop:
    """Trial after trial until the budget stops; `standing` is where the study stands then.

    `began` is when this run did, by the monotonic clock.
    """

    study: Study
    space: Space
    objective: Objective
    records: Records
    budget: Budget
    standing: Standing
    began: float

    def run(self) -> Stop:
        while (stop := self.stop()) is None:
            self.run_trial()
        return stop

    def stop(self) -> Stop | None:
        if self.budget.patience is not None:
            self.standing = replace(self.standing, stale=stale_of(self.study))
        return self.budget.stop(self.standing, time.monotonic() - self.began)

    def run_trial(self) -> None:
        """Ask, train, tell, write down. Whatever interrupts that, the hyp is queued again."""
        trial = None
        held, watcher = self.objective.interrupts.held, self.objective.watcher
        try:
            with held():
                trial = self.study.ask()
                claim(trial)
                hyp = suggest(trial, self.space)
                seed = self.objective.options.seed + generation_of(self.study, trial)
                watcher.started(trial.number)
            outcome = self.objective(trial, hyp, seed)
            with held():
                tell(self.study, trial, outcome, seed)
                note_noise(self.study)
                make_durable(self.study)  # before any file tells of it
                self.records.add_trial(trial.number)
                self.standing = with_best(self.standing.after(outcome), self.records.front)
                watcher.finished(
                    replace(outcome, change=change_of(self.study, self.space, trial.number)), self.standing
                )
        except BaseException as error:
            if trial is not None:
                with suppress(StudyError), storage_errors():  # the error that came first is the one to tell
                    abandon(self.study, trial, f"{type(error).__name__} in the process that ran it")
            raise


def budget_of(config: EvolveConfig) -> Budget:
    seconds = seconds_of(config.budget) if config.budget is not None else None
    return Budget(config.generations, config.max_failures, seconds, config.patience, config.target)


def watcher_with_uploads(watcher: Watcher, config: EvolveConfig, paths: RunPaths) -> Watcher:
    """The watcher, in front of one that copies the run folder to the bucket if there is one. Raises ConfigError."""
    if config.bucket is None:
        return watcher
    return Uploading(watcher, open_bucket(config.bucket), paths.root, paths.for_others)


def ended(
    config: EvolveConfig, paths: RunPaths, space: Space, records: Records, standing: Standing, reason: str
) -> Ended:
    return Ended(
        reason=reason,
        standing=standing,
        epochs=config.epochs,
        base=space.defaults(),
        hyp=records.best.hyp if records.best else None,
        hyp_file=paths.best_hyp,
        command=train_command(config, paths.best_hyp, option_hyps(space, config.trainer)),
    )


def result(best: BestHyp | None, stop: Stop) -> BestHyp:
    """The best hyp of a study that reached its end; NoResult tells of any other end."""
    if best is None:
        raise NoResult(f"no trial completed: {stop.reason}")
    if not stop.reached:
        raise NoResult(stop.reason)
    return best
