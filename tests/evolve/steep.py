"""The toy trainer without a training: how good a hyp is is known, and lr0 alone makes it, the more of it the better."""

from __future__ import annotations

import math
from collections.abc import Iterator

from toy import ToyTrainer

from trainer import EpochMetrics, TrainJob


class Steep(ToyTrainer):
    """From 0.2 at an lr0 of 0.0001 to 0.9 at 0.5, give or take 0.01 by the seed."""

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        place = math.log(float(job.hyp["lr0"]) / 1e-4) / math.log(0.5 / 1e-4)
        height = 0.2 + 0.7 * place + 0.01 * math.sin(job.options.seed)
        for epoch in range(1, job.options.epochs + 1):
            yield EpochMetrics(epoch, height, height, height, height, {"squares": 1.0}, 0.0)
