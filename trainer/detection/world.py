"""The world of a study: the pictures that all its trainings share, what is scored, the anchors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from trainer.api import DataError, Prepared, TrainOptions
from trainer.detection.anchors import fit_anchors
from trainer.detection.augment import Pictures
from trainer.detection.darknet import load_model, read_cfg
from trainer.detection.data import DataSpec, Split, find_data, load_split, summarise
from trainer.detection.distributed import check_team
from trainer.detection.optimizer import check_names
from trainer.detection.validation import labels_by_picture


@dataclass(frozen=True)
class World:
    """What all trainings of a study share. `cfg` is the model's text, `anchors` are those fitted to the data."""

    spec: DataSpec
    cfg: str
    training: Split
    pictures: Pictures
    scored: Split
    anchors: np.ndarray
    prepared: Prepared


def check_options(options: TrainOptions) -> None:
    """DataError for options that no training could run with."""
    check_names(options.optimizer, options.schedule)
    for name in ("epochs", "imgsz", "batch"):
        if getattr(options, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(options, name)}")
    for name in ("seed", "threads", "freeze_epochs", "freeze_batch", "nominal_batch"):
        if getattr(options, name) < 0:
            raise DataError(f"{name} cannot be negative, got {getattr(options, name)}")
    if options.cache not in ("disk", "none"):
        raise DataError(f"cache is disk or none, not '{options.cache}'")
    if options.rect and options.multi_scale:
        raise DataError("rect and multi_scale exclude one another: one keeps the shape of pictures, one varies it")
    if options.rect and options.image_weights:
        raise DataError("rect and image_weights exclude one another: one fixes which pictures come together, one draws")
    check_team(options)


def open_world(options: TrainOptions) -> World:
    """Load what a study's trainings share. Raises DataError."""
    spec = find_data(options.data)
    cfg = read_cfg(options.model)
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
    prepared = Prepared(digest, summary, tuple(summarise(problems).splitlines()))
    return World(spec, cfg, training, pictures, scored, anchors, prepared)
