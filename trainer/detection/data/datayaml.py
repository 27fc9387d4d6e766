"""A data.yaml: class names, and for each split a folder, a list or a .json; the labels may be YOLO, VOC or COCO."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.api import DataError
from trainer.detection.data import coco, voc
from trainer.detection.data.labels import LabelReader
from trainer.detection.data.listing import in_folder, in_list, in_order, lines_of
from trainer.detection.data.pictures import SUFFIXES
from trainer.detection.data.problems import Problem
from trainer.detection.data.spec import SPLITS, DataSpec
from trainer.detection.data.yolo import YoloLabels
from trainer.yaml_files import cut_short, load_yaml, shown

PROBED = 50  # pictures of a split whose YOLO labels are looked for before .xml files are


def read_yaml(path: Path, folder: Path) -> DataSpec:
    """The data set that a data.yaml describes (see find_data); `folder` is the cache's. Raises DataError."""
    content = _load(path)
    if "kpt_shape" in content:
        raise DataError(f"{path} describes keypoints (kpt_shape), but only boxes and polygons can be read")
    names = None if content.get("names") is None else _names(content, path)
    root = _root(content, path)
    stated = {split: content[split] for split in SPLITS if content.get(split) is not None}  # `test:` alone means none
    for split in ("train", "val"):
        if split not in stated:
            raise DataError(
                f"{path} has no '{split}': a data.yaml needs 'train' and 'val', e.g. {split}: images/{split}"
            )
    entries = {split: _entries(stated[split], split, path) for split in stated}
    if all(entry.lower().endswith(".json") for of_split in entries.values() for entry in of_split):
        files, folders = _coco_files(entries, content, root, path)
        return coco.read_coco(files, path, folder, folders, names)
    splits = {split: _images(entries[split], split, root, path) for split in entries}
    pairs, lost = _voc_pairs(splits)
    if not pairs:
        return DataSpec(path, names or _names(content, path), splits, _yolo_readers(splits, names))
    names, readers = voc.voc_readers(splits, pairs, names, path, folder)
    return DataSpec(path, names, splits, readers, {"train": tuple(lost)})


def _coco_files(
    entries: Mapping[str, Sequence[str]], content: Mapping[Any, Any], root: Path, path: Path
) -> tuple[dict[str, Path], list[Path]]:
    """The .json of each split, and the folders in which its images are looked for at first."""
    files, folders = {}, [root]
    for split, of_split in entries.items():
        if len(of_split) > 1:
            raise DataError(f"'{split}' in {path} names {len(of_split)} .json files, expected one")
        files[split] = _source(of_split[0], root)
        if not os.path.isfile(files[split]):
            raise DataError(f"'{split}' in {path} leads to {cut_short(files[split])}, which does not exist")
    if (stated := content.get("images")) is not None:
        folders = [_source(entry, root) for entry in _entries(stated, "images", path)]
        for folder in folders:
            if not os.path.isdir(folder):
                raise DataError(f"'images' in {path} leads to {cut_short(folder)}, which is no folder")
    return files, folders


def _voc_pairs(splits: Mapping[str, Sequence[Path]]) -> tuple[dict[Path, Path], list[Problem]]:
    """Which picture has which .xml; nothing where the pictures have YOLO labels."""
    yolo = YoloLabels(0)
    if any(os.path.isfile(yolo.source(image)) for files in splits.values() for image in files[:PROBED]):
        return {}, []
    images = sorted({image for files in splits.values() for image in files}, key=in_order)
    return voc.pair(images, voc.xmls_for(images))


def _yolo_readers(splits: Mapping[str, Sequence[Path]], names: tuple[str, ...] | None) -> dict[str, LabelReader]:
    reader = YoloLabels(len(names or ()))
    return dict.fromkeys(splits, reader)


def _load(path: Path) -> dict[Any, Any]:
    content = load_yaml(path)
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise DataError(f"{path} {found}, expected a mapping with names, train and val")
    return content


