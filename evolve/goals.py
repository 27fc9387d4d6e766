"""What a study is after: the fitness, or several goals at once, of which one is often had at the cost of another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evolve.config import ConfigError, EvolveConfig, did_you_mean
from evolve.fitness import ALIASES, METRICS
from trainer import EpochMetrics, TrainerError

if TYPE_CHECKING:
    from studies.study import Direction

FITNESS = "fitness"
SCORES, COSTS = (FITNESS, *METRICS), ("latency_ms", "params")


@dataclass(frozen=True)
class Goals:
    """The names of the goals: scores, of which more is better, and costs, of which less is. The first is a score.

    That first one is the study's fitness (see `settle_goals`), so that there is one fitness here, too.
    """

    names: tuple[str, ...] = (FITNESS,)

    @classmethod
    def parse(cls, text: str) -> Goals:
        """Read 'map50_95,latency_ms'. Raises ConfigError."""
        given = [name.strip() for name in text.split(",") if name.strip()]
        names = tuple(ALIASES.get(name, name) for name in given)
        for position, name in enumerate(names):
            if name not in (*SCORES, *COSTS):
                raise ConfigError(f"objective: unknown goal '{name}'{did_you_mean(name, (*SCORES, *COSTS))}")
            if name in names[:position]:
                raise ConfigError(f"objective: {name} is given twice in '{text}'")
            if position and name == FITNESS:
                raise ConfigError(f"objective: fitness has to come first, not as in '{text}'")
        if not names or names[0] in COSTS:
            raise ConfigError(f"objective: '{text}' has to begin with a score, as in map50_95,params: {_list(SCORES)}")
        if len(names) == 1 and names != (FITNESS,):
            raise ConfigError(f"objective: {text} is a single goal, which is given as --fitness {names[0]}=1")
        return cls(names)

    @property
    def several(self) -> bool:
        return len(self.names) > 1

    @property
    def costs(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name in COSTS)

    @property
    def directions(self) -> dict[str, Direction]:
        """Each goal's name, and whether more or less of it is better."""
        return {name: "minimize" if name in COSTS else "maximize" for name in self.names}

    def check_told(self, told: Mapping[str, str], trainer: str) -> None:
        """Raise ConfigError for a cost that the trainer does not tell; `told` are those that it does."""
        for name in self.costs:
            if name not in told:
                what = f"only {_list(told)}" if told else "no costs at all"
                raise ConfigError(f"objective: the trainer {trainer} does not tell {name} of its models, {what}")

    def __call__(self, metrics: EpochMetrics, fitness: float) -> dict[str, float]:
        """What an epoch of this fitness reached in each goal. Raises TrainerError where a number is missing."""
        reached = {**{name: getattr(metrics, name) for name in METRICS}, **metrics.costs, FITNESS: fitness}
        for name in self.names:
            if not math.isfinite(reached.get(name, math.nan)):
                raise TrainerError(f"the trainer told no {name} for epoch {metrics.epoch}, which is a goal")
        return {name: reached[name] for name in self.names}

    def tell(self, told: Mapping[str, str], sampler: str) -> tuple[str, ...]:
        """Lines on several goals for whoever watches; none where there is one."""
        if not self.several:
            return ()
        scores = [name for name in self.names if name not in COSTS]
        wanted = [f"more {' and '.join(scores)}", *(f"less {name} ({told[name]})" for name in self.costs)]
        return (
            f"goals: {', '.join(wanted)}",
            f"{sampler} proposes; nothing is pruned, since Optuna cannot prune where there is more than one goal",
        )

    def __str__(self) -> str:
        return ",".join(self.names)


ONE = Goals()


def settle_goals(config: EvolveConfig) -> EvolveConfig:
    """The configuration as its goals need it. Raises ConfigError for what does not go with them.

    With several the fitness is the first goal, nothing prunes, and the usual sampler gives way to NSGA-II.
    """
    goals = Goals.parse(config.objective)
    if not goals.several:
        return config
    usual = EvolveConfig()
    for name in ("target", "patience"):
        if getattr(config, name) is not None:
            raise ConfigError(f"--{name} goes by one number, and --objective {goals} has several: leave one out")
    if config.race:
        raise ConfigError(f"--race confirms the one best hyp, and of --objective {goals} there is none: leave one out")
    if goals.names[0] != FITNESS:
        fitness = f"{goals.names[0]}=1"
        if config.fitness not in (usual.fitness, fitness):
            raise ConfigError(f"--fitness {config.fitness} is no goal of --objective {goals}: name fitness first there")
        config = replace(config, fitness=fitness)
    sampler = "nsgaii" if config.sampler == usual.sampler else config.sampler
    return replace(config, objective=str(goals), sampler=sampler, pruner="none")


def _list(names: Mapping[str, str] | tuple[str, ...]) -> str:
    return ", ".join(names)
