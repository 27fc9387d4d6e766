"""One trial's journey: its hyp goes down to the trainer, metrics come up epoch by epoch and become fitness."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import optuna

from evolve.fitness import METRICS, Fitness
from evolve.goals import ONE, Goals
from evolve.hyps import settle
from evolve.interrupts import Interrupts
from evolve.paths import RunPaths
from evolve.records import Records
from evolve.standing import Outcome
from evolve.watcher import Watcher
from search_spaces import Hyp
from trainer import EpochMetrics, TrainerError, TrainJob, TrainOptions


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

        The trial ends by leaving the loop over its epochs: at their end, where the pruner gives it up, by an error, or
        by a KeyboardInterrupt where it is time to leave. `closing` then ends the training, whichever it was.
        """
        outcome = Outcome(trial.number, "failed", failure="the trainer ended without an epoch")
        try:
            with closing(self._train(trial, hyp, seed)) as epochs:
                for metrics in epochs:
                    with self.interrupts.held():
                        outcome = self._report(trial, metrics)
                        if not self.goals.several and trial.should_prune():
                            return replace(outcome, state="pruned")
                    if metrics.epoch < self.options.epochs:
                        self.interrupts.check()
        except TrainerError as error:
            return replace(outcome, state="failed", failure=_reason(error))
        return outcome

    def _train(self, trial: optuna.Trial, hyp: Hyp, seed: int) -> Generator[EpochMetrics, None, None]:
        workdir = self.paths.trial(trial.number)
        workdir.mkdir(parents=True, exist_ok=True)
        self.paths.metrics(trial.number).unlink(missing_ok=True)  # of a study that was deleted, but not its folder
        rest, options = settle(hyp, self.options, self.as_options)
        return self.train(TrainJob(rest, replace(options, seed=seed), workdir))

    def _report(self, trial: optuna.Trial, metrics: EpochMetrics) -> Outcome:
        """Tell the pruner, the trial's own file and the watcher of an epoch; the outcome if it were the last."""
        fitness = self.fitness(metrics)
        self.records.add_epoch(trial.number, metrics, fitness)
        if not math.isfinite(fitness):
            raise TrainerError(f"the fitness of epoch {metrics.epoch} is {fitness}")
        reached = self.goals(metrics, fitness) if self.goals.several else {}
        if not self.goals.several:  # or Optuna would raise
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


def _reason(error: TrainerError) -> str:
    """The first line, without the trainer's name before it: that is the same in every trial."""
    return re.sub(r"^[\w.]+:\w+: ", "", str(error).splitlines()[0]) if str(error) else type(error).__name__
