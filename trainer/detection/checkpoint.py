"""Checkpoints: the averaged weights of a training and what is needed to use them, replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from trainer.api import EpochMetrics, Hyp, TrainOptions
from trainer.detection.darknet import Darknet


def save_checkpoint(
    path: Path, model: Darknet, options: TrainOptions, hyp: Hyp, names: Sequence[str], metrics: EpochMetrics
) -> None:
    """Write weights (float32, on the CPU) with their options, hyp, class names, anchors and metrics.

    Only tensors and plain values go in, so that torch.load(path, weights_only=True) reads it back.
    """
    content: Mapping[str, object] = {
        "weights": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "anchors": [head.anchors.tolist() for head in model.heads],
        "names": list(names),
        "options": asdict(options),
        "hyp": dict(hyp),
        "metrics": {**asdict(metrics), "losses": dict(metrics.losses)},
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
