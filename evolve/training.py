"""Trainings outside of a study: one hyp, trained once for every seed, told line by line."""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rich.console import Console

from evolve.bucket import Bucket, Uploads, open_bucket
from evolve.config import EvolveConfig, did_you_mean
from evolve.fitness import METRICS, Fitness
from evolve.interrupts import Interrupts
from evolve.journal import Board, Journal, Row, check_tensorboard, epoch_row, metrics_of
from evolve.lock import sole_use
from evolve.order import Order, check_folder, claim_folder
from evolve.paths import TrainingPaths, from_here
from evolve.plugins import resolve
from evolve.programs import check_needed, program_of
from evolve.tables import name_dead
from evolve.waiting import UNNOTICED_S, Bar
from search_spaces import SpaceError, available_spaces, load_space
from trainer import EpochMetrics, TrainerError, TrainJob
from trainer.command import CommandTrainer
from trainer.process import ProcessTrainer
from trainer.progress import Listener


def check_understood(names: Iterable[str], known: frozenset[str] | None, trainer: str) -> None:
    """Raise SpaceError for a hyp that the trainer does not understand, as it would do nothing. None: it takes any."""
    for name in names:
        if known is not None and name not in known:
            raise SpaceError(f"the trainer {trainer} does not understand {name!r}{did_you_mean(name, sorted(known))}")


def process_trainer(
    config: EvolveConfig, log: Path, listener: Listener | None = None
) -> ProcessTrainer | CommandTrainer:
    """The trainer that was asked for, whose trainings run in processes of their own. Raises ConfigError, DataError.

    `listener` is told how far it is with what takes long.
    """
    how: dict[str, Any] = {"threads": config.threads, "timeout_s": config.trial_timeout}
    if (program := program_of(config)) is not None:
        return CommandTrainer(program, **how)
    return ProcessTrainer(resolve("trainer", config.trainer), log=log, listener=listener, **how)


def train_and_tell(order: Order) -> Iterator[str]:
    """Train once for every seed: a line an epoch, and a summary. Raises SpaceError, ConfigError, TrainerError, OSError.

    What was asked wrongly is told before anything is trained, and leaves no folder.
    """
    if order.tensorboard:
        check_tensorboard()
    bucket = open_bucket(order.bucket) if order.bucket else None
    how: dict[str, Any] = {"threads": order.options.threads, "timeout_s": order.timeout_s}
    spec = resolve("trainer", order.trainer) if order.program is None else ""
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        paths = TrainingPaths(claim_folder(order))
        stack.enter_context(sole_use(paths))
        check_folder(order, paths)
        if order.program is None:
            bar = stack.enter_context(Bar(Console(stderr=True)))
            trainer: ProcessTrainer | CommandTrainer = ProcessTrainer(
                spec, log=paths.worker_log, listener=bar.tell, **how
            )
        else:
            trainer = CommandTrainer(order.program, **how)
        stack.enter_context(closing(trainer))
        check_understood(order.hyp, trainer.hyps, order.trainer)
        check_needed(order.hyp, order.program, order.trainer)
        prepared = trainer.prepare(order.options)
        if order.program is None:
            bar.close()
        yield from (prepared.summary, *(f"warning: {warning}" for warning in prepared.warnings))
        yield from _note(order, prepared.dead)
        if not order.resume:
            order.write(paths)
        session = Session(order, paths, trainer, interrupts, bucket)
        try:
            yield from session.run()
        except (Exception, KeyboardInterrupt) as error:
            yield from session.end()
            if isinstance(error, KeyboardInterrupt):
                yield from session.hint()
            raise
        yield from session.end()
    yield from _summary(session.last, order.fitness, order.options.split)
    yield f"results in {from_here(paths.root)}"


