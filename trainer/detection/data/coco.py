"""COCO annotations: one .json for each split, with images, categories and annotations (boxes xywh, polygons)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from trainer.api import DataError
from trainer.detection.data.labels import (
    FARTHEST_PX,
    FEWEST_CORNERS,
    BadLabel,
    Corners,
    Edges,
    Gathering,
    KnownLabels,
    Labels,
    NoLabels,
    box_around,
    from_pixels,
    translate,
)
from trainer.detection.data.listing import in_folder, in_order
from trainer.detection.data.memo import Table, remembered
from trainer.detection.data.pictures import UnreadablePicture, picture_size
from trainer.detection.data.problems import Problem
from trainer.detection.data.spec import SPLITS, DataSpec, draw_splits

MOST_PARTS = 200  # of one polygon
MOST_COMPARED = 1000  # corners of one part
PROBED = 200  # images of a .json that are looked for, to find the folder where all lie
WORDS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
OTHER_TASKS = ("captions", "person_keypoints", "image_info", "panoptic", "stuff")  # of COCO's own annotation files


@dataclass(frozen=True)
class CocoFile:
    """A .json as it was read: its categories' names in order of their ids, and what its images show."""

    file: Path
    names: tuple[str, ...]
    images: Mapping[Path, Labels | NoLabels]
    problems: tuple[Problem, ...]


def read_coco(
    files: Mapping[str, Path],
    source: Path,
    folder: Path,
    folders: Sequence[Path] = (),
    names: tuple[str, ...] | None = None,
) -> DataSpec:
    """The data set of a .json for each split, or of one for 'all', from which splits are drawn (see draw_splits).

    Images are looked for in `folders` at first, then where they usually lie (see `image_folder`). Classes are the
    categories of the training .json in order of their ids, unless `names` are given; those of the others must be among
    them, by name. `folder` is the cache's. Raises DataError.
    """
    read = {split: read_coco_file(file, folder, folders) for split, file in files.items()}
    names = names or (read.get("train") or next(iter(read.values()))).names
    readers = {split: _reader(found, names) for split, found in read.items()}
    splits = {split: tuple(sorted(found.images, key=in_order)) for split, found in read.items()}
    problems = {split: found.problems for split, found in read.items()}
    if "all" in read:
        splits, problem = draw_splits(splits["all"], source)
        readers = dict.fromkeys(splits, readers["all"])
        problems = {"train": (*problems["all"], problem)}
    return DataSpec(source, names, splits, readers, problems)


def find_coco_files(root: Path) -> dict[str, Path]:
    """The .json of each split in a folder: train/_annotations.coco.json or annotations/instances_train2017.json, say.

    Whose name, or whose folder's, says no split is 'all', if there is but one. Raises DataError if several could be.
    """
    found: dict[str, list[Path]] = {}
    candidates = sorted(
        {*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob("*/_annotations.coco.json")}
    )
    for file in candidates:
        if not file.name.startswith((*OTHER_TASKS, ".")):
            found.setdefault(_split_of(file, root), []).append(file)
    if "train" in found:
        found.pop("all", None)
    for split, files in found.items():
        if len(files) > 1:
            raise DataError(
                f"{root} has several .json files for '{split}' ({', '.join(file.name for file in files[:3])}):"
                " name one for each split in a data.yaml, as in train: annotations/a.json"
            )
    return {split: files[0] for split, files in found.items()}


def read_coco_file(file: Path, folder: Path, folders: Sequence[Path] = ()) -> CocoFile:
    """What a .json says, and where its images lie. Raises DataError."""
    where = [str(place) for place in (file, *folders)]
    table = remembered(["COCO", *where], [file], folder, lambda: _parse(file, folders))
    place = image_folder(file, table.notes["images"], folders)
    images = {place / name: labels for name, labels in zip(table.notes["images"], table.labels, strict=True)}
    problems = [Problem(file, None, what, detail) for what, detail in table.notes["problems"]]
    if place == file.parent:
        unlisted = sorted(set(in_folder(place)) - set(images))
        problems += [Problem(image, None, "image left out: its .json does not list it") for image in unlisted]
    return CocoFile(file, table.names, images, tuple(problems))


def _reader(found: CocoFile, names: tuple[str, ...]) -> KnownLabels:
    labels = {image: translate(of_image, found.names, names, found.file) for image, of_image in found.images.items()}
    return KnownLabels("COCO", labels, dict.fromkeys(labels, found.file))


