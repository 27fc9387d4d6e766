"""What a data set holds and what is wrong with it: everything that can be known without a training."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.api import DataError
from trainer.detection.data.find import find_data
from trainer.detection.data.likeness import MOST_PAIRS, Glance, glance_at_all, near_pairs
from trainer.detection.data.problems import Problem
from trainer.detection.data.spec import DataSpec
from trainer.detection.data.split import Split, load_split
from trainer.detection.data.yolo import YoloLabels

EXAMPLES = 3  # of each finding
AT_ONCE = 500  # boxes that are compared with all others of their picture
MOST_BOXES = 10_000  # of a picture; to compare more would take minutes
NEAR_IOU = 0.9  # of two boxes that are likely the same thing twice
SIDES_PX = (2, 4, 8, 16, 32, 96)  # where the histogram of the boxes' shorter sides is cut; 32 and 96 are COCO's
UNEVEN = 10.0  # boxes of the most frequent class for each of the rarest, from which on it is said
ORIENTATIONS = range(1, 9)  # EXIF 2.32, 4.6.4 A
WARNING, NOTE = "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One kind of flaw in one split, or between two ('train and val'): how often, and where at first.

    `kind` is a word for machines, `what` says the same for people. A `severity` of 'warning' can cost accuracy or make
    a score wrong; a 'note' is good to know.
    """

    kind: str
    split: str
    severity: str
    what: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """Of one number over many things."""

    least: float
    median: float
    mean: float
    most: float


@dataclass(frozen=True)
class SplitReport:
    """What a split holds: of `listed` image files `images` can be used.

    `by_class` counts boxes, `images_by_class` the pictures that show a class. `sides_px` counts boxes by their shorter
    side at the report's imgsz: '<2', '2-4', ..., '>=96'.
    """

    split: str
    listed: int
    images: int
    boxes: int
    polygons: int
    images_without_boxes: int
    greyscale: int
    boxes_per_image: Distribution
    by_class: Mapping[str, int]
    images_by_class: Mapping[str, int]
    sides_px: Mapping[str, int]
    digest: str


@dataclass(frozen=True)
class Report:
    """A data set as it can be trained on, at pictures of `imgsz` px; `imbalance` is the most frequent class's boxes for
    each of the rarest's in train (of those that occur there)."""

    source: str
    labels: str
    imgsz: int
    names: tuple[str, ...]
    imbalance: float
    splits: tuple[SplitReport, ...]
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == WARNING)


def inspect_data(data: str, imgsz: int, *, single_cls: bool = False, cache_dir: Path | None = None) -> Report:
    """Look at every picture and label of a data set. Raises DataError if it cannot be trained on.

    Nothing is written but into the cache folder, and there no pixels.
    """
    spec = find_data(data, cache_dir, single_cls=single_cls)
    splits = {name: load_split(spec, name, imgsz, cache_dir, cache="none") for name in spec.splits}
    if not len(splits["train"].boxes):
        raise DataError(f"{data}: no training picture holds a box, so there is nothing to learn")
    glances = {name: glance_at_all(split.files) for name, split in splits.items()}
    findings = [
        *(finding for name, split in splits.items() for finding in _of_split(name, split, spec, glances[name])),
        *_between(splits, glances),
        *_of_classes(splits, spec.names),
    ]
    findings.sort(key=lambda finding: (finding.severity != WARNING, finding.split in splits, -finding.count))
    counts = np.bincount(splits["train"].classes, minlength=spec.nc)
    present = counts[counts > 0]
    return Report(
        source=str(spec.path or data),
        labels=spec.reader("train").format,
        imgsz=imgsz,
        names=spec.names,
        imbalance=float(present.max() / present.min()),
        splits=tuple(
            _describe(name, split, len(spec.splits[name]), spec.names, glances[name]) for name, split in splits.items()
        ),
        findings=tuple(findings),
    )


def _describe(
    name: str, split: Split, listed: int, names: Sequence[str], glances: Sequence[Glance | None]
) -> SplitReport:
    per_image = np.bincount(split.image_index, minlength=len(split.files))
    shown = np.unique(np.column_stack([split.image_index, split.classes]), axis=0)[:, 1]
    sides = _short_sides(split)
    cuts = (0, *SIDES_PX, np.inf)
    labels = [f"<{SIDES_PX[0]}", *(f"{a}-{b}" for a, b in itertools.pairwise(SIDES_PX)), f">={SIDES_PX[-1]}"]
    return SplitReport(
        split=name,
        listed=listed,
        images=len(split.files),
        boxes=len(split.boxes),
        polygons=sum(polygon is not None for polygon in split.polygons),
        images_without_boxes=int((per_image == 0).sum()),
        greyscale=sum(glance is not None and glance.grey for glance in glances),
        boxes_per_image=Distribution(
            float(per_image.min()), float(np.median(per_image)), float(per_image.mean()), float(per_image.max())
        ),
        by_class=dict(zip(names, np.bincount(split.classes, minlength=len(names)).tolist(), strict=True)),
        images_by_class=dict(zip(names, np.bincount(shown, minlength=len(names)).tolist(), strict=True)),
        sides_px={
            label: int(((sides >= low) & (sides < high)).sum())
            for label, (low, high) in zip(labels, itertools.pairwise(cuts), strict=True)
        },
        digest=split.digest,
    )


