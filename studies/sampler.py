"""Who proposes the next hyp: the genetic sampler, and how a trial is asked for its hyp."""

from __future__ import annotations

import heapq
import math
import statistics
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from optuna import Study, Trial, samplers
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Hyp, Param, Space, Value
from search_spaces.space import did_you_mean, round_significant
from studies.errors import StudyError
from studies.genetics import (
    TRIES,
    Child,
    Operator,
    Population,
    Scored,
    SpaceExhausted,
    Tried,
    normalised,
    vary_alone,
    yolo,
)
from studies.modern import modern
from studies.trials import (
    BASE,
    DRAWN,
    OPERATOR,
    PARENTS,
    STEP,
    at_once,
    generation_of,
    hyp_of,
    is_base,
    is_lost,
    notes_of,
    trials_of,
    trials_when_asked,
)

NARROW = 0.01  # of a float's magnitude: in a narrower range, places are numbered
MOST = 500  # of the fittest trials, and of the latest, are what an operator sees of a long study


def suggest(trial: Trial, space: Space) -> dict[str, Value]:
    """The trial's hyp: every param of the space, which the trial records, and the fixed values, in the space's order.

    What is returned is what was recorded, to the last digit. A pinned param has its default, whatever the sampler.
    """
    with at_once(trial):
        drawn = {param.name: _suggest(trial, param.name, distribution(param)) for param in space.params}
    return {name: drawn[name] if name in drawn else space.fixed[name] for name in space.order}


def distribution(param: Param) -> BaseDistribution:
    """What Optuna may draw for this param: its bounds or choices; of one that is pinned, its default only."""
    if param.choices:
        return CategoricalDistribution(param.choices if param.evolves else (param.default,))
    low, high = param.bounds if param.evolves else (param.default, param.default)
    if param.step:
        return IntDistribution(int(low), int(high), log=param.log and param.evolves, step=param.step)
    return FloatDistribution(float(low), float(high), log=param.log and param.evolves)


OPERATORS: Mapping[str, Operator] = {"modern": modern, "normalised": normalised, "yolo": yolo}


