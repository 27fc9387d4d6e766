"""The toy trainer that tells what its models cost: the more momentum, the more parameters. No law, but a trade-off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toy import ToyTrainer

from trainer import EpochMetrics, Prepared, TrainJob, TrainOptions


class Frugal(ToyTrainer):
    def prepare(self, options: TrainOptions) -> Prepared:
        return replace(super().prepare(options), costs={"params": "weights, as the toy counts"})

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        for metrics in super().train(job):
            yield replace(metrics, costs={"params": 100 + round(1000 * float(job.hyp["momentum"]))})


class Forgetful(Frugal):
    """It promises a cost and does not tell it."""

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        for metrics in super().train(job):
            yield replace(metrics, costs={})
