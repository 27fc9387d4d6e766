"""Image files, in folders and in lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.api import DataError
from trainer.detection.data.pictures import SUFFIXES


def in_folder(folder: Path) -> Iterator[Path]:
    """Image files at any depth, also behind links; hidden ones are no pictures (macOS archives hold ._name.jpg)."""
    seen = set()  # links may lead in circles
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def in_list(file: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """The files that a list names, a line each, relative to the list's own folder or else to the first root that fits.

    A line that leads nowhere stays, beside the list: reading the split reports it, with its path.
    """
    bases = (file.parent, *roots)
    fits = file.parent  # where the last one lay, most likely the next one lies too
    for line in lines_of(file):
        for base in (fits, *bases):
            if os.path.exists(found := base / line):  # unlike Path.exists, False for a name that is too long
                fits = base
                break
        else:
            found = file.parent / line
        yield found


def in_order(file: Path) -> tuple[str, ...]:
    """What files are sorted by: as paths are, which compare themselves slowly."""
    return file.parts


def lines_of(file: Path) -> list[str]:
    """The lines of a text file that say something. Raises DataError if it cannot be read."""
    if os.path.exists(file) and not os.path.isfile(file):  # a device may never end
        raise DataError(f"cannot read {file}: it is no file")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    text = content.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"?")  # no path can hold it
    lines = (os.fsdecode(raw).strip() for raw in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]  # a file name is bytes, and need not be UTF-8
