"""A search problem whose true fitness is known: what every sampler of the comparison is let loose on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search_spaces import Hyp, Space


@dataclass(frozen=True)
class Problem:
    """One thing to search. A trial sees `noisy`; what it found is judged by `regret` of `fitness`, which none sees.

    `space` has as defaults the hyp that every sampler tries first. `fitness` is free of noise, higher is better;
    `noise` is the standard deviation that a training seed adds, in its units. `regret` of a fitness is 0 at the best
    hyp known and about 1 at the median of random hyps.
    """

    name: str
    space: Space
    fitness: Callable[[Hyp], float]
    noise: float
    regret: Callable[[float], float]

    def noisy(self, hyp: Hyp, seed: int, number: int) -> float:
        """The fitness that trial `number` of the run with this seed sees: the same deviation for every sampler."""
        return self.fitness(hyp) + self.noise * float(np.random.default_rng([seed, number]).standard_normal())
