"""YOLO and Darknet label files: where an image's labels lie, and what stands in them, line by line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from trainer.api import DataError
from trainer.detection.data.labels import (
    TOLERANCE,
    BadLabel,
    Corners,
    Edges,
    Gathering,
    Labels,
    NoLabels,
    box_around,
    clip,
)
from trainer.detection.data.memo import Table, remembered
from trainer.detection.data.pictures import SUFFIXES
from trainer.detection.data.problems import Problem

IMAGE_FOLDERS = ("images", "JPEGImages")  # whose labels lie in a folder `labels` beside them, as in Darknet


@dataclass(frozen=True)
class YoloLabels:
    """Reads the .txt file of each picture; `nc` is the number of class names."""

    format: ClassVar[str] = "YOLO"
    nc: int
    _folders: dict[Path, Path] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, images: Sequence[Path], folder: Path) -> Sequence[Labels | NoLabels]:
        files = [self.source(image) for image in images]
        what = [self.format, self.nc, *map(str, files)]
        return remembered(what, files, folder, lambda: Table([self._read_file(file) for file in files])).labels

    def _read_file(self, file: Path) -> Labels | NoLabels:
        try:
            return read_labels(file, self.nc)
        except OSError as error:
            return NoLabels(file, "image dropped: its labels cannot be read", error.strerror or str(error))

    def source(self, image: Path) -> Path:
        folder = self._folders.get(image.parent)
        if folder is None:
            folder = self._folders[image.parent] = label_folder(image.parent)
        return folder / f"{image.stem}.txt"

    def strays(self, images: Sequence[Path]) -> tuple[Problem, ...]:
        return orphans({image.parent for image in images}, SUFFIXES)


def label_folder(image_folder: Path) -> Path:
    """The folder of the labels of the images in a folder: its last part `images` replaced by `labels`, or itself.

    It is itself, too, if the folder so named does not exist.
    """
    parts = image_folder.parts
    for i in reversed(range(len(parts))):
        if parts[i] in IMAGE_FOLDERS:
            folder = Path(*parts[:i], "labels", *parts[i + 1 :])
            return folder if folder.is_dir() else image_folder
    return image_folder


def read_labels(file: Path, nc: int) -> Labels:
    """What `file` says, a line being `class x y width height` (centre, in [0, 1]) or `class x1 y1 x2 y2 x3 y3 ...`.

    A polygon is kept, with its bounding box. Values up to TOLERANCE outside [0, 1] are accepted, and boxes are clipped
    to the picture. A line that cannot be right is left out and becomes a Problem, and so does the second of two lines
    that say the same. No file, or an empty one, is a picture with nothing on it. A class id beyond the names is not
    dirt but a mistake in the data set (the names are not those the labels were made with): DataError. Raises OSError if
    there is a file that cannot be read.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        content = b""
    gathering = Gathering(file, "label line")
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            class_id, box, polygon = _read_line(raw)
        except BadLabel as bad:
            gathering.drop(number, bad)
            continue
        if class_id >= nc:
            raise DataError(
                f"{file}:{number} has class id {class_id}, but names lists {nc} (ids 0 to {nc - 1}):"
                " add the name or mend the label"
            )
        gathering.add(class_id, box, polygon, number, f"line {number}")
    return gathering.labels()


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


def _read_line(raw: bytes) -> tuple[int, Edges, Corners | None]:
    try:
        fields = raw.decode().split()
    except UnicodeDecodeError:
        raise BadLabel("not UTF-8") from None
    if len(fields) < 5 or len(fields) % 2 == 0:
        raise BadLabel("neither 5 columns (a box) nor 7, 9, 11, ... (a polygon)", f"{len(fields)} columns")
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise BadLabel("not a number", _excerpt(fields)) from None
    if not all(map(math.isfinite, values)):
        raise BadLabel("not a finite number", _excerpt(fields))
    if not values[0].is_integer() or not 0 <= values[0] < 2**31:
        raise BadLabel("class id is no integer from 0", fields[0])
    coordinates = values[1:]
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in coordinates):
        raise BadLabel("outside [0, 1]", _excerpt(fields))
    if len(coordinates) == 4:
        x, y, width, height = coordinates
        edges = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        return int(values[0]), clip(edges, _excerpt(fields)), None
    corners = list(zip(coordinates[::2], coordinates[1::2], strict=True))
    return int(values[0]), clip(box_around(corners), _excerpt(fields)), corners


def _excerpt(fields: list[str]) -> str:
    return " ".join(fields[:6])[:60] + (" ..." if len(fields) > 6 else "")
