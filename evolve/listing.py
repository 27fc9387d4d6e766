"""`evolve list`: the studies of a folder, or of a storage, a line each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna import Study
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evolve.config import ConfigError, mask_secrets
from evolve.lookup import find_stored, run_folders, stored_names
from evolve.panel import say_gain
from evolve.paths import from_here
from evolve.status import look_at
from evolve.tables import show_fitness
from studies import StudyError, storage_errors, trials_of
from studies.status import Best


@dataclass(frozen=True)
class Listed:
    """A study in a list. `state` is running, done, stopped or unreadable, and then `problem` says why.

    `finished` of `generations` (None: not known) have ended, the last trial at `changed`; `workers` are those alive.
    """

    study: str
    state: str
    folder: Path | None = None
    finished: int = 0
    generations: int | None = None
    workers: int = 0
    best: Best | None = None
    changed: datetime | None = None
    problem: str = ""


def list_studies(runs: Path, storage: str | None = None) -> list[Listed]:
    """Those with a run folder in `runs`, by name; with a storage those in there. One that is broken is listed too."""
    if storage is None:
        return [_look(folder.name, folder) for folder in run_folders(runs)]
    with storage_errors(storage):
        names = stored_names(storage)
    return [_look(name, None, storage) for name in names]


def tell_studies(console: Console, listed: list[Listed], runs: Path) -> None:
    """Print the list, or that there is nothing to list."""
    if not listed:
        console.print(Text(f"there is no study in {from_here(runs)}: `evolve run` makes one, --runs looks elsewhere"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("study", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("generations", "best", "base"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gain")
    table.add_column("last trial", no_wrap=True)
    for one in listed:
        table.add_row(one.study, one.state, *_cells(one))
    console.print(table, highlight=False)


def _cells(one: Listed) -> tuple[str, ...]:
    if one.problem:
        return "", "", "", one.problem, ""
    best, base = one.best, one.best.base if one.best else None
    done = f"{one.finished}" + ("" if one.generations is None else f"/{one.generations}")
    return (
        done,
        show_fitness(best.fitness if best else None),
        show_fitness(base.fitness if base else None),
        _gain(best),
        "" if one.changed is None else f"{one.changed.astimezone():%Y-%m-%d %H:%M}",
    )


def _gain(best: Best | None) -> str:
    """'+0.0409, +11.6 %, confirmed'."""
    if best is None or best.base is None:
        return ""
    gain = say_gain(best.fitness, best.base.fitness).removeprefix(": ").removesuffix(" against the base")
    raced = {None: "no race", True: "confirmed", False: "not confirmed"}[best.confirmed if best.verdict else None]
    return gain if gain.startswith("nothing") else f"{gain}, {raced}"


def _look(name: str, folder: Path | None, storage: str | None = None) -> Listed:
    try:
        with storage_errors(storage or ""):
            return _listed(find_stored(name, folder.parent if folder else Path(), storage), folder)
    except (ConfigError, StudyError, OSError) as error:
        problem = " ".join(mask_secrets(str(error)).split())
        return Listed(name, "unreadable", folder, problem=problem)


def _listed(study: Study, folder: Path | None) -> Listed:
    found = look_at(study)
    working = sum(worker.life == "alive" for worker in found.workers)
    over = found.generations is not None and found.counts.finished >= found.generations
    ends: list[Any] = [trial.datetime_complete for trial in trials_of(study) if trial.datetime_complete]
    return Listed(
        study=study.study_name,
        state="running" if working else "done" if over else "stopped",
        folder=folder,
        finished=found.counts.finished,
        generations=found.generations,
        workers=working,
        best=found.best,
        changed=max(ends).astimezone(UTC) if ends else None,
    )
