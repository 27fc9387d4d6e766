"""One split of a data set, ready to train on: pictures, boxes and what was wrong with them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.api import DataError
from trainer.detection.data.cache import (
    Cached,
    Images,
    cache_folder,
    cached_pictures,
    decoded_on_demand,
    hash_files,
)
from trainer.detection.data.labels import LabelReader, Labels, NoLabels
from trainer.detection.data.pictures import fit
from trainer.detection.data.problems import Problem
from trainer.detection.data.spec import DataSpec

CACHES = ("disk", "none")


@dataclass(frozen=True)
class Split:
    """N pictures with M boxes.

    `images` uint8 [N, imgsz, imgsz, 3] RGB, read-only and memory-mapped, or decoded whenever they are read (see
    DecodedOnDemand): the picture, its long side `imgsz`, at the top left, grey 114 elsewhere. `sizes` int32 [N, 2]:
    width and height of the picture in its square. `boxes` float32 [M, 4]: xyxy in pixels of that picture. `classes`
    int64 [M]. `image_index` int64 [M], ascending: whose box it is. `files`: the N image files, `file_digests` what is
    the same for two of them if and only if their bytes are. `polygons`: M outlines, each float32 [k, 2] in pixels of
    that picture, or None where only the box is known. `digest` changes with any image byte, label or class name, and
    neither with `imgsz` nor with where the data set lies.
    """

    images: Images
    sizes: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    image_index: np.ndarray
    files: tuple[Path, ...]
    problems: tuple[Problem, ...]
    digest: str
    polygons: tuple[np.ndarray | None, ...] = ()
    file_digests: tuple[str, ...] = ()


def load_split(
    spec: DataSpec,
    split: str,
    imgsz: int,
    cache_dir: Path | None = None,
    *,
    single_cls: bool = False,
    cache: str = "disk",
) -> Split:
    """Read the split 'train', 'val' or 'test' of a data set with pictures of `imgsz` px, decoding them at first only.

    With `cache` 'none' they are decoded whenever they are needed. With `single_cls` every class becomes 0. Raises
    DataError if the data set has no such split, if none of its images can be read, or if a label has a class that has
    no name. What can be left out without harm is left out and stands in `problems`.
    """
    if split not in spec.splits:
        have = ", ".join(spec.splits)
        raise DataError(f"{spec.path or 'the data set'} has no split '{split}', only {have}")
    if cache not in CACHES:
        raise DataError(f"cache is '{cache}', expected {' or '.join(CACHES)}")
    spec = spec.as_single_class() if single_cls else spec
    reader = spec.reader(split)
    problems = list(spec.problems.get(split, ()))
    folder = cache_folder(cache_dir)
    labelled = _read_all_labels(spec.splits[split], reader, folder, problems)
    if spec.single_class:
        labelled = [(file, merge_classes(labels)) for file, labels in labelled]
    readable = _hashed([file for file, _ in labelled], folder, problems)
    files = [file for file, _ in readable]
    digests = [digest for _, digest in readable]
    cached = Cached(np.empty((0, imgsz, imgsz, 3), np.uint8), np.empty((0, 2), np.int32), (), ())
    if files:
        cached = (cached_pictures if cache == "disk" else decoded_on_demand)(files, digests, imgsz, folder)
        problems += cached.problems
    if not cached.kept:
        raise DataError(f"no image of the split '{split}' can be read: {problems[-1]!s:.500}")
    labels = dict(labelled)
    kept_files = tuple(files[i] for i in cached.kept)
    kept_labels = [labels[file] for file in kept_files]
    problems += _wrong_shapes(kept_files, kept_labels, cached.sizes, imgsz)
    counts = [len(of_image.classes) for of_image in kept_labels]
    image_index = np.repeat(np.arange(len(kept_files), dtype=np.int64), counts)
    boxes = np.concatenate([of_image.boxes for of_image in kept_labels])
    classes = np.concatenate([of_image.classes for of_image in kept_labels])
    polygons = [polygon for of_image in kept_labels for polygon in of_image.polygons or [None] * len(of_image.classes)]
    if not len(boxes):
        where = reader.source(kept_files[0]) or kept_files[0]
        problems.append(Problem(where.parent, None, f"the split '{split}' has no box at all"))
    problems += reader.strays(spec.splits[split])
    return Split(
        images=cached.images,
        sizes=cached.sizes,
        boxes=(boxes * np.tile(cached.sizes, 2)[image_index]).astype(np.float32),
        classes=classes,
        image_index=image_index,
        files=kept_files,
        problems=tuple(problems),
        digest=_digest(spec.names, [digests[i] for i in cached.kept], boxes, classes, image_index, *_flat(polygons)),
        polygons=tuple(
            None if polygon is None else (polygon * cached.sizes[image]).astype(np.float32)
            for polygon, image in zip(polygons, image_index.tolist(), strict=True)
        ),
        file_digests=tuple(digests[i] for i in cached.kept),
    )


def merge_classes(labels: Labels) -> Labels:
    """The same boxes, all of class 0; of boxes that differed by their class alone the first is kept."""
    _, first = np.unique(labels.boxes, axis=0, return_index=True)
    first = np.sort(first)
    return dataclasses.replace(
        labels,
        boxes=labels.boxes[first],
        classes=np.zeros(len(first), np.int64),
        polygons=tuple(labels.polygons[i] for i in first) if labels.polygons else (),
    )


def leaks(train: Split, other: Split) -> tuple[Problem, ...]:
    """A Problem for each picture of another split that is, byte by byte, also one of the training split's."""
    learned = dict(zip(reversed(train.file_digests), reversed(train.files), strict=True))
    return tuple(
        Problem(
            file, None, "also in the training split, byte by byte: its score is learned by heart", str(learned[digest])
        )
        for file, digest in zip(other.files, other.file_digests, strict=True)
        if digest in learned
    )


