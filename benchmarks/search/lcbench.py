"""LCBench as a problem: a surrogate of 34 data sets' learning curves, 7 hyps, 52 epochs (YAHPO Gym's model, ONNX).

The model is deterministic. Its fitness is the balanced accuracy on the validation split, from 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.problem import Problem
from search_spaces import Hyp, Space, Value
from studies import write_atomically

EPOCHS = 52
SECONDS, FITNESS = 0, 3  # the model's columns: time, val_balanced_accuracy
TASK = "OpenML_task_id"
# The model's columns behind the epoch, in its order.
HYPS = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")

DRAWN = 20_000  # random hyps, the same for all tasks: for scales, and for a default to choose from
CLIMBERS = 200  # of them, the best of a task: these climb on to find the best fitness known
CLIMBS = 150
NOISE = 0.1  # of the way from the median of random hyps to their 99.9th percentile


@dataclass(frozen=True)
class Scale:
    """What fitness means on one task: of random hyps the median and the 99.9th percentile, and the best known.

    The best known is what a long differential evolution without noise finds; other seeds of it find the same.

    `default` is the random hyp that is best on average over all other tasks, each in units of its own scale.
    """

    median: float
    top: float
    best: float
    default: dict[str, Value]

    @property
    def span(self) -> float:
        return self.top - self.median


class LCBench:
    """The surrogate; `folder` holds model.onnx, encoding.json and config_space.json.

    Scales take a minute or two for all tasks together; `cache` names a file that keeps them.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._folder = folder
        self._cache = cache
        self._codes = json.loads((folder / "encoding.json").read_text())[TASK]
        fields = json.loads((folder / "config_space.json").read_text())["hyperparameters"]
        self._fields = {field["name"]: field for field in fields}
        self.tasks: tuple[str, ...] = tuple(self._fields[TASK]["choices"])
        self.space = Space.from_hyps("lcbench", {name: _param(self._fields[name]) for name in HYPS})

    @property
    def development(self) -> tuple[str, ...]:
        """Every second task: what the search may be tuned with."""
        return self.tasks[::2]

    @property
    def final(self) -> tuple[str, ...]:
        """The other tasks: what the search is judged by."""
        return self.tasks[1::2]

    def curves(self, hyps: Sequence[Hyp], task: str) -> NDArray[np.float64]:
        """Fitness [n, 52] of these hyps after each epoch, without noise."""
        columns = np.array([[hyp[name] for name in HYPS] for hyp in hyps], dtype=np.float32).reshape(-1, len(HYPS))
        epochs = np.tile(np.arange(1, EPOCHS + 1, dtype=np.float32), len(hyps))
        return self._run(epochs, np.repeat(columns, EPOCHS, axis=0), task).reshape(-1, EPOCHS)

    def values(self, hyps: Sequence[Hyp], task: str) -> NDArray[np.float64]:
        """Fitness [n] of these hyps after the last epoch, without noise."""
        columns = np.array([[hyp[name] for name in HYPS] for hyp in hyps], dtype=np.float32).reshape(-1, len(HYPS))
        return self._last(columns, task)

    def seconds(self, hyps: Sequence[Hyp], task: str) -> NDArray[np.float64]:
        """How long all epochs together take [n]: from half a minute to hours."""
        columns = np.array([[hyp[name] for name in HYPS] for hyp in hyps], dtype=np.float32).reshape(-1, len(HYPS))
        return np.maximum(self._last(columns, task, SECONDS), 1.0)

    def scale(self, task: str) -> Scale:
        return self.measure()[task]

    def measure(self) -> dict[str, Scale]:
        """All tasks' scales: read from the cache, else computed and written there; then kept in memory."""
        return self._scales

    @cached_property
    def _scales(self) -> dict[str, Scale]:
        settings = {"drawn": DRAWN, "climbers": CLIMBERS, "climbs": CLIMBS}
        if self._cache is not None and self._cache.exists():
            kept = json.loads(self._cache.read_text())
            if kept.pop("settings", None) == settings:
                return {task: Scale(**fields) for task, fields in kept["tasks"].items()}
        scales = self._computed()
        if self._cache is not None:
            fields = {task: asdict(scale) for task, scale in scales.items()}
            write_atomically(self._cache, json.dumps({"settings": settings, "tasks": fields}, indent=1) + "\n")
        return scales

    def problem(self, task: str) -> Problem:
        """Searching this task with full trainings."""
        scale = self.scale(task)
        return Problem(
            name=f"lcbench {task}",
            space=self.space.with_base(scale.default),
            fitness=lambda hyp: float(self.values([hyp], task)[0]),
            noise=NOISE * scale.span,
            regret=lambda fitness: (scale.best - fitness) / scale.span,
        )

    def _computed(self) -> dict[str, Scale]:
        rng = np.random.default_rng(0)
        cube = rng.random((DRAWN, len(HYPS)))
        hyps = [self._hyp(place) for place in cube]
        values = np.array([self.values(hyps, task) for task in self.tasks])
        median, top = np.median(values, axis=1), np.quantile(values, 0.999, axis=1)
        relative = (values - median[:, None]) / (top - median)[:, None]
        others = relative.sum(axis=0) - relative
        return {
            task: Scale(
                median=float(median[i]),
                top=float(top[i]),
                best=self._climb(cube[np.argsort(-values[i])[:CLIMBERS]], task, rng),
                default=hyps[int(others[i].argmax())],
            )
            for i, task in enumerate(self.tasks)
        }

    def _climb(self, cube: NDArray[np.float64], task: str, rng: np.random.Generator) -> float:
        """The best fitness that these places [n, 7] find by differential evolution towards the best tenth of them.

        Some genes leap to a bound on the way: where a surrogate is best, some often are.
        """
        found = self.values([self._hyp(place) for place in cube], task)
        n = len(cube)
        for _ in range(CLIMBS):
            elite = cube[np.argsort(-found)[rng.integers(n // 10, size=n)]]
            one, other = cube[rng.integers(n, size=n)], cube[rng.integers(n, size=n)]
            stepped = np.clip(cube + 0.5 * (elite - cube) + 0.5 * (one - other), 0, 1)
            stepped = np.where(rng.random(cube.shape) < 0.05, rng.integers(2, size=cube.shape), stepped)
            stepped = np.where(rng.random(cube.shape) < 0.5, stepped, cube)
            values = self.values([self._hyp(place) for place in stepped], task)
            better = values > found
            cube, found = np.where(better[:, None], stepped, cube), np.where(better, values, found)
        return float(found.max())

    def _hyp(self, place: NDArray[np.float64]) -> dict[str, Value]:
        return {param.name: param.from_unit(u) for param, u in zip(self.space.params, place, strict=True)}

    def _last(self, columns: NDArray[np.float32], task: str, output: int = FITNESS) -> NDArray[np.float64]:
        return self._run(np.full(len(columns), EPOCHS, dtype=np.float32), columns, task, output)

    def _run(
        self, epochs: NDArray[np.float32], columns: NDArray[np.float32], task: str, output: int = FITNESS
    ) -> NDArray[np.float64]:
        inputs = {
            "x_cat": np.full((len(columns), 1), self._codes[task], dtype=np.int32),
            "x_cont": np.concatenate([epochs[:, None], columns], axis=1),
        }
        found: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return found[:, output].astype(np.float64)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(self._folder / "model.onnx"), options)


def _param(field: dict[str, Any]) -> dict[str, Any]:
    low, high = field["lower"], field["upper"]
    whole = field["type"] == "uniform_int"
    middle = field["default"] if whole else min(max(field["default"], low), high)
    return {"low": low, "high": high, "default": middle, "log": field["log"], **({"step": 1} if whole else {})}
