"""Trainings outside of a study: one hyp, trained once for every seed, told line by line."""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from evolve.config import EvolveConfig, did_you_mean
from evolve.fitness import METRICS, Fitness
from evolve.interrupts import Interrupts
from evolve.plugins import resolve
from search_spaces import SpaceError, load_hyp
from trainer import EpochMetrics, TrainerError, TrainJob, TrainOptions
from trainer.process import ProcessTrainer


def check_understood(names: Iterable[str], known: frozenset[str] | None, trainer: str) -> None:
    """Raise SpaceError for a hyp that the trainer does not understand, as it would do nothing. None: it takes any."""
    for name in names:
        if known is not None and name not in known:
            raise SpaceError(f"the trainer {trainer} does not understand {name!r}{did_you_mean(name, sorted(known))}")


def process_trainer(config: EvolveConfig, log: Path) -> ProcessTrainer:
    """The trainer that was asked for, in a process of its own that starts at the first question. Raises ConfigError."""
    spec = resolve("trainer", config.trainer)
    return ProcessTrainer(spec, threads=config.threads, log=log, timeout_s=config.trial_timeout)


def train_and_tell(
    config: EvolveConfig, options: TrainOptions, seeds: Sequence[int], folder: Path | None
) -> Iterator[str]:
    """Train the config's hyp file once for every seed: a line an epoch, and a summary of several seeds.

    What a training leaves goes to `folder`/seed-<seed>, or nowhere. Raises SpaceError, ConfigError, TrainerError.
    """
    hyp = load_hyp(config.hyp) if config.hyp else {}
    fitness = Fitness.parse(config.fitness)
    last = []
    with ExitStack() as stack:
        stack.enter_context(Interrupts())
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evolve-train-")))
        home.mkdir(parents=True, exist_ok=True)
        trainer = stack.enter_context(closing(process_trainer(config, home / "worker.log")))
        check_understood(hyp, trainer.hyps, config.trainer)
        prepared = trainer.prepare(options)
        yield from (prepared.summary, *(f"warning: {warning}" for warning in prepared.warnings))
        for seed in seeds:
            workdir = home / f"seed-{seed}"
            workdir.mkdir(exist_ok=True)
            job = TrainJob(hyp, dataclasses.replace(options, seed=seed), workdir)
            metrics = None
            for metrics in trainer.train(job):
                yield _epoch_line(seed, metrics, options.epochs, fitness)
            if metrics is None:
                raise TrainerError("the trainer ended without an epoch")
            last.append(metrics)
    yield from _summary(last, fitness, options.split)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (of n - 1 degrees of freedom; NaN for one value)."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


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
