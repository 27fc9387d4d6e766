"""The toy trainer with a state after every epoch that it goes on from, and with hyps that can have no effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from toy import ToyTrainer

from trainer import EpochMetrics, Prepared, TrainJob, TrainOptions


class Resumable(ToyTrainer):
    """Goes on by doing again what led to the state: equal seeds are equal trainings. A fault comes but once."""

    def prepare(self, options: TrainOptions) -> Prepared:
        """What dead.json names is dead, if there is one."""
        told = Path("dead.json")
        return replace(super().prepare(options), dead=json.loads(told.read_text()) if told.exists() else {})

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        last, done = job.workdir / "last.pt", 0
        if job.resume:
            done = json.loads(last.read_text())["epoch"]
            job = replace(job, hyp={name: value for name, value in job.hyp.items() if not name.startswith("fault")})
        for metrics in super().train(job):
            if metrics.epoch > done:
                if job.options.save:
                    last.write_text(json.dumps({"epoch": metrics.epoch}))
                yield metrics
