"""Checkpoints: the weights of a training, where they came from, and what is needed to go on; replaced atomically.

A checkpoint is a dict of tensors and plain values, so that torch.load(path, weights_only=True) reads it:

    weights   the averaged model's state_dict, float32        cfg, names     the model's text, the class names
    hyp, options, digest      recipe: the hyps with defaults   metrics        of the epoch that these weights are of
    provenance   versions and commit                          training       what resuming needs (see `strip`)
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trainer.api import DataError, EpochMetrics, TrainJob
from trainer.detection.darknet import Darknet
from trainer.detection.data.cache import replacing
from trainer.detection.provenance import find_provenance
from trainer.detection.recipe import Recipe
from trainer.messages import metrics_to_dict


def describe(
    model: Darknet, job: TrainJob, recipe: Recipe, *, cfg: str, names: tuple[str, ...], digest: str
) -> dict[str, Any]:
    """All of a checkpoint that stays the same over a training."""
    return {
        "cfg": cfg,
        "names": list(names),
        "anchors": [head.anchors.tolist() for head in model.heads],
        "hyp": dict(job.hyp),
        "recipe": asdict(recipe),
        "options": {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(job.options).items()
        },
        "digest": digest,
        "provenance": find_provenance(),
    }


def save_checkpoint(
    path: Path,
    described: Mapping[str, Any],
    averaged: Darknet,
    metrics: EpochMetrics | None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write the averaged weights (float32, on the CPU); with `training` the checkpoint can be resumed from."""
    content = {
        **described,
        "weights": {name: tensor.detach().cpu() for name, tensor in averaged.state_dict().items()},
        "metrics": None if metrics is None else metrics_to_dict(metrics),
    }
    write_checkpoint(path, content if training is None else {**content, "training": dict(training)})


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file at `path`, all or nothing."""
    with replacing(path) as file:
        torch.save(dict(content), file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU. Raises DataError for what is none; runs no code that a file may bring."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"checkpoint {path} cannot be read: {error.strerror or error}") from None
    try:
        with file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        # What torch says of it goes over many lines, and ends in advice to load it unsafely.
        raise DataError(f"{path} is no checkpoint of this trainer: it is broken, or no file of torch") from None
    if not isinstance(content, dict) or not {"weights", "cfg", "names", "options", "hyp"} <= content.keys():
        raise DataError(f"{path} is no checkpoint of this trainer: it lacks weights, cfg, names, options or hyp")
    return content


def read_training(path: Path) -> dict[str, Any]:
    """A checkpoint that can be resumed from. Raises DataError where there is none or it is of a finished training."""
    if not path.exists():
        raise DataError(f"there is nothing to resume: {path} does not exist")
    content = read_checkpoint(path)
    if "training" not in content:
        raise DataError(f"{path} is of a finished training, which has nothing left to resume; start from it by weights")
    return content


def strip(path: Path) -> None:
    """Drop from a finished training's checkpoint what only resuming needs: most of its size."""
    content = read_checkpoint(path)
    if content.pop("training", None) is not None:
        write_checkpoint(path, content)
