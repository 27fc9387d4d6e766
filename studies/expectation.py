"""What trials that were stopped early would have come to, judged by those that were trained to the end.

A pruned trial's last value is that of a shorter training, so it is no fitness. But it says whether the trial was
hopeless or merely not good enough. A model that takes both for the worst sees no slope, as soon as most are pruned.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studies.genetics import Scored, Tried

Floats = NDArray[np.float64]

FARTHEST = 10.0  # standard deviations: where all complete trials were alike, whoever was not is this far behind
TINY = 1e-300
LEAST = 3  # complete trials that must have reached an epoch to judge by


def expect(scored: Sequence[Scored], stopped: Sequence[Tried]) -> Floats:
    """The fitness [n] to be expected of trials that were pruned or failed; `scored` are at least one.

    A pruned trial is expected to end as far below the median of the complete trials as it was after its last epoch, in
    their standard deviations, and at least as far in units of fitness: a gap does not close. It is never expected to be
    better than the median, since it was stopped. A failed trial, and one that cannot be judged, is as bad as the worst.
    """
    fitness = np.array([one.fitness for one in scored])
    expected = np.full(len(stopped), np.nan)
    last = defaultdict(list)
    for row, one in enumerate(stopped):
        if one.last is not None and math.isfinite(one.last[1]):
            last[one.last[0]].append(row)
    for epoch, rows in last.items():
        reached = [i for i, one in enumerate(scored) if math.isfinite(one.curve.get(epoch, math.nan))]
        if len(reached) >= LEAST:
            then, end = np.array([scored[i].curve[epoch] for i in reached]), fitness[reached]
            values = np.array([stopped[row].last[1] for row in rows])  # type: ignore[index]
            behind = np.maximum(np.median(then) - values, 0)
            deviations = np.minimum(behind / max(then.std(), TINY), FARTHEST)
            expected[rows] = np.median(end) - np.maximum(behind, deviations * end.std())
    worst = min(fitness.min(), np.nanmin(expected)) if np.isfinite(expected).any() else fitness.min()
    return np.where(np.isnan(expected), worst, expected)
