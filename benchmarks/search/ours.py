"""Our own arms: the default search, what it was before, and the default with parts of it switched off."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.search.rivals import Arm
from studies import GeneticSampler
from studies.genetics import Operator
from studies.modern import Modern

BASES = 3  # trainings of the base with which a study begins, for its noise floor


def ours(operator: str | Operator, *, bases: int = BASES) -> Arm:
    """An arm of the genetic sampler."""
    return Arm(lambda space, seed: GeneticSampler(space, seed=seed, operator=operator), bases=bases, chooses=True)


OURS: Mapping[str, Arm] = {
    "modern": ours("modern"),
    "normalised": ours("normalised", bases=1),
    # The ablation: `modern` with one part switched off each.
    "modern (one base)": ours("modern", bases=1),
    "modern (no model)": ours(Modern(unseen=1.0)),
    "modern (pruned ignored)": ours(Modern(censored=False)),
}