def _parse(file: Path, folders: Sequence[Path]) -> Table:
    content = _load(file)
    problems: list[tuple[str, str]] = []
    categories = _categories(content["categories"], file)
    listed = _listed(content["images"], problems)
    if not listed:
        raise DataError(f"{file} lists no image")
    annotations: dict[Any, list[Any]] = {key: [] for key in listed}
    for number, entry in enumerate(content["annotations"]):
        key = entry.get("image_id") if isinstance(entry, dict) else None
        if isinstance(key, int | str) and key in listed:
            annotations[key].append(entry)
        else:
            problems.append(("box dropped: its image is not listed", _place(entry, number)))
    merged: dict[str, tuple[tuple[int, int], list[Any]]] = {}
    for key, (name, size) in listed.items():
        if name in merged:
            problems.append(("image listed twice: the annotations of both are taken", name))
        merged.setdefault(name, (size, []))[1].extend(annotations[key])
    place = image_folder(file, list(merged), folders)
    ids = {key: i for i, key in enumerate(categories)}
    labels = [_to_labels(size, entries, place / name, file, ids) for name, (size, entries) in merged.items()]
    return Table(labels, tuple(categories.values()), {"images": list(merged), "problems": problems})


def _listed(entries: Sequence[Any], problems: list[tuple[str, str]]) -> dict[Any, tuple[str, tuple[int, int]]]:
    """The name and the stated size of each image, by id."""
    listed: dict[Any, tuple[str, tuple[int, int]]] = {}
    for number, entry in enumerate(entries):
        name, key = (entry.get("file_name"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not _can_be_a_file(name) or not isinstance(key, int | str):
            problems.append(("image left out: its entry has no id or no file_name", f"images[{number}]"))
        elif key in listed:
            problems.append(("image left out: its id is another's", f"{name}: {key}"))
        else:
            listed[key] = name, (_whole(entry.get("width")), _whole(entry.get("height")))
    return listed


def image_folder(file: Path, names: Sequence[str], folders: Sequence[Path]) -> Path:
    """The folder that holds most of these images: beside the .json, or beside its folder, under a name like its own."""
    probed = names[:: max(len(names) // PROBED, 1)]
    own = file.stem.removeprefix("instances_").removesuffix(".coco").removesuffix("_annotations")
    split = _split_of(file, file.parent.parent)
    places = list(folders)
    for base in (file.parent, file.parent.parent):
        words = (own, *WORDS.get(split, ()))
        places += [base, *(base / word for word in words), base / "images", *(base / "images" / word for word in words)]
    places = list(dict.fromkeys(place for place in places if os.path.isdir(place)))
    counts = [sum(os.path.isfile(place / name) for name in probed) for place in places]
    if not any(counts):
        tried = ", ".join(map(str, places[:4]))
        raise DataError(
            f"the images of {file} are nowhere: {names[0]:.200} lies not in {tried} (name the folder in a data.yaml, as"
            " in images: FOLDER)"
        )
    return places[counts.index(max(counts))]


def join(parts: Sequence[Corners]) -> Corners:
    """One outline of several: each part is entered and left again at the two corners that lie nearest.

    The bridges have no area, so that the outline covers what the parts cover, and its box is theirs. Of longer parts
    than MOST_COMPARED every second corner is looked at, or every third and so on.
    """
    whole = list(parts[0])
    for part in parts[1:]:
        i_step, j_step = (-(-len(corners) // MOST_COMPARED) for corners in (whole, part))
        apart = np.subtract(np.array(whole[::i_step])[:, None], np.array(part[::j_step])[None])
        i, j = divmod(int((apart**2).sum(-1).argmin()), apart.shape[1])
        i, j = i * i_step, j * j_step
        whole = [*whole[: i + 1], *part[j:], *part[: j + 1], *whole[i:]]
    return whole


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file} has no list '{key}': expected COCO's images, annotations and categories")
    return dict(content)


def _categories(entries: Sequence[Any], file: Path) -> dict[Any, str]:
    """Category ids to names, in order of the ids, which may have gaps (COCO's own go from 1 to 90 with ten missing)."""
    categories: dict[int, str] = {}
    for entry in entries:
        key, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(key, int) or not isinstance(name, str) or not name or key in categories:
            raise DataError(f"{file} has the category {entry!r:.80}, expected an id of its own and a name")
        if name in categories.values():
            raise DataError(f"{file} has two categories of the name '{name}': they must differ")
        categories[key] = name
    if not categories:
        raise DataError(f"{file} has no category, so that there is no class to learn")
    return dict(sorted(categories.items()))


def _to_labels(
    size: tuple[int, int], entries: Sequence[Any], image: Path, file: Path, ids: Mapping[Any, int]
) -> Labels | NoLabels:
    if 0 in size:
        try:
            size = picture_size(image)
        except (OSError, UnreadablePicture) as error:
            return NoLabels(image, "image dropped: it cannot be read", str(error))
    gathering = Gathering(file, "box")
    for number, entry in enumerate(entries):
        place = _place(entry, number)
        try:
            if not isinstance(entry.get("category_id"), int) or entry["category_id"] not in ids:
                raise DataError(f"{file} has category_id {entry.get('category_id')!r} in {place}, but no such category")
            if entry.get(
                "iscrowd"
            ):  # a region of many, not a box around one (cocoapi, PythonAPI/pycocotools/cocoeval.py)
                raise BadLabel("marked as a crowd", place)
            polygon = _polygon(entry.get("segmentation"), place, gathering)
            box = from_pixels(_edges(entry.get("bbox"), polygon, place), size)
            outline = None if polygon is None else [(x / size[0], y / size[1]) for x, y in polygon]
            gathering.add(ids[entry["category_id"]], box, outline, None, place)
        except BadLabel as bad:
            gathering.drop(None, bad if place in bad.detail else BadLabel(bad.what, f"{place}: {bad.detail}"))
    return gathering.labels(size)


def _edges(bbox: Any, polygon: Corners | None, place: str) -> Edges:
    if bbox is None and polygon is not None:
        return box_around(polygon)
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise BadLabel("bbox is not [x, y, width, height]", place)
    if not all(isinstance(value, int | float) for value in bbox):
        raise BadLabel("not a number", f"{place}: {bbox!r:.60}")
    x, y, width, height = (float(min(max(value, -FARTHEST_PX), FARTHEST_PX)) for value in bbox)
    return x, y, x + width, y + height


def _polygon(segmentation: Any, place: str, gathering: Gathering) -> Corners | None:
    """The outline in pixels, its parts joined; None if there is none that can be read, which becomes a Problem."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        gathering.problems.append(
            Problem(gathering.file, None, "box kept without its mask: RLE masks are not read", place)
        )
        return None
    parts = [_corners(part) for part in segmentation] if isinstance(segmentation, list) else []
    sound = [part for part in parts if part is not None]
    if len(sound) > MOST_PARTS:
        what = f"box kept without its mask: a polygon of more than {MOST_PARTS} parts"
        gathering.problems.append(Problem(gathering.file, None, what, place))
        return None
    if len(sound) < len(parts) or not parts:
        what = f"part of a polygon dropped: not {FEWEST_CORNERS} or more pairs of numbers"
        gathering.problems.append(Problem(gathering.file, None, what, place))
    return join(sound) if sound else None


def _corners(part: Any) -> Corners | None:
    if not isinstance(part, list) or len(part) < 2 * FEWEST_CORNERS or len(part) % 2:
        return None
    if not all(isinstance(value, int | float) and -FARTHEST_PX <= value <= FARTHEST_PX for value in part):
        return None
    return list(zip(map(float, part[::2]), map(float, part[1::2]), strict=True))


def _split_of(file: Path, root: Path) -> str:
    """The split that a .json is for, told by the words in its name or in that of its folder below `root`."""
    for name in (file.stem, *(part for part in (file.parent.name,) if file.parent != root)):
        words = set("".join(c if c.isalpha() else " " for c in name.lower()).split())
        for split in SPLITS:
            if words & set(WORDS[split]):
                return split
    return "all"


def _can_be_a_file(name: Any) -> TypeGuard[str]:
    try:
        return isinstance(name, str) and name != "" and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 1 <= value <= FARTHEST_PX else 0


def _place(entry: Any, number: int) -> str:
    key = entry.get("id") if isinstance(entry, dict) else None
    return f"annotation {number}" if key is None else f"annotation id {key}"
