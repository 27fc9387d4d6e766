"""Samplers and pruners by name: ours, and Optuna's as they have to be for a study that is resumed and has a base."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from optuna import Study, pruners, samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Space
from search_spaces.space import did_you_mean
from studies.errors import StudyError
from studies.nsga import BaseFirstNSGAII
from studies.pruner import AshaPruner, EvolvePruner, rungs
from studies.sampler import OPERATORS, GeneticSampler, seed_of_draw
from studies.trials import is_base


@dataclass(frozen=True)
class _Stock:
    """One of Optuna's samplers: how it is made from a seed, and the packages that it needs beside Optuna."""

    make: Callable[[int], BaseSampler]
    needs: tuple[str, ...] = ()
    counts: bool = False  # its draws in the storage: they are one sequence, of one seed
    one_goal: bool = False  # it cannot pursue several


_SAMPLERS = {
    "tpe": _Stock(lambda seed: samplers.TPESampler(seed=seed)),
    "cmaes": _Stock(
        lambda seed: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False), ("cmaes",), one_goal=True
    ),
    "gp": _Stock(lambda seed: samplers.GPSampler(seed=seed, warn_independent_sampling=False), ("scipy", "torch")),
    "qmc": _Stock(
        lambda seed: samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False), ("scipy",), True
    ),
    "nsgaii": _Stock(lambda seed: BaseFirstNSGAII(seed=seed)),
    "random": _Stock(lambda seed: samplers.RandomSampler(seed=seed)),
}


class StockSampler(BaseSampler):
    """One of Optuna's own samplers, such that a study can be resumed, and that a hyp file has the digits of the hyp.

    Optuna's keep their generator in memory: in a resumed study they would repeat their first draws. Here every draw has
    a sampler of its own, seeded by the seed, the trial's generation and the param, and so depends on nothing but these
    and the trials so far ("cmaes": their numbers too; "qmc": how much was ever drawn). Values are rounded as the space
    rounds them.
    """

    def __init__(self, stock: _Stock, space: Space, seed: int) -> None:
        self._stock = stock
        self._seed = seed
        self._params = {param.name: param for param in space.params}
        self._sampler = self._made(seed)

    def __str__(self) -> str:
        return str(self._sampler)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        drawn = self._drawing(study, trial, "").sample_relative(study, trial, search_space)
        return {name: self._rounded(name, value) for name, value in drawn.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._drawing(study, trial, param_name)
        return self._rounded(param_name, sampler.sample_independent(study, trial, param_name, param_distribution))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def _drawing(self, study: Study, trial: FrozenTrial, name: str) -> BaseSampler:
        return self._sampler if self._stock.counts else self._made(seed_of_draw(self._seed, study, trial, name))

    def _made(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self._stock.make(seed)

    def _rounded(self, name: str, value: Any) -> Any:
        return self._params[name].round_value(value) if name in self._params else value


_GENETIC = {"genetic": "modern", **{name: name for name in OPERATORS}}
SAMPLERS = (*_GENETIC, *_SAMPLERS)
SAMPLERS_FOR_GOALS = tuple(name for name, stock in _SAMPLERS.items() if not stock.one_goal)


def build_sampler(name: str, space: Space, *, seed: int, goals: int = 1) -> BaseSampler:
    """The sampler of that name: "genetic" (that is "modern"), "normalised", "yolo", or one of Optuna's own.

    With several goals "genetic" is "nsgaii", as only some of Optuna's can pursue them. Raises StudyError: unknown name,
    missing package, a sampler that pursues one goal only.
    """
    if goals > 1:
        name = "nsgaii" if name == "genetic" else name
        if name in SAMPLERS and name not in SAMPLERS_FOR_GOALS:
            known = ", ".join(SAMPLERS_FOR_GOALS)
            raise StudyError(f"sampler {name!r} pursues one goal only; for several: {known}")
    if name in _GENETIC:
        return GeneticSampler(space, seed=seed, operator=_GENETIC[name])
    if name not in _SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise StudyError(f"unknown sampler {name!r}{did_you_mean(name, SAMPLERS)}; known: {known}")
    stock = _SAMPLERS[name]
    if missing := [package for package in stock.needs if find_spec(package) is None]:
        raise StudyError(f"sampler {name!r} needs a package that is not installed: pip install {' '.join(missing)}")
    return StockSampler(stock, space, seed)


@dataclass(frozen=True)
class Sparing(BasePruner):
    """Another pruner that spares the base and whatever has reached the last epoch."""

    pruner: BasePruner
    epochs: int

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        last = trial.last_step
        return last is not None and last < self.epochs and not is_base(trial) and self.pruner.prune(study, trial)


def build_pruner(name: str, *, epochs: int, warmup_epochs: float = 0) -> BasePruner:
    """The pruner of that name, with arguments that suit trainings of so many epochs.

    "evolve" is the one to use, "asha" the plain rule of rungs, "none" (or "nop") lets every trial end; the others are
    Optuna's, which spare here what ours spare. "threshold" stops what has found nothing after half of the epochs: a
    fitness below 0.001. "wilcoxon" tests a curve's epochs against those of the best trial's curve, as if they were
    independent; it needs scipy. Raises StudyError for an unknown name, and where scipy is missing.
    """
    if name not in PRUNERS:
        raise StudyError(f"unknown pruner {name!r}{did_you_mean(name, PRUNERS)}; known: {', '.join(PRUNERS)}")
    if name == "evolve":
        return EvolvePruner(epochs, warmup_epochs)
    if name == "asha":
        return AshaPruner(epochs, warmup_epochs)
    if name in ("none", "nop"):
        return pruners.NopPruner()
    if name == "wilcoxon" and find_spec("scipy") is None:
        raise StudyError("pruner 'wilcoxon' needs a package that is not installed: pip install scipy")
    first = min(rungs(epochs, warmup_epochs)[:1], default=epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return Sparing(_PRUNERS[name](first, epochs), epochs)


def _median(first: int, _epochs: int) -> BasePruner:
    return pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=first)


_PRUNERS: Mapping[str, Callable[[int, int], BasePruner]] = {  # of the first epoch that may prune, and all epochs
    "median": _median,
    "percentile": lambda first, _: pruners.PercentilePruner(25.0, n_startup_trials=10, n_warmup_steps=first),
    "patient": lambda first, epochs: pruners.PatientPruner(_median(first, epochs), patience=math.ceil(epochs / 10)),
    "sha": lambda first, _: pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=2),
    "hyperband": lambda first, epochs: pruners.HyperbandPruner(first, max_resource=epochs, reduction_factor=3),
    "wilcoxon": lambda first, _: pruners.WilcoxonPruner(n_startup_steps=max(first, 2)),
    "threshold": lambda first, epochs: pruners.ThresholdPruner(lower=1e-3, n_warmup_steps=max(first, epochs // 2)),
}
PRUNERS = ("evolve", "asha", "none", "nop", *_PRUNERS)
