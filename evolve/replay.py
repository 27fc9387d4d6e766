"""Replays trainings that were recorded to their end through a pruner: what it would have run, and what kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna import Study, Trial
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from search_spaces import Hyp, Space
from studies import suggest
from studies.study import Direction
from studies.trials import BASE, LOST, RETRY_OF


@dataclass(frozen=True)
class Curve:
    """One training that ran to its end: the fitness after each epoch (from 1; epochs may be left out).

    `number` is what the curve is called, `seconds` how long each epoch took ({} where that is not known), `attrs` are
    the user attributes that a pruner may ask for.
    """

    number: int
    fitness: Mapping[int, float]
    seconds: Mapping[int, float] = field(default_factory=dict)
    hyp: Hyp = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return max(self.fitness)

    @property
    def end(self) -> float:
        """The fitness after the last epoch."""
        return self.fitness[self.epochs]


@dataclass(frozen=True)
class Replay:
    """The curves in the order in which they were replayed, and after which epoch each was stopped (None: it ended)."""

    curves: tuple[Curve, ...]
    stopped: tuple[int | None, ...]
    direction: Direction

    @property
    def epochs(self) -> int:
        """How many epochs were run."""
        return sum(stop or curve.epochs for curve, stop in self._pairs())

    @property
    def share(self) -> float:
        """Of the epochs without pruning."""
        return self.epochs / sum(curve.epochs for curve in self.curves)

    @property
    def pruned(self) -> int:
        return sum(stop is not None for stop in self.stopped)

    @property
    def seconds_saved(self) -> float | None:
        """What the epochs that were not run took; None where not all curves tell."""
        if not all(curve.seconds for curve in self.curves):
            return None
        late = ((curve, stop) for curve, stop in self._pairs() if stop is not None)
        return math.fsum(s for curve, stop in late for epoch, s in curve.seconds.items() if epoch > stop)

    @property
    def best(self) -> Curve:
        """The best of all curves by its end, the first of equals."""
        return self._best(self.curves)

    @property
    def kept(self) -> Curve:
        """The best of those that were not stopped; the first curve always ends."""
        return self._best([curve for curve, stop in self._pairs() if stop is None])

    @property
    def regret(self) -> float:
        """How far the best that was kept is behind the best of all, in units of fitness; never below 0."""
        return abs(self.best.end - self.kept.end)

    @property
    def epochs_to_kept(self) -> int:
        """How many epochs were run when the best that was kept had ended."""
        found = self.curves.index(self.kept)
        return sum(stop or curve.epochs for curve, stop in list(self._pairs())[: found + 1])

    def _best(self, curves: Sequence[Curve]) -> Curve:
        return (max if self.direction == "maximize" else min)(curves, key=lambda curve: curve.end)

    def _pairs(self) -> Iterator[tuple[Curve, int | None]]:
        return zip(self.curves, self.stopped, strict=True)


def replay(
    curves: Sequence[Curve],
    pruner: BasePruner,
    direction: Direction = "maximize",
    *,
    sampler: BaseSampler | None = None,
    space: Space | None = None,
) -> Replay:
    """Run the curves as the trials of a study in memory, one after the other, the first of them as its base.

    Without a sampler they come in the order given. With one (and the space of the hyps), each of its proposals stands
    for the nearest recorded hyp that is left: what it proposed itself was never trained. So it changes the order alone.
    """
    study = optuna.create_study(
        study_name="replay", direction=direction, pruner=pruner, sampler=sampler or RandomSampler(0)
    )
    study.set_user_attr(BASE, dict(curves[0].hyp))
    left, order = list(curves), list[Curve]()
    stopped: list[int | None] = []
    while left:
        curve, attrs = left[0], dict[str, Any]()
        if order and sampler and space and BASE not in curve.attrs:
            curve, attrs = _nearest_to_proposal(study, space, left)
        left.remove(curve)
        trial = _begin(study, curve, space if sampler else None, attrs)
        stop = _train(trial, curve)
        study.tell(trial, None if stop else curve.end, state=TrialState.PRUNED if stop else TrialState.COMPLETE)
        order.append(curve)
        stopped.append(stop)
    return Replay(tuple(order), tuple(stopped), direction)


def _begin(study: Study, curve: Curve, space: Space | None, attrs: Mapping[str, Any]) -> Trial:
    """A trial with the curve's hyp, its attributes and these."""
    params = {param.name: curve.hyp[param.name] for param in space.params} if space else {}
    study.enqueue_trial(params, user_attrs={**curve.attrs, **attrs})
    trial = study.ask()
    if space:
        suggest(trial, space)
    return trial


def _train(trial: Trial, curve: Curve) -> int | None:
    """The epoch after which the trial is pruned, None if it ends."""
    for epoch in sorted(curve.fitness):
        trial.report(curve.fitness[epoch], epoch)
        if trial.should_prune() and epoch < curve.epochs:
            return epoch
    return None


def _nearest_to_proposal(study: Study, space: Space, left: Sequence[Curve]) -> tuple[Curve, dict[str, Any]]:
    """The curve whose hyp is nearest to what the sampler proposes, to be the retry of that proposal, which is lost."""
    trial = study.ask()
    proposed = _place(suggest(trial, space), space)
    trial.set_user_attr(LOST, "never trained: the nearest recorded hyp stands for it")
    study.tell(trial, state=TrialState.FAIL)
    nearest = min(left, key=lambda curve: float(np.abs(_place(curve.hyp, space) - proposed).sum()))
    return nearest, {RETRY_OF: trial.number}


def _place(hyp: Hyp, space: Space) -> NDArray[np.float64]:
    """Where a hyp stands in the unit cube."""
    return np.array([param.to_unit(hyp[param.name]) for param in space.evolving])
