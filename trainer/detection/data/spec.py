"""A data set as it was found: class names, the image files of each split, and who reads their labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.api import DataError
from trainer.detection.data.labels import LabelReader
from trainer.detection.data.problems import Problem
from trainer.detection.data.yolo import YoloLabels

SPLITS = ("train", "val", "test")
ONE_CLASS = "object"  # the name when all classes are taken for one
VAL_SHARE = 0.2  # of a data set that states no splits


@dataclass(frozen=True)
class DataSpec:
    """A data set: the file or folder it came from, its class names in order of class id, the image files of each split.

    `splits` holds 'train' and 'val', and 'test' where there is one; each is sorted, without repetitions. `readers`
    reads the labels of a split; where it has none they are YOLO's. `problems` are those found on the way, by split.
    `single_class` takes every label for class 0, whatever class its file says.
    """

    path: Path | None
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]
    readers: Mapping[str, LabelReader] = field(default_factory=dict, repr=False, compare=False)
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict, repr=False, compare=False)
    single_class: bool = False

    def __post_init__(self) -> None:
        for name in self.names:
            try:
                name.encode()
            except UnicodeEncodeError:  # bytes of another encoding, or half of a surrogate pair
                raise DataError(f"{self.path} has the class name {name!r:.80}, which is no UTF-8 text") from None

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    def reader(self, split: str) -> LabelReader:
        """Who reads the labels of a split."""
        return self.readers.get(split) or YoloLabels(self.nc)

    def as_single_class(self) -> DataSpec:
        """The same data set with all its classes taken for one."""
        if self.single_class:
            return self
        names = self.names if self.nc == 1 else (ONE_CLASS,)
        readers = {split: self.reader(split) for split in self.splits}  # they go by the names that the labels know
        return dataclasses.replace(self, names=names, readers=readers, single_class=True)


def draw_splits(files: Sequence[Path], source: Path) -> tuple[dict[str, tuple[Path, ...]], Problem]:
    """Splits for a data set that states none: VAL_SHARE of the pictures, drawn by their names, is val, the rest train.

    The draw depends on each file's own name only: it is the same everywhere, and a new picture moves hardly another.
    """
    if len(files) < 2:
        raise DataError(
            f"{source} states no splits and has {len(files)} picture, expected at least 2 to draw them from"
        )

    def draw(file: Path) -> tuple[bytes, Path]:
        return hashlib.blake2b(file.name.encode(errors="surrogateescape"), digest_size=8).digest(), file

    drawn = sorted(files, key=draw)
    n_val = max(1, round(VAL_SHARE * len(files)))
    splits = {"train": tuple(sorted(drawn[n_val:])), "val": tuple(sorted(drawn[:n_val]))}
    what = f"no splits are stated: {VAL_SHARE:.0%} of the pictures, drawn by their names, are val"
    return splits, Problem(source, None, what, f"{n_val} of {len(files)}")
