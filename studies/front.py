"""The Pareto front: which of several points no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import StudyDirection


def front_of(points: Sequence[Sequence[float]], directions: Sequence[StudyDirection]) -> list[int]:
    """The indices of the points such that no other is as good in every goal and better in one; of equals the first.

    A point has a finite value for each goal. The best in the first goal comes first.
    """
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in directions]
    losses = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    front: list[int] = []
    for index in sorted(range(len(losses)), key=lambda index: (losses[index], index)):  # no later one beats an earlier
        if not any(_covers(losses[other], losses[index]) for other in front):
            front.append(index)
    return front


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one is at most the other in everything."""
    return all(a <= b for a, b in zip(one, other, strict=True))