class GeneticSampler(BaseSampler):
    """Draws each hyp as a child of the study's fittest, by an operator of OPERATORS or one of your own.

    It keeps no state: a draw depends on the seed, the trial's generation and the trials so far, so that a study can be
    resumed by another process, and several processes can share one. Parents are COMPLETE trials; a pruned trial's last
    value is no fitness. A child differs from the hyp of every other trial, whatever became of it, as long as the space
    has one left. While nothing is COMPLETE, the base is drawn (the study's user attribute "base", else the space's
    defaults), then children of the base. Each trial notes "parents", "operator" and "step" as user attributes.

    Serves any single-objective Optuna study. Without a space it evolves the params that all COMPLETE trials have in
    common together, as Optuna's samplers do, and each of the others by itself, by `vary_alone`.
    """

    def __init__(self, space: Space | None = None, *, seed: int = 0, operator: str | Operator = "modern") -> None:
        if isinstance(operator, str) and operator not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise StudyError(f"unknown operator {operator!r}{did_you_mean(operator, OPERATORS)}; known: {known}")
        self._space = space
        self._seed = seed
        self._operator = OPERATORS[operator] if isinstance(operator, str) else operator
        self._memory: _Memory | None = None
        self._alone: dict[str, _Memory] = {}  # of params that not all trials have

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_memory": None, "_alone": {}}  # a whole study in memory would go along

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._space is not None:
            return {param.name: distribution(param) for param in self._space.evolving}
        common = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: found for name, found in common.items() if not found.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        genome = _Genome(self._space) if self._space is not None else _Genome.of(search_space)
        child = self._breed(study, trial, genome)
        noted = {PARENTS: list(child.parents), OPERATOR: child.operator, STEP: child.step}
        for key, value in noted.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
            trial.user_attrs[key] = value
        drawn = genome.decoded(child.hyp)
        return {name: drawn[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        seed = seed_of_draw(self._seed, study, trial, param_name)
        if self._space is None and not param_distribution.single():
            genome = _Genome.of({param_name: param_distribution})
            memory = self._alone.get(param_name)
            if memory is None or not memory.serves(study, genome):
                memory = self._alone[param_name] = _Memory(study, genome)
            if scored := memory.population(trials_of(study), trial.number).scored:
                value = vary_alone(scored, memory.space[param_name], np.random.default_rng(seed))
                return genome.decoded({param_name: value})[param_name]
        return samplers.RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _breed(self, study: Study, trial: FrozenTrial, genome: _Genome) -> Child:
        """A child that no other trial has, not even one that another process bred at the same moment.

        Its hyp is noted as the trial's before it is known to be the only one: of two processes that bred the same, the
        one that noted it last finds the other's, and breeds anew.
        """
        memory = self._memory
        if memory is None or not memory.serves(study, genome):
            memory = self._memory = _Memory(study, genome)
        generation, names = generation_of(study, trial), genome.space.names
        population = memory.population(trials_when_asked(study), trial.number)
        for attempt in range(TRIES):
            child = self._child(population, memory.space, np.random.default_rng([self._seed, generation, attempt]))
            genes = {name: child.hyp[name] for name in names}
            study._storage.set_trial_system_attr(trial._trial_id, DRAWN, genome.decoded(genes))
            known, population = population, memory.population(trials_of(study), trial.number)
            if list(population.taken).count(genes) == list(known.taken).count(genes):
                break
        return child

    def _child(self, population: Population, space: Space, rng: np.random.Generator) -> Child:
        base = {param.name: param.default for param in space.params}
        if not population.scored and base not in population.taken:
            return Child(space.defaults(), parents=(), operator=BASE, step={})
        try:
            return self._operator(population, space, rng)
        except SpaceExhausted:  # a few ints and choices, all tried: what was good may be tried again
            return self._operator(replace(population, taken=()), space, rng)


@dataclass
class _Tally:
    """What trials are to the operators."""

    scored: list[Scored] = field(default_factory=list)
    hopeless: list[Tried] = field(default_factory=list)
    running: list[Tried] = field(default_factory=list)
    taken: list[Hyp] = field(default_factory=list)
    base: list[float] = field(default_factory=list)  # its fitness under each seed

    def copy(self) -> _Tally:
        return _Tally(*(list(kept) for kept in vars(self).values()))

    def add(self, trial: FrozenTrial, genome: _Genome, sign: int) -> None:
        if is_lost(trial) or (hyp := genome.encoded(hyp_of(trial))) is None:
            return
        self.taken.append(hyp)
        if not trial.state.is_finished():
            self.running.append(Tried(hyp, trial.number))
        elif trial.state != TrialState.COMPLETE or trial.value is None or not math.isfinite(trial.value):
            reports = trial.intermediate_values if trial.state == TrialState.PRUNED else {}
            last = (max(reports), sign * reports[max(reports)]) if reports else None
            self.hopeless.append(Tried(hyp, trial.number, last))  # Optuna takes an infinite value for one that counts
        else:
            curve = {epoch: sign * value for epoch, value in trial.intermediate_values.items()}
            self.scored.append(Scored(hyp, sign * trial.value, trial.number, curve))
            if is_base(trial):
                self.base.append(sign * trial.value)


class _Memory:
    """The finished trials of a study as the operators see them; each is read once, as it cannot change any more.

    Nothing in here goes beyond what the trials say: it may be lost at any time.
    """

    def __init__(self, study: Study, genome: _Genome) -> None:
        self._storage, self._study_id = study._storage, study._study_id
        self._sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        self._genome = genome
        self.space = _started_from_base(genome, study)
        self._read = 0, _Tally()  # so many first trials have finished, and are this: replaced as one, by any thread

    def serves(self, study: Study, genome: _Genome) -> bool:
        same_study = study._storage is self._storage and study._study_id == self._study_id
        return same_study and genome == self._genome

    def population(self, trials: Sequence[FrozenTrial], number: int) -> Population:
        """What the child of this trial number is bred from."""
        finished, known = self._read
        tally = known.copy()
        while finished < len(trials) and trials[finished].state.is_finished():
            tally.add(trials[finished], self._genome, self._sign)
            finished += 1
        self._read = finished, tally.copy()
        for trial in trials[finished:]:
            if trial.number != number:
                tally.add(trial, self._genome, self._sign)
        base = statistics.fmean(tally.base) if tally.base else None
        return Population(_fittest_and_latest(tally.scored), tally.hopeless[-MOST:], tally.running, tally.taken, base)


def seed_of_draw(seed: int, study: Study, trial: FrozenTrial, name: str) -> int:
    """The seed of one draw of one trial: another one for each param, in whatever order they are asked for."""
    entropy = [seed, generation_of(study, trial), zlib.crc32(name.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


@dataclass(frozen=True)
class _Genome:
    """How the operators see hyps: their space, and the way in and out.

    `codes` holds Optuna's distributions where the space was made from these: choices (which may be None, or True beside
    1) and the values of a stepped float are then numbered from 0, and a narrow float is a share of its range.
    """

    space: Space
    codes: Mapping[str, BaseDistribution] = field(default_factory=dict)

    @classmethod
    def of(cls, search_space: Mapping[str, BaseDistribution]) -> _Genome:
        params = tuple(_coded_param(name, found) for name, found in search_space.items())
        return cls(Space("study", params), search_space)

    def encoded(self, hyp: Hyp) -> dict[str, Value] | None:
        """The params of a trial as the operators see them; None if it lacks one, or has one of another kind."""
        values = {**self._pinned, **hyp}
        try:
            return {name: self._encoded(name, values[name]) for name in self.space.names}
        except (KeyError, ValueError):
            return None

    @cached_property
    def _pinned(self) -> dict[str, Value]:
        return {param.name: param.default for param in self.space.params if not param.evolves}

    def decoded(self, hyp: Hyp) -> dict[str, Any]:
        return {name: _from_code(self.codes[name], hyp[name]) if self.codes else hyp[name] for name in self.space.names}

    def _encoded(self, name: str, value: Any) -> Value:
        return _to_code(self.codes[name], value) if self.codes else value


def _coded_param(name: str, found: BaseDistribution) -> Param:
    """Nobody has said where to start, so it starts from its middle."""
    param = _at_low(name, found)
    return replace(param, default=param.from_unit(0.5))


def _at_low(name: str, found: BaseDistribution) -> Param:
    match found:
        case CategoricalDistribution():
            return Param(name, default=0, choices=tuple(range(len(found.choices))))
        case IntDistribution():
            return Param(name, default=found.low, low=found.low, high=found.high, log=found.log, step=found.step)
        case FloatDistribution(step=float() as step):
            return Param(name, default=0, low=0, high=round((found.high - found.low) / step), step=1)
        case FloatDistribution() if _is_narrow(found):
            return Param(name, default=0, low=0, high=1)
        case FloatDistribution():
            return Param(name, default=found.low, low=found.low, high=found.high, log=found.log)
    raise TypeError(f"{name}: Optuna has a new kind of distribution, {found}")


def _to_code(found: BaseDistribution, value: Any) -> Value:
    """ValueError if the value is none of this distribution's."""
    inner = found.to_internal_repr(value)
    match found:
        case CategoricalDistribution() | IntDistribution():
            return int(inner)
        case FloatDistribution(step=float() as step):
            return round((inner - found.low) / step)
        case FloatDistribution() if _is_narrow(found):
            return round_significant((inner - found.low) / (found.high - found.low))
    return inner


def _from_code(found: BaseDistribution, code: Any) -> Any:
    match found:
        case FloatDistribution(step=float() as step):
            return min(found.low + code * step, found.high)
        case FloatDistribution() if _is_narrow(found):
            return min(found.low + code * (found.high - found.low), found.high)
    return found.to_external_repr(code)


def _is_narrow(found: FloatDistribution) -> bool:
    """Whether the few digits to which our values are rounded would not tell its values apart: 2000.0 to 2001.0."""
    return found.high - found.low < NARROW * max(abs(found.low), abs(found.high))


def _fittest_and_latest(scored: list[Scored]) -> list[Scored]:
    """By number; all of them where they are few."""
    if len(scored) <= 2 * MOST:
        return scored
    kept = {one.number for one in heapq.nlargest(MOST, scored, key=lambda one: one.fitness)}
    return [one for i, one in enumerate(scored) if one.number in kept or i >= len(scored) - MOST]


def _started_from_base(genome: _Genome, study: Study) -> Space:
    if genome.codes:
        return genome.space
    base = notes_of(study).get(BASE, {})
    return genome.space.with_base(genome.space.clip({key: base[key] for key in genome.space.names if key in base}))


def _suggest(trial: Trial, name: str, found: BaseDistribution) -> Value:
    value: Any
    match found:
        case FloatDistribution():
            value = trial.suggest_float(name, found.low, found.high, log=found.log)
        case IntDistribution():
            value = trial.suggest_int(name, found.low, found.high, step=found.step, log=found.log)
        case CategoricalDistribution():
            value = trial.suggest_categorical(name, found.choices)
    recorded: Value = found.to_external_repr(found.to_internal_repr(value))  # a queued 1 was recorded as 1.0
    return recorded
