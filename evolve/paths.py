"""Where a study's files lie: every file name of the run folder is spelled here and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The files of one study, all below `root` = <runs>/<study>. Naming a file does not make it."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; `evolve run --config` takes it."""
        return self.root / "evolve.yaml"

    @property
    def database(self) -> Path:
        """The study itself, unless it lives in another storage."""
        return self.root / "study.db"

    @property
    def best_hyp(self) -> Path:
        """The best hyp so far, replaced atomically."""
        return self.root / "best" / "hyp.yaml"

    @property
    def table(self) -> Path:
        """One row a finished trial, for spreadsheets."""
        return self.root / "evolve.csv"

    @property
    def worker_log(self) -> Path:
        """What the training process printed."""
        return self.root / "worker.log"

    @property
    def lock(self) -> Path:
        """Held while a study runs here."""
        return self.root / ".lock"

    def trial(self, number: int) -> Path:
        """The folder that is one trial's own."""
        return self.root / "trials" / f"{number:05d}"

    def metrics(self, number: int) -> Path:
        """One JSON line an epoch of one trial."""
        return self.trial(number) / "metrics.jsonl"


def from_here(path: Path | str) -> str:
    """A path below the working folder as it is typed there; anything else unchanged."""
    return str(path).removeprefix(os.getcwd() + os.sep)
