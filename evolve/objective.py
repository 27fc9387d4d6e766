"""One trial's journey: its hyp goes down to the trainer, metrics come up epoch by epoch and become fitness."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import optuna

from evolve.config import mask_secrets
from evolve.continuing import Known, take_over
from evolve.fitness import METRICS, Fitness
from evolve.goals import ONE, Goals
from evolve.hyps import settle
from evolve.interrupts import Interrupts
from evolve.paths import RunPaths
from evolve.records import Records
from evolve.standing import Outcome
from evolve.watcher import Watcher
from search_spaces import Hyp
from studies.trials import EPOCHS, RESUMED
from trainer import DataError, EpochMetrics, TrainerError, TrainingDiverged, TrainJob, TrainOptions
from trainer.function import PICKLED

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objective:
    """Trains the hyp of one trial after the other."""

    train: Callable[[TrainJob], Generator[EpochMetrics, None, None]]
    options: TrainOptions
    fitness: Fitness
    paths: RunPaths
    records: Records
    watcher: Watcher
    interrupts: Interrupts
    goals: Goals = ONE
    as_options: tuple[str, ...] = ()  # hyps that stand for options

    def __call__(self, trial: optuna.Trial, hyp: Hyp, seed: int) -> Outcome:
        """Train `hyp` and report the fitness of every epoch. A failure is an outcome too, never a fitness.

        But for a DataError, which passes through: it would come again with any other hyp, so it ends the study.

        The trial ends by leaving the loop over its epochs: at their end, where the pruner gives it up, by an error, or
        by a KeyboardInterrupt where it is time to leave. `closing` then ends the training, whichever it was.
        """
        outcome = Outcome(trial.number, "failed", failure="the trainer ended without an epoch")
        try:
            with closing(self._epochs(trial, self._job(trial.number, hyp, seed))) as epochs:
                for metrics in epochs:
                    with self.interrupts.held():
                        outcome = self._report(trial, metrics)
                        if not self.goals.several and trial.should_prune():
                            return replace(outcome, state="pruned")
                    if metrics.epoch < self.options.epochs:
                        self.interrupts.check()
        except DataError:
            raise
        except TrainerError as error:
            return replace(outcome, state="failed", failure=reason_of(error))
        return outcome

    def _job(self, number: int, hyp: Hyp, seed: int) -> TrainJob:
        workdir = self.paths.trial(number)
        workdir.mkdir(parents=True, exist_ok=True)
        for path in (self.paths.metrics(number), self.paths.last(number), self.paths.best(number)):
            path.unlink(missing_ok=True)  # of a study that was deleted, but not its folder
        rest, options = settle(hyp, self.options, self.as_options)
        return TrainJob(rest, replace(options, seed=seed), workdir)

    def _epochs(self, trial: optuna.Trial, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        """Train from epoch 1 on; or, where a lost trial has left a checkpoint, from its last epoch on."""
        known = take_over(self.paths, trial) if job.options.save else None
        went_on = known is not None and (yield from self._go_on(trial, job, known))
        if not went_on:
            yield from self.train(job)

    def _go_on(self, trial: optuna.Trial, job: TrainJob, known: Known) -> Generator[EpochMetrics, None, bool]:
        """Train what a lost trial has left to do; False where its checkpoint is of no use: then nothing was yielded."""
        began = False
        try:
            with closing(self.train(replace(job, resume=True))) as epochs:
                for metrics in epochs:
                    if not began:
                        self._report_known(trial, known, metrics.epoch)
                    began = True
                    yield metrics
        except TrainingDiverged:
            raise
        except TrainerError as error:
            if began:
                raise
            self.interrupts.check()  # it may have failed because we leave
            logger.warning("trial %d begins anew, as it cannot go on: %s", trial.number, reason_of(error))
        return began

    def _report_known(self, trial: optuna.Trial, known: Known, epoch: int) -> None:
        """Tell of the epochs before this one as if they had been trained now."""
        with self.interrupts.held():
            trial.set_user_attr(RESUMED, epoch)
            self.records.put_epochs(trial.number, [row for at, row in sorted(known.rows.items()) if at < epoch])
            for at, fitness in sorted(known.fitness.items()):
                if at < epoch:
                    trial.report(fitness, step=at)

    def _report(self, trial: optuna.Trial, metrics: EpochMetrics) -> Outcome:
        """Tell the pruner, the trial's own file and the watcher of an epoch; the outcome if it were the last."""
        fitness = self.fitness(metrics)
        self.records.add_epoch(trial.number, metrics, fitness)
        if not math.isfinite(fitness):
            raise TrainerError(f"the fitness of epoch {metrics.epoch} is {fitness}")
        reached = self.goals(metrics, fitness) if self.goals.several else {}
        if self.goals.several:  # Optuna takes no report then
            trial.set_user_attr(EPOCHS, metrics.epoch)
        else:
            trial.report(fitness, step=metrics.epoch)
        self.watcher.epoch(trial.number, metrics.epoch, fitness)
        return Outcome(
            trial.number,
            "complete",
            metrics.epoch,
            fitness,
            metrics={name: getattr(metrics, name) for name in METRICS},
            goals=reached,
            costs=metrics.costs,
            final=self._score(metrics) if metrics.final else {},
        )

    def _score(self, metrics: EpochMetrics) -> dict[str, float]:
        """What was scored on a second split, and its fitness; nothing where that is no number."""
        fitness = self.fitness.of(metrics.final)
        return {"fitness": fitness, **metrics.final} if math.isfinite(fitness) else {}


def reason_of(error: TrainerError) -> str:
    """The first line, without the trainer's name before it (that is the same in every trial) and without passwords."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return mask_secrets(re.sub(rf"^([\w.]+:\w+|.*?{re.escape(PICKLED)}): ", "", first))
