"""TensorBoard's event files of a study: a run for every trial, with its hyp among the HPARAMS."""

from __future__ import annotations

import os
import shutil
from contextlib import closing

from optuna import Study

from evolve.journal import Board
from evolve.keeping import entries_of
from evolve.paths import RunPaths, from_here
from evolve.tracking import Ended


class TensorBoardRuns:
    """One folder a trial below <run folder>/tensorboard, which appears when it is whole."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths

    @property
    def place(self) -> str:
        return from_here(self._paths.tensorboard)

    def sent(self, study: Study) -> set[int]:
        return {int(path.name) for path in entries_of(self._paths.tensorboard) if path.name.isdecimal()}

    def send(self, study: Study, trial: Ended) -> None:
        folder = self._paths.tensorboard_run(trial.number)
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
        with closing(Board(part, _refuse)) as board:
            board.describe({**trial.hyp, "state": trial.state}, folder.name)
            for row in trial.rows:
                board.add(row)
        os.rename(part, folder)


def _refuse(warning: str) -> None:
    raise OSError(warning)
