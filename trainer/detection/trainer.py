"""The built-in detection trainer: one training from hyps to metrics, read top to bottom."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.api import DataError, EpochMetrics, Prepared, TrainingDiverged, TrainJob, TrainOptions
from trainer.detection.anchors import fit_anchors
from trainer.detection.augment import Pictures
from trainer.detection.batches import count_batches, draw_batches
from trainer.detection.checkpoint import save_checkpoint
from trainer.detection.darknet import Darknet, initialise_biases, load_model
from trainer.detection.data import DataSpec, Split, find_data, load_split, summarise
from trainer.detection.loss import DetectionLoss
from trainer.detection.optimizer import Average, Schedule, build_optimizer, check_names
from trainer.detection.recipe import HYPS, Recipe
from trainer.detection.validation import evaluate, labels_by_picture

LOSS_SCALE = 64.0  # the losses are means: this makes an update as large as YOLOv5's nominal batch of 64 does
MAX_GRADIENT_NORM = 10.0  # YOLOv5 v6.2+


@dataclass(frozen=True)
class World:
    """What all trainings of a study share: the pictures, what is scored, the anchors."""

    spec: DataSpec
    pictures: Pictures
    scored: Split
    anchors: np.ndarray
    prepared: Prepared


class DetectionTrainer:
    """Trains a Darknet cfg on a YOLO data set; scores the averaged weights after every epoch (see trainer.Trainer)."""

    hyps: frozenset[str] | None = HYPS

    def __init__(self) -> None:
        self._world: tuple[tuple[object, ...], World] | None = None

    def prepare(self, options: TrainOptions) -> Prepared:
        """Check the options, decode the data into the cache, fit the anchors. Raises DataError."""
        check_options(options)
        return self._enter(options).prepared

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        """Yield after every epoch. Raises TrainingDiverged, TrainerError, DataError."""
        options = job.options
        check_options(options)
        recipe = Recipe.from_hyp(job.hyp)
        world = self._enter(options)
        device = torch.device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        rng = np.random.default_rng(options.seed)

        nc = world.spec.nc
        steps = count_batches(len(world.pictures.images), options.batch)
        model = build_model(options.model, nc, world.anchors, device)
        loss = DetectionLoss(recipe, model.heads, nc, options.imgsz)
        optimizer = build_optimizer(model, recipe, options.optimizer, options.batch)
        schedule = Schedule(optimizer, recipe, options.schedule, options.epochs, steps)
        average = Average(model, options.epochs * steps)

        for epoch in range(1, options.epochs + 1):
            started = time.perf_counter()
            batches = draw_batches(world.pictures, recipe, options.batch, rng)
            losses = train_one_epoch(model, batches, loss, optimizer, schedule, average, epoch)
            metrics = evaluate(average.model, world.scored, nc, epoch, losses, started, precision(device))
            if options.save:
                save_checkpoint(job.workdir / "last.pt", average.model, options, job.hyp, world.spec.names, metrics)
            yield metrics

    def _enter(self, options: TrainOptions) -> World:
        """The world of these options, kept between trainings: decoding and clustering happen once."""
        key = (options.data, options.model, options.imgsz, options.split)
        if self._world is None or self._world[0] != key:
            self._world = (key, open_world(options))
        return self._world[1]


def check_options(options: TrainOptions) -> None:
    """DataError for options that no training could run with."""
    check_names(options.optimizer, options.schedule)
    for name in ("epochs", "imgsz", "batch"):
        if getattr(options, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(options, name)}")
    for name in ("seed", "threads"):
        if getattr(options, name) < 0:
            raise DataError(f"{name} cannot be negative, got {getattr(options, name)}")
    try:
        torch.empty(0, device=torch.device(options.device))
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device '{options.device}' cannot be used: {str(error).splitlines()[0]}") from None


def open_world(options: TrainOptions) -> World:
    """Load what a study's trainings share."""
    spec = find_data(options.data)
    model = load_model(options.model, spec.nc)
    if options.imgsz % model.stride:
        raise DataError(f"imgsz must be a multiple of {model.stride} for {options.model}, got {options.imgsz}")
    training = load_split(spec, "train", options.imgsz)
    scored = load_split(spec, options.split, options.imgsz)
    if not len(training.boxes):
        raise DataError(f"{options.data}: no training picture holds a box, so there is nothing to learn")
    pictures = Pictures(training.images, training.sizes, tuple(labels_by_picture(training)))
    anchors = fit_anchors(training.boxes[:, 2:] - training.boxes[:, :2], model.anchor_count)
    problems = (*training.problems, *scored.problems)
    # With the anchors, which another version of the clustering could change behind a study's back.
    world = f"{training.digest} {scored.digest} {anchors.round(3).tolist()}"
    digest = hashlib.blake2b(world.encode(), digest_size=16).hexdigest()
    summary = (
        f"{spec.nc} classes; train {len(training.files)} pictures with {len(training.boxes)} boxes, "
        f"{options.split} {len(scored.files)} with {len(scored.boxes)}"
    )
    return World(spec, pictures, scored, anchors, Prepared(digest, summary, tuple(summarise(problems).splitlines())))


def build_model(name: str, nc: int, anchors: np.ndarray, device: torch.device) -> Darknet:
    model = load_model(name, nc, anchors)
    initialise_biases(model)
    model.to(device)
    model.to(memory_format=torch.channels_last)
    return model


def train_one_epoch(
    model: Darknet,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: DetectionLoss,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    average: Average[Darknet],
    epoch: int,
) -> dict[str, float]:
    """One pass over the training pictures; returns the mean losses. Raises TrainingDiverged."""
    model.train()
    device = next(model.parameters()).device
    total, steps = torch.zeros(3), 0
    for images, targets in batches:
        schedule.advance()
        with autocast(device):
            outputs = model(images.to(device, memory_format=torch.channels_last))
        objective, terms = loss(outputs, targets.to(device))
        terms = terms.cpu()
        if not torch.isfinite(terms).all():
            raise TrainingDiverged(epoch, name_losses(terms))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(objective * LOSS_SCALE)
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM, foreach=True)
        optimizer.step()
        average.update(model)
        total, steps = total + terms, steps + 1
    return name_losses(total / steps)


def name_losses(terms: Tensor) -> dict[str, float]:
    return dict(zip(("box", "obj", "cls"), terms.tolist(), strict=True))


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision(device) == torch.bfloat16)


def precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it; elsewhere it would be slower than float32."""
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name for it yet, and none before 2.11
    return device.type == "cpu" and supported is not None and bool(supported())
