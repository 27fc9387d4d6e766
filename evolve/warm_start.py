"""What a study starts from beside its base (`--from`): results and hyps of earlier studies and of files.

Each source gives *known trials*, whose results stand in the study as if they had been measured there, or *hyps*, which
are queued and trained after the base. A result is known only where it was measured in the same way: on the same data,
as many epochs, by the same fitness. All that was taken over is told by the study's trials, so that a start that was
killed is finished by the next one, and taking over again adds only what is new.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from evolve.config import ConfigError, EvolveConfig, mask_secrets
from evolve.hyps import as_read
from evolve.lookup import find_study
from evolve.opening import NOT_EVOLVED
from evolve.paths import RunPaths, from_here
from search_spaces import Hyp, Space, SpaceError, Value
from studies import distribution, open_storage, storage_errors, trials_of
from studies.earlier import Earlier, read_earlier
from studies.noise import has_fitness
from studies.study import IDENTITY, differences, goals_of
from studies.trials import COSTS, EPOCHS, KNOWN, METRICS, SEED, SOURCE, hyp_of, is_known

BEST_OF_EACH = 5  # hyps of a source that are trained again where its results do not count
SEARCHED = ("space", "seed", NOT_EVOLVED)  # of an identity: what concerns which hyps are tried, not how one is measured
SHOWN, SHOWN_NAMES = 3, 8
RENAMED = {"giou"}  # older trainers' name of `box`
SUFFIXES = (".yaml", ".yml", ".txt", ".csv", ".ndjson", ".jsonl")


@dataclass(frozen=True)
class Source:
    """What one --from names. `measured` says how an evolve study measured; a file says nothing of that.

    `unread` counts the lines of a file that could not be read.
    """

    name: str
    results: Sequence[Earlier]
    measured: Mapping[str, Any] | None = None
    unread: int = 0


@dataclass(frozen=True)
class Taken:
    """A hyp of a source as this space has it: a value for each of its params.

    `clipped` are the params that lay outside of their bounds.
    """

    params: Mapping[str, Value]
    clipped: frozenset[str]
    result: Earlier


@dataclass(frozen=True)
class Offer:
    """What of a source can be trained in a space. `left_out` names what means nothing there, or something else."""

    source: Source
    taken: Sequence[Taken]
    left_out: Collection[str]


def read_sources(config: EvolveConfig) -> list[Source]:
    """All that --from names, read. Raises ConfigError, StudyError, SpaceError and OSError where one gives nothing."""
    return [_read_source(name, config) for name in config.from_]


def offer_of(source: Source, space: Space, trainer: str) -> Offer:
    """What the source has for a space and a trainer. Raises ConfigError if that is nothing."""
    left_out: set[str] = set()
    taken = []
    for result in source.results:
        hyp = _adopted(result.hyp, trainer)
        left_out |= result.hyp.keys() - hyp.keys() | hyp.keys() - set(space.order)
        if (one := _taken(result, hyp, space)) is not None:
            taken.append(one)
    if not taken:
        raise ConfigError(f"--from {source.name} holds no hyp that could be trained in the space {space.name!r}")
    return Offer(source, taken, left_out - RENAMED)


def take_over(study: Study, offer: Offer, space: Space, trainer: str) -> str:
    """Add to the study what it does not have yet of the offer; returns a line that says what, and why not more."""
    reason = _measured_otherwise(offer.source.measured, measured(study))
    dead = study.user_attrs[IDENTITY].get(NOT_EVOLVED, {})
    known = [] if reason else [one for one in offer.taken if _is_same(one, space, dead, trainer)]
    queued = _best_distinct(offer.taken, space)[: 1 if known else BEST_OF_EACH]
    if not reason and len(known) < len(offer.source.results):
        outside = len(offer.source.results) - len(known)
        reason = f"{outside} lie outside of the space here" if known else "they lie outside of the space here"
    trials = trials_of(study)
    there = [(trial.user_attrs[KNOWN], tuple(trial.values)) for trial in trials if is_known(trial)]
    hyps = [{name: hyp_of(trial).get(name) for name in space.names} for trial in trials if not is_known(trial)]
    new_known = [one for one in known if (one.result.label, one.result.values) not in there]
    new_queued = [one for one in queued if one.params not in hyps]
    for one in new_known:
        _add_known(study, one, space)
    for one in new_queued:
        study.enqueue_trial(dict(one.params), user_attrs={SOURCE: one.result.label})
    return _told(offer, new_known, new_queued, reason if known else f"hyps alone, because {reason}")


def measured(study: Study) -> dict[str, Any]:
    """How a study measures a hyp: what its results have to share with another's for both to be compared."""
    identity = {key: value for key, value in study.user_attrs[IDENTITY].items() if key not in SEARCHED}
    return {**identity, "goals": ", ".join(f"{better} {name}" for name, better in goals_of(study).items())}


def _add_known(study: Study, one: Taken, space: Space) -> None:
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            values=one.result.values,
            params=dict(one.params),
            distributions={param.name: distribution(param) for param in space.params},
            user_attrs={KNOWN: one.result.label, **one.result.noted},
        )
    )


