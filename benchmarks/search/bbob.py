"""BBOB as a problem: functions of the COCO platform in 20 dimensions, with a known-good default near the optimum."""

from __future__ import annotations

import tempfile
from contextlib import chdir
from typing import Any

import numpy as np

from benchmarks.search.problem import Problem
from search_spaces import Hyp, Param, Space

FUNCTIONS = (1, 2, 3, 6, 7, 8, 14, 15, 17, 20, 21)
DIMENSIONS = 20
LOW, HIGH = -5.0, 5.0
OFF = 0.12  # how far the default is from the optimum: the standard deviation of each coordinate, in the unit cube
NOISES = (0.03, 0.10)
DRAWN = 2_000  # random points, whose median is the unit of the value

_PRINTED = "._bbob_problem_best_parameter.txt"  # where the package writes the optimum when it is asked to print it


def problem(function: int, instance: int, noise: float, off: float = OFF) -> Problem:
    """Function f1 to f24 of the suite, instances from 1. What is minimised is v = (f - f*)^.25 / (its random median).

    The fitness is -v, and v is the regret: 0 at the optimum, 1 at the median of random points. `noise` is in its units.
    The default is the optimum + N(0, off) for each coordinate of the unit cube, clipped; instances are the seeds.
    """
    found = _function(function, instance)
    best_x, best = _optimum(found)
    rng = np.random.default_rng([function, instance])
    random = [found(x) for x in rng.uniform(LOW, HIGH, (DRAWN, DIMENSIONS))]
    unit = float(np.median(_root(np.array(random) - best)))
    default = np.clip(best_x + off * (HIGH - LOW) * rng.standard_normal(DIMENSIONS), LOW, HIGH)
    names = [f"x{i:02}" for i in range(DIMENSIONS)]
    params = [Param(name, low=LOW, high=HIGH, default=float(x)) for name, x in zip(names, default, strict=True)]

    def fitness(hyp: Hyp) -> float:
        return -float(_root(found(np.array([float(hyp[name]) for name in names])) - best)) / unit

    return Problem(f"f{function:02} instance {instance}", Space("bbob", tuple(params)), fitness, noise, lambda v: -v)


def _root(above: Any) -> Any:
    return np.maximum(above, 0) ** 0.25


def _function(function: int, instance: int) -> Any:
    import cocoex

    suite = cocoex.Suite("bbob", f"instances: {instance}", f"dimensions: {DIMENSIONS} function_indices: {function}")
    found = suite.get_problem(0)
    assert (found.id_function, found.id_instance, found.dimension) == (function, instance, DIMENSIONS)
    return found


def _optimum(found: Any) -> tuple[np.ndarray, float]:
    """The best point [20] and its value. The package tells it only by writing a file into the working directory."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        found._best_parameter("print")
        x = np.loadtxt(_PRINTED)
    return x, float(found(x))
