"""The one number that evolution maximises: a weighted sum of an epoch's metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evolve.config import ConfigError, did_you_mean
from trainer import EpochMetrics

METRICS = ("precision", "recall", "map50", "map50_95")
ALIASES = {"P": "precision", "R": "recall", "p": "precision", "r": "recall", "map": "map50_95"}


@dataclass(frozen=True)
class Fitness:
    """The sum of `weights[metric] * metric`. Higher is better; not finite where a weighted metric is not.

    The default of YOLOv5 v7.0 (utils/metrics.py) is 0.1 map50 + 0.9 map50_95.
    """

    weights: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Fitness:
        """Read 'precision=0,recall=0,map50=0.1,map50_95=0.9'. Short names: P, R, map. Raises ConfigError."""
        weights: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, weight = _read_weight(part)
            if name in weights:
                raise ConfigError(f"fitness: {name} is given twice in '{text}'")
            weights[name] = weight
        if not any(weights.values()):
            raise ConfigError(f"fitness: '{text}' weighs nothing; give at least one weight above 0, as in map50_95=1")
        return cls({name: weights[name] for name in METRICS if weights.get(name)})

    @property
    def in_order(self) -> tuple[float, float, float, float]:
        """The weights of precision, recall, mAP50 and mAP50-95, as TrainOptions wants them."""
        precision, recall, map50, map50_95 = (self.weights.get(name, 0.0) for name in METRICS)
        return precision, recall, map50, map50_95

    def __call__(self, metrics: EpochMetrics) -> float:
        return math.fsum(weight * float(getattr(metrics, name)) for name, weight in self.weights.items())

    def of(self, scores: Mapping[str, float]) -> float:
        """The same of scores by name; NaN where one that is weighed is missing."""
        return math.fsum(weight * scores.get(name, math.nan) for name, weight in self.weights.items())

    def __str__(self) -> str:
        return ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())


def _read_weight(part: str) -> tuple[str, float]:
    given, equals, number = (piece.strip() for piece in part.partition("="))
    name = ALIASES.get(given, given)
    if name not in METRICS:
        raise ConfigError(f"fitness: unknown metric '{given}'{did_you_mean(given, METRICS)}")
    try:
        weight = float(number)
    except ValueError:
        raise ConfigError(f"fitness: '{part}' is not metric=weight, as in map50_95=0.9") from None
    if not equals or not math.isfinite(weight) or weight < 0:
        raise ConfigError(f"fitness: the weight of {name} is {number}; a weight is a number from 0 up")
    return name, weight