def _of_split(name: str, split: Split, spec: DataSpec, glances: Sequence[Glance | None]) -> Iterator[Finding]:
    yield from _of_problems(name, split.problems)
    yield from _of_files(name, split, spec, glances)
    yield from _of_boxes(name, split, spec.names)
    again = defaultdict(list)
    for i, digest in enumerate(split.file_digests):
        again[digest].append(i)
    same = [group for group in again.values() if len(group) > 1]
    pairs = [(split.files[i], split.files[group[0]]) for group in same for i in group[1:]]
    yield from _found("identical_images", name, WARNING, "picture that is there twice, byte by byte", _twos(pairs))
    pairs = [
        (split.files[i], split.files[g[0]]) for g in same for i in g[1:] if not _same_labels(split, i, split, g[0])
    ]
    yield from _found(
        "identical_images_labelled_differently", name, WARNING, "the same picture with other labels", _twos(pairs)
    )


def _of_problems(name: str, problems: Sequence[Problem]) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        where = problem.where + (f" ({problem.detail})" if problem.detail else "")
        kinds.setdefault(problem.what, []).append(where)
    for what, everywhere in kinds.items():
        kind = re.sub(r"[^a-z0-9]+", "_", what.lower()).strip("_")
        yield from _found(kind, name, WARNING, what, everywhere)


def _of_files(name: str, split: Split, spec: DataSpec, glances: Sequence[Glance | None]) -> Iterator[Finding]:
    reader = spec.reader(name)
    unlabelled: list[Path] = []
    if reader.format == YoloLabels.format:
        unlabelled = [file for file in split.files if not _exists(reader.source(file))]
    what = "picture without a label file: taken for one with nothing on it"
    yield from _found("missing_label_file", name, NOTE, what, map(str, unlabelled))
    looked = [(file, glance) for file, glance in zip(split.files, glances, strict=True) if glance is not None]
    grey = [str(file) for file, glance in looked if glance.grey]
    yield from _found("greyscale", name, NOTE, "greyscale picture: its one channel is taken for all three", grey)
    odd = [
        f"{file} ({glance.orientation})"
        for file, glance in looked
        if glance.orientation is not None and glance.orientation not in ORIENTATIONS
    ]
    what = "EXIF orientation that does not exist: taken as upright"
    yield from _found("odd_exif_orientation", name, NOTE, what, odd)
    turned = [str(file) for file, glance in looked if glance.orientation in ORIENTATIONS[1:]]
    what = "turned upright as its EXIF says: labels must have been made for that"
    yield from _found("turned_by_exif", name, NOTE, what, turned)
    for folder, files in _by_folder(split.files).items():
        endings = Counter(file.suffix for file in files)
        if len(endings) > 1:
            shown = ", ".join(f"{ending} {count}" for ending, count in endings.most_common())
            what = "folder with several file name extensions"
            yield from _found("mixed_extensions", name, NOTE, what, [f"{folder} ({shown})"])


def _of_boxes(name: str, split: Split, names: Sequence[str]) -> Iterator[Finding]:
    sides = _short_sides(split)
    imgsz = split.images.shape[1]
    for kind, low, high, severity in (("boxes_below_2_px", 0, 2, WARNING), ("boxes_of_2_to_4_px", 2, 4, NOTE)):
        small = np.flatnonzero((sides >= low) & (sides < high))
        where = [f"{split.files[split.image_index[i]]} ({sides[i]:.1f} px)" for i in small]
        size = f"under {high} px" if low == 0 else f"of {low} to {high} px"
        what = f"box {size} at imgsz {imgsz}: " + ("training leaves it out" if low == 0 else "hardly to be seen")
        yield from _found(kind, name, severity, what, where)
    same, other = [], []
    for image, i, j, iou in near_boxes(split):
        one, two = (names[split.classes[k]] for k in (i, j))
        if one == two:
            same.append(f"{split.files[image]} ({one}, IoU {iou:.2f})")
        else:
            other.append(f"{split.files[image]} ({one} and {two}, IoU {iou:.2f})")
    crowded = np.flatnonzero(np.bincount(split.image_index, minlength=1) > MOST_BOXES)
    what = f"more than {MOST_BOXES} boxes in a picture: too many to compare them"
    yield from _found("boxes_not_compared", name, NOTE, what, [str(split.files[i]) for i in crowded])
    what = f"pair of boxes over each other (IoU > {NEAR_IOU}), of "
    yield from _found("near_duplicate_boxes", name, WARNING, what + "one class: the same thing twice?", same)
    yield from _found("near_duplicate_boxes_of_two_classes", name, WARNING, what + "two classes: which is it?", other)


