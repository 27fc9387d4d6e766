"""Parsed labels, remembered in the cache folder by the size and times of the files that they were read from."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.detection.data.cache import is_settled, replacing
from trainer.detection.data.labels import Labels, NoLabels
from trainer.detection.data.problems import Problem

FORMAT = 1  # of what is remembered; raise it when a reader takes something else from the same bytes


@dataclass(frozen=True)
class Table:
    """What is known of N pictures, the class names in order of the class ids there, and notes that JSON can hold."""

    labels: Sequence[Labels | NoLabels]
    names: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def remembered(what: Sequence[Any], sources: Iterable[Path], folder: Path, parse: Callable[[], Table]) -> Table:
    """The table that `parse` makes of `sources`, or the one that it made of them before.

    `what` (which JSON can hold) says what else decides what is parsed. A source that is missing is one, too.
    """
    name = hashlib.blake2b(json.dumps([FORMAT, *what]).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    file = folder / "labels" / f"{name}.npz"
    stamp, settled = _stamp(sources)
    if (found := _load(file, stamp)) is not None:
        return found
    table = parse()
    if settled and _stamp(sources)[0] == stamp:
        with contextlib.suppress(OSError):  # it only saves time
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as out:
                np.savez(out, stamp=np.array(stamp), **_pack(table))
    return table


def _stamp(sources: Iterable[Path]) -> tuple[str, bool]:
    """A digest of every source's size and times, and whether none of them was written a moment ago."""
    state, settled = hashlib.blake2b(digest_size=16), True
    for source in sources:
        try:
            stat = os.stat(source)
        except OSError:
            state.update(b"none;")
            continue
        state.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns};".encode())
        settled &= is_settled(stat)
    return state.hexdigest(), settled


def _pack(table: Table) -> dict[str, Any]:
    known = [labels for labels in table.labels if isinstance(labels, Labels)]
    outlines = [outline for of in known for outline in of.polygons or [None] * len(of.classes)]
    drawn = [outline for outline in outlines if outline is not None]
    text = {
        "names": table.names,
        "notes": table.notes,
        "unknown": {
            i: [str(why.file), why.what, why.detail] for i, why in enumerate(table.labels) if isinstance(why, NoLabels)
        },
        "problems": [
            [i, str(p.file), p.line, p.what, p.detail] for i, labels in enumerate(known) for p in labels.problems
        ],
    }
    return {
        "text": np.frombuffer(json.dumps(text).encode(), np.uint8),
        "counts": np.array([len(labels.classes) for labels in known], np.int64),
        "boxes": np.concatenate([np.empty((0, 4)), *(labels.boxes for labels in known)]),
        "classes": np.concatenate([np.empty(0, np.int64), *(labels.classes for labels in known)]),
        "stated": np.array([labels.stated_size or (0, 0) for labels in known], np.int64).reshape(-1, 2),
        "corners": np.array([0 if outline is None else len(outline) for outline in outlines], np.int64),
        "outlines": np.concatenate([np.empty((0, 2), np.float32), *drawn]),
    }


def _load(file: Path, stamp: str) -> Table | None:
    """The table in a file if it is there, whole, and of sources with this stamp."""
    try:
        with np.load(file, allow_pickle=False) as found:
            if str(found["stamp"]) != stamp:
                return None
            return _unpack({name: found[name] for name in found.files})
    except Exception:  # zip, its compressions and numpy raise nearly anything on a damaged file: it is made anew
        return None


def _unpack(packed: Mapping[str, np.ndarray]) -> Table:
    text = json.loads(packed["text"].tobytes())
    problems: dict[int, list[Problem]] = {}
    for i, file, line, what, detail in text["problems"]:
        problems.setdefault(i, []).append(Problem(Path(file), line, what, detail))
    ends = np.concatenate([[0], np.cumsum(packed["counts"])]).tolist()
    corners, corner_ends = packed["corners"], np.concatenate([[0], np.cumsum(packed["corners"])]).tolist()
    known = [
        Labels(
            packed["boxes"][start:end],
            packed["classes"][start:end],
            tuple(problems.get(i, ())),
            tuple(
                packed["outlines"][corner_ends[k] : corner_ends[k + 1]] if corners[k] else None
                for k in range(start, end)
            )
            if corner_ends[start] < corner_ends[end]
            else (),
            (stated[0], stated[1]) if stated[0] else None,
        )
        for i, ((start, end), stated) in enumerate(
            zip(itertools.pairwise(ends), packed["stated"].tolist(), strict=True)
        )
    ]
    unknown = {int(i): NoLabels(Path(file), what, detail) for i, (file, what, detail) in text["unknown"].items()}
    rest = iter(known)
    labels = [unknown[i] if i in unknown else next(rest) for i in range(len(known) + len(unknown))]
    return Table(labels, tuple(text["names"]), text["notes"])
