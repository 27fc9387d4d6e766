"""Where a study's files lie: every file name of the run folder is spelled here and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainer.function import PICKLED


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
    def front_table(self) -> Path:
        """The front of a study with several goals: a row for each of its hyps."""
        return self.root / "best" / "front.csv"

    def front_hyp(self, number: int) -> Path:
        """A hyp of the front."""
        return self.root / "best" / "front" / f"{number:05d}.yaml"

    @property
    def unconfirmed(self) -> Path:
        """The best hyp of the search, where a race has left the base as best."""
        return self.root / "best" / "unconfirmed.yaml"

    @property
    def race(self) -> Path:
        """What the last race has decided, for programs."""
        return self.root / "race.json"

    @property
    def table(self) -> Path:
        """One row a finished trial, for spreadsheets."""
        return self.root / "evolve.csv"

    @property
    def report(self) -> Path:
        """The study as one page, renewed while it runs."""
        return self.root / "report.html"

    @property
    def space(self) -> Path:
        """The space of a study that Python was given one for; else it lies where the configuration says."""
        return self.root / "space.yaml"

    @property
    def log(self) -> Path:
        """What happened to the study, a line for every trial."""
        return self.root / "evolve.log"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's folders, if they were asked for."""
        return self.root / "tensorboard"

    def tensorboard_run(self, number: int) -> Path:
        """TensorBoard's folder of one trial."""
        return self.tensorboard / f"{number:05d}"

    def replay(self, number: int) -> Path:
        """The folder of one trial that was trained again."""
        return self.root / "replays" / f"{number:05d}"

    def trainer(self, name: str) -> Path:
        """A trainer that Python was given and that no other process could import."""
        return self.root / f"{name}{PICKLED}"

    @property
    def worker_log(self) -> Path:
        """What the training process printed."""
        return self.root / "worker.log"

    @property
    def lock(self) -> Path:
        """Held while a study runs here."""
        return self.root / ".lock"

    @property
    def for_others(self) -> tuple[str, ...]:
        """Patterns of what a copy of the folder needs, to be looked at and to go on elsewhere."""
        best = (self.best_hyp, self.unconfirmed, self.front_table, self.best_hyp.parent / "front" / "*.yaml")
        folders = (self.trials / "*", self.of_race("*").trials / "*")
        metrics = (folder / "metrics.jsonl" for folder in folders)
        given = (self.space, self.trainer("*"))
        told = (self.race, self.report)
        found = (self.config, *given, self.table, self.database, *told, *best, *metrics)
        return tuple(path.relative_to(self.root).as_posix() for path in found)

    def of_race(self, name: str) -> RunPaths:
        """The files of a race's trainings, which are numbered as trials are."""
        return RunPaths(self.races / name)

    @property
    def uploads(self) -> Path:
        """What people have uploaded by a dashboard that may be written to."""
        return self.root / "uploads"

    @property
    def trials(self) -> Path:
        """The folder of the trials' folders."""
        return self.root / "trials"

    @property
    def races(self) -> Path:
        """The folder of the races' folders."""
        return self.root / "races"

    def trial(self, number: int) -> Path:
        """The folder that is one trial's own."""
        return self.trials / f"{number:05d}"

    def metrics(self, number: int) -> Path:
        """One JSON line an epoch of one trial."""
        return self.trial(number) / "metrics.jsonl"

    def train_log(self, number: int) -> Path:
        """What one trial's training printed."""
        return self.trial(number) / "train.log"

    def last(self, number: int) -> Path:
        """The state of one trial after its last epoch, from which it can go on."""
        return self.trial(number) / "last.pt"

    def best(self, number: int) -> Path:
        """The weights of one trial's fittest epoch."""
        return self.trial(number) / "best.pt"


@dataclass(frozen=True)
class TrainingPaths:
    """The files of one `evolve train`, all below `root`. Of several seeds each has its own `seed` below it."""

    root: Path

    @property
    def config(self) -> Path:
        """What was asked for; `evolve train --resume` reads it."""
        return self.root / "args.yaml"

    @property
    def hyp(self) -> Path:
        """The hyp that is trained with."""
        return self.root / "hyp.yaml"

    @property
    def worker_log(self) -> Path:
        """What the training process printed before the training."""
        return self.root / "worker.log"

    @property
    def lock(self) -> Path:
        """Held while something trains here."""
        return self.root / ".lock"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch, with everything that is known of it."""
        return self.root / "metrics.jsonl"

    @property
    def table(self) -> Path:
        """One row an epoch, with YOLOv5's columns."""
        return self.root / "results.csv"

    @property
    def last(self) -> Path:
        """The state after the last epoch: weights, and all that is needed to go on."""
        return self.root / "last.pt"

    @property
    def best(self) -> Path:
        """The weights of the fittest epoch."""
        return self.root / "best.pt"

    def of_seed(self, seed: int) -> TrainingPaths:
        """The files of one of several seeds."""
        return TrainingPaths(self.root / f"seed-{seed}")


def found_as(study: str, root: Path) -> str:
    """What commands find a study by: its name where it lies in ./runs under it, else its run folder."""
    return study if root.resolve() == (Path("runs") / study).resolve() else from_here(root.resolve())


def from_here(path: Path | str) -> str:
    """A path below the working folder as it is typed there; anything else unchanged."""
    return str(path).removeprefix(os.getcwd() + os.sep)
