"""What one picture shows, whatever format says so: boxes, classes, polygons, and the rules for what cannot be right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from trainer.api import DataError
from trainer.detection.data.problems import Problem

TOLERANCE = 0.01  # how far outside [0, 1] a value may lie: converters are off by one pixel, which is this on 100 px
SMALLEST_SIDE = 1e-6  # of the picture; a thinner box has no area once it is float32 pixels
FEWEST_CORNERS = 3  # of a polygon
FARTHEST_PX = 1e9  # beyond any picture: files may state numbers of any size

Edges = tuple[float, float, float, float]
Corners = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Labels:
    """The boxes of one picture, as fractions of its width and height.

    `boxes` float64 [M, 4] xyxy in [0, 1], `classes` int64 [M]. `polygons`: M outlines, each float32 [k, 2] in [0, 1],
    or None where only the box is known; () means that none is. `stated_size` is the width and height in pixels that
    the labels claim for the picture, where they do.
    """

    boxes: np.ndarray
    classes: np.ndarray
    problems: tuple[Problem, ...]
    polygons: tuple[np.ndarray | None, ...] = ()
    stated_size: tuple[int, int] | None = None


class NoLabels(Exception):
    """What a picture shows is not known, so it must not count as background. `what` says what was done about it.

    Raised where one file is read, and returned where many are.
    """

    def __init__(self, file: Path, what: str, detail: str = "") -> None:
        super().__init__(f"{file}: {what}")
        self.file, self.what, self.detail = file, what, detail


class LabelReader(Protocol):
    """Where the labels of a split's pictures stand, in the format of this name."""

    @property
    def format(self) -> str: ...

    def read(self, images: Sequence[Path], folder: Path) -> Sequence[Labels | NoLabels]:
        """What each picture shows; `folder` is the cache's. Raises DataError for a class without a name."""

    def source(self, image: Path) -> Path | None:
        """The file that would hold this picture's labels, None if no file can."""

    def strays(self, images: Sequence[Path]) -> tuple[Problem, ...]:
        """Labels that belong to none of these pictures, and pictures beside them that nothing speaks of."""


@dataclass(frozen=True)
class KnownLabels:
    """Labels that were read when the data set was found, as for the formats whose class names stand in them."""

    format: str
    labels: Mapping[Path, Labels | NoLabels]
    files: Mapping[Path, Path]

    def read(self, images: Sequence[Path], folder: Path) -> Sequence[Labels | NoLabels]:
        missing = "image dropped: it has no annotation file"
        return [self.labels.get(image) or NoLabels(image, missing) for image in images]

    def source(self, image: Path) -> Path | None:
        return self.files.get(image)

    def strays(self, images: Sequence[Path]) -> tuple[Problem, ...]:
        return ()


def translate(labels: Labels | NoLabels, own: Sequence[str], names: Sequence[str], file: Path) -> Labels | NoLabels:
    """Class ids of the file's own names as ids of the data set's. Raises DataError for a class without a name there."""
    if isinstance(labels, NoLabels) or list(own) == list(names):
        return labels
    ids = np.array([names.index(name) if name in names else -1 for name in own], np.int64)[labels.classes]
    if (ids < 0).any():
        unknown = own[labels.classes[int(np.argmin(ids))]]
        known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise DataError(f"{file} has class {unknown!r:.80}, but names lists {known}: add it or mend the label")
    return dataclasses.replace(labels, classes=ids)


class BadLabel(Exception):
    """One label that cannot be right; `what` names the kind, `detail` what was found."""

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.what, self.detail = what, detail


class Gathering:
    """Collects the labels of one picture from its file, and a Problem for each that is left out."""

    def __init__(self, file: Path, noun: str) -> None:
        self.file, self.noun = file, noun
        self.problems: list[Problem] = []
        self._boxes: list[Edges] = []
        self._classes: list[int] = []
        self._polygons: list[np.ndarray | None] = []
        self._seen: dict[tuple[float, ...], str] = {}

    def add(self, class_id: int, box: Edges, polygon: Corners | None, line: int | None, place: str) -> None:
        """Takes a label whose box is sound; `place` names it for people, as in 'line 3'."""
        if (first := self._seen.get((class_id, *box))) is not None:
            where = first if line is not None else f"{place} and {first}"
            self.drop(line, BadLabel("says the same as another", where))
            return
        self._seen[(class_id, *box)] = place
        self._boxes.append(box)
        self._classes.append(class_id)
        self._polygons.append(None if polygon is None else np.array(polygon, np.float32).clip(0.0, 1.0))

    def drop(self, line: int | None, bad: BadLabel) -> None:
        self.problems.append(Problem(self.file, line, f"{self.noun} dropped: {bad.what}", bad.detail))

    def labels(self, stated_size: tuple[int, int] | None = None) -> Labels:
        return Labels(
            np.array(self._boxes, np.float64).reshape(-1, 4),
            np.array(self._classes, np.int64),
            tuple(self.problems),
            tuple(self._polygons) if any(polygon is not None for polygon in self._polygons) else (),
            stated_size,
        )


def box_around(corners: Corners) -> Edges:
    """The upright box around a polygon."""
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def clip(edges: Edges, shown: str) -> Edges:
    """The part of a box that lies in the picture. Raises BadLabel if that has no area; `shown` is the box as found."""
    x1, y1, x2, y2 = (min(max(edge, 0.0), 1.0) for edge in edges)
    if x2 - x1 < SMALLEST_SIDE or y2 - y1 < SMALLEST_SIDE:
        raise BadLabel("a box without area", shown)
    return x1, y1, x2, y2


def from_pixels(edges: Edges, size: tuple[int, int]) -> Edges:
    """A box xyxy in pixels of a picture of this width and height, as fractions of it. Raises BadLabel.

    What is refused is what a YOLO label would be refused for: a centre outside the picture, a side longer than its own.
    """
    shown = " ".join(f"{edge:g}" for edge in edges)
    if not all(map(math.isfinite, edges)):
        raise BadLabel("not a finite number", shown)
    x1, y1, x2, y2 = edges
    if x2 <= x1 or y2 <= y1:
        raise BadLabel("a box without area", shown)
    width, height = size
    for low, high, side in ((x1, x2, width), (y1, y2, height)):
        slack = max(TOLERANCE * side, 1.0)  # a pixel, where the picture has fewer than 100
        if not -slack <= (low + high) / 2 <= side + slack or high - low > side + slack:
            raise BadLabel("outside the picture", f"{shown} in {width} x {height}")
    return clip((x1 / width, y1 / height, x2 / width, y2 / height), shown)


def reaches_outside(boxes: Sequence[Edges], size: tuple[int, int]) -> bool:
    """Whether a box ends well outside a picture of this size, so that the size is likely not the picture's."""
    width, height = size
    return any(
        x2 > width + max(TOLERANCE * width, 1.0) or y2 > height + max(TOLERANCE * height, 1.0)
        for _, _, x2, y2 in boxes
        if math.isfinite(x2) and math.isfinite(y2)
    )
