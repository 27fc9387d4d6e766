"""A trainer that takes any hyp, any data and any option, trains nothing and costs nothing: for command lines."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from trainer import EpochMetrics, Prepared, TrainJob, TrainOptions


class Anything:
    """The fitness is one of the hyps' digits; it rises with every epoch, and differs a little from seed to seed."""

    hyps: frozenset[str] | None = None

    def prepare(self, options: TrainOptions) -> Prepared:
        return Prepared("anything", f"{options.data}: anything", costs={"latency_ms": "made up"})

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        digits = hashlib.sha256(repr(sorted(job.hyp.items())).encode()).digest()[0] / 255
        height = 0.5 + 0.2 * digits + random.Random(job.options.seed).gauss(0, 0.01)
        for epoch in range(1, job.options.epochs + 1):
            score = height * epoch / (epoch + 1)
            yield EpochMetrics(epoch, score, score, score, score, {"box": 1 / epoch}, costs={"latency_ms": digits})
