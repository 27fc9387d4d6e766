"""The contract between whoever trains and whoever asks for a training: a job in, one EpochMetrics an epoch out."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Value = float | int | str | bool
Hyp = Mapping[str, Value]


@dataclass(frozen=True)
class TrainOptions:
    """What stays the same over a whole study: data, model and the length of a training.

    `data` is the name of a built-in data set or the path of a data.yaml, `model` a built-in cfg's name or the path of a
    Darknet cfg. `split` is what is scored after every epoch. `threads` are the CPU threads that compute (0: all cores);
    one is the default since small networks gain nothing from a second one that has to be woken for every operation,
    and augmentation keeps the next core busy. `save` leaves the weights in the job's folder.
    """

    data: str = "digits"
    model: str = "pico"
    epochs: int = 10
    imgsz: int = 96
    batch: int = 8
    seed: int = 0
    device: str = "cpu"
    optimizer: str = "adamw"
    schedule: str = "cosine"
    split: str = "val"
    threads: int = 1
    save: bool = False


@dataclass(frozen=True)
class TrainJob:
    """One training: these hyps, these options, and a folder that is this training's own (it exists)."""

    hyp: Hyp
    options: TrainOptions
    workdir: Path


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch left.

    `epoch` counts from 1, precision, recall and both mAPs lie in [0, 1], `losses` are means over the epoch.
    """

    epoch: int
    precision: float
    recall: float
    map50: float
    map50_95: float
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """What `Trainer.prepare` found: a digest that changes when the data does, lines to show, and warnings."""

    digest: str
    summary: str
    warnings: tuple[str, ...] = ()


class TrainerError(Exception):
    """A training could not be done; the message says why in one sentence."""


class DataError(TrainerError):
    """What was asked for cannot be trained at all: data, model or options are wrong. Ends a study before trial 0."""


class TrainingDiverged(TrainerError):
    """A loss was no longer finite."""

    def __init__(self, epoch: int, losses: Mapping[str, float]) -> None:
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        super().__init__(f"the loss was no longer finite in epoch {epoch} ({terms})")
        self.epoch = epoch
        self.losses = dict(losses)

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int, dict[str, float]]]:
        return type(self), (self.epoch, self.losses)


class Trainer(Protocol):
    """Anything that can train.

    `hyps` names the hyps that it understands (None: any). `prepare` is called once, before the first training: it
    checks the options, builds caches, and raises DataError for what no hyp could mend. `train` yields after every
    epoch, in order from 1; whoever pulls may stop at any time by closing the generator, and everything that the
    training opened is closed by then. It raises TrainerError.
    """

    @property
    def hyps(self) -> frozenset[str] | None: ...

    def prepare(self, options: TrainOptions) -> Prepared: ...

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]: ...
