"""What a program tells of its epochs, in JSON lines or in a file of results that grows, read as EpochMetrics."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.api import EpochMetrics, TrainerError, TrainingDiverged, TrainOptions

METRICS = ("precision", "recall", "map50", "map50_95")
EPOCH = "epoch"

Row = Mapping[str, Any]
"""What was told of one epoch, by our names: `epoch`, METRICS, and the other fields of EpochMetrics."""


@dataclass(frozen=True)
class Told:
    """Where a program tells its epochs: in JSON lines that it prints, or in a `file` in its folder.

    Such a file holds CSV (blanks around a name or a value are none of it), columns with blanks between them, or JSON
    lines. `columns` says what in them is the `epoch` and which metric is which: the names of JSON keys or of columns
    in the file's header, or, where it has none, numbers of columns, counted from 1. What it does not name is looked
    for under our own name; without epochs, rows are counted.
    """

    file: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Where it is to be found, to follow "told no epoch: there is "."""
        if self.file is not None:
            return f"no row in {self.file}"
        keys = {name: self.columns.get(name, name) for name in (EPOCH, METRICS[-1])}
        return "no line " + json.dumps({keys[EPOCH]: 1, keys[METRICS[-1]]: 0.5}) + " or the like in what it printed"

    def read_line(self, line: str) -> Row | None:
        """What a printed line tells of an epoch; None if it is about anything else."""
        text = line.rstrip().rpartition("\r")[2].strip()  # behind a progress bar
        if not (text.startswith("{") and text.endswith("}")):
            return None
        try:
            row = self._rename(json.loads(text))
        except (ValueError, RecursionError):
            return None
        return row if EPOCH in row and not row.keys().isdisjoint(METRICS) else None

    def read_file(self, text: str) -> list[Row]:
        """The rows of the file, as far as it has been written. Raises TrainerError."""
        lines = [line for line in text.splitlines() if line.strip()]
        if lines and lines[0].lstrip().startswith("{"):
            return [self._rename(_object(line, f"line {number} of {self.file}")) for number, line in _count(lines)]
        comma = bool(lines) and "," in lines[0]
        rows = [_cells(line, comma) for line in lines]
        if not rows:
            return []
        if self.by_number:
            places = {name: int(column) - 1 for name, column in self.columns.items()}
            first = 0 if _is_numbers(rows[0], places) else 1
        else:
            places, first = self._places(rows[0]), 1
        return [self._pick(cells, places, number) for number, cells in _count(rows) if number > first]

    @property
    def by_number(self) -> bool:
        return any(column.isdecimal() for column in self.columns.values())

    def lacks(self, names: Sequence[str]) -> list[str]:
        """Which of these cannot be told, since the columns have numbers and theirs is not given."""
        return [name for name in names if self.file is not None and self.by_number and name not in self.columns]

    def _rename(self, told: Mapping[str, Any]) -> Row:
        """JSON by our names."""
        named = {name: told[key] for name, key in self.columns.items() if key in told}
        return {**told, **named}

    def _places(self, header: Sequence[str]) -> dict[str, int]:
        for column in self.columns.values():
            if column not in header:
                raise TrainerError(f"{self.file} has no column {column!r}; it has {', '.join(header)[:400]}")
        names = {name: self.columns.get(name, name) for name in (EPOCH, *METRICS)}
        return {name: header.index(column) for name, column in names.items() if column in header}

    def _pick(self, cells: Sequence[str], places: Mapping[str, int], number: int) -> Row:
        for name, place in places.items():
            if place >= len(cells):
                what = f"line {number} of {self.file} has {len(cells)} columns"
                raise TrainerError(f"{what}, and {name} was to be in column {place + 1}")
        return {name: cells[place] for name, place in places.items()}


class Epochs:
    """The epochs that a program has told so far, checked: they rise, from 1 or, as it may count, from 0."""

    def __init__(self, options: TrainOptions) -> None:
        self.last = 0
        self._asked = options.epochs
        self._weighed = {name for name, weight in zip(METRICS, options.fitness_weights, strict=True) if weight}
        self._from_0 = False
        self._since = time.perf_counter()

    def take(self, row: Row) -> EpochMetrics:
        """The metrics of the next epoch. What was not told counts as 0 if the fitness does not weigh it.

        Raises TrainerError for what is none, TrainingDiverged where a loss is not finite.
        """
        epoch = self._number(row)
        losses = _numbers(row.get("losses"))
        if not all(map(math.isfinite, losses.values())):
            raise TrainingDiverged(epoch, losses)
        since, self._since = self._since, time.perf_counter()
        metrics = EpochMetrics(
            epoch=epoch,
            **{name: self._score(row, name, epoch) for name in METRICS},
            losses=losses,
            seconds=_numbers(row).get("seconds", self._since - since),
            final={name: score for name, score in _numbers(row.get("final")).items() if name in METRICS},
            costs=_numbers(row.get("costs")),
        )
        self.last = epoch
        return metrics

    def _number(self, row: Row) -> int:
        told = _read_epoch(row[EPOCH]) if EPOCH in row else self.last + 1
        self._from_0 |= told == 0
        epoch = told + 1 if self._from_0 and EPOCH in row else told
        if epoch <= self.last:
            raise TrainerError(f"the program told of epoch {epoch} after epoch {self.last}; epochs have to rise")
        if epoch > self._asked:
            asked = "was to have 1 epoch" if self._asked == 1 else f"was to have {self._asked} epochs"
            raise TrainerError(f"the program told of epoch {epoch} of a training that {asked}: give it {{epochs}}")
        return epoch

    def _score(self, row: Row, name: str, epoch: int) -> float:
        if name not in row:
            if name in self._weighed:
                raise TrainerError(f"the program told no {name} in epoch {epoch}, and the fitness weighs it")
            return 0.0
        told = row[name]
        score = _read_number(told)
        if score is None or not 0 <= score <= 1 + 1e-6:  # as a mean of single precision may be
            raise TrainerError(f"{name} is {told!s:.40} in epoch {epoch}; it has to lie between 0 and 1")
        return min(score, 1.0)


def _count(items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    return enumerate(items, start=1)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise TrainerError(f"{where} is no JSON object: {line[:80]}")
    return told


def _cells(line: str, comma: bool) -> list[str]:
    if not comma:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]


def _is_numbers(cells: Sequence[str], places: Mapping[str, int]) -> bool:
    """Whether a first line tells of an epoch already, and is no header."""
    found = [cells[place] for name, place in places.items() if name != EPOCH and place < len(cells)]
    return all(_read_number(cell) is not None for cell in found)


def _read_number(told: object) -> float | None:
    """NaN is one, too."""
    if isinstance(told, bool) or not isinstance(told, int | float | str):
        return None
    try:
        return float(told)
    except (ValueError, OverflowError):
        return None


def _read_epoch(told: object) -> int:
    """An epoch's number, as 3, 3.0, "3" or "3/99". Raises TrainerError."""
    number = _read_number(re.sub(r"/\s*\d+\s*$", "", told) if isinstance(told, str) else told)
    if number is None or not math.isfinite(number) or number != int(number) or number < 0:
        raise TrainerError(f"the program told of an epoch {told!s:.40}; it has to be a whole number")
    return int(number)


def _numbers(told: object) -> dict[str, float]:
    """What is a number in a JSON object, by its name; nothing of anything else."""
    items = told.items() if isinstance(told, Mapping) else ()
    read = {name: _read_number(value) for name, value in items if not isinstance(value, str)}
    return {name: number for name, number in read.items() if number is not None}
