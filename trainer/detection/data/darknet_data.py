"""Darknet's .data file: key = value lines that lead to lists of pictures and to a .names file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from trainer.api import DataError
from trainer.detection.data.listing import in_folder, in_list, in_order, lines_of
from trainer.detection.data.spec import DataSpec

KEYS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}


def read_data_file(path: Path) -> DataSpec:
    """The data set that a .data file describes. Raises DataError.

    Darknet takes every path in it, and in its lists, from the folder that it was started in, which nobody wrote down.
    So each is looked for beside the file that names it, then in the folders above the .data file, then in the current
    one. Labels lie beside the pictures, or in `labels` where their folder is called `images` or `JPEGImages`.
    """
    entries = read_entries(path)
    bases = tuple(dict.fromkeys((path.parent, *path.parent.parents, Path.cwd())))
    if "names" not in entries:
        raise DataError(f"{path} has no 'names': expected the path of a .names file, a class a line")
    names_file = _find(entries["names"], bases, "names", path)
    names = tuple(lines_of(names_file))
    if not names:
        raise DataError(f"{names_file} is empty: expected the class names, one a line")
    if entries.get("classes", str(len(names))) != str(len(names)):
        raise DataError(
            f"{path} says classes = {entries['classes']}, but {names_file} lists {len(names)}: they must agree"
        )
    splits = {}
    for split, keys in KEYS.items():
        stated = [key for key in keys if entries.get(key)]
        if stated:
            splits[split] = _pictures(_find(entries[stated[0]], bases, stated[0], path), bases, stated[0], path)
        elif split != "test":
            raise DataError(
                f"{path} has no '{keys[0]}': expected a list of pictures, as in {keys[0]} = data/{keys[0]}.txt"
            )
    return DataSpec(path, names, splits)


def read_entries(path: Path) -> dict[str, str]:
    """The key = value lines of a file; `#` and `;` begin remarks. Raises DataError."""
    entries = {}
    for line in lines_of(path):
        if line.startswith(";"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise DataError(f"{path} has the line '{line[:60]}', expected key = value")
        entries[key.strip()] = value.strip()
    return entries


def _find(stated: str, bases: Sequence[Path], key: str, path: Path) -> Path:
    found = next((base / stated for base in bases if os.path.exists(base / stated)), None)
    if found is None:
        raise DataError(
            f"'{key}' in {path} leads to {stated:.200}, which is neither beside it nor in a folder above nor in"
            f" {Path.cwd()}"
        )
    return found


def _pictures(source: Path, bases: Sequence[Path], key: str, path: Path) -> tuple[Path, ...]:
    found = set(in_folder(source) if source.is_dir() else in_list(source, bases))
    if not found:
        raise DataError(f"'{key}' in {path} leads to {source}, which names no picture")
    return tuple(sorted(found, key=in_order))
