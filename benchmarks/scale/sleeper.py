"""A trainer that trains nothing: it sleeps and scores its hyp by a formula, so that all else can be measured."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from search_spaces import Hyp
from trainer import EpochMetrics, Prepared, TrainJob, TrainOptions

SPACE = """\
x: {{low: 0.0, high: 1.0, default: 0.5}}
y: {{low: 0.0, high: 1.0, default: 0.5}}
seconds: {seconds}
"""


class Sleeper:
    """Sleeps for `seconds`, evenly over the epochs; the fitness rises to a height that x and y decide."""

    hyps = None
    pid = None  # it needs no process of its own

    def prepare(self, options: TrainOptions) -> Prepared:
        return Prepared("nothing", "nothing to train on")

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        epochs, seconds = job.options.epochs, float(job.hyp["seconds"])
        for epoch in range(1, epochs + 1):
            time.sleep(seconds / epochs)
            score = height(job.hyp) * (1 - 0.5**epoch)
            yield EpochMetrics(epoch, score, score, score, score, seconds=seconds / epochs)

    def close(self) -> None:
        """There is nothing to end."""


def height(hyp: Hyp) -> float:
    """In (0, 1]; another one for any other hyp, as good as always."""
    return math.exp(-3 * abs(float(hyp["x"]) - 0.3) - abs(float(hyp["y"]) - 0.8))


def write_space(folder: Path, seconds: float, hyps: int = 2) -> Path:
    """A space file whose trials take so long; of more than two hyps the others do nothing."""
    path = folder / f"sleep-{seconds:g}s.yaml"
    idle = "".join(f"idle{number}: {{low: 0.0, high: 1.0, default: 0.5}}\n" for number in range(2, hyps))
    path.write_text(SPACE.format(seconds=seconds) + idle)
    return path


def settings(space: Path, epochs: int) -> list[str]:
    """What `evolve run` is to be told for such trials."""
    of_trainer = ["--trainer", f"{Sleeper.__module__}:{Sleeper.__name__}", "--data", "nothing", "--threads", "1"]
    return [*of_trainer, "--space", str(space), "--epochs", str(epochs), "--base-seeds", "1", "--pruner", "none"]
