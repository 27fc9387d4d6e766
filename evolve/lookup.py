"""Finds a study that was run before, by its name or the folder it lies in, and reads what it found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.storages import BaseStorage

from evolve.config import MASK, ConfigError, did_you_mean, read_config
from evolve.paths import RunPaths
from search_spaces import Hyp, Space
from studies import BestHyp, StudyError, best_front_of, open_storage, sqlite_url, storage_errors
from studies.decision import Decision
from studies.racing import latest_decision
from studies.study import CONFIG, IDENTITY
from studies.trials import BASE


@dataclass(frozen=True)
class Found:
    """A stored study: its space, the hyp that it began with, and the best one: of several goals, all of the front.

    There is none while no trial has completed. `decision` is what a race of the study as it is now has decided, if
    there was one.
    """

    paths: RunPaths
    study: Study
    identity: Mapping[str, Any]
    space: Space
    base: Hyp
    front: tuple[BestHyp, ...]
    decision: Decision | None = None

    @property
    def best(self) -> BestHyp | None:
        return next(iter(self.front), None)


@dataclass(frozen=True)
class Place:
    """The URL of a storage; the name of a study in it and its run folder, as far as these are known."""

    url: str
    study: str | None
    paths: RunPaths | None


def find_study(name: str | None, runs: Path, storage: str | None = None) -> Found:
    """The study of that name in `runs`, or in the folder `name`; without a name the one that improved last.

    `storage` is needed where evolve.yaml does not hold the password. Raises ConfigError, StudyError.
    """
    paths = RunPaths(_folder(name, runs))
    url, study_name = _kept_in(paths, storage)
    with storage_errors(url):
        study = load(open_storage(url, read_only=True), study_name)
        noted = study.user_attrs
        space = Space.from_dict(noted[IDENTITY]["space"])
        front, decision = tuple(best_front_of(study, space)), latest_decision(study, space)
        return Found(paths, study, noted[IDENTITY], space, noted[BASE], front, decision)


def find_stored(name: str | None, runs: Path, storage: str | None = None) -> Study:
    """The study itself, to be read only. With `storage` it needs no folder here: `name` is then its name there.

    Without a name it is the one that improved last of those in `runs`, or the only one in `storage`. Raises
    ConfigError, StudyError.
    """
    return find_with_folder(name, runs, storage)[0]


def find_with_folder(name: str | None, runs: Path, storage: str | None = None) -> tuple[Study, RunPaths | None]:
    """The study that `find_stored` finds, and its run folder if it is here."""
    place = locate(name, runs, storage)
    with storage_errors(place.url):
        opened = open_storage(place.url, read_only=True)
        study = load(opened, place.study or _only_study(opened))
    return study, place.paths if place.paths is not None and is_of(study.study_name, place.paths) else None


def locate(name: str | None, runs: Path, storage: str | None = None) -> Place:
    """Where that study is kept, by the same rules; the folder may be another study's in the same storage.

    Raises ConfigError, StudyError.
    """
    if storage is None or (name is not None and (_is_folder(runs / name) or _is_folder(Path(name)))):
        paths = RunPaths(_folder(name, runs))
        return Place(*_kept_in(paths, storage), paths)
    return Place(storage, name, _beside(storage))


def _beside(url: str) -> RunPaths | None:
    """The run folder that a database lies in, if it does."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    return RunPaths(folder) if url.startswith("sqlite:///") and _is_folder(folder) else None


def is_of(study: str, paths: RunPaths) -> bool:
    """Whether this is the run folder of a study of that name."""
    try:
        return bool(read_config(paths.config).get("study", paths.root.name) == study)
    except (ConfigError, StudyError):
        return False


def run_folders(runs: Path) -> list[Path]:
    """The run folders of the studies in `runs`, by name."""
    return [file.parent for file in sorted(runs.glob(f"*/{RunPaths(runs).config.name}"))]


def stored_names(storage: str) -> list[str]:
    """The names of the studies in a storage that are run; races are named after theirs. Raises StudyError."""
    return _names(open_storage(storage, read_only=True))


def load(storage: BaseStorage, name: str) -> Study:
    """An evolve study of that name. Raises StudyError."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise StudyError(f"there is no study {name} in its storage") from None
    if IDENTITY not in study.user_attrs:
        raise StudyError(f"the study {name} was not made by evolve, or its making was cut short")
    return study


def _kept_in(paths: RunPaths, storage: str | None) -> tuple[str, str]:
    """The storage of the study with that run folder, and its name there."""
    settings = read_config(paths.config)
    study_name, kept_in = settings.get("study", paths.root.name), storage or settings.get("storage")
    if kept_in is None and not paths.database.exists():
        raise StudyError(f"{paths.database} is gone: the study {study_name} was kept there")
    if kept_in is not None and MASK in kept_in:
        raise ConfigError(f"the storage in {paths.config} lacks its password: give the URL with --storage")
    return kept_in or sqlite_url(paths.database), study_name


def _only_study(storage: BaseStorage) -> str:
    names = _names(storage)
    if not names:
        raise StudyError("there is no study of evolve in this storage")
    if len(names) > 1:
        raise StudyError(f"there are several studies in this storage, say which: {', '.join(names)}")
    return names[0]


def _names(storage: BaseStorage) -> list[str]:
    return sorted(study.study_name for study in storage.get_all_studies() if CONFIG in study.user_attrs)


def _folder(name: str | None, runs: Path) -> Path:
    known = {folder.name: folder for folder in run_folders(runs)}
    if name is None:
        if not known:
            raise ConfigError(f"there is no study in {runs}: `evolve run` makes one, --runs looks elsewhere")
        return max(known.values(), key=_last_improved)
    if name in known:
        return known[name]
    if _is_folder(Path(name)):
        return Path(name)
    raise ConfigError(f"there is no study '{name}' in {runs}{did_you_mean(name, known) if known else ''}")


def _is_folder(path: Path) -> bool:
    return RunPaths(path).config.is_file()


def _last_improved(folder: Path) -> float:
    paths = RunPaths(folder)
    return (paths.best_hyp if paths.best_hyp.exists() else paths.config).stat().st_mtime
