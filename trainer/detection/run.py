"""A run: everything that moves in one training. It can be put into a checkpoint and taken out again, bit for bit.

That is so on a CPU; a GPU adds in an order of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.api import DataError, EpochMetrics, TrainJob, TrainOptions
from trainer.detection.batches import count_batches
from trainer.detection.checkpoint import describe, read_training, save_checkpoint
from trainer.detection.darknet import Darknet, initialise_biases, parse_cfg
from trainer.detection.data import class_weights, image_weights
from trainer.detection.data.cache import remove_left_overs
from trainer.detection.distributed import Team
from trainer.detection.freeze import freeze_layers
from trainer.detection.loss import DetectionLoss
from trainer.detection.matching import Matcher
from trainer.detection.optimizer import Average, Schedule, accumulation, build_optimizer
from trainer.detection.phases import Phase, phase_at, phases_of
from trainer.detection.precision import Precision, choose_precision, name_of
from trainer.detection.recipe import Recipe
from trainer.detection.recorded import forget_gradients
from trainer.detection.update import Updater
from trainer.detection.weights import load_weights
from trainer.detection.world import World
from trainer.messages import metrics_from_dict, metrics_to_dict

MAY_CHANGE = ("data", "model", "device", "threads", "cache", "save", "plots")
"""Options that may differ where a training is resumed; of data and model the content must be the same."""


class Run:
    """One training between two epochs: the model, its average, and what moves them.

    `epoch` is the last one that was trained; `history` holds the metrics of all that were scored, `best` is the highest
    fitness among them, `map_by_class` what each class scored last (None: never).
    """

    def __init__(self, job: TrainJob, recipe: Recipe, world: World, team: Team) -> None:
        options = job.options
        self.job, self.recipe, self.world, self.team = job, recipe, world, team
        self.pictures, self.scored = world.pictures_for(team.device), world.scored_for(team.device)
        kept = read_training(job.workdir / "last.pt") if job.resume else None
        torch.manual_seed(options.seed)
        self.model = build_model(world, options.imgsz)
        if world.weights is not None and kept is None:
            load_weights(self.model, world.weights, world.cfg)
        self.model.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.sync_bn:
            self.model = team.share_statistics(self.model)
        amp = options.amp if kept is None else str(kept["training"]["amp"])  # the same numbers as before
        self.precision = agree_precision(self.model, replace(options, amp=amp), team)
        self.average = Average(self.model, sum(self.count_updates(phase) for phase in phases_of(options)))
        self.epoch = 0
        self.history: list[EpochMetrics] = []
        self.best = float("-inf")
        self.map_by_class: list[float] | None = None
        self.phase: Phase | None = None
        self._described = describe(
            self.model, job, recipe, cfg=world.cfg, names=world.spec.names, digest=world.prepared.digest
        )
        if kept is not None:
            self._restore(kept)
            for name in ("last.pt", "best.pt") if team.leads else ():
                remove_left_overs(job.workdir / name)

    def count_batches(self, phase: Phase) -> int:
        return count_batches(len(self.pictures), phase.batch)

    def count_updates(self, phase: Phase) -> int:
        return -(-self.count_batches(phase) // self._accumulate(phase)) * phase.epochs

    def _accumulate(self, phase: Phase) -> int:
        return accumulation(self.job.options.nominal_batch, phase.batch)

    def enter(self, phase: Phase) -> None:
        """Begin a phase: freeze what it freezes, and build anew what moves the rest. Nothing if it has begun."""
        if phase == self.phase:
            return
        options = self.job.options
        self.phase = phase
        forget_gradients(self.model.parameters())
        freeze_layers(self.model, phase.frozen)
        accumulate = self._accumulate(phase)
        loss = DetectionLoss(self.recipe, self.model.heads, self.world.spec.nc, options.imgsz)
        self.optimizer = build_optimizer(self.model, self.recipe, options.optimizer, phase.batch * accumulate)
        self.batch, self.steps = phase.batch, self.count_batches(phase)
        self.schedule = Schedule(self.optimizer, self.recipe, options.schedule, phase.epochs, self.steps, accumulate)
        changes = options.rect or options.multi_scale or accumulate > 1 or self.precision.scaled or self.team.world > 1
        records = self.team.device.type == "cuda" and not changes
        self.matcher = Matcher(self.model.heads, self.recipe.anchor_t, self.team.device, fixed=records)
        self.updater = Updater(
            self.model,
            loss,
            self.optimizer,
            self.average,
            self.precision,
            self.team,
            record=records,
        )

    def weigh_pictures(self, map_by_class: Sequence[float] | None) -> NDArray[np.float64] | None:
        """How often to show each training picture, [N], by how badly its classes were detected; None: all alike.

        YOLOv5 v7.0, train.py --image-weights: a class weighs its inverse frequency times (1 - mAP)^2.
        """
        if not self.job.options.image_weights:
            return None
        of_class = class_weights(self.world.training.classes, self.world.spec.nc)
        if map_by_class is not None:
            of_class = of_class * (1.0 - np.array(map_by_class)) ** 2
        return image_weights(self.pictures.labels, of_class)

    def note(self, metrics: EpochMetrics, ap: NDArray[np.floating]) -> bool:
        """Remember what was scored, with AP by class [nc, 10]; returns whether it is the best so far (or equal to it).

        A class that is not in the scored split counts as the mean of the others.
        """
        self.history.append(metrics)
        of_class = ap.mean(1)
        self.map_by_class = np.where(np.isnan(of_class), metrics.map50_95, of_class).tolist()
        scores = (metrics.precision, metrics.recall, metrics.map50, metrics.map50_95)
        fitness = sum(w * score for w, score in zip(self.job.options.fitness_weights, scores, strict=True))
        is_best = fitness >= self.best
        self.best = max(self.best, fitness)
        return is_best

    def save(self, *, is_best: bool) -> None:
        """Write last.pt, from which the run can be resumed, and best.pt if this epoch is the best one."""
        metrics = self.history[-1] if self.history else None
        save_checkpoint(self.job.workdir / "last.pt", self._described, self.average.model, metrics, self._state())
        if is_best:
            save_checkpoint(self.job.workdir / "best.pt", self._described, self.average.model, metrics)

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "amp": name_of(self.precision),
            "model": {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "batches": self.schedule.batches,
            "updates": self.average.updates,
            "history": [metrics_to_dict(metrics) for metrics in self.history],
            "best": self.best,
            "map_by_class": self.map_by_class,
        }

    def _restore(self, content: Mapping[str, Any]) -> None:
        described, path = self._described, self.job.workdir / "last.pt"
        for name, what in (("cfg", "model"), ("digest", "data"), ("anchors", "anchors"), ("recipe", "hyp")):
            if content[name] != described[name]:
                raise DataError(f"the {what} of {path} is another one: it cannot be resumed")
        for name, asked in described["options"].items():
            before = content["options"].get(name, asked)
            if name not in MAY_CHANGE and before != asked:
                raise DataError(f"{path} was trained with {name} {before}, not {asked}: it cannot be resumed")
        state = content["training"]
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(content["weights"])
        self.average.updates = state["updates"]
        self.history = [metrics_from_dict(metrics) for metrics in state["history"]]
        self.best = state["best"]
        self.map_by_class = state["map_by_class"]
        self.enter(phase_at(self.job.options, max(1, self.epoch)))
        self.optimizer.load_state_dict(state["optimizer"])
        self.updater.scaler.load_state_dict(state["scaler"])
        self.schedule.batches = state["batches"]


def agree_precision(model: Darknet, options: TrainOptions, team: Team) -> Precision:
    """What the first process chooses: each by itself might measure another one as the fastest."""
    chosen = ""
    if team.leads:
        chosen = name_of(choose_precision(options.amp, model, options.imgsz, options.batch // team.world, team.device))
    return choose_precision(team.meet("precision", chosen), model, options.imgsz, options.batch, team.device)


def build_model(world: World, imgsz: int) -> Darknet:
    """An untrained model for the world's classes and anchors, that expects as many objects as its pictures hold.

    YOLOv5's prior of 8 objects in 640 pixels is some 25 times too low for the blood cells at 160, and a short run would
    spend its first epochs on that alone.
    """
    model = Darknet(parse_cfg(world.cfg), world.spec.nc, world.anchors, channels=3)
    initialise_biases(model, len(world.training.boxes) / len(world.training.files), imgsz)
    return model
