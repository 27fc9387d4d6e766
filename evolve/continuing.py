"""A trial that was lost goes on in its retry: with the checkpoint that it left, and all that is known of its epochs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optuna import Trial

from evolve.journal import Row, read_rows
from evolve.paths import RunPaths
from studies import trials_of
from studies.trials import lost_before


@dataclass(frozen=True)
class Known:
    """The epochs of a hyp's lost trials: the fitness of each and its line in metrics.jsonl; of two the later one."""

    fitness: Mapping[int, float]
    rows: Mapping[int, Row]


def take_over(paths: RunPaths, trial: Trial) -> Known | None:
    """Move the last checkpoint of the lost trials that this one retries into its folder; None where there is none.

    There is one if the trainer leaves any, and if the lost trial's folder is on this machine or shared with it.
    """
    lost = lost_before(trials_of(trial.study), trial)
    folders = [before.number for before in lost]
    _move_latest(paths.best, folders, trial.number)  # goes first: the other one decides
    if not _move_latest(paths.last, folders, trial.number):
        return None
    known = Known({}, {})
    for before in reversed(lost):
        rows = {row["epoch"]: row for row in read_rows(paths.metrics(before.number))}
        known = Known({**known.fitness, **before.intermediate_values}, {**known.rows, **rows})
    return known


def _move_latest(path_of: Callable[[int], Path], folders: list[int], number: int) -> bool:
    """Whether one of these trials, the first of them that has it, has left the file, which is that trial's now."""
    for before in folders:
        with suppress(OSError):
            os.replace(path_of(before), path_of(number))
            return True
    return False