class Session:
    """The trainings of one order in its run folder: one after the other, each with a journal."""

    def __init__(
        self,
        order: Order,
        paths: TrainingPaths,
        trainer: ProcessTrainer | CommandTrainer,
        interrupts: Interrupts,
        bucket: Bucket | None,
    ) -> None:
        self._order = order
        self._paths = paths
        self._trainer = trainer
        self._interrupts = interrupts
        self._warnings: deque[str] = deque()
        self._uploads = Uploads(bucket, paths.root, self._warnings.append) if bucket else None
        self.last: list[EpochMetrics] = []

    def run(self) -> Iterator[str]:
        """Train for each seed; `last` then holds the last epoch of each."""
        for seed in self._order.all_seeds:
            paths = self._order.paths_of(self._paths, seed)
            paths.root.mkdir(exist_ok=True)
            going_on = self._order.resume and paths.last.exists()
            journal = Journal(paths, self._warnings.append, keep=going_on)
            yield from self._train(seed, paths, journal, going_on)
            if not journal.rows:
                raise TrainerError("the trainer ended without an epoch")
            self.last.append(metrics_of(journal.rows[-1]))

    def end(self) -> Iterator[str]:
        """Send what has not been sent yet, and tell what could not be done."""
        if self._uploads is not None:
            self._uploads.soon()
            if not self._uploads.finish(UNNOTICED_S):
                yield f"sending the rest to {self._uploads.url} ..."
                self._uploads.close()
        yield from self._warned()

    def hint(self) -> Iterator[str]:
        """How to go on, where that can be done."""
        if self._order.options.save:
            yield f"go on with: evolve train --resume {shlex.quote(from_here(self._paths.root))}"

    def _train(self, seed: int, paths: TrainingPaths, journal: Journal, going_on: bool) -> Iterator[str]:
        order = self._order
        options = dataclasses.replace(order.options, seed=seed)
        if journal.rows and journal.rows[-1]["epoch"] >= options.epochs:
            yield f"seed {seed}  all {options.epochs} epochs are done"
            return
        job = TrainJob(order.hyp, options, paths.root, resume=going_on)
        with ExitStack() as stack:
            board = (
                stack.enter_context(closing(Board(paths.root, self._warnings.append))) if order.tensorboard else None
            )
            for metrics in stack.enter_context(closing(self._trainer.train(job))):
                with self._interrupts.held():
                    self._keep(epoch_row(metrics, order.fitness(metrics)), journal, board)
                yield from self._warned()
                yield _epoch_line(seed, metrics, options.epochs, order.fitness)

    def _keep(self, row: Row, journal: Journal, board: Board | None) -> None:
        journal.add(row)
        if board is not None:
            board.add(row)
        if self._uploads is not None:
            self._uploads.soon()

    def _warned(self) -> Iterator[str]:
        while self._warnings:
            yield f"warning: {self._warnings.popleft()}"


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (of n - 1 degrees of freedom; NaN for one value)."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def _note(order: Order, dead: Mapping[str, str]) -> Iterator[str]:
    """One line on the hyps that were set to something and do nothing here. A trainer with a space is named like it."""
    usual = load_space(order.trainer).defaults() if order.trainer in available_spaces() else {}
    idle = {name: dead[name] for name, value in order.hyp.items() if name in dead and value != usual.get(name)}
    if idle:
        yield f"note: the hyp file sets what can have no effect here: {name_dead(idle)}"


def _epoch_line(seed: int, metrics: EpochMetrics, epochs: int, fitness: Fitness) -> str:
    scores = "  ".join(f"{name} {getattr(metrics, name):.4f}" for name in METRICS)
    losses = "  ".join(f"{name} {loss:.4g}" for name, loss in metrics.losses.items())
    return (
        f"seed {seed}  epoch {metrics.epoch:>{len(str(epochs))}}/{epochs}  fitness {fitness(metrics):.4f}"
        f"  {scores}  {metrics.seconds:.1f} s  {losses}".rstrip()
    )


def _summary(last: Sequence[EpochMetrics], fitness: Fitness, split: str) -> Iterator[str]:
    """The last epochs' scores: of one training as they are, of several their mean and its standard error."""
    scores = {"fitness": [fitness(metrics) for metrics in last]}
    scores |= {name: [getattr(metrics, name) for metrics in last] for name in METRICS}
    yield f"on {split}:" if len(last) == 1 else f"on {split}, mean and standard error of {len(last)} seeds:"
    for name, values in scores.items():
        mean, error = mean_and_error(values)
        yield f"  {name:<9} {mean:.4f}" + ("" if math.isnan(error) else f" ± {error:.4f}")