def near_boxes(split: Split) -> Iterator[tuple[int, int, int, float]]:
    """Pairs of boxes of one picture with an IoU above NEAR_IOU: picture, the two boxes, and the IoU.

    Pictures with more than MOST_BOXES are left out.
    """
    ends = np.searchsorted(split.image_index, np.arange(len(split.files) + 1))
    for image, (start, end) in enumerate(itertools.pairwise(ends.tolist())):
        if not 2 <= end - start <= MOST_BOXES:
            continue
        boxes = split.boxes[start:end].astype(np.float64)
        for first in range(0, len(boxes), AT_ONCE):
            x1, y1, x2, y2 = boxes[first:].T
            rows = slice(min(AT_ONCE, len(x1)))
            width = np.minimum(x2[rows, None], x2) - np.maximum(x1[rows, None], x1)
            height = np.minimum(y2[rows, None], y2) - np.maximum(y1[rows, None], y1)
            both = width.clip(0) * height.clip(0)
            area = (x2 - x1) * (y2 - y1)
            iou = both / np.maximum(area[rows, None] + area - both, 1e-12)
            for i, j in np.argwhere(np.triu(iou, 1) > NEAR_IOU).tolist():
                yield image, start + first + i, start + first + j, float(iou[i, j])


def _between(splits: Mapping[str, Split], glances: Mapping[str, Sequence[Glance | None]]) -> Iterator[Finding]:
    """Pictures of one split that are in another as well: its score is then learned by heart."""
    real = {name: [os.path.realpath(file) for file in split.files] for name, split in splits.items()}
    for one, other in itertools.combinations(splits, 2):
        first, second = splits[one], splits[other]
        both = f"{one} and {other}"
        shared = set(real[one]) & set(real[other])
        yield from _found("same_file_in_two_splits", both, WARNING, "the same file in two splits", sorted(shared))
        by_digest = {digest: i for i, digest in reversed(list(enumerate(first.file_digests)))}
        twins = {
            (by_digest[digest], j)
            for j, digest in enumerate(second.file_digests)
            if digest in by_digest and real[other][j] not in shared
        }
        pairs = [(first.files[i], second.files[j]) for i, j in sorted(twins)]
        what = "the same picture in two splits, byte by byte"
        yield from _found("identical_images_across_splits", both, WARNING, what, _twos(pairs))
        if len(first.files) * len(second.files) > MOST_PAIRS:
            what = "too many pictures to look for nearly the same ones"
            yield from _found("near_identical_images_not_looked_for", both, NOTE, what, [both])
            continue
        near = [
            f"{first.files[pair.first]} = {second.files[pair.second]} (correlation {pair.correlation:.2f})"
            for pair in near_pairs(glances[one], glances[other])
            if first.file_digests[pair.first] != second.file_digests[pair.second]
        ]
        what = "nearly the same picture in two splits"
        yield from _found("near_identical_images_across_splits", both, WARNING, what, near)


def _of_classes(splits: Mapping[str, Split], names: Sequence[str]) -> Iterator[Finding]:
    counts = {name: np.bincount(split.classes, minlength=len(names)) for name, split in splits.items()}
    for name in ("train", "val"):
        absent = [names[i] for i in np.flatnonzero(counts[name] == 0).tolist()]
        what = "class without a box: " + ("it cannot be learned" if name == "train" else "its score is not known")
        yield from _found("class_absent", name, WARNING, what, absent)
    train = counts["train"]
    order = [int(i) for i in np.argsort(train) if train[i]]
    if train[order[-1]] > UNEVEN * train[order[0]]:
        where = f"{names[order[-1]]} {train[order[-1]]}, {names[order[0]]} {train[order[0]]}"
        what = f"uneven classes: more than {UNEVEN:g} boxes of the most frequent for each of the rarest"
        yield from _found("uneven_classes", "train", NOTE, what, [where])


def _found(kind: str, split: str, severity: str, what: str, where: Iterable[str]) -> Iterator[Finding]:
    everywhere = list(where)
    if everywhere:
        yield Finding(kind, split, severity, what, len(everywhere), tuple(everywhere[:EXAMPLES]))


def _twos(pairs: Iterable[tuple[Path, Path]]) -> list[str]:
    return [f"{first} = {second}" for first, second in pairs]


def _same_labels(one: Split, i: int, other: Split, j: int) -> bool:
    first, second = (
        np.column_stack([split.classes, split.boxes])[split.image_index == image]
        for split, image in ((one, i), (other, j))
    )
    return first.shape == second.shape and bool((np.sort(first, axis=0) == np.sort(second, axis=0)).all())


def _short_sides(split: Split) -> np.ndarray:
    return np.asarray((split.boxes[:, 2:] - split.boxes[:, :2]).min(axis=1))


def _by_folder(files: Sequence[Path]) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    return folders


def _exists(file: Path | None) -> bool:
    return file is not None and os.path.exists(file)
