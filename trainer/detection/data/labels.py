"""YOLO label files: where an image's labels lie, and what stands in them, line by line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.api import DataError
from trainer.detection.data.problems import Problem

TOLERANCE = 0.01  # how far outside [0, 1] a value may lie: converters are off by one pixel, which is this on 100 px
SMALLEST_SIDE = 1e-6  # of the picture; a thinner box has no area once it is float32 pixels


@dataclass(frozen=True)
class Labels:
    """The boxes of one image: float64 [M, 4] xyxy in [0, 1] of the picture's width and height, classes int64 [M]."""

    boxes: np.ndarray
    classes: np.ndarray
    problems: tuple[Problem, ...]


def label_folder(image_folder: Path) -> Path:
    """The folder of the labels of the images in a folder: its last part `images` replaced by `labels`, or itself.

    It is itself, too, if the folder so named does not exist.
    """
    parts = image_folder.parts
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            folder = Path(*parts[:i], "labels", *parts[i + 1 :])
            return folder if folder.is_dir() else image_folder
    return image_folder


def read_labels(file: Path, nc: int) -> Labels:
    """What `file` says, a line being `class x y width height` (centre, in [0, 1]) or `class x1 y1 x2 y2 x3 y3 ...`.

    A polygon becomes its bounding box. Values up to TOLERANCE outside [0, 1] are accepted, and boxes are clipped to the
    picture. A line that cannot be right is left out and becomes a Problem, and so does the second of two lines that say
    the same. No file, or an empty one, is a picture with nothing on it. A class id beyond the names is not dirt but a
    mistake in the data set (the names are not those the labels were made with): DataError. Raises OSError if there is a
    file that cannot be read.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        content = b""
    boxes: list[tuple[float, float, float, float]] = []
    classes: list[int] = []
    problems: list[Problem] = []
    seen: dict[tuple[float, ...], int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            class_id, box = _read_line(raw)
        except _BadLine as bad:
            problems.append(Problem(file, number, f"label line dropped: {bad.what}", bad.detail))
            continue
        if class_id >= nc:
            raise DataError(
                f"{file}:{number} has class id {class_id}, but names lists {nc} (ids 0 to {nc - 1}):"
                " add the name or mend the label"
            )
        first = seen.setdefault((class_id, *box), number)
        if first != number:
            problems.append(Problem(file, number, "label line dropped: says the same as another", f"line {first}"))
            continue
        classes.append(class_id)
        boxes.append(box)
    return Labels(np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64), tuple(problems))


def orphans(image_folders: Iterable[Path], suffixes: Iterable[str]) -> tuple[Problem, ...]:
    """A Problem for each label file in a `labels` folder that has no image beside it in the `images` folder."""
    endings = frozenset(suffixes)
    problems = []
    for folder in sorted(set(image_folders)):
        labels = label_folder(folder)
        if labels == folder or not folder.is_dir():
            continue  # .txt files beside images may be anything
        images = {stem for stem, ending in map(os.path.splitext, os.listdir(folder)) if ending.lower() in endings}
        for file in sorted(labels.glob("*.txt")):
            if file.stem not in images and file.name != "classes.txt":  # labelImg leaves the names there
                problems.append(Problem(file, None, "label file without an image"))
    return tuple(problems)


class _BadLine(Exception):
    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.what, self.detail = what, detail


def _read_line(raw: bytes) -> tuple[int, tuple[float, float, float, float]]:
    try:
        fields = raw.decode().split()
    except UnicodeDecodeError:
        raise _BadLine("not UTF-8") from None
    if len(fields) < 5 or len(fields) % 2 == 0:
        raise _BadLine("neither 5 columns (a box) nor 7, 9, 11, ... (a polygon)", f"{len(fields)} columns")
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise _BadLine("not a number", _excerpt(fields)) from None
    if not all(map(math.isfinite, values)):
        raise _BadLine("not a finite number", _excerpt(fields))
    if not values[0].is_integer() or not 0 <= values[0] < 2**31:
        raise _BadLine("class id is no integer from 0", fields[0])
    coordinates = values[1:]
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in coordinates):
        raise _BadLine("outside [0, 1]", _excerpt(fields))
    if len(coordinates) == 4:
        x, y, width, height = coordinates
        edges = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        xs, ys = coordinates[::2], coordinates[1::2]
        edges = min(xs), min(ys), max(xs), max(ys)
    x1, y1, x2, y2 = (min(max(edge, 0.0), 1.0) for edge in edges)
    if x2 - x1 < SMALLEST_SIDE or y2 - y1 < SMALLEST_SIDE:
        raise _BadLine("a box without area", _excerpt(fields))
    return int(values[0]), (x1, y1, x2, y2)


def _excerpt(fields: list[str]) -> str:
    return " ".join(fields[:6])[:60] + (" ..." if len(fields) > 6 else "")
