"""What a study has to show beside its trials: a note, pictures, and the files that it has left; read where they are.

Optuna's dashboard keeps such things in the study's storage. There pictures of a thousand trials are thousands of rows,
which whoever opens the study would read, and which are old with the next trial. So nothing is stored for it: they are
made of the study whenever the dashboard asks, by whoever looks at it.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.storages import BaseStorage

from evolve.config import ConfigError
from evolve.describing import describe
from evolve.lookup import Place, is_of
from evolve.paths import RunPaths
from evolve.status import asked_of
from studies import StudyError, trials_of
from studies.note import VERSION, is_of_a_person
from studies.racing import races_of
from studies.study import IDENTITY

logger = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".html")  # that trainings leave
MOST_FILES, FOLDERS_DEEP = 60, 2  # of a trial
SHARE = 10  # one part in so many of the time is spent on drawing
FIRST_WAIT_S, WAIT_S = 60.0, 3.0  # how long an answer waits for pictures that are being drawn

Picture = tuple[str, str]  # its name, and the figure as Plotly's JSON


@dataclass(frozen=True)
class Exhibits:
    """What the studies of a storage have to show. `place` is where it is, with the folder of one study if it is known.

    `draw` makes the pictures of a study.
    """

    storage: BaseStorage
    place: Place
    draw: Callable[[Study], Sequence[Picture]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_galleries", {})

    def add_to(self, study_id: int, detail: dict[str, Any]) -> None:
        """Add them to the dashboard's answer about a study; one that is not of evolve has none."""
        study = self._study(study_id)
        if study is None:
            return
        noted = self.storage.get_study_system_attrs(study_id)
        if not is_of_a_person(noted):
            with suppress(ConfigError, StudyError):  # of another version
                detail["note"] = {"version": noted.get(VERSION, 0), "body": describe(study)}
        drawn = [{"id": name, "graph_object": figure} for name, figure in self.gallery(study).pictures()]
        detail["plotly_graph_objects"] = [*drawn, *detail["plotly_graph_objects"]]
        paths = self.paths_of(study)
        if paths is None:
            return
        detail["artifacts"] += [told_of(path, paths) for path in files_of_study(paths)]
        own = {number: files for number in _numbers(detail) if (files := files_of_trial(paths, number))}
        for trial in (*detail["trials"], *detail["best_trials"]):
            trial["artifacts"] += [told_of(path, paths) for path in own.get(trial["number"], ())]

    def file(self, artifact_id: str, study_id: int, trial_id: int | None = None) -> Path | None:
        """The file of a study, or of one of its trials, that has this id."""
        study = self._study(study_id)
        paths = None if study is None else self.paths_of(study)
        if study is None or paths is None:
            return None
        if trial_id is None:
            files = files_of_study(paths)
        else:
            numbers = [trial.number for trial in trials_of(study) if trial._trial_id == trial_id]
            files = [path for number in numbers for path in files_of_trial(paths, number)]
        return next((path for path in files if id_of(path, paths) == artifact_id), None)

    def paths_of(self, study: Study) -> RunPaths | None:
        """The study's run folder, if it is here."""
        if self.place.paths is not None and is_of(study.study_name, self.place.paths):
            return self.place.paths
        try:
            asked = asked_of(study)
        except ConfigError:  # of another version
            return None
        paths = None if asked is None else RunPaths(Path(asked.runs) / asked.study)
        return paths if paths is not None and is_of(study.study_name, paths) else None

    def gallery(self, study: Study) -> Gallery:
        galleries: dict[int, Gallery] = self._galleries  # type: ignore[attr-defined]
        return galleries.setdefault(study._study_id, Gallery(study, self.draw))

    def _study(self, study_id: int) -> Study | None:
        study = optuna.load_study(study_name=self.storage.get_study_name_from_id(study_id), storage=self.storage)
        return study if IDENTITY in study.user_attrs else None


class Gallery:
    """The pictures of one study, drawn anew in the background when there is something new to see."""

    def __init__(self, study: Study, draw: Callable[[Study], Sequence[Picture]]) -> None:
        self._study = study
        self._draw = draw
        self._seen: object = None
        self._pictures: Sequence[Picture] = ()
        self._rest_until = 0.0
        self._lock = threading.Lock()
        self._at_work: threading.Thread | None = None

    def pictures(self) -> Sequence[Picture]:
        """Those of the study as it is; while they take long to draw, those of a moment ago, or none yet."""
        with self._lock:
            now = self._mark()
            busy = self._at_work is not None and self._at_work.is_alive()
            if now != self._seen and not busy and time.monotonic() >= self._rest_until:
                self._at_work = threading.Thread(target=self._work, args=(now,), name="pictures", daemon=True)
                self._at_work.start()
            at_work = self._at_work
        if at_work is not None:
            at_work.join(WAIT_S if self._pictures else FIRST_WAIT_S)
        return self._pictures

    def _work(self, now: object) -> None:
        began = time.monotonic()
        try:
            self._pictures = self._draw(self._study)
            self._seen = now
        except Exception:  # of a storage that is away, say: the dashboard can do without
            logger.exception("the pictures of %s could not be drawn", self._study.study_name)
        ended = time.monotonic()
        self._rest_until = ended + SHARE * (ended - began)

    def _mark(self) -> object:
        """What differs when there is something new."""
        seen = (trials_of(study) for study in (self._study, *races_of(self._study)))
        return [[(trial.state, len(trial.intermediate_values)) for trial in trials] for trials in seen]


def files_of_study(paths: RunPaths) -> list[Path]:
    """What a study has left to look at, for people."""
    known = (
        *(paths.best_hyp, paths.unconfirmed, paths.front_table, paths.report),
        *(paths.race, paths.table, paths.config),
    )
    return [path for path in known if path.is_file()]


def files_of_trial(paths: RunPaths, number: int) -> list[Path]:
    """The pictures that a trial has left."""
    return sorted(_pictures_in(paths.trial(number), FOLDERS_DEEP))[:MOST_FILES]


def id_of(path: Path, paths: RunPaths) -> str:
    """The id by which the dashboard asks for a file: hexadecimal digits and '-', as those of Optuna's are."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path.relative_to(paths.root).as_posix()))


def told_of(path: Path, paths: RunPaths) -> dict[str, str | None]:
    """What the dashboard wants to know of a file."""
    inside = path.relative_to(paths.root).parts
    name = "/".join(inside[2:]) if inside[0] == paths.trials.name else path.name
    return {"artifact_id": id_of(path, paths), "filename": name, "mimetype": kind_of(path), "encoding": None}


def kind_of(path: Path) -> str:
    """Its MIME type; what is text is shown as such."""
    return mimetypes.guess_type(path.name)[0] or "text/plain"


def _pictures_in(folder: Path, depth: int) -> Iterator[Path]:
    """Those in a folder and so many levels of folders in it. Links are not followed."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if depth:
                yield from _pictures_in(Path(entry), depth - 1)
        elif entry.name.lower().endswith(PICTURES) and entry.is_file(follow_symlinks=False):
            yield Path(entry)


def _numbers(detail: Mapping[str, Any]) -> set[int]:
    return {trial["number"] for trial in (*detail["trials"], *detail["best_trials"])}