def _names(content: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    names = content.get("names")
    example = "e.g. names: [cat, dog]"
    if names is None:
        raise DataError(f"{path} has no 'names': expected the class names, {example}")
    if not isinstance(names, list | dict):
        raise DataError(f"'names' in {path} is {shown(names)}, expected a list or a mapping of class names, {example}")
    if not names:
        raise DataError(f"'names' in {path} is empty: expected at least one class name, {example}")
    if isinstance(names, dict):
        names = _in_order_of_id(names, path)
    for i, name in enumerate(names):
        if not isinstance(name, str | int | float):
            raise DataError(f"name {i} in {path} is {shown(name)}, expected text, {example}")
    nc = content.get("nc")
    if nc is not None and str(nc) != str(len(names)):
        raise DataError(
            f"{path} says nc: {shown(nc)}, but lists {len(names)} names: they must agree (nc may be left out)"
        )
    return tuple(map(str, names))


def _in_order_of_id(names: Mapping[Any, Any], path: Path) -> list[Any]:
    try:
        by_id = {int(key): name for key, name in names.items()}
    except (TypeError, ValueError):
        raise DataError(f"the keys of 'names' in {path} must be class ids, got {shown(next(iter(names)))}") from None
    if sorted(by_id) != list(range(len(names))):
        ids = ", ".join(map(str, list(names)[:12])) + (", ..." if len(names) > 12 else "")
        raise DataError(f"the ids of 'names' in {path} must be 0 to {len(names) - 1} without gaps, got {ids}")
    return [by_id[i] for i in range(len(by_id))]


def _root(content: Mapping[Any, Any], path: Path) -> Path:
    stated = content.get("path")
    if stated is None:
        return path.parent
    if not isinstance(stated, str):
        raise DataError(f"'path' in {path} is {shown(stated)}, expected a folder")
    root = path.parent / os.path.expanduser(stated)
    if not os.path.isdir(root):
        raise DataError(
            f"'path' in {path} leads to {cut_short(root)}, which is no folder (it is relative to the file's own folder)"
        )
    return root


def _entries(stated: Any, key: str, path: Path) -> list[str]:
    entries = stated if isinstance(stated, list) else [stated]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise DataError(
            f"'{key}' in {path} is {shown(stated)}, expected a folder, a list of folders, a .txt list or a .json"
        )
    return entries


def _images(entries: Sequence[str], split: str, root: Path, yaml_path: Path) -> tuple[Path, ...]:
    found: set[Path] = set()
    for entry in entries:
        source = _source(entry, root)
        if os.path.isdir(source):
            found.update(in_folder(source))
        elif os.path.isfile(source) and source.suffix.lower() == ".txt":
            found.update(_listed(source, root))
        elif os.path.exists(source):
            raise DataError(f"'{split}' in {yaml_path} leads to {source}, expected a folder or a .txt list of images")
        else:
            raise DataError(f"'{split}' in {yaml_path} leads to {cut_short(source)}, which does not exist")
    if not found:
        raise DataError(
            f"'{split}' in {yaml_path} leads to {_source(entries[0], root)}, which holds no image"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    return tuple(sorted(found, key=in_order))


def _listed(file: Path, root: Path) -> Sequence[Path]:
    """The pictures of a list: of paths, or of stems as in VOC's ImageSets/Main."""
    if "ImageSets" in file.parts and not any(Path(line).suffix.lower() in SUFFIXES for line in lines_of(file)):
        folder = Path(*file.parts[: len(file.parts) - 1 - file.parts[::-1].index("ImageSets")])
        return voc.with_stems(file, sorted(in_folder(folder)), folder / "JPEGImages")
    return tuple(in_list(file, [root]))


def _source(entry: str, root: Path) -> Path:
    source = root / os.path.expanduser(entry)
    # Exports of a large annotation service say ../train/images where they mean train/images beside the yaml.
    if not os.path.exists(source) and entry.startswith("../") and os.path.exists(root / entry[3:]):
        return root / entry[3:]
    return source
