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

    `data` is the name of a built-in data set or the path of one's own, `model` a built-in cfg's name or the path of a
    Darknet cfg. `split` is what is scored after every epoch. `device` is cpu, cuda, cuda:1, or several of them with
    commas between, a process for each. `threads` are the CPU threads that compute (0: all cores); one is the default
    since small networks gain nothing from a second one that has to be woken for every operation, and augmentation keeps
    the next core busy.

    `weights` to start from: a path or URL of .weights, .conv.N or .pt ("": from scratch). `freeze_layers` stay as they
    are in the whole run: "backbone", or the number of first layers; with `freeze_epochs` that many first epochs train
    the head only, in batches of `freeze_batch` (0: as `batch`), and the rest trains everything. `nominal_batch`
    gathers gradients until so many pictures are seen (0: every batch is an update, which is best in a short run).

    `rect` trains on batches of one shape instead of squares, `multi_scale` in sizes of 0.5 to 1.5 times imgsz,
    `image_weights` shows pictures of badly detected classes more often, `single_cls` takes all classes for one.
    `cache` is "disk" (decoded pictures in a memory-mapped file) or "none" (decoded whenever they are needed).
    `amp` is the precision of convolutions: auto (the fastest here, measured once), bf16, fp16 or off. `sync_bn` shares
    batch statistics between processes. `notest` scores the last epoch only, which is then the only one reported.

    `final_split` is scored too, once, when the last epoch has ended, if the data has it ("": none).

    `save` leaves last.pt and best.pt in the job's folder, `plots` its pictures; `fitness_weights` weigh precision,
    recall, mAP50 and mAP50-95 where best.pt is chosen. last.pt is there before the epoch is reported, replaced whole or
    not at all, and only from a trainer that can `resume` from it: others leave none, whatever is asked.
    """

    data: str = "digits"
    model: str = "pico"
    epochs: int = 10
    imgsz: int = 96
    batch: int = 8
    seed: int = 0
    device: str = "cpu"
    optimizer: str = "adamw"
    schedule: str = "trapezoid"
    split: str = "val"
    final_split: str = ""
    threads: int = 1
    weights: str = ""
    freeze_layers: str = ""
    freeze_epochs: int = 0
    freeze_batch: int = 0
    nominal_batch: int = 0
    single_cls: bool = False
    rect: bool = False
    multi_scale: bool = False
    image_weights: bool = False
    cache: str = "disk"
    amp: str = "auto"
    sync_bn: bool = False
    notest: bool = False
    save: bool = False
    plots: bool = False
    fitness_weights: tuple[float, float, float, float] = (0.0, 0.0, 0.1, 0.9)


@dataclass(frozen=True)
class TrainJob:
    """One training: these hyps, these options, and a folder that is this training's own (it exists).

    `resume` goes on from the last.pt in that folder, as if the training had never stopped. The last epoch that was
    scored is reported once more, since whoever listened may not have heard of it.
    """

    hyp: Hyp
    options: TrainOptions
    workdir: Path
    resume: bool = False


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch left.

    `epoch` counts from 1, precision, recall and both mAPs lie in [0, 1], `losses` are means over the epoch. `final`
    holds these four by name for `final_split`: of the last epoch, and from a trainer that can score two splits. `costs`
    are what using the model takes, finite and from 0 up: `latency_ms`, milliseconds a picture from the network's input
    to the boxes that are left after suppression, and `params`, how many weights it learns.
    """

    epoch: int
    precision: float
    recall: float
    map50: float
    map50_95: float
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    final: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What `Trainer.prepare` found: a digest that changes when the data does, lines to show, and warnings.

    `dead` names the hyps that can have no effect with this data and these options, each with the reason; `needs` those
    that have none while another one, which it names, is 0. `costs` names those that every epoch will tell, each with
    how it is measured.
    """

    digest: str
    summary: str
    warnings: tuple[str, ...] = ()
    dead: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, str] = field(default_factory=dict)


class TrainerError(Exception):
    """A training could not be done; the message says why in one sentence."""


class DataError(TrainerError):
    """What was asked for cannot be trained at all: data, model or options are wrong. It ends a study."""


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
