"""Our own arms: the default search, what it was before, and the default with parts of it switched off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.search.rivals import Arm
from studies import GeneticSampler

BASES = 3  # trainings of the base with which a study begins, for its noise floor


def ours(operator: str, *, bases: int = BASES, **switches: Any) -> Arm:
    """An arm of the genetic sampler; `switches` are more arguments of it."""
    return Arm(
        lambda space, seed: GeneticSampler(space, seed=seed, operator=operator, **switches), bases=bases, chooses=True
    )


OURS: Mapping[str, Arm] = {
    "modern": ours("modern"),
    "normalised": ours("normalised", bases=1),
    # The ablation: `modern` with one part switched off each.
    "modern, one base": ours("modern", bases=1),
}
