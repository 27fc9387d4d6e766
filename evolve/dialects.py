"""What a hyp says to another trainer: which of our names it knows, on which scale, and what it has no word for.

Ours are the names of the built-in core, which are YOLOv5's. Every other trainer is told by how it differs from it;
docs/formats.md says where the factors come from, and which of them are no more than a rule of thumb.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache

from evolve.config import ConfigError
from search_spaces import Hyp, Value, load_space
from search_spaces.space import as_number, shown
from trainer import TrainerError
from trainer.detection.recipe import YOLOV3_LOSS_SCALE, modernise

NEVER = math.nan  # equals no value
MOST_SHOWN = 60  # hyps in a message, and characters of each
BOX_SCALE_ULTRALYTICS = 150.0  # 7.5 is the default there, 0.05 here


@dataclass(frozen=True, eq=False)
class Dialect:
    """The hyps of one trainer, beside ours.

    `lacks` are ours that it has no word for, each with the value at which it trains anyway (NEVER: none). `adds` are
    its own that we have no word for, each with the value that changes nothing here; nothing reads the `unread`.
    `renamed` gives, of what both have, its name and what our 1 is there, where one of them differs. `flags` are ours
    that its command line takes. `space` is the search space with its names and defaults in the order of its files, and
    `own` what it has besides, or starts from otherwise where we are silent. An `open` one has more than stands here.
    `scales` tells a person how what is renamed was reckoned.
    """

    name: str
    title: str
    lacks: Mapping[str, Value] = field(default_factory=dict)
    adds: Mapping[str, Value] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    renamed: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    space: str | None = None
    own: Mapping[str, Value] = field(default_factory=dict)
    open: bool = False
    scales: str = ""

    @property
    def words(self) -> dict[str, tuple[str, float]]:
        """Ours that it knows: its name, and what our 1 is there."""
        known = (name for name in ours() if name not in self.lacks and name not in self.flags)
        return {name: self.renamed.get(name, (name, 1.0)) for name in known}

    @property
    def values(self) -> dict[str, Value]:
        """What it trains with where nothing is said, in the order of its files; empty where that is the model's own."""
        return {**load_space(self.space).defaults(), **self.own} if self.space else {}


# What only some trainers have, each with the value that is as good as none.
_LOSSES = {"box": NEVER, "cls": NEVER, "cls_pw": 1.0, "obj": NEVER, "obj_pw": 1.0, "anchor_t": NEVER, "fl_gamma": 0.0}
_WARMUP = {"warmup_momentum": NEVER, "warmup_bias_lr": NEVER}
_COLOURS = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
_SEVERAL = {"mixup": 0.0, "copy_paste": 0.0, "perspective": 0.0, "label_smoothing": 0.0}

