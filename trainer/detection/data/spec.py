"""What a data.yaml says, resolved: class names, and the image files of each split."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.api import DataError
from trainer.detection.data import digits
from trainer.detection.data.pictures import SUFFIXES

SPLITS = ("train", "val", "test")
BUILT_IN = ("digits",)


@dataclass(frozen=True)
class DataSpec:
    """A data set: the yaml it came from, its class names in order of class id, and the image files of each split.

    `splits` holds 'train' and 'val', and 'test' where the yaml names it; each is sorted, without repetitions.
    """

    path: Path | None
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)


def find_data(data: str, cache_dir: Path | None = None) -> DataSpec:
    """The data set that `data` names: 'digits', which is drawn into the cache folder at first, or a data.yaml's path.

    The yaml holds `names` (a list, or a mapping 0, 1, 2, ... -> name), `train`, `val` and perhaps `test`, `path` and
    `nc`. `path` is relative to the yaml's own folder, and is that folder when missing. A split is a folder (searched
    through all its subfolders), a list of folders, or a .txt file with an image a line, relative to the .txt file's
    folder or to `path`. Raises DataError with one sentence for whatever does not hold.
    """
    if data in BUILT_IN:
        return read_yaml(digits.materialise(cache_dir))
    return read_yaml(_yaml_path(data))


def read_yaml(path: Path) -> DataSpec:
    """The data set that the data.yaml at `path` describes. Raises DataError."""
    content = _load(path)
    if "kpt_shape" in content:
        raise DataError(f"{path} describes keypoints (kpt_shape), but only boxes and polygons can be read")
    names = _names(content, path)
    root = _root(content, path)
    splits = {}
    for split in SPLITS:
        if content.get(split) is None:  # `test:` with nothing behind it is common, and means that there is none
            continue
        splits[split] = _images(content[split], split, root, path)
    for split in ("train", "val"):
        if split not in splits:
            raise DataError(
                f"{path} has no '{split}': a data.yaml needs 'train' and 'val', e.g. {split}: images/{split}"
            )
    return DataSpec(path=path, names=names, splits=splits)


def _yaml_path(data: str) -> Path:
    path = Path(os.path.abspath(Path(data).expanduser()))
    if path.is_dir():
        inside = sorted(path.glob("*.yaml")) + sorted(path.glob("*.yml"))
        raise DataError(f"{path} is a folder, expected a data.yaml" + (f": try {inside[0]}" if inside else ""))
    if not path.exists():
        if path.suffix in (".yaml", ".yml"):
            raise DataError(
                f"there is no file {path}: expected the path of a data.yaml or a built-in data set (digits)"
            )
        near = difflib.get_close_matches(data, BUILT_IN, n=1)
        raise DataError(
            f"there is no data set '{data}'"
            + (f" (did you mean '{near[0]}'?)" if near else "")
            + ": expected the path of a data.yaml or a built-in data set (digits)"
        )
    return path


def _load(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: `train: 2024-13-45` as a date
        raise DataError(f"{path} is not YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise DataError(f"{path} {found}, expected a mapping with names, train and val")
    return content


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    return " ".join(problem.split()) + (f" in line {mark.line + 1}" if mark is not None else "")


def _names(content: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    names = content.get("names")
    example = "e.g. names: [cat, dog]"
    if names is None:
        raise DataError(f"{path} has no 'names': expected the class names, {example}")
    if not isinstance(names, list | dict):
        raise DataError(f"'names' in {path} is {names!r}, expected a list or a mapping of class names, {example}")
    if not names:
        raise DataError(f"'names' in {path} is empty: expected at least one class name, {example}")
    if isinstance(names, dict):
        names = _in_order_of_id(names, path)
    for i, name in enumerate(names):
        if not isinstance(name, str | int | float):
            raise DataError(f"name {i} in {path} is {name!r}, expected text, {example}")
    nc = content.get("nc")
    if nc is not None and str(nc) != str(len(names)):
        raise DataError(f"{path} says nc: {nc}, but lists {len(names)} names: they must agree (nc may be left out)")
    return tuple(map(str, names))


def _in_order_of_id(names: Mapping[Any, Any], path: Path) -> list[Any]:
    try:
        by_id = {int(key): name for key, name in names.items()}
    except (TypeError, ValueError):
        raise DataError(f"the keys of 'names' in {path} must be class ids, got {next(iter(names))!r}") from None
    if sorted(by_id) != list(range(len(names))):
        ids = ", ".join(map(str, list(names)[:12])) + (", ..." if len(names) > 12 else "")
        raise DataError(f"the ids of 'names' in {path} must be 0 to {len(names) - 1} without gaps, got {ids}")
    return [by_id[i] for i in range(len(by_id))]


def _root(content: Mapping[Any, Any], path: Path) -> Path:
    stated = content.get("path")
    if stated is None:
        return path.parent
    if not isinstance(stated, str):
        raise DataError(f"'path' in {path} is {stated!r}, expected a folder")
    root = path.parent / Path(stated).expanduser()
    if not root.is_dir():
        raise DataError(
            f"'path' in {path} leads to {root}, which is no folder (it is relative to the file's own folder)"
        )
    return root


def _images(stated: Any, split: str, root: Path, yaml_path: Path) -> tuple[Path, ...]:
    entries = stated if isinstance(stated, list) else [stated]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise DataError(f"'{split}' in {yaml_path} is {stated!r}, expected a folder, a list of folders or a .txt list")
    found: set[Path] = set()
    for entry in entries:
        source = _source(entry, root)
        if source.is_dir():
            found.update(_in_folder(source))
        elif source.is_file() and source.suffix.lower() == ".txt":
            found.update(_in_list(source, root))
        elif source.exists():
            raise DataError(f"'{split}' in {yaml_path} leads to {source}, expected a folder or a .txt list of images")
        else:
            raise DataError(f"'{split}' in {yaml_path} leads to {source}, which does not exist")
    if not found:
        raise DataError(
            f"'{split}' in {yaml_path} leads to {_source(entries[0], root)}, which holds no image"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    return tuple(sorted(found))


def _source(entry: str, root: Path) -> Path:
    source = root / Path(entry).expanduser()
    # Exports of a large annotation service say ../train/images where they mean train/images beside the yaml.
    if not source.exists() and entry.startswith("../") and (root / entry[3:]).exists():
        return root / entry[3:]
    return source


def _in_folder(folder: Path) -> Iterator[Path]:
    """Image files at any depth; hidden ones are no pictures (macOS leaves ._name.jpg files in archives)."""
    for place, _, names in os.walk(folder):
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def _in_list(file: Path, root: Path) -> Iterator[Path]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    for raw in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        line = os.fsdecode(raw).strip()  # a file name is bytes, and need not be UTF-8
        if not line or line.startswith("#"):
            continue
        beside, below = file.parent / line, root / line
        # An entry that leads nowhere stays: reading the split reports it, with its path.
        yield below if below.exists() and not beside.exists() else beside
