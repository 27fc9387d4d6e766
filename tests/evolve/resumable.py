"""The toy trainer with a state after every epoch that it goes on from, and with hyps that can have no effect."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from toy import ToyTrainer

from trainer import DataError, EpochMetrics, Prepared, TrainJob, TrainOptions


class Resumable(ToyTrainer):
    """Goes on by doing again what led to the state: equal seeds are equal trainings. A fault comes but once."""

    repeated = 0  # epochs before the state that are reported again

    def prepare(self, options: TrainOptions) -> Prepared:
        """What dead.json names is dead, if there is one."""
        told = Path("dead.json")
        return replace(super().prepare(options), dead=json.loads(told.read_text()) if told.exists() else {})

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        last, done = job.workdir / "last.pt", 0
        of = {"hyp": {name: value for name, value in job.hyp.items() if not name.startswith("fault")}}
        of["seed"] = job.options.seed
        if job.resume:
            state = json.loads(last.read_text())
            if any(state.get(name, told) != told for name, told in of.items()):
                raise DataError(f"the hyp of {last} is another one")
            done = state["epoch"]
            job = replace(job, hyp=of["hyp"])
        for metrics in super().train(job):
            if metrics.epoch > done - self.repeated:
                if job.options.save:
                    replace_file(last, {**of, "epoch": metrics.epoch})
                yield metrics


class Repeating(Resumable):
    """Reports the last epoch once more, as the contract has it."""

    repeated = 1


def replace_file(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(state))
    os.replace(part, path)
