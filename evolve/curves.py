"""Reads recorded learning curves: of a study's run folder, of TaskSet's tables (.npz), or of a file of one's own."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from evolve.config import ConfigError
from evolve.lookup import Found, find_study
from evolve.opening import longest_warmup
from evolve.paths import RunPaths
from evolve.replay import Curve
from search_spaces import Space
from studies import trials_of
from studies.study import Direction
from studies.trials import BASE, counts, hyp_of

MOST_SHOWN = 3
MOST_BYTES = 2**30  # of a table


@dataclass(frozen=True)
class Recording:
    """Curves that all ran to the same last epoch; `left_out` counts what else there was, by reason."""

    curves: tuple[Curve, ...]
    direction: Direction = "maximize"
    left_out: Mapping[str, int] = field(default_factory=dict)
    warmup_epochs: float = 0
    space: Space | None = None

    @property
    def epochs(self) -> int:
        return self.curves[0].epochs


def read_curves(source: str, runs: Path, *, minimize: bool = False) -> Recording:
    """What the source holds: a study by name or run folder, or a file, told by its ending.

    - `.npz`: TaskSet's tables: `valid_loss` [N, epochs], a loss; NaN is a training that diverged.
    - `.jsonl`: a curve a line, {"fitness": [after epoch 1, 2, ...], "seconds": [...]}; the seconds may be missing.
    - `.csv`: an epoch a line, with the columns curve, epoch, fitness and, if known, seconds.

    `minimize`: the numbers of a .jsonl or .csv are losses. Raises ConfigError, StudyError.
    """
    path = Path(source)
    readers = {".npz": _read_npz, ".jsonl": _read_jsonl, ".csv": _read_csv}
    if path.suffix in readers and not path.is_dir():
        try:
            rows = readers[path.suffix](path)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{path} cannot be read as {path.suffix}: {error}") from error
        return _whole(rows, {}, source, direction="minimize" if minimize or path.suffix == ".npz" else "maximize")
    if path.is_file():
        raise ConfigError(f"{path} holds no curves that are known: give a run folder, or a .jsonl, .csv or .npz file")
    return _read_study(find_study(source, runs))


def _read_study(found: Found) -> Recording:
    """The complete trials, by number."""
    if len(found.study.directions) > 1:
        raise ConfigError(f"the study in {found.paths.root} has more than one goal, and no pruner serves these")
    trials = [trial for trial in trials_of(found.study) if counts(trial)]
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.intermediate_values]
    left_out = {
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "failed": sum(trial.state == TrialState.FAIL for trial in trials),
        "complete but without a curve": sum(trial.state == TrialState.COMPLETE for trial in trials) - len(ended),
    }
    curves = [_of_trial(trial, found) for trial in ended]
    epochs = int(found.identity["epochs"])
    return _whole(
        curves,
        left_out,
        str(found.paths.root),
        direction="maximize",
        warmup_epochs=longest_warmup(found.space, epochs),
        space=found.space,
    )


def _of_trial(trial: FrozenTrial, found: Found) -> Curve:
    attrs = {BASE: True} if trial.user_attrs.get(BASE) else {}
    seconds = _seconds(found.paths.metrics(trial.number), trial.intermediate_values)
    return Curve(trial.number, trial.intermediate_values, seconds, {**found.space.fixed, **hyp_of(trial)}, attrs)


def _seconds(path: Path, fitness: Mapping[int, float]) -> dict[int, float]:
    """How long each epoch took, by the trial's metrics.jsonl; {} if that is gone or does not tell of every epoch."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {int(row["epoch"]): float(row["seconds"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if found.keys() == fitness.keys() else {}


def _read_npz(path: Path) -> list[Curve]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("valid_loss.npy") as file:
            if (size := archive.getinfo(file.name).file_size) > MOST_BYTES:
                raise ConfigError(f"{path}: 'valid_loss' unpacks to {size} bytes; expected {MOST_BYTES} at most")
            table = np.lib.format.read_array(file, allow_pickle=False).astype(float)
    except ConfigError:
        raise
    except Exception as error:  # zip, its compressions and numpy raise nearly anything on damaged files
        raise ConfigError(f"{path} has no table 'valid_loss' as TaskSet's files do: {error}") from error
    if table.ndim != 2 or not table.size:
        raise ConfigError(f"{path}: 'valid_loss' has the shape {table.shape}; expected [curves, epochs]")
    return [Curve(number, dict(enumerate(row.tolist(), start=1))) for number, row in enumerate(table)]


def _read_jsonl(path: Path) -> list[Curve]:
    curves: list[Curve] = []
    for at, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                fitness = [float(value) for value in row["fitness"]]
                seconds = [float(value) for value in row.get("seconds", ())]
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                raise _not_a_curve(path, at, '{"fitness": [0.1, 0.2, ...]}', line) from None
            if seconds and len(seconds) != len(fitness):
                raise ConfigError(f"{path}, line {at}: {len(fitness)} fitnesses, but {len(seconds)} seconds")
            curves.append(Curve(len(curves), _by_epoch(fitness), _by_epoch(seconds)))
    return curves


def _read_csv(path: Path) -> list[Curve]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        missing = {"curve", "epoch", "fitness"} - set(rows.fieldnames or ())
        if missing:
            hint = "; it only tells how trials ended: give its folder" if path.name == RunPaths(path).table.name else ""
            raise ConfigError(f"{path} lacks the column {min(missing)!r} of curve, epoch, fitness{hint}")
        fitness: dict[str, dict[int, float]] = {}
        seconds: dict[str, dict[int, float]] = {}
        for row in rows:
            try:
                name, epoch = row["curve"], int(row["epoch"])
                fitness.setdefault(name, {})[epoch] = float(row["fitness"])
                if row.get("seconds"):
                    seconds.setdefault(name, {})[epoch] = float(row["seconds"])
            except (ValueError, TypeError):
                got = ",".join(map(str, row.values()))
                raise _not_a_curve(path, rows.line_num, "a curve, an epoch and a fitness", got) from None
    return [
        Curve(number, by_epoch, seconds.get(name, {}) if seconds.get(name, {}).keys() == by_epoch.keys() else {})
        for number, (name, by_epoch) in enumerate(fitness.items())
    ]


def _whole(curves: Sequence[Curve], left_out: Mapping[str, int], source: str, **more: Any) -> Recording:
    """The curves that can be replayed: finite, from epoch 1 or later to the last epoch that any has reached."""
    finite = [curve for curve in curves if curve.fitness and all(map(math.isfinite, curve.fitness.values()))]
    last = max((curve.epochs for curve in finite), default=0)
    whole = tuple(curve for curve in finite if curve.epochs == last and min(curve.fitness) >= 1)
    if len(whole) < 2:
        raise ConfigError(f"{source} holds {len(whole)} complete curves; there have to be two at least to compare")
    reasons = {**left_out, "not finite": len(curves) - len(finite), "shorter than the others": len(finite) - len(whole)}
    return Recording(whole, left_out={reason: count for reason, count in reasons.items() if count}, **more)


def _by_epoch(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def _not_a_curve(path: Path, at: int, wanted: str, got: str) -> ConfigError:
    line = " ".join(got.split())
    shown = line if len(line) <= 60 else line[:57] + "..."
    return ConfigError(f"{path}, line {at}: expected {wanted}, got {shown}")
