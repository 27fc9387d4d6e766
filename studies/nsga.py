"""NSGA-II for studies that start from a base and may be resumed: Optuna's, with what that takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.trial import FrozenTrial

from studies.trials import BASE, generation_of, generations, hyp_of, is_known, trials_of

POPULATION, LARGE_POPULATION = 20, 50
LONG = 500  # trials, from which on rounds are of the large population: Optuna's default


class BaseFirstNSGAII(NSGAIISampler):
    """Optuna's NSGA-II (Deb et al., "A fast and elitist multiobjective genetic algorithm", 2002), in rounds of 20.

    The first round is the base, and the base with some hyps drawn anew: one, all, or a number between, as many of them
    small as large on a scale of ratios. Optuna draws all, and of nearly thirty hyps one is then always ruinous.

    Every trial belongs to a round from its start. Optuna gives it one when its first hyp is drawn, so that queued
    trials, the base among them, would be nobody's parents. And parents come in the order of our generations. In Optuna
    that order is another one where they were just chosen than where they were read from the storage, so that a study
    that is resumed in between would go on differently. What was known from elsewhere belongs to the first round.
    """

    def __init__(self, *, seed: int) -> None:
        super().__init__(population_size=POPULATION, seed=seed)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._grow(study, trial)
        trial.system_attrs[self._get_generation_key()] = self.get_trial_generation(study, trial)
        super().before_trial(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._grow(study, trial)
        base = trials_of(study)[0]
        if self.get_trial_generation(study, trial) > 0 or BASE not in base.user_attrs or not search_space:
            return super().sample_relative(study, trial, search_space)
        rng = np.random.default_rng(self._seed)
        anew = math.floor(len(search_space) ** rng.random() + 0.5)
        kept = rng.permutation(sorted(search_space))[anew:]
        return {name: value for name, value in hyp_of(base).items() if name in kept}

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        members = super().get_population(study, generation)
        known = [trial for trial in trials_of(study) if is_known(trial)] if generation == 0 else []
        return _by_generation(study, [*members, *known])

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return _by_generation(study, super().get_parent_population(study, generation))

    def _grow(self, study: Study, trial: FrozenTrial) -> None:
        """By the trial's place in the study, whatever its total: a study that is resumed for more goes on alike."""
        if self.population_size == POPULATION and generation_of(study, trial) >= LONG:
            super().__init__(population_size=LARGE_POPULATION, seed=self._seed)


def _by_generation(study: Study, population: list[FrozenTrial]) -> list[FrozenTrial]:
    found = generations(trials_of(study))
    return sorted(population, key=lambda trial: found[trial.number])