EVOLVE = Dialect("evolve", "evolve", unread=frozenset({"iou_t"}))
YOLOV3 = Dialect(
    "yolov3",
    "YOLOv3 (ultralytics/yolov3, branch archive)",
    lacks={"lrf": 0.05, "warmup_epochs": 3.0, "warmup_momentum": 0.9, "warmup_bias_lr": 0.1, "anchor_t": NEVER}
    | {"mosaic": 1.0, "fliplr": 0.5, "flipud": 0.0, **_SEVERAL},
    adds={"iou_t": NEVER},
    unread=frozenset({"lrf"}),
    renamed={name: (its, YOLOV3_LOSS_SCALE) for name, its in (("box", "giou"), ("obj", "obj"), ("cls", "cls"))},
    space="yolov3",
    scales="YOLOv3's loss weights are 64 times ours, as it means over a batch; its obj does not grow with the picture",
)
YOLOV5 = Dialect(
    "yolov5",
    "YOLOv5 (v6.0 and later)",
    adds={"anchors": NEVER},
    unread=frozenset({"iou_t"}),
    flags=frozenset({"label_smoothing"}),
    space="yolov5",
)
YOLOV7 = Dialect(
    "yolov7",
    "YOLOv7",
    adds={"anchors": NEVER, "paste_in": 0.0, "loss_ota": 0},
    unread=frozenset({"iou_t"}),
    flags=frozenset({"label_smoothing"}),
    space="yolov7",
)
ULTRALYTICS = Dialect(
    "ultralytics",
    "Ultralytics",
    lacks={"cls_pw": 1.0, "obj": NEVER, "obj_pw": 1.0, "anchor_t": NEVER, "fl_gamma": 0.0, "label_smoothing": 0.0},
    adds={"cls_pw": 0.0, "dfl": NEVER, "bgr": 0.0, "cutmix": 0.0, "close_mosaic": 0, "optimizer": "AdamW"},
    renamed={"box": ("box", BOX_SCALE_ULTRALYTICS)},
    space="ultralytics",
    # Here mosaic stays to the end; 10, the default there, would leave a training of 10 epochs without any.
    own={"close_mosaic": 0, "warmup_bias_lr": 0.1},
    open=True,
    scales="Ultralytics' box is 150 times ours and its cls the same: a rule of thumb, as its losses are others",
)
MMDETECTION = Dialect(
    "mmdetection", "MMDetection 3", lacks={**_LOSSES, **_WARMUP, **_COLOURS, "mosaic": 0.0, **_SEVERAL}
)
TORCHVISION = Dialect(
    "torchvision",
    "torchvision's references/detection",
    lacks={**MMDETECTION.lacks, "lrf": NEVER, "warmup_epochs": NEVER}
    | {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0, "flipud": 0.0, "fliplr": 0.5},
)
DIALECTS = {
    dialect.name: dialect for dialect in (EVOLVE, YOLOV3, YOLOV5, YOLOV7, ULTRALYTICS, MMDETECTION, TORCHVISION)
}

DISPUTED = ("box", "cls", "cls_pw")
"""Hyps of one name that do not mean the same to evolve and to Ultralytics."""

_MARKS = (  # the first that a hyp has tells whose it is
    (ULTRALYTICS, ("dfl", "close_mosaic", "cutmix", "bgr")),
    (YOLOV7, ("paste_in", "loss_ota")),
    (YOLOV3, ("giou",)),
    (YOLOV5, ("iou_t",)),
    (EVOLVE, ("label_smoothing", "anchor_t", "obj", "obj_pw", "fl_gamma")),
)


@dataclass(frozen=True)
class Told:
    """A hyp in the words of another trainer.

    `lost` had no word there and changed the training; `idle` has none either, and would change nothing. `filled` are
    the trainer's own values, where nothing was said. `flags` are to be told on its command line.
    """

    hyp: Hyp
    lost: Mapping[str, Value] = field(default_factory=dict)
    idle: Mapping[str, Value] = field(default_factory=dict)
    filled: Mapping[str, Value] = field(default_factory=dict)
    flags: Mapping[str, Value] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, Value]:
        """The hyp without the trainer's own values."""
        return {name: value for name, value in self.hyp.items() if name not in self.filled}


def recognise(names: Collection[str]) -> tuple[Dialect, str] | None:
    """Whose hyp has these names, and the one that tells it; None where all of them stand in several trainers' hyps."""
    for dialect, marks in _MARKS:
        for mark in marks:
            if mark in names:
                early = mark == "giou" and "anchor_t" in names  # YOLOv5 up to v3.0
                return (YOLOV5 if early else dialect), mark
    return None


def translate(hyp: Hyp, of: Dialect, to: Dialect, also: Mapping[str, Value] | None = None) -> Told:
    """A hyp of one trainer in the words of another; in those of the same one, completed if its files have to be whole.

    `also` is what is known beside the hyp, in the words of `to`. Raises ConfigError for a value that cannot be scaled.
    """
    if of is to:
        return _complete(hyp, to, also or {}, fill=not to.open)
    meant, lost, idle = _to_ours(hyp, of)
    told = _from_ours(meant, to, also or {})
    return Told(told.hyp, {**lost, **told.lost}, {**idle, **told.idle}, told.filled, told.flags)


def say_lost(told: Told, title: str) -> list[str]:
    """A warning of what has no equivalent; none where that is nothing."""
    return [f"{title} has no equivalent of {pairs(told.lost)}: left out"] if told.lost else []


