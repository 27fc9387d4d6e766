"""A trainer whose fitness is known: it rises with `speed`, the seed moves it a little, and a second split is scored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from toy import break_down

from studies.race import FRESH
from trainer import EpochMetrics, Prepared, TrainerError, TrainJob, TrainOptions


class Racer:
    """The height is `speed`, +- NOISE by seed and hyp; in `crash.json` stand the seeds under which a training fails."""

    hyps = frozenset({"speed", "colour"})
    noise = 0.01
    has_test = True

    def prepare(self, options: TrainOptions) -> Prepared:
        return Prepared("racers", "racers")

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        told = Path("crash.json")
        if told.exists() and job.options.seed in json.loads(told.read_text()):
            raise TrainerError("crashed")
        if (stop := Path("stop-at-seed")).exists() and job.options.seed == int(stop.read_text()):
            stop.unlink()
            break_down("sleep", job)
        speed, colour = float(job.hyp["speed"]), float(job.hyp["colour"])
        luck = self.noise * self.draw_luck(job.options.seed, speed, colour)
        for epoch in range(1, job.options.epochs + 1):
            height = min(1.0, max(0.0, (speed + luck) * epoch / job.options.epochs))
            metrics = EpochMetrics(epoch, height, height, height, height, seconds=0.0)
            if self.has_test and job.options.final_split == "test" and epoch == job.options.epochs:
                scores = dict.fromkeys(("precision", "recall", "map50", "map50_95"), height / 2)
                metrics = replace(metrics, final=scores)
            yield metrics

    def draw_luck(self, seed: int, speed: float, colour: float) -> float:
        return float(np.random.default_rng([seed, int(1e6 * speed), int(1e6 * colour)]).standard_normal())


class Noisy(Racer):
    """In a search the seed moves more than any hyp does; under fresh seeds the base is the better one every other time.

    So whoever leads a race does it by luck, whatever the search has found.
    """

    noise = 0.1
    has_test = False

    def draw_luck(self, seed: int, speed: float, colour: float) -> float:
        if seed < FRESH:
            return super().draw_luck(seed, speed, colour)
        return (-1.0) ** (seed + ((speed, colour) == (0.3, 0.5)))
