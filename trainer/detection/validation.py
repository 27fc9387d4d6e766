"""How well a model does on a split: after an epoch, or from a file of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.api import DataError
from trainer.detection.checkpoint import read_checkpoint
from trainer.detection.darknet import Darknet, load_model, parse_cfg, read_cfg
from trainer.detection.data import DataSpec, Split, find_data, load_split
from trainer.detection.detect import (
    CONFIDENCE,
    OVERLAP,
    Detections,
    detect_and_time,
    detect_with_latency,
    suitable_batch,
)
from trainer.detection.evaluate import Scores, score
from trainer.detection.precision import choose_precision
from trainer.detection.weights import load_weights

DARKNET_SIDE = 416  # of a cfg that states none: Darknet's own


def labels_by_picture(split: Split) -> list[np.ndarray]:
    """Per picture float32 [n, 5]: class, x1, y1, x2, y2 in pixels."""
    rows = np.column_stack([split.classes, split.boxes]).astype(np.float32)
    return np.split(rows, np.searchsorted(split.image_index, np.arange(1, len(split.sizes))))


def score_split(model: Darknet, split: Split, nc: int, dtype: torch.dtype = torch.float32) -> tuple[Scores, float]:
    """Score the model, as in evaluation mode, on every picture of a split; its convolutions compute in `dtype`.

    Also returns how long a picture took, in milliseconds (see `tell_latency`).
    """
    detections, latency_ms = detect_with_latency(model, split, dtype)
    return score(detections, labels_by_picture(split), nc), latency_ms


@dataclass(frozen=True, eq=False)
class Report:
    """What `validate` found: scores by class and overall, and the milliseconds a picture of each step.

    `pictures` is the split with its true boxes, `detections` what was found in each of its pictures.
    """

    weights: Path
    data: str
    split: str
    imgsz: int
    names: tuple[str, ...]
    scores: Scores
    milliseconds: Mapping[str, float]
    pictures: Split
    detections: Detections


@dataclass(frozen=True)
class Trained:
    """A model from a file. `names` are the classes it was trained on, None where the file does not say."""

    model: Darknet
    names: tuple[str, ...] | None
    spec: DataSpec
    data: str
    imgsz: int
    amp: str
    batch: int


def validate(
    weights: Path,
    *,
    data: str = "",
    model: str = "",
    split: str = "val",
    imgsz: int = 0,
    batch: int = 0,
    device: str = "cpu",
    conf: float = CONFIDENCE,
    iou: float = OVERLAP,
) -> Report:
    """Score a file of weights on a split.

    A checkpoint of ours brings model, data, image size and precision along; what is given here goes before. Other
    weights (see weights.load_weights) need `model` and `data`. Raises DataError.
    """
    _check(batch, device, conf, iou)
    trained = _open_weights(weights, data, model, imgsz)
    if trained.names is not None and trained.names != trained.spec.names:
        raise DataError(
            f"{weights} detects {_list(trained.names)}, but {trained.data} has {_list(trained.spec.names)}:"
            " both must have the same classes in the same order"
        )
    if trained.imgsz < 1 or trained.imgsz % trained.model.stride:
        raise DataError(f"imgsz must be a multiple of {trained.model.stride} for this model, got {trained.imgsz}")
    pictures = load_split(trained.spec, split, trained.imgsz)
    on = torch.device(device)
    trained.model.to(on).to(memory_format=torch.channels_last)
    amp = "off" if trained.amp == "fp16" and on.type == "cpu" else trained.amp
    few = min(trained.batch, suitable_batch(pictures, on))  # it may be timed, and the training's need not fit here
    precision = choose_precision(amp, trained.model, trained.imgsz, few, on)
    detections, milliseconds = detect_and_time(trained.model, pictures, precision.dtype, conf, iou, batch)
    scores = score(detections, labels_by_picture(pictures), trained.spec.nc)
    return Report(
        weights=weights,
        data=trained.data,
        split=split,
        imgsz=trained.imgsz,
        names=trained.spec.names,
        scores=scores,
        milliseconds=milliseconds,
        pictures=pictures,
        detections=detections,
    )


def _check(batch: int, device: str, conf: float, iou: float) -> None:
    if batch < 0:
        raise DataError(f"batch cannot be negative, got {batch}")
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise DataError(f"{name} must lie in [0, 1], got {value:g}")
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device '{device}' cannot be used: {str(error).splitlines()[0]}") from None


def _open_weights(weights: Path, data: str, model: str, imgsz: int) -> Trained:
    if not model and weights.suffix in (".pt", ".pth"):
        return _open_checkpoint(weights, data, imgsz)
    if weights.is_dir():
        raise DataError(f"{weights} is a folder, not a file of weights")
    if not model or not data:
        needed = (("model, the cfg that it was trained as,", model), ("data, what to score it on,", data))
        missing = " and ".join(name for name, value in needed if not value)
        raise DataError(f"{weights} is taken with a model of your own: {missing} must be given")
    cfg, spec = read_cfg(model), find_data(data)
    network = load_model(model, spec.nc)
    taken = load_weights(network, weights, cfg, anchors=True)
    if taken.left_out:
        raise DataError(f"{taken.summary()}: a model of {spec.nc} classes from {model} is not whole without these")
    side = imgsz or parse_cfg(cfg)[0].read_int("width", DARKNET_SIDE, low=1)
    return Trained(network.eval(), None, spec, data, side, amp="off", batch=1)


def _open_checkpoint(weights: Path, data: str, imgsz: int) -> Trained:
    content = read_checkpoint(weights)
    try:
        options: Mapping[str, Any] = content["options"]
        names = tuple(map(str, content["names"]))
        network = Darknet(parse_cfg(content["cfg"]), len(names), channels=3)
        network.load_state_dict(content["weights"])
        data, imgsz = data or str(options["data"]), imgsz or int(options["imgsz"])
        amp, batch = str(options.get("amp", "auto")), int(options["batch"])
        single = bool(options.get("single_cls"))
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, DataError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{weights} is no whole checkpoint of this trainer: {reason}") from None
    spec = find_data(data)
    return Trained(network.eval(), names, spec.as_single_class() if single else spec, data, imgsz, amp, batch)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} class{'es' if len(names) != 1 else ''} ({shown})"