def pairs(values: Mapping[str, Value]) -> str:
    """'obj 1.2, anchor_t 4'."""
    told = [
        f"{_short(name)} {f'{value:g}' if isinstance(value, float) else _short(value)}"
        for name, value in values.items()
    ]
    return ", ".join(told[:MOST_SHOWN]) + (f" and {len(told) - MOST_SHOWN} more" if len(told) > MOST_SHOWN else "")


def _short(value: Value) -> str:
    text = str(value)
    return text if text.isprintable() and len(text) <= MOST_SHOWN else shown(text)


def as_float(name: str, value: Value) -> float:
    """The number that a hyp is. Raises ConfigError where it is none."""
    number = as_number(value)
    if number is None:
        raise ConfigError(f"{name} is {shown(value)}; a number belongs there")
    return float(number)


def as_whole(name: str, value: Value) -> int:
    """The whole number that a hyp is. Raises ConfigError where it is none."""
    number = as_float(name, value)
    if not number.is_integer():
        raise ConfigError(f"{name} is {shown(value)}; a whole number belongs there")
    return int(number)


@cache
def ours() -> tuple[str, ...]:
    """The names of the built-in core's hyps, in their order."""
    return load_space("detection").order


def _to_ours(hyp: Hyp, of: Dialect) -> tuple[dict[str, Value], dict[str, Value], dict[str, Value]]:
    """What a trainer's hyp says in our words; what has none, and what has none and changes nothing."""
    if "giou" in hyp and "box" not in hyp and of is not YOLOV3:
        hyp = {"box" if name == "giou" else name: value for name, value in hyp.items()}
    meant = {its: (our, factor) for our, (its, factor) in of.words.items()} | {name: (name, 1.0) for name in of.flags}
    said = {name: value for name, value in hyp.items() if name in meant}
    unsaid = {name: value for name, value in hyp.items() if name not in meant}
    idle = {name: value for name, value in unsaid.items() if name in of.unread or of.adds.get(name, NEVER) == value}
    lost = {name: value for name, value in unsaid.items() if name not in idle}
    found: dict[str, Value]
    if of is YOLOV3:
        found = {**_modern({name: as_float(name, value) for name, value in said.items()})}
    else:
        found = {meant[name][0]: _unscaled(name, value, meant[name][1]) for name, value in said.items()}
    return {name: found[name] for name in ours() if name in found}, lost, idle


def _from_ours(hyp: Hyp, to: Dialect, also: Mapping[str, Value]) -> Told:
    words = to.words
    said = {words[name][0]: _scaled(name, value, words[name][1]) for name, value in hyp.items() if name in words}
    flags = {name: value for name, value in hyp.items() if name in to.flags}
    unsaid = {name: value for name, value in hyp.items() if name not in words and name not in flags}
    idle = {name: value for name, value in unsaid.items() if to.lacks.get(name, NEVER) == value}
    lost = {name: value for name, value in unsaid.items() if name not in idle}
    told = _complete(said, to, also)
    return Told(told.hyp, lost, idle, told.filled, {name: value for name, value in flags.items() if value})


def _complete(hyp: Hyp, to: Dialect, also: Mapping[str, Value], *, fill: bool = True) -> Told:
    """A trainer's own hyp, in the order of its files, if asked with the values that it takes for what is missing."""
    own = to.values
    known = {name: value for name, value in also.items() if name in own and name not in hyp}
    filled = {name: value for name, value in own.items() if fill and name not in hyp and name not in known}
    whole = {**filled, **known, **hyp}
    order = [*own, *(name for name in hyp if name not in own)]
    more = {name for name in hyp if name not in own and own and not to.open and name not in to.adds}
    flags = {name: value for name, value in hyp.items() if name in more & to.flags and value}
    lost = {name: value for name, value in hyp.items() if name in more - to.flags}
    return Told({name: whole[name] for name in order if name in whole and name not in more}, lost, {}, filled, flags)


def _modern(hyp: Mapping[str, float]) -> dict[str, float]:
    try:
        return modernise(hyp)
    except TrainerError as error:
        raise ConfigError(str(error)) from None


def _scaled(name: str, value: Value, factor: float) -> Value:
    return value if factor == 1.0 else as_float(name, value) * factor


def _unscaled(name: str, value: Value, factor: float) -> Value:
    return value if factor == 1.0 else as_float(name, value) / factor
