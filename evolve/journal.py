"""What a training measured, epoch by epoch, on disk: metrics.jsonl, results.csv, and TensorBoard's events if wanted."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evolve.config import ConfigError
from evolve.fitness import METRICS
from evolve.paths import TrainingPaths
from evolve.plain import plain
from studies import write_atomically
from trainer import EpochMetrics
from trainer.messages import metrics_from_dict, metrics_to_dict

Row = Mapping[str, Any]

COLUMNS = {  # YOLOv5 v7.0, utils/loggers/__init__.py
    "precision": "metrics/precision",
    "recall": "metrics/recall",
    "map50": "metrics/mAP_0.5",
    "map50_95": "metrics/mAP_0.5:0.95",
}


def epoch_row(metrics: EpochMetrics, fitness: float) -> dict[str, Any]:
    """One epoch as plain values; None stands for what is no finite number, which JSON has no word for."""
    row: dict[str, Any] = plain({**metrics_to_dict(metrics), "fitness": fitness})
    return row


def json_line(row: Row) -> str:
    return json.dumps(row) + "\n"


def metrics_of(row: Row) -> EpochMetrics:
    """The epoch that a row tells of; NaN for what is missing in it."""
    numbers = {name: math.nan if row.get(name) is None else float(row[name]) for name in (*METRICS, "seconds")}
    losses, costs = (
        {name: math.nan if number is None else float(number) for name, number in row.get(key, {}).items()}
        for key in ("losses", "costs")
    )
    return metrics_from_dict({"epoch": int(row["epoch"]), **numbers, "losses": losses, "costs": costs})


def read_rows(path: Path) -> list[Row]:
    """The epochs in a metrics.jsonl, by number; a line that a kill or a power cut left torn is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows: dict[int, Row] = {}
    for line in text.split("\n"):
        with suppress(ValueError, TypeError, AttributeError):
            row = {"losses": {}, **json.loads(line)}
            metrics = metrics_of(row)
            rows[metrics.epoch] = {**row, "epoch": metrics.epoch}
    return [rows[epoch] for epoch in sorted(rows)]


class Journal:
    """The epochs of one training, in two files: a line each, appended and flushed.

    A training that goes on `keep`s what is there. Its first epoch replaces both files, without the rows of epochs that
    are trained again. A file that cannot be written (the disk is full) is one warning and not the end of a training:
    the next epoch writes both anew.
    """

    def __init__(self, paths: TrainingPaths, warn: Callable[[str], object], *, keep: bool = False) -> None:
        self._paths = paths
        self._warn = warn
        self._warned = False
        self._whole = False  # whether both files hold all rows
        self.rows: list[Row] = read_rows(paths.metrics) if keep else []

    def add(self, row: Row) -> None:
        before = [known for known in self.rows if known["epoch"] < row["epoch"]]
        fits = len(before) == len(self.rows) and set(row["losses"]) <= set(_losses(before))
        self.rows = [*before, row]
        try:
            self._write(anew=not (self._whole and fits))
        except OSError as error:
            if not self._warned:
                self._warn(
                    f"cannot write {error.filename or self._paths.root} ({error.strerror}); the training goes on"
                )
            self._warned = True

    def _write(self, *, anew: bool) -> None:
        self._whole = False
        columns, rows = table_columns(_losses(self.rows)), self.rows if anew else self.rows[-1:]
        lines = "".join(map(json_line, rows))
        table = _csv(
            [*([columns] if anew else []), *([scalars(row).get(name, "") for name in columns] for row in rows)]
        )
        for path, text in ((self._paths.metrics, lines), (self._paths.table, table)):
            if anew:
                write_atomically(path, text)
            else:
                with path.open("a", encoding="utf-8") as file:  # in one write, when it is closed
                    file.write(text)
        self._whole = True


def table_columns(losses: Iterable[str]) -> list[str]:
    """YOLOv5's names, and how long the epoch took."""
    return ["epoch", *(f"train/{name}_loss" for name in losses), *COLUMNS.values(), "seconds"]


def scalars(row: Row) -> dict[str, Any]:
    """An epoch under the names of the table's columns."""
    values = {f"train/{name}_loss": loss for name, loss in row["losses"].items()}
    values |= {column: row.get(name) for name, column in COLUMNS.items()}
    values |= {"epoch": row["epoch"], "seconds": row.get("seconds")}
    return {name: "nan" if value is None else value for name, value in values.items()}


class Board:
    """Writes TensorBoard's event file into a folder, under the names of the table's columns.

    Where that cannot be done (the disk is full), it is one warning, and no more is written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], object]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder = folder
        self._warn = warn
        self._failed = False
        self._first = True
        # TensorBoard reads a folder's files in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)

    def add(self, row: Row) -> None:
        if not self._failed:
            self._forgive(lambda: self._write(row))

    def describe(self, values: Mapping[str, Any], name: str) -> None:
        """Show these values as HPARAMS; before the first epoch."""
        if not self._failed:
            self._forgive(lambda: self._write_values(values, name))

    def close(self) -> None:
        self._forgive(self._file.close)

    def _forgive(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            if not self._failed:
                self._warn(f"cannot write TensorBoard's events to {self._folder} ({error.strerror})")
            self._failed = True

    def _write(self, row: Row) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now, step = time.time(), row["epoch"]
        told = {name: float(value) for name, value in scalars(row).items() if name != "epoch"}
        told["metrics/fitness"] = math.nan if row.get("fitness") is None else row["fitness"]
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in told.items()])
        self._put(Event(wall_time=now, step=step, summary=summary))

    def _write_values(self, values: Mapping[str, Any], name: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._put(Event(wall_time=time.time(), summary=hparams_pb(dict(values), trial_id=name)))

    def _put(self, event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        events = [event]
        if self._first:  # the second voids what an earlier file holds of this epoch and later ones
            start = Event(wall_time=event.wall_time, step=event.step, session_log=SessionLog(status=SessionLog.START))
            events = [Event(wall_time=event.wall_time, file_version="brain.Event:2"), start, event]
        for one in events:
            self._records.write(one.SerializeToString())
        self._records.flush()
        self._first = False


def check_tensorboard() -> None:
    """ConfigError where the package is missing."""
    if find_spec("tensorboard") is None:
        raise ConfigError("--tensorboard needs a package that is not installed: pip install 'evolve-hyp[tensorboard]'")


def _losses(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["losses"]))


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
