"""The world of a study: the pictures that all its trainings share, what is scored, the anchors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.api import DataError, Prepared, TrainOptions
from trainer.detection.anchors import fit_anchors
from trainer.detection.augment import Pictures
from trainer.detection.checkpoint import read_checkpoint
from trainer.detection.darknet import Darknet, load_model, read_cfg
from trainer.detection.data import DataSpec, Split, find_data, leaks, load_split, summarise
from trainer.detection.dead import NEEDS, dead_hyps
from trainer.detection.distributed import check_team, devices_of, find_place
from trainer.detection.download import fetch, is_url
from trainer.detection.freeze import freeze_layers
from trainer.detection.optimizer import check_names
from trainer.detection.phases import phases_of
from trainer.detection.precision import check_precision
from trainer.detection.validation import labels_by_picture
from trainer.detection.weights import Taken, load_weights


@dataclass(frozen=True)
class World:
    """What all trainings of a study share.

    `cfg` is the model's text, `anchors` are those fitted to the data, `weights` is the file to start from (None: from
    scratch).
    """

    spec: DataSpec
    cfg: str
    training: Split
    pictures: Pictures
    scored: Split
    anchors: np.ndarray
    weights: Path | None
    prepared: Prepared
    _resident: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict, compare=False, repr=False)
    _others: dict[str, Split] = field(default_factory=dict, compare=False, repr=False)

    def pictures_for(self, device: torch.device) -> Pictures:
        """The training pictures as a device wants them: on a GPU all of them at once, if it has room for twice that."""
        images = self._bring("train", self.pictures.pixels, device)
        return self.pictures if images is None else replace(self.pictures, images=images)

    def scored_for(self, device: torch.device) -> Split:
        """The same of what is scored."""
        scored = Pictures(self.scored.images, self.scored.sizes, ())
        images = self._bring("scored", scored.pixels, device)
        return self.scored if images is None else replace(self.scored, images=images)

    def split(self, name: str, options: TrainOptions) -> Split:
        """Another split of the data, read once. Raises DataError."""
        if name not in self._others:
            self._others[name] = load_split(
                self.spec, name, options.imgsz, single_cls=options.single_cls, cache=options.cache
            )
        return self._others[name]

    def leave(self) -> None:
        """Give up what was brought to a GPU."""
        self._resident.clear()

    def _bring(self, name: str, pixels: Tensor | None, device: torch.device) -> Tensor | None:
        """Pictures on a GPU, brought there once for all trainings; None where they cannot be, or need not."""
        if device.type != "cuda" or pixels is None:
            return None
        key = (name, device)
        if key not in self._resident and 2 * pixels.nbytes < torch.cuda.mem_get_info(device)[0]:
            self._resident[key] = pixels.to(device)
        return self._resident.get(key)


def check_options(options: TrainOptions) -> None:
    """DataError for options that no training could run with."""
    check_names(options.optimizer, options.schedule)
    for name in ("epochs", "imgsz", "batch"):
        if getattr(options, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(options, name)}")
    if options.seed >= 2**63:
        raise DataError(f"seed must be less than 2^63, got {options.seed}")
    if options.freeze_batch and not options.freeze_epochs:
        raise DataError("freeze_batch is the batch of the first epochs, so it needs freeze_epochs, how many these are")
    for name in ("seed", "threads", "freeze_epochs", "freeze_batch", "nominal_batch"):
        if getattr(options, name) < 0:
            raise DataError(f"{name} cannot be negative, got {getattr(options, name)}")
    if options.cache not in ("disk", "none"):
        raise DataError(f"cache is disk or none, not '{options.cache}'")
    if options.rect and options.image_weights:
        raise DataError("rect and image_weights exclude one another: one fixes which pictures come together, one draws")
    check_team(options)
    check_precision(options.amp, devices_of(options.device)[0])


def open_world(options: TrainOptions) -> World:
    """Load what a study's trainings share. Raises DataError."""
    spec = find_data(options.data, single_cls=options.single_cls)
    cfg = read_cfg(options.model)
    model = load_model(options.model, spec.nc)
    if options.imgsz % model.stride:
        raise DataError(f"imgsz must be a multiple of {model.stride} for {options.model}, got {options.imgsz}")
    training, scored = (
        load_split(spec, split, options.imgsz, single_cls=options.single_cls, cache=options.cache)
        for split in ("train", options.split)
    )
    if not len(training.boxes):
        raise DataError(f"{options.data}: no training picture holds a box, so there is nothing to learn")
    pictures = Pictures(training.images, training.sizes, tuple(labels_by_picture(training)), training.polygons)
    anchors = fit_anchors(training.boxes[:, 2:] - training.boxes[:, :2], model.anchor_count)
    learned = leaks(training, scored) if options.split != "train" else ()
    problems = (*training.problems, *scored.problems, *learned)
    weights = fetch(options.weights) if options.weights else None
    # With the anchors, which another version of the clustering could change behind a study's back, and all files.
    world = f"{training.digest} {scored.digest} {anchors.round(3).tolist()} {cfg} {hash_file(weights)}"
    digest = hashlib.blake2b(world.encode(), digest_size=16).hexdigest()
    summary = (
        f"{spec.nc} classes; train {len(training.files)} pictures with {len(training.boxes)} boxes, "
        f"{options.split} {len(scored.files)} with {len(scored.boxes)}"
    )
    if weights is not None:  # now, since what does not fit shall end a study before its first trial
        summary += f"; {load_start(model, weights, cfg, options).summary()}"
    for frozen in {phase.frozen for phase in phases_of(options)}:
        freeze_layers(model, frozen)
    dead = dead_hyps(options, nc=spec.nc, has_polygons=pictures.has_polygons, has_colour=pictures.has_colour)
    prepared = Prepared(digest, summary, tuple(summarise(problems).splitlines()), dead, NEEDS)
    return World(spec, cfg, training, pictures, scored, anchors, weights, prepared)


def load_start(model: Darknet, weights: Path, cfg: str, options: TrainOptions) -> Taken:
    """`load_weights`; where nothing fits it also says what could be done. Raises DataError."""
    try:
        return load_weights(model, weights, cfg)
    except DataError as error:
        if is_url(options.weights):
            raise DataError(f"{error} (it was downloaded before: delete that file to have it fetched again)") from None
        if weights.suffix not in (".pt", ".pth"):
            raise
        try:
            trained = read_checkpoint(weights)["options"]["model"]
        except (DataError, KeyError, TypeError):
            raise error from None
        if trained == options.model:
            raise
        raise DataError(f"{error}; it was trained as {trained}, which model can name") from None


def hash_file(path: Path | None) -> str:
    """The digest of a file's bytes; '' for none."""
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def find_idle(options: TrainOptions) -> tuple[str, ...]:
    """A sentence for each option that does nothing beside the others."""
    found = []
    if options.image_weights and options.notest:
        found.append("image_weights go by the frequency of classes alone, since notest brings no scores to weigh by")
    if phases_of(options)[0].frozen and not options.weights:
        found.append("layers are frozen as they were drawn, since no weights are given to start from")
    if options.freeze_epochs >= options.epochs > 0:
        found.append(f"all {options.epochs} epochs have frozen layers: freeze_epochs is {options.freeze_epochs}")
    if 0 < options.nominal_batch < options.batch:
        found.append(f"nominal_batch {options.nominal_batch} gathers nothing: a batch has {options.batch} pictures")
    if options.sync_bn and len(devices_of(options.device)) == 1 and find_place() is None:
        found.append("sync_bn does nothing with a single process")
    return tuple(found)
