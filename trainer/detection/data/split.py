"""One split of a data set, ready to train on: pictures, boxes and what was wrong with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.api import DataError
from trainer.detection.data.cache import cache_folder, cached_pictures, hash_files
from trainer.detection.data.labels import Labels, label_folder, orphans, read_labels
from trainer.detection.data.pictures import SUFFIXES
from trainer.detection.data.problems import Problem
from trainer.detection.data.spec import DataSpec


@dataclass(frozen=True)
class Split:
    """N pictures with M boxes.

    `images` uint8 [N, imgsz, imgsz, 3] RGB, read-only and memory-mapped: the picture, its long side `imgsz`, at the
    top left, grey 114 elsewhere. `sizes` int32 [N, 2]: width and height of the picture in its square. `boxes` float32
    [M, 4]: xyxy in pixels of that picture. `classes` int64 [M]. `image_index` int64 [M], ascending: whose box it is.
    `files`: the N image files. `digest` changes with any image byte, label or class name, and neither with `imgsz` nor
    with where the data set lies.
    """

    images: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    image_index: np.ndarray
    files: tuple[Path, ...]
    problems: tuple[Problem, ...]
    digest: str


def load_split(spec: DataSpec, split: str, imgsz: int, cache_dir: Path | None = None) -> Split:
    """Read the split 'train', 'val' or 'test' of a data set with pictures of `imgsz` px, decoding them at first only.

    Raises DataError if the data set has no such split, if none of its images can be read, or if a label has a class id
    that has no name. What can be left out without harm is left out and stands in `problems`.
    """
    if split not in spec.splits:
        have = ", ".join(spec.splits)
        raise DataError(f"{spec.path or 'the data set'} has no split '{split}', only {have}")
    problems: list[Problem] = []
    labelled = _read_all_labels(spec.splits[split], spec.nc, problems)
    folder = cache_folder(cache_dir)
    readable = _hashed([file for file, _ in labelled], folder, problems)
    labels = dict(labelled)
    files = [file for file, _ in readable]
    digests = [digest for _, digest in readable]
    kept: tuple[int, ...] = ()
    if files:
        cached = cached_pictures(files, digests, imgsz, folder)
        kept = cached.kept
        problems += cached.problems
    if not kept:
        raise DataError(f"no image of the split '{split}' can be read: {problems[-1]}")
    kept_files = tuple(files[i] for i in kept)
    kept_labels = [labels[file] for file in kept_files]
    counts = [len(of_image.classes) for of_image in kept_labels]
    image_index = np.repeat(np.arange(len(kept_files), dtype=np.int64), counts)
    boxes = np.concatenate([of_image.boxes for of_image in kept_labels])
    classes = np.concatenate([of_image.classes for of_image in kept_labels])
    if not len(boxes):
        problems.append(Problem(label_folder(kept_files[0].parent), None, f"the split '{split}' has no box at all"))
    problems += orphans({file.parent for file in spec.splits[split]}, SUFFIXES)
    return Split(
        images=cached.images,
        sizes=cached.sizes,
        boxes=(boxes * np.tile(cached.sizes, 2)[image_index]).astype(np.float32),
        classes=classes,
        image_index=image_index,
        files=kept_files,
        problems=tuple(problems),
        digest=_digest(spec.names, [digests[i] for i in kept], boxes, classes, image_index),
    )


def _read_all_labels(files: tuple[Path, ...], nc: int, problems: list[Problem]) -> list[tuple[Path, Labels]]:
    folders = {parent: label_folder(parent) for parent in {file.parent for file in files}}
    labelled = []
    for file in files:
        label_file = folders[file.parent] / f"{file.stem}.txt"
        try:
            labels = read_labels(label_file, nc)
        except OSError as error:  # what it shows is not known, so it must not count as background
            problems.append(
                Problem(label_file, None, "image dropped: its labels cannot be read", error.strerror or str(error))
            )
            continue
        labelled.append((file, labels))
        problems += labels.problems
    return labelled


def _hashed(files: list[Path], folder: Path, problems: list[Problem]) -> list[tuple[Path, str]]:
    readable = []
    for file, digest in zip(files, hash_files(files, folder) if files else [], strict=True):
        if isinstance(digest, str):
            readable.append((file, digest))
        else:
            problems.append(Problem(file, None, "image dropped: it cannot be read", digest.strerror or str(digest)))
    return readable


def _digest(names: tuple[str, ...], digests: list[str], *labels: np.ndarray) -> str:
    state = hashlib.blake2b("\0".join([*names, "", *digests]).encode(), digest_size=16)
    for array in labels:
        state.update(array.tobytes())
    return state.hexdigest()
