"""Reads the study of a run folder without writing to it, whoever works on it or was killed while doing so."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from evolve.config import read_config
from evolve.paths import RunPaths
from search_spaces import Hyp
from studies import open_storage, trials_of
from studies.trials import BASE, SEED, counts, generations


@dataclass(frozen=True)
class StoredStudy:
    """What a storage held at one moment: the hyp that the study began with, and all trials by number."""

    base: Hyp
    trials: tuple[FrozenTrial, ...]

    @property
    def complete(self) -> dict[int, FrozenTrial]:
        return {trial.number: trial for trial in self.trials if trial.state == TrialState.COMPLETE}

    @property
    def by_generation(self) -> dict[int, FrozenTrial]:
        """The finished trial of each generation (from 0), whichever one of its retries that was."""
        found = zip(generations(self.trials), self.trials, strict=True)
        return {generation: trial for generation, trial in found if counts(trial)}

    def count(self, state: TrialState) -> int:
        """Trials in that state; those that were lost do not count."""
        return sum(trial.state == state and (counts(trial) or not state.is_finished()) for trial in self.trials)

    def whole_hyp(self, trial: FrozenTrial) -> dict[str, Any]:
        """The trial's params, and the base's values for what is fixed."""
        return {**self.base, **trial.params}


def read_stored(folder: Path) -> StoredStudy | None:
    """The study of a run folder as its storage has it now; None where there is none yet."""
    paths = RunPaths(folder)
    settings = read_config(paths.config) if paths.config.exists() else {}
    url = settings.get("storage")
    if url is None and not paths.database.exists():
        return None
    storage = None
    try:
        storage = open_storage(url) if url else _open_read_only(paths.database)
        study = optuna.load_study(study_name=settings.get("study", folder.name), storage=storage)
        return StoredStudy(study.user_attrs.get(BASE, {}), tuple(trials_of(study)))
    except KeyError:
        return None
    except (OperationalError, StorageInternalError) as error:
        # Killed while it was created: SQLite wants to roll back, or Optuna to go on with its tables. Writers may.
        if re.search("no such table|readonly database", f"{error} {error.__cause__}"):
            return None
        raise
    finally:
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()


def best_trainings(complete: Mapping[int, FrozenTrial]) -> list[FrozenTrial]:
    """All of the hyp of the highest mean, of equals the first; in words of its own, to check `studies.best_of` by."""
    trainings: dict[str, list[FrozenTrial]] = {}
    for _, trial in sorted(complete.items()):
        trainings.setdefault(repr(sorted(trial.params.items())), []).append(trial)
    return max(trainings.values(), key=mean_value, default=[])


def mean_value(trainings: Sequence[FrozenTrial]) -> float:
    return fmean(-math.inf if trial.value is None else trial.value for trial in trainings)


def first_difference(one: StoredStudy, other: StoredStudy) -> str | None:
    """The first generation that is not the same in both studies, and in what; None if they are equal.

    Equal means the same bits: hyp, training seed, state, and the fitness of every epoch.
    """
    ours, theirs = one.by_generation, other.by_generation
    for generation in sorted({*ours, *theirs}):
        if generation not in ours or generation not in theirs:
            return f"generation {generation + 1} is missing in the {'first' if generation in theirs else 'second'}"
        mine, yours = _facts(ours[generation]), _facts(theirs[generation])
        for name in mine:
            if mine[name] != yours[name]:
                return f"generation {generation + 1} differs in {name}: {mine[name]} and {yours[name]}"
    return None


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    return {
        **{f"hyp {name}": value for name, value in sorted(trial.params.items())},
        "number of hyps": len(trial.params),
        "seed": trial.user_attrs.get(SEED),
        "state": trial.state.name,
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "fitness by epoch": trial.intermediate_values,
    }


def _open_read_only(database: Path) -> BaseStorage:
    """Optuna's storage over a file that the system lets nobody write to through this connection."""
    url = URL.create("sqlite", database=database.resolve().as_uri(), query={"mode": "ro", "uri": "true"})
    escaped = url.render_as_string().replace("{", "{{").replace("}", "}}")  # Optuna calls url.format()
    return RDBStorage(escaped, skip_compatibility_check=True, skip_table_creation=True)
