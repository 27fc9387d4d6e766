"""Trainings side by side: several arms (a hyp and options each), the same seeds for all, taken in turn."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.config import EvolveConfig
from evolve.plugins import resolve
from evolve.training import mean_and_error
from search_spaces import Hyp
from trainer import EpochMetrics, TrainJob, TrainOptions
from trainer.process import ProcessTrainer

OPTIONS = ("data", "model", "imgsz", "epochs", "batch", "optimizer", "schedule", "device", "threads")


@dataclass(frozen=True)
class Arm:
    """What is trained; the seed of `options` is replaced by each seed in turn."""

    name: str
    hyp: Hyp
    options: TrainOptions


@dataclass(frozen=True)
class Trained:
    """One arm's trainings: all epochs of each seed, in the order of `seeds`."""

    arm: Arm
    seeds: tuple[int, ...]
    runs: tuple[tuple[EpochMetrics, ...], ...]

    def last(self, metric: str) -> list[float]:
        """A metric after the last epoch, for each seed."""
        return [float(getattr(run[-1], metric)) for run in self.runs]

    def mean(self, metric: str) -> tuple[float, float]:
        """Mean and standard error of `last`."""
        return mean_and_error(self.last(metric))

    @property
    def epoch_s(self) -> float:
        """The median epoch, training and evaluation."""
        return statistics.median(metrics.seconds for run in self.runs for metrics in run)


def train_arms(arms: Sequence[Arm], seeds: Sequence[int], *, trainer: str = "detection") -> list[Trained]:
    """Train every arm with every seed, all arms with one seed before the next, so that a busy hour hits all alike.

    Each training runs its full length, in one process that is not this one. What they leave on disk is removed.
    Progress goes to standard error. Raises TrainerError.
    """
    runs: dict[str, list[tuple[EpochMetrics, ...]]] = {arm.name: [] for arm in arms}
    assert len(runs) == len(arms), "arms need names of their own"
    with tempfile.TemporaryDirectory(prefix="evolve-benchmark-") as folder:
        log = Path(folder) / "worker.log"
        with ProcessTrainer(resolve("trainer", trainer), threads=arms[0].options.threads, log=log) as process:
            for seed in seeds:
                for arm in arms:
                    workdir = Path(tempfile.mkdtemp(dir=folder))
                    job = TrainJob(arm.hyp, dataclasses.replace(arm.options, seed=seed), workdir)
                    runs[arm.name].append(tuple(process.train(job)))
                    sys.stderr.write(_progress(arm, seed, runs[arm.name][-1]))
    return [Trained(arm, tuple(seeds), tuple(runs[arm.name])) for arm in arms]


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Options of a training by name; what is not given is as `evolve run` has it."""
    usual = EvolveConfig().train_options()
    for name in names:
        default = getattr(usual, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help="default: %(default)s")


def options_of(arguments: argparse.Namespace) -> TrainOptions:
    """The options that were asked for, those that the program does not have as `evolve run` has them."""
    given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    return dataclasses.replace(EvolveConfig().train_options(), **given)


def describe(options: TrainOptions) -> str:
    """The options as one phrase; of a path its last two parts, since the rest is this machine's own."""
    data, model = ("/".join(Path(name).parts[-2:]) for name in (options.data, options.model))
    length = f"imgsz {options.imgsz}, {options.epochs} epochs, batch {options.batch}"
    threads = f"{options.threads or 'all'} thread{'s' * (options.threads != 1)}"
    return f"{data}, {model}, {length}, {options.optimizer}, {options.schedule}, {options.device} with {threads}"


def seed_list(text: str) -> tuple[int, ...]:
    """'0,1,2' -> (0, 1, 2), for argparse."""
    return tuple(int(part) for part in text.split(","))


def _progress(arm: Arm, seed: int, run: Iterable[EpochMetrics]) -> str:
    *_, last = run
    return f"{arm.name}, seed {seed}: map50_95 {last.map50_95:.4f}, map50 {last.map50:.4f}\n"
