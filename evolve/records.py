"""The files that a person opens while a study runs: best/hyp.yaml, evolve.csv and each trial's metrics.jsonl."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna import Study

import evolve
from evolve.config import PROGRAMS, EvolveConfig, mask_url, usual_of
from evolve.hyps import option_hyps
from evolve.journal import Row, epoch_row, json_line
from evolve.paths import RunPaths, from_here
from evolve.programs import SETTINGS
from evolve.tables import name_dead
from evolve.watcher import Watcher
from search_spaces import Space
from studies import BestHyp, append_rows, best_front_of, rewrite_csv, save_best, save_front, write_atomically
from studies.decision import Decision
from studies.persistence import save_hyp
from studies.racing import best_after, latest_decision
from trainer import EpochMetrics

LATER = (
    *("weights", "freeze_layers", "freeze_epochs", "freeze_batch", "nominal_batch", "single_cls", "rect"),
    *("multi_scale", "image_weights", "cache", "amp", "sync_bn"),
)
"""Options that are told only where they are not as usual."""


class Records:
    """Keeps the files of a run folder in line with the study.

    The storage holds everything, so a file that cannot be written (the disk is full) is one warning and not the end:
    the next write, or the next start, makes it whole.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        config: EvolveConfig,
        paths: RunPaths,
        watcher: Watcher,
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        self._pinned = pinned or {}
        self._study = study
        self._space = space
        self._config = config
        self._paths = paths
        self._watcher = watcher
        self._warned = False
        self._table_is_whole = False
        self._written: list[BestHyp] = []
        self.front: list[BestHyp] = []
        self.decision: Decision | None = None

    @property
    def best(self) -> BestHyp | None:
        """The best of the search, whatever a race says."""
        return next(iter(self.front), None)

    def catch_up(self) -> None:
        """Bring best/hyp.yaml and evolve.csv in line with the study, whatever was there."""
        self.decision = latest_decision(self._study, self._space)
        self._write_best()
        with self._forgiving(self._paths.table):
            rewrite_csv(self._paths.table, self._study, self._space)
            self._table_is_whole = True

    def put_epochs(self, number: int, rows: Iterable[Row]) -> None:
        """Begin a trial's file with epochs that were trained before it."""
        path = self._paths.metrics(number)
        with self._forgiving(path):
            write_atomically(path, "".join(map(json_line, rows)))

    def add_epoch(self, number: int, metrics: EpochMetrics, fitness: float) -> None:
        """Append an epoch to its trial's file: JSON, where null stands for what is no finite number."""
        path = self._paths.metrics(number)
        with self._forgiving(path), path.open("a", encoding="utf-8") as file:
            file.write(json_line(epoch_row(metrics, fitness)))

    def add_trials(self, numbers: Sequence[int]) -> None:
        """Add trials that have just finished to the table, and the hyp of one of them as the best if it is."""
        if not self._table_is_whole:
            return self.catch_up()
        self.decision = None  # it was about the study as it was before
        self._write_best()
        with self._forgiving(self._paths.table):
            self._table_is_whole = False
            append_rows(self._paths.table, self._study, numbers, self._space)
            self._table_is_whole = True
        return None

    def decide(self, decision: Decision) -> None:
        """Have the files tell what a race of the study as it is now has decided."""
        self.decision = decision
        self._write_best()

    @property
    def chosen(self) -> BestHyp | None:
        """What best/hyp.yaml holds: the best so far, or what a race has decided."""
        return self.best if self.decision is None else best_after(self.decision, self._study)

    @property
    def unconfirmed(self) -> Path | None:
        """Where the search's best hyp lies, if a race has left the base as best."""
        if self.best is None or self.decision is None or self.decision.verdict.winner is not None:
            return None
        return self._paths.unconfirmed if self.best.hyp != self.decision.hyp else None

    def _write_best(self) -> None:
        self.front = best_front_of(self._study, self._space)
        if self.best is None:
            return
        if self.decision is not None:
            self._write_decision(self.decision)
        elif self.front != self._written:
            self._save(self._paths.best_hyp, self.best)
            self._written = self.front
        if self.unconfirmed is not None:
            self._save(self.unconfirmed, self.best)
        else:
            with self._forgiving(self._paths.unconfirmed):
                self._paths.unconfirmed.unlink(missing_ok=True)

    def _save(self, path: Path, best: BestHyp) -> None:
        with self._forgiving(path):
            path.parent.mkdir(exist_ok=True)
            save_best(path, best, {**self._chosen_for(best), **self._provenance(path)})
            if best.goals:
                files = {self._paths.front_hyp(best.number): best for best in self.front}
                save_front(self._paths.front_table, files, self._provenance)

    def _write_decision(self, decision: Decision) -> None:
        path = self._paths.best_hyp
        with self._forgiving(path):
            path.parent.mkdir(exist_ok=True)
            told = self._provenance(path, epochs=decision.epochs)
            save_hyp(path, decision.hyp, decision.title(), decision.facts(), told)
            self._written = []
        with self._forgiving(self._paths.race):
            write_atomically(self._paths.race, decision.to_json())

    def _provenance(self, path: Path, **other: Any) -> dict[str, str]:
        config = replace(self._config, **other)
        return provenance(config, path, option_hyps(self._space, config.trainer), self._pinned)

    def _chosen_for(self, best: BestHyp) -> dict[str, str]:
        """Why it is this one of the front, where there is one."""
        first = next(iter(best.goals), None)
        return {"chosen": f"for its {first}; {self._paths.front_table.name} tells of all"} if first else {}

    @contextmanager
    def _forgiving(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                lost = "the study goes on, and the file is made whole as soon as that can be done"
                self._watcher.warned(f"cannot write {path} ({error.strerror or error}); {lost}")
            self._warned = True


def provenance(
    config: EvolveConfig, hyp_file: Path, hyps: Collection[str], pinned: Mapping[str, str]
) -> dict[str, str]:
    """How the hyp was found and how to train with it: the header of a hyp file. `pinned` is what had no effect.

    An option that is one of the `hyps` stands among these.
    """
    of_ours = () if config.trainer in PROGRAMS else ("optimizer", "schedule")
    names = ("data", "model", "epochs", "imgsz", "batch", *of_ours, "device", "trainer", "seed")
    several = config.objective != EvolveConfig.objective
    told = {
        name: mask_url(str(getattr(config, name))) for name in (*names, *_unusual(config, LATER)) if name not in hyps
    }
    return {
        **{name: value for name, value in told.items() if value},
        "search": f"{config.sampler}, {config.pruner}",
        **({"goals": config.objective} if several else {"maximised": config.fitness}),
        **({"not evolved": name_dead(pinned)} if pinned else {}),
        "version": f"evolve {evolve.__version__}",
        "command": shlex.join(train_command(config, hyp_file, hyps)),
    }


def train_command(config: EvolveConfig, hyp_file: Path, hyps: Collection[str]) -> list[str]:
    """The command that trains once with a hyp file as the study's trials did; an option that is a hyp stands there.

    It is to be shown: passwords in its URLs are masked.
    """
    always = ("data", "model", "epochs", "imgsz", "batch")
    if_unusual = ("device", "optimizer", "schedule", "threads", "trainer", "fitness", *LATER, *SETTINGS)
    command = ["evolve", "train", "--hyp", from_here(hyp_file)]
    for name in (*always, *_unusual(config, if_unusual)):
        value, flag = getattr(config, name), f"--{name.replace('_', '-')}"
        if name not in hyps and value != "":
            command += [flag] if value is True else [flag, from_here(mask_url(str(value)))]
    return [*command, "--", *map(mask_url, config.command)] if config.command else command


def _unusual(config: EvolveConfig, names: Iterable[str]) -> list[str]:
    usual = EvolveConfig(**{**usual_of(config.trainer), "trainer": EvolveConfig.trainer})
    return [name for name in names if getattr(config, name) != getattr(usual, name)]
