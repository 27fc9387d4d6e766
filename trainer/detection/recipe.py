"""Recipe: the hyps that the built-in core understands, typed, with the defaults of YOLOv5 v7.0 (hyp.scratch-low)."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from trainer.api import Hyp, TrainerError, Value


@dataclass(frozen=True)
class Recipe:
    """One training's hyperparameters. Names and meanings are YOLOv5's; gains are stored unscaled (see loss.py).

    Rates and shares lie in [0, 1]; `degrees` and `shear` are degrees, `translate` and `scale` shares of the picture,
    `warmup_epochs` is counted in epochs of a run of 30 or more and shrinks in proportion with shorter ones.
    """

    lr0: float = 0.01
    lrf: float = 0.01
    momentum: float = 0.937
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    box: float = 0.05
    cls: float = 0.5
    cls_pw: float = 1.0
    obj: float = 1.0
    obj_pw: float = 1.0
    anchor_t: float = 4.0
    fl_gamma: float = 0.0
    label_smoothing: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0

    @classmethod
    def from_hyp(cls, hyp: Hyp) -> Recipe:
        """Type a hyp; absent names keep their defaults. TrainerError for a name or a value that makes no sense.

        A hyp with `giou` is one of older trainers (see `modernise`).
        """
        return cls(**translate(hyp))


def translate(hyp: Hyp) -> dict[str, float]:
    """A hyp in today's names, without those that nothing reads. TrainerError as `Recipe.from_hyp`."""
    checked = {name: check_value(name, value) for name, value in hyp.items()}
    modern = modernise(checked) if "giou" in checked else checked
    return {name: value for name, value in modern.items() if name not in UNREAD}


def complete(hyp: Hyp) -> dict[str, float]:
    """All hyps of a training that is given these: in today's names, with the defaults; what nothing reads stays."""
    unread = {name: check_value(name, hyp[name]) for name in sorted(UNREAD & hyp.keys())}
    return {**asdict(Recipe.from_hyp(hyp)), **unread}


def adopt(hyp: Hyp) -> dict[str, float]:
    """What a hyp of any YOLO trainer says to this core: `translate` of the names that mean the same here.

    What is not known here is left out. So are the weights of Ultralytics' losses, told by their `dfl`: these are other
    losses on another scale, and its `cls_pw` is a power of the classes' frequencies.
    """
    other = {"box", "cls", "cls_pw"} if "dfl" in hyp else set()
    return translate({name: value for name, value in hyp.items() if name in HYPS - other})


def check_value(name: str, value: Value) -> float:
    """The value of a hyp as a float, or TrainerError."""
    if name not in HYPS:
        raise TrainerError(f"the built-in core knows no hyp '{name}'{did_you_mean(name)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise TrainerError(f"{name}: expected a finite number, got {value!r:.60}")
    low, high = LIMITS.get(name, (0.0, math.inf))
    if not low <= value <= high:
        raise TrainerError(f"{name}: {value} lies outside [{low:g}, {high:g}], where it has a meaning")
    return float(value)


def modernise(hyp: Mapping[str, float]) -> dict[str, float]:
    """An older trainer's hyp, which calls `box` `giou`, in today's names and on today's scale.

    YOLOv5 v1.0 to v3.0 only had the other name; those hyps have an `anchor_t`. ultralytics/yolov3 (branch archive),
    which has none, took the losses as means where YOLOv5 multiplies them by the batch, so that its gains are 64 times
    as large (its nominal batch; both then scale `cls` by classes / 80). It read no `lrf`, its cosine ended at 5 % of
    `lr0`, and its warm-up began at a momentum of 0.9. That it loses on GIoU and weighs all heads alike is not mirrored.
    """
    if "box" in hyp:
        raise TrainerError("'box' and 'giou' are the same weight, on different scales: give one of them")
    renamed = {"box" if name == "giou" else name: value for name, value in hyp.items()}
    if "anchor_t" in hyp:
        return renamed
    scaled = {name: renamed[name] / YOLOV3_LOSS_SCALE for name in ("box", "obj", "cls") if name in renamed}
    return {"warmup_momentum": 0.9} | renamed | scaled | {"lrf": 0.05}


YOLOV3_LOSS_SCALE = 64.0

# What hyp files hold and no training reads: iou_t was the overlap of box and anchor that matched, before anchor_t.
UNREAD = frozenset({"iou_t"})
HYPS = frozenset(field.name for field in fields(Recipe)) | UNREAD | {"giou"}

# Where a hyp has a meaning at all: far wider than any search space. What is not named here is any number >= 0.
LIMITS: Mapping[str, tuple[float, float]] = {
    "lrf": (0.0, 1.0),
    "momentum": (0.0, 0.9999),
    "warmup_momentum": (0.0, 0.9999),
    "iou_t": (0.0, 1.0),
    "anchor_t": (1.0, math.inf),
    "label_smoothing": (0.0, 0.999),
    "hsv_h": (0.0, 1.0),
    "hsv_s": (0.0, 1.0),
    "hsv_v": (0.0, 1.0),
    "degrees": (0.0, 180.0),
    "translate": (0.0, 1.0),
    "scale": (0.0, 0.99),
    "shear": (0.0, 80.0),
    "perspective": (0.0, 0.01),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
}


def did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, HYPS, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
