"""PED-ANOVA: how much a hyp has to do with a trial's being among the good ones. Pure numpy.

Watanabe, Bansal & Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", IJCAI
2023, eq. 16: the Pearson divergence of the density of a hyp's values in the good trials from that in all. Densities are
estimated on a grid, with the widths and the prior of Optuna 5's evaluator, so that both give the same numbers. Here the
density of all trials is reckoned once for however many sets of good ones, and nothing else has to be imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import Param, Value

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = 50  # of the grid between the bounds of a float
LEAST_WIDTH = 0.5 / 1.64  # of a kernel, in steps: nine tenths of it lie within its own
TINY = 1e-12


@dataclass(frozen=True)
class Column:
    """A hyp's values in all trials, as places 0 to `size` - 1 on its grid [trials], and the density of all of them."""

    places: Ints
    size: int
    ordered: bool
    density: Floats


def column_of(param: Param, values: Sequence[Value]) -> Column:
    """The column of a param that evolves."""
    size = _size(param)
    if param.choices:
        places = np.array([param.choices.index(value) for value in values], dtype=np.int64)
    else:
        low, high = (math.log(bound) if param.log else float(bound) for bound in param.bounds)
        found = np.array(values, dtype=np.float64)
        steps = ((np.log(found) if param.log else found) - low) / ((high - low) / (size - 1))
        places = np.clip(np.ceil(steps - 0.5).astype(np.int64), 0, size - 1)
    ordered = not param.choices
    return Column(places, size, ordered, _density(np.bincount(places, minlength=size), ordered))


def good_ones(losses: Floats, share: float) -> NDArray[np.bool_]:
    """Which of the trials are among the best share; all that are as good as the last of these, too."""
    last = math.ceil(share * losses.size) - 1
    return np.asarray(losses <= np.partition(losses, last)[last])


def importance(column: Column, good: NDArray[np.bool_]) -> float:
    """How far the values of the good trials are from being spread as those of all are; 0 where they are not."""
    density = _density(np.bincount(column.places[good], minlength=column.size), column.ordered)
    divergence = float(column.density @ (density / column.density - 1) ** 2)
    return divergence * float(good.mean()) ** 2


def _size(param: Param) -> int:
    levels = param.levels or STEPS
    if param.choices:
        return levels
    if param.log and param.step:
        low, high = param.bounds
        return min(math.ceil(math.log2(high - low + 1)) + 1, STEPS)
    return min(levels, STEPS)


def _density(counts: Ints, ordered: bool) -> Floats:
    """Estimated from how often each place of the grid was taken; with a prior that weighs as much as one trial."""
    at = np.flatnonzero(counts)
    weights = np.append(counts[at], 1.0) / (counts.sum() + 1)
    kernels = _normals(at, counts) if ordered else _shares(at, counts.size)
    return np.asarray(weights @ kernels + TINY)


def _normals(at: Ints, counts: Ints) -> Floats:
    """A truncated normal distribution around each place that was taken, and a wide one around the middle."""
    size = counts.size
    steps = _cumulative((np.arange(2 * size) - size + 0.5) / _width(at, counts[at]))  # from -(size - 0.5) on
    around = steps[np.arange(size + 1)[None, :] - at[:, None] + size - 1]
    prior = _cumulative((np.arange(size + 1) - 0.5 - (size - 1) / 2) / size)
    edges = np.vstack([around, prior])
    return np.asarray(np.diff(edges, axis=1) / (edges[:, -1:] - edges[:, :1]))


def _width(at: Ints, weights: Ints) -> float:
    """By Scott's rule, with the smaller of standard deviation and interquartile range. Scott, "Multivariate Density
    Estimation", 1992."""
    total, ranks = int(weights.sum()), np.cumsum(weights)
    mean = float(at @ weights) / total
    deviation = math.sqrt(float((at - mean) ** 2 @ weights) / max(1, total - 1))
    first = at[np.searchsorted(ranks, total // 4, side="left")]
    third = at[min(at.size - 1, int(np.searchsorted(ranks, total * 3 // 4, side="right")))]
    return max(1.059 * min(float(third - first) / 1.34, deviation) * math.pow(total, -0.2), LEAST_WIDTH)


def _shares(at: Ints, size: int) -> Floats:
    """Of choices: nearly all on the one that was taken, and a prior that takes all alike."""
    spread = 1 / (at.size + 1)
    kernels = np.full((at.size + 1, size), spread)
    kernels[np.arange(at.size), at] += 1
    return np.asarray(kernels / kernels.sum(axis=1, keepdims=True))


def _cumulative(z: NDArray[np.floating[Any]]) -> Floats:
    """Of the standard normal distribution."""
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