def _read_source(name: str, config: EvolveConfig) -> Source:
    path = Path(name)
    if "://" in name or name.startswith("journal:"):
        return _read_storage(name)
    if path.is_file():
        results, unread = read_earlier(path)
        return Source(from_here(path), results, unread=unread)
    if path.suffix in SUFFIXES:
        raise ConfigError(f"--from {name}: there is no such file")
    found = find_study(name, Path(config.runs))
    if found.paths.root.absolute() == RunPaths(Path(config.runs) / config.study).root.absolute():
        raise ConfigError(f"--from {name} is this study itself; give the new one a name of its own with --study")
    with storage_errors():
        return _source_of(found.study)


def _read_storage(url: str) -> Source:
    """A study in a storage: `URL` if it holds one of evolve's, `URL#NAME` of several."""
    address, _, wanted = url.partition("#")
    shown = mask_secrets(address)
    with storage_errors(address):
        storage = open_storage(address, read_only=True)
        studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
        ours = {study.study_name: study for study in studies if IDENTITY in study.user_attrs}
        if wanted in ours or (len(ours) == 1 and not wanted):
            return _source_of(ours[wanted] if wanted else next(iter(ours.values())))
    if ours:
        raise ConfigError(f"--from {shown} holds {', '.join(ours)}: name one of them, as in {shown}#{next(iter(ours))}")
    raise ConfigError(f"--from {shown} holds no study of evolve")


def _source_of(study: Study) -> Source:
    defaults = Space.from_dict(study.user_attrs[IDENTITY]["space"]).defaults()
    sign = 1 if study.directions[0] == StudyDirection.MAXIMIZE else -1
    results = [
        Earlier(
            hyp={**defaults, **hyp_of(trial)},
            fitness=sign * trial.values[0],
            label=trial.user_attrs.get(KNOWN, f"trial {trial.number} of {study.study_name}"),
            values=tuple(trial.values),
            noted={key: trial.user_attrs[key] for key in (METRICS, COSTS, EPOCHS, SEED) if key in trial.user_attrs},
        )
        for trial in trials_of(study)
        if has_fitness(trial)
    ]
    if not results:
        raise ConfigError(f"--from {study.study_name}: no trial of it has completed yet")
    return Source(study.study_name, results, measured(study))


def _adopted(hyp: Hyp, trainer: str) -> Hyp:
    """What of the hyp means the same to this trainer: nothing if it holds a value that makes no sense."""
    try:
        return as_read(hyp, trainer, "adopt")
    except ConfigError:
        return {}


def _taken(result: Earlier, hyp: Hyp, space: Space) -> Taken | None:
    """The hyp within the bounds, with the base's value for what it lacks; None if the space can use nothing of it."""
    given = {param.name: hyp[param.name] for param in space.evolving if param.name in hyp}
    try:
        params = {param.name: param.default for param in space.params} | space.clip(given)
    except SpaceError:
        return None
    clipped = frozenset(name for name in given if not _within(space, name, given[name]))
    return Taken(params, clipped, result) if given else None


def _within(space: Space, name: str, value: Value) -> bool:
    param = space[name]
    low, high = (0, 0) if param.choices else param.bounds
    return bool(param.choices) or low <= float(value) <= high


def _measured_otherwise(there: Mapping[str, Any] | None, here: Mapping[str, Any]) -> str:
    """Why a result of the one is none of the other; '' where it is."""
    if there is None:
        return "a file does not say how they were measured"
    found = list(differences(there, here))
    return "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _is_same(one: Taken, space: Space, dead: Collection[str], trainer: str) -> bool:
    """Whether what would be trained here is what was trained there, but for hyps that have no effect."""
    try:
        there = as_read(one.result.hyp, trainer, "complete")
        here = as_read({**space.defaults(), **one.params}, trainer, "complete")
    except ConfigError:
        return False
    return all(there.get(name) == here.get(name) for name in {*there, *here} if name not in dead)


def _best_distinct(taken: Sequence[Taken], space: Space) -> list[Taken]:
    """One of each hyp but the base, by mean fitness; what has none is as good as the best."""
    base = {param.name: param.default for param in space.params}
    groups: dict[tuple[Value, ...], list[Taken]] = {}
    for one in taken:
        if one.params != base:
            groups.setdefault(tuple(one.params.values()), []).append(one)
    return [group[0] for group in sorted(groups.values(), key=_mean_fitness, reverse=True)]


def _mean_fitness(group: Sequence[Taken]) -> float:
    told = [one.result.fitness for one in group if one.result.fitness is not None]
    return math.fsum(told) / len(told) if told else math.inf


def _told(offer: Offer, known: Sequence[Taken], queued: Sequence[Taken], reason: str) -> str:
    """'from digits: 12 known trials and 1 hyp to train; 3 lie outside of the space here'."""
    added = [_count(len(known), "known trial")] if known else []
    added += [_count(len(queued), "hyp") + " to train"] if queued else []
    parts = [" and ".join(added) or "nothing that is not here already", *([reason] if reason else [])]
    if clipped := sorted({name for one in queued for name in one.clipped}):
        parts.append(f"clipped into the bounds: {_listed(clipped)}")
    if offer.left_out:
        parts.append(f"left out, since it means nothing here or something else: {_listed(sorted(offer.left_out))}")
    if unread := offer.source.unread + len(offer.source.results) - len(offer.taken):
        parts.append(f"{_count(unread, 'result')} could not be read")
    return f"from {offer.source.name}: {'; '.join(parts)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
