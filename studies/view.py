"""A study as it is at one moment, as plain values: all that a picture or a page of it needs, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Hyp, Param, Space, Value
from studies.decision import Decision
from studies.insight import Insight
from studies.noise import NoiseFloor, has_fitness, noise_floor
from studies.persistence import BestHyp, best_front_of
from studies.racing import heat_of, latest_decision, races_of
from studies.study import IDENTITY, Direction, goals_of
from studies.trials import (
    BASE,
    COSTS,
    EPOCHS,
    FAILURE,
    LOST,
    METRICS,
    OPERATOR,
    PARENTS,
    SEED,
    SOURCE,
    WORKER,
    generations,
    hyp_of,
    is_base,
    is_known,
    is_lost,
    is_surplus,
    trials_of,
)

State = Literal["complete", "pruned", "failed", "running", "queued", "lost", "known"]

_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "queued",
}


@dataclass(frozen=True)
class Seen:
    """One trial, or one training of a race.

    `values` are what it reached in each goal: () unless it is complete, or known from an earlier study, with finite
    ones. `curve` is the fitness after each epoch that it ran. `hyp` holds all params of the space. `parents` are
    numbers of trials, the one that it was made from first. `why` tells of a trial that failed or was lost. `times` are
    in this machine's time zone.
    """

    number: int
    generation: int
    state: State
    values: tuple[float, ...]
    curve: Mapping[int, float]
    epochs: int
    hyp: Hyp
    base: bool = False
    parents: tuple[int, ...] = ()
    operator: str = ""
    source: str = ""
    seed: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    worker: str = ""
    why: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The fitness; of several goals, what it reached in the first."""
        return self.values[0] if self.values else None

    @property
    def counts(self) -> bool:
        """Whether it was trained here to its end, whichever that was."""
        return self.state in ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Moved:
    """A hyp that a trial has at another value than its parent, and how far from it, as a share of its range."""

    name: str
    before: Value
    after: Value
    far: float


@dataclass(frozen=True)
class View:
    """All of it.

    `base` is the hyp that the study began with, whole. `epochs` is how long a trial may be (None: not known). `front`
    is what `studies.best_front_of` finds; `decision` what a race of the study as it is now has decided; `heats` are the
    trainings of all races that it has had. `trials` are all that were ever made, but surplus ones, by number; `seen_at`
    is when they were read.
    """

    study: str
    space: Space
    base: Hyp
    goals: Mapping[str, Direction]
    epochs: int | None
    trials: tuple[Seen, ...]
    noise: NoiseFloor | None
    front: tuple[BestHyp, ...]
    insight: Insight
    decision: Decision | None
    heats: tuple[Seen, ...]
    seen_at: datetime

    @property
    def goal(self) -> str:
        """The name of the first goal, 'fitness' where there is one."""
        return next(iter(self.goals))

    @property
    def sign(self) -> int:
        """1 where more of the first goal is better, else -1."""
        return 1 if self.goals[self.goal] == "maximize" else -1

    @property
    def best(self) -> BestHyp | None:
        """The best hyp of the search, whatever a race says."""
        return next(iter(self.front), None)

    @property
    def delivered(self) -> Hyp | None:
        """The hyp that the study hands out: what a race has decided, else the best one so far."""
        if self.decision is not None:
            return self.decision.hyp
        return self.best.hyp if self.best else None

    @cached_property
    def by_number(self) -> Mapping[int, Seen]:
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def complete(self) -> tuple[Seen, ...]:
        """The trials with a fitness that was measured here."""
        return tuple(trial for trial in self.trials if trial.state == "complete" and trial.values)

    @cached_property
    def line(self) -> tuple[int, ...]:
        """The trials from which the best one descends, the first one first, itself last."""
        found: list[int] = []
        number = self.best.number if self.best else None
        while number is not None and number in self.by_number and number not in found:
            found.append(number)
            number = next(iter(self.by_number[number].parents), None)
        return tuple(found[::-1])

    def moves(self, trial: Seen) -> list[Moved]:
        """What the trial has moved against the one that it was made from, or against the base; the furthest first."""
        parent = next((self.by_number[number] for number in trial.parents if number in self.by_number), None)
        before = self.base if parent is None else parent.hyp
        moved = (
            Moved(param.name, before[param.name], value, _far(param, before[param.name], value))
            for param in self.space.evolving
            if (value := trial.hyp[param.name]) != before[param.name]
        )
        return sorted(moved, key=lambda one: -one.far)


def view_of(study: Study, insight: Insight) -> View:
    """The study as it is now. `insight` is what it tells of its hyps, see `studies.insight`."""
    identity = study.user_attrs[IDENTITY]
    space = Space.from_dict(identity["space"])
    trials, races = trials_of(study), races_of(study)
    base = {**space.defaults(), **study.user_attrs.get(BASE, {})}
    return View(
        study=study.study_name,
        space=space,
        base={name: base[name] for name in space.order},
        goals=goals_of(study),
        epochs=identity.get(EPOCHS),
        trials=_seen(trials, base),
        noise=noise_floor(trials),
        front=tuple(best_front_of(study, space, trials)),
        insight=insight,
        decision=latest_decision(study, space),
        heats=tuple(heat for race in races for heat in _seen(trials_of(race), base, of_race=True)),
        seen_at=datetime.now(),
    )


def _seen(trials: Sequence[FrozenTrial], base: Hyp, *, of_race: bool = False) -> tuple[Seen, ...]:
    found = generations(trials)
    return tuple(_one(trial, found[trial.number], base, of_race) for trial in trials if not is_surplus(trial))


def _one(trial: FrozenTrial, generation: int, base: Hyp, of_race: bool) -> Seen:
    noted = trial.user_attrs
    worker = noted.get(WORKER)
    curve = dict(sorted(trial.intermediate_values.items()))
    return Seen(
        number=trial.number,
        generation=generation,
        state=_state(trial),
        values=tuple(trial.values or ()) if has_fitness(trial) else (),
        curve=curve,
        epochs=noted.get(EPOCHS, max(curve, default=0)),
        hyp={**base, **hyp_of(trial)},
        base=heat_of(trial).entrant is None if of_race else is_base(trial),
        parents=tuple(noted.get(PARENTS, ())),
        operator=noted.get(OPERATOR, ""),
        source=noted.get(SOURCE, ""),
        seed=noted.get(SEED),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        worker=f"{worker['host']}:{worker['pid']}" if worker else "",
        why=str(noted.get(FAILURE) or noted.get(LOST) or ""),
        metrics={**noted.get(METRICS, {}), **noted.get(COSTS, {})},
    )


def _state(trial: FrozenTrial) -> State:
    return "known" if is_known(trial) else "lost" if is_lost(trial) else _STATES[trial.state]


def _far(param: Param, before: Value, after: Value) -> float:
    return 1.0 if param.choices else abs(param.to_unit(after) - param.to_unit(before))
