"""What was trained before: the hyps and their fitness in the files that YOLO trainers, tuners and our studies leave."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces import Hyp, SpaceError, load_hyp, read_scalar
from search_spaces.space import as_number, read_value
from studies.errors import StudyError
from studies.persistence import TRIAL_COLUMNS


@dataclass(frozen=True)
class Earlier:
    """A hyp in the names of whoever trained it, and how fit it was there: None where nothing says it.

    `label` tells where it stands. `noted` is what an Optuna trial told of it beside its values.
    """

    hyp: Hyp
    fitness: float | None
    label: str
    values: tuple[float, ...] = ()
    noted: Mapping[str, Any] = field(default_factory=dict)


def read_earlier(path: Path) -> tuple[list[Earlier], int]:
    """The results in that file, in its order, and how many of its lines could not be read.

    By its suffix it is a hyp file (.yaml, .yml), an evolve.txt or hyp*.txt of YOLOv3, YOLOv5 up to v5.0 or YOLOv7
    (.txt), an evolve.csv of YOLOv5 or ours, or Ultralytics' tune_results (.csv, .ndjson). A fitness of 0 is how those
    trainers write down a training that failed: it is left out, as is what is no number. Raises StudyError, SpaceError
    and OSError where nothing is left.
    """
    if path.suffix in (".yaml", ".yml"):
        return [Earlier(load_hyp(path), None, path.name)], 0
    if path.suffix not in _READERS:
        known = "a hyp.yaml, an evolve.txt, an evolve.csv or a tune_results.ndjson"
        raise StudyError(f"{path} is none of the files that can be read: {known}")
    try:
        rows = list(_READERS[path.suffix](path.read_text(encoding="utf-8-sig", errors="replace")))
    except StudyError as error:
        raise StudyError(f"{path} {error}") from None
    told = [(number, row) for number, row in enumerate(rows, start=1) if row is not None]
    found = [
        Earlier(hyp, fitness, f"{path.name}, result {number}")
        for number, (hyp, fitness) in told
        if fitness is None or fitness > 0
    ]
    if not found:
        raise StudyError(
            f"{path} holds no training that succeeded: {len(rows)} lines, {len(rows) - len(told)} unreadable"
        )
    return found, len(rows) - len(told)


Row = tuple[Hyp, float | None]

# The order in which an evolve.txt holds hyps behind seven results. ultralytics/yolov3, branch archive: train.py;
# YOLOv5 v1.0: train.py, v3.0 and v5.0: data/hyp.scratch.yaml; YOLOv7: data/hyp.scratch.p5.yaml.
_COLOURS_AND_WARP = "hsv_h hsv_s hsv_v degrees translate scale shear"
YOLOV3 = f"giou cls cls_pw obj obj_pw iou_t lr0 lrf momentum weight_decay fl_gamma {_COLOURS_AND_WARP}".split()
YOLOV5_V1 = f"lr0 momentum weight_decay giou cls cls_pw obj obj_pw iou_t anchor_t fl_gamma {_COLOURS_AND_WARP}".split()
YOLOV5_V3 = [*YOLOV5_V1, "perspective", "flipud", "fliplr", "mixup"]
YOLOV5_V5 = (
    "lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw iou_t "
    f"anchor_t fl_gamma {_COLOURS_AND_WARP} perspective flipud fliplr mosaic mixup"
).split()
LATER = ["copy_paste", "paste_in", "loss_ota"]  # by YOLOv5 after v5.0 and YOLOv7, which has all three
RESULTS = 7  # precision, recall, mAP50, mAP50-95 (YOLOv3: F1), three losses
LEAST_ANCHORS = 2  # of the gene `anchors`; no other that stands in its place gets there
AFTER_ANCHOR_T = YOLOV5_V5.index("anchor_t") + 1


def hyp_of_numbers(values: Sequence[float]) -> dict[str, float] | None:
    """The hyp in a hyp*.txt of YOLOv3 or YOLOv5 v1.0, which holds 18 values; None of any other number of them."""
    names = _names([values]) if len(values) == len(YOLOV3) else None
    return dict(zip(names, values, strict=True)) if names else None


def _read_txt(text: str) -> Iterator[Row | None]:
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    rows = [_numbers(line) for line in lines if line]
    if all(row is not None and len(row) == 1 for row in rows):
        hyp = hyp_of_numbers([row[0] for row in rows if row])
        if hyp is not None:
            return iter([(hyp, None)])
    widths = Counter(len(row) for row in rows if row is not None)
    width = max(widths, key=lambda width: widths[width], default=0)
    usual = [row for row in rows if row is not None and len(row) == width]
    names = _names([row[RESULTS:] for row in usual])
    if names is None:
        expected = "7 results and the 18, 22 or 27 to 31 hyps of YOLOv3, YOLOv5 or YOLOv7"
        raise StudyError(f"is no evolve.txt: expected {expected} in a line, got {width} numbers")
    return ((_named(row, names) if row is not None and len(row) == width else None) for row in rows)


def _named(row: Sequence[float], names: Sequence[str]) -> Row:
    """Fitness as the trainer that wrote it reckons: YOLOv3 by mAP50 and recall, YOLOv5 and YOLOv7 by both mAPs."""
    _, recall, map50, fourth = row[:4]
    fitness = 0.01 * recall + 0.99 * map50 if names == YOLOV3 else 0.1 * map50 + 0.9 * fourth
    return dict(zip(names, row[RESULTS:], strict=True)), fitness


def _names(rows: Sequence[Sequence[float]]) -> list[str] | None:
    """What rows of so many values are; None if that is not known."""
    width = len(rows[0]) if rows else 0
    if width == len(YOLOV3):
        ratios = all(row[YOLOV5_V1.index("anchor_t")] >= 1 for row in rows)  # where YOLOv3 has its weight decay
        return YOLOV5_V1 if ratios else YOLOV3
    if width == len(YOLOV5_V3):
        return YOLOV5_V3
    names, extra = list(YOLOV5_V5), width - len(YOLOV5_V5)
    if extra > 0 and all(row[AFTER_ANCHOR_T] >= LEAST_ANCHORS for row in rows):
        names.insert(AFTER_ANCHOR_T, "anchors")
        extra -= 1
    elif extra > 0 and all(row[-1] >= LEAST_ANCHORS for row in rows):
        return [*names, *LATER[: extra - 1], "anchors"] if extra <= len(LATER) + 1 else None
    return [*names, *LATER[:extra]] if 0 <= extra <= len(LATER) else None


def _read_csv(text: str) -> Iterator[Row | None]:
    try:
        header, *lines = csv.reader(line for line in text.splitlines() if line.strip())
    except (ValueError, csv.Error):
        raise StudyError("is no table") from None
    columns = [name.strip() for name in header]
    weights, aside = _scored_by(columns)
    names = [name for name in columns if name not in aside and "/" not in name]
    for line in lines:
        cells = dict(zip(columns, (cell.strip() for cell in line), strict=False))
        if cells.get("state", "COMPLETE") == "COMPLETE":
            yield _row(cells, names, weights) if len(line) == len(columns) else None


def _scored_by(columns: Sequence[str]) -> tuple[Mapping[str, float], Sequence[str]]:
    """The columns whose weighted sum is the fitness, and those that hold no hyp."""
    if {"trial", "state", "fitness"} <= set(columns):
        return {"fitness": 1.0}, TRIAL_COLUMNS
    if "fitness" in columns:
        return {"fitness": 1.0}, ("fitness",)
    for of_boxes in ("", "(B)"):  # where masks are scored too
        weights = {f"metrics/mAP_0.5{of_boxes}": 0.1, f"metrics/mAP_0.5:0.95{of_boxes}": 0.9}
        if weights.keys() <= set(columns):
            return weights, ()
    raise StudyError("is no table of an evolution: it has no column 'fitness' and none 'metrics/mAP_0.5:0.95'")


def _row(cells: Mapping[str, str], names: Sequence[str], weights: Mapping[str, float]) -> Row | None:
    try:
        fitness = math.fsum(weight * float(cells[name]) for name, weight in weights.items())
        hyp = {name: read_scalar(cells[name]) for name in names}
    except (ValueError, SpaceError):
        return None
    return (hyp, fitness) if math.isfinite(fitness) else None


def _read_ndjson(text: str) -> Iterator[Row | None]:
    for line in text.splitlines():
        if line.strip():
            yield _record(line)


def _record(line: str) -> Row | None:
    """A line of Ultralytics' tuner: {"iteration": ..., "fitness": ..., "hyperparameters": {...}, ...}."""
    try:
        record = json.loads(line)
        hyp = {name: read_value(name, value) for name, value in record["hyperparameters"].items()}
        fitness = float(record["fitness"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, SpaceError):
        return None
    return (hyp, fitness) if hyp and math.isfinite(fitness) else None


_READERS: Mapping[str, Callable[[str], Iterator[Row | None]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".ndjson": _read_ndjson,
    ".jsonl": _read_ndjson,
}


def _numbers(words: Sequence[str]) -> list[float] | None:
    """The finite numbers that they are; None if one is not."""
    numbers = [as_number(word) for word in words]
    found = [float(number) for number in numbers if number is not None]
    return found if len(found) == len(words) and all(map(math.isfinite, found)) else None