def _read_all_labels(
    files: tuple[Path, ...], reader: LabelReader, folder: Path, problems: list[Problem]
) -> list[tuple[Path, Labels]]:
    """What is known of each file; whose labels cannot be read is dropped, since it must not count as background."""
    labelled = []
    for file, labels in zip(files, reader.read(files, folder), strict=True):
        if isinstance(labels, NoLabels):
            problems.append(Problem(labels.file, None, labels.what, labels.detail))
        else:
            labelled.append((file, labels))
            problems += labels.problems
    return labelled


def _wrong_shapes(files: Sequence[Path], labels: Sequence[Labels], sizes: np.ndarray, imgsz: int) -> list[Problem]:
    """Pictures of another shape than their labels were made for: resized unevenly, turned, or exchanged."""
    problems = []
    for file, of_image, size in zip(files, labels, sizes.tolist(), strict=True):
        if of_image.stated_size is not None:
            width, height = fit(of_image.stated_size, imgsz)
            if abs(width - size[0]) > 1 or abs(height - size[1]) > 1:
                stated = "{} x {}".format(*of_image.stated_size)
                problems.append(Problem(file, None, "its labels state another shape of picture", stated))
    return problems


def _hashed(files: list[Path], folder: Path, problems: list[Problem]) -> list[tuple[Path, str]]:
    readable = []
    for file, digest in zip(files, hash_files(files, folder) if files else [], strict=True):
        if isinstance(digest, str):
            readable.append((file, digest))
        else:
            problems.append(Problem(file, None, "image dropped: it cannot be read", digest.strerror or str(digest)))
    return readable


def _flat(polygons: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """All outlines as lengths and corners; nothing where there are none, as no digest of boxes alone may change."""
    if all(polygon is None for polygon in polygons):
        return []
    lengths = np.array([0 if polygon is None else len(polygon) for polygon in polygons], np.int64)
    return [lengths, np.concatenate([polygon for polygon in polygons if polygon is not None])]


def _digest(names: tuple[str, ...], digests: list[str], *labels: np.ndarray) -> str:
    state = hashlib.blake2b("\0".join([*names, "", *digests]).encode(), digest_size=16)
    for array in labels:
        state.update(array.tobytes())
    return state.hexdigest()
