"""`evolve export`: the hyp that a study found, in the words of another trainer, with all that is to be known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

import evolve
from evolve.config import ConfigError, EvolveConfig, complete, read_config
from evolve.dialects import DIALECTS, EVOLVE, Dialect, Told, pairs, recognise, say_lost, translate
from evolve.formats import Format, format_named
from evolve.fragments import OPTIMIZERS
from evolve.hyps import as_read, part
from evolve.lookup import Found, find_study
from evolve.opening import NOT_EVOLVED
from evolve.plugins import AS_OPTIONS
from evolve.records import provenance
from evolve.standing import nothing_yet
from evolve.usage import own_choices
from search_spaces import Hyp
from studies import storage_errors, trials_of
from studies.persistence import NOT_CONFIRMED, facts_of, lines_of, whole_hyp
from studies.trials import hyp_of


@dataclass(frozen=True)
class Export:
    """A hyp file for another trainer: its text, the command that uses it, and what a person has to be warned of."""

    text: str
    command: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """A hyp of a study, what is known of it, and how long the trainings were that it was judged by."""

    hyp: Hyp
    facts: Mapping[str, str]
    epochs: int


def export(
    name: str | None,
    runs: Path,
    *,
    wanted: str,
    storage: str | None = None,
    trial: int | None = None,
    file: Path | None = None,
    strict: bool = False,
) -> Export:
    """The best hyp of a study (what a race has decided, where one has), or that of a trial, in the `wanted` format.

    `file` is where it will lie. With `strict` a hyp that changes the training and has no equivalent is a ConfigError.
    Raises ConfigError, StudyError, and NoResult while there is no best hyp.
    """
    chosen_format = format_named(wanted)
    found = find_study(name, runs, storage)
    config = complete(EvolveConfig(**read_config(found.paths.config)))
    with storage_errors(storage or ""):
        chosen = _best(found, config.epochs) if trial is None else _of_trial(found, config.epochs, trial)
    return write_export(chosen, config, found, chosen_format, file or Path(chosen_format.file), strict=strict)


def write_export(
    chosen: Chosen, config: EvolveConfig, found: Found, wanted: Format, file: Path, *, strict: bool
) -> Export:
    """A study's hyp as a file for that trainer."""
    options, hyp = part(chosen.hyp, AS_OPTIONS.get(config.trainer, ()))
    settled: Any = options
    config = replace(config, epochs=chosen.epochs, **settled)
    optimizer, schedule = own_choices(config)
    as_known = replace(config, optimizer=optimizer, schedule=schedule)
    dialect = speech_of(hyp, config.trainer, found.space.name)
    if wanted.dialect is None:
        told, unsaid = Told(chosen.hyp), []
    else:
        told = _tell(hyp, dialect, wanted, as_known)
        unsaid = [] if dialect is wanted.dialect else wanted.choices.unsaid(as_known)
        options = {}  # stand in no hyp there, and so among the settings
    if strict and told.lost:
        raise ConfigError(f"--strict: {wanted.title} has no equivalent of {pairs(told.lost)}")
    command = wanted.use(str(file), config if wanted.dialect is None else as_known, told)
    origin = provenance(config, file, options, found.identity.get(NOT_EVOLVED, {}))
    known = {name: value for name, value in {**chosen.facts, **origin}.items() if name not in ("command", "version")}
    notes = {
        "gains": _scales(dialect, wanted),
        "left out": pairs(told.lost),
        "not there": ", ".join(unsaid),
        "as anyway": pairs(told.idle),
        "filled in": pairs(told.filled),
    }
    header = [
        f"Hyps for {wanted.title}, by evolve {evolve.__version__}.",
        *lines_of({"use": command, **known, **{name: note for name, note in notes.items() if note}}),
        "",
    ]
    other = [f"{wanted.title} has no {' and no '.join(unsaid)}: it takes its own"] if unsaid else []
    return Export(wanted.write(told.hyp, header, as_known), command, (*say_lost(told, wanted.title), *other))


def speech_of(hyp: Hyp, trainer: str, space: str) -> Dialect:
    """In whose words a study has its hyps: its trainer's, those of its space, or whose they seem to be."""
    if trainer == "detection":
        return EVOLVE
    found = recognise(hyp)
    return DIALECTS.get(trainer) or DIALECTS.get(space) or (found[0] if found else EVOLVE)


def _tell(hyp: Hyp, dialect: Dialect, wanted: Format, config: EvolveConfig) -> Told:
    """A hyp in the words of the format; that of the built-in trainer with all that it trained with."""
    assert wanted.dialect is not None
    whole = as_read(hyp, config.trainer, "complete") if dialect is EVOLVE else hyp
    optimizer = OPTIMIZERS.get(config.optimizer, config.optimizer)
    told = translate(whole, dialect, wanted.dialect, {"optimizer": optimizer} if optimizer else {})
    by_others = config.optimizer in wanted.choices.optimizers and config.optimizer != "sgd"
    unread = {name: told.hyp[name] for name in wanted.sgd_only if by_others and name in told.said}
    return replace(told, lost={**told.lost, **unread})


def _best(found: Found, epochs: int) -> Chosen:
    if found.decision is not None:
        return Chosen(found.decision.hyp, found.decision.facts(), found.decision.epochs)
    if found.best is None:
        raise nothing_yet(found.paths.root.name)
    return Chosen(found.best.hyp, {"verdict": NOT_CONFIRMED, **facts_of(found.best)}, epochs)


def _of_trial(found: Found, epochs: int, number: int) -> Chosen:
    trials = trials_of(found.study)
    if not 0 <= number < len(trials):
        there = f"the trials 0 to {len(trials) - 1}" if trials else "no trial yet"
        raise ConfigError(f"--trial {number}: {found.study.study_name} has {there}")
    trial = trials[number]
    fitness = f"{trial.values[0]:.6g}" if trial.state == TrialState.COMPLETE else f"none: {trial.state.name.lower()}"
    facts = {"fitness": fitness, "trial": str(number), "study": found.study.study_name}
    return Chosen(whole_hyp(hyp_of(trial), found.space), {"verdict": NOT_CONFIRMED, **facts}, epochs)


def _scales(dialect: Dialect, wanted: Format) -> str:
    """How the weights of the losses were reckoned, where that was to be done."""
    if wanted.dialect is None or wanted.dialect is dialect:
        return ""
    return "; ".join(note for note in (dialect.scales, wanted.dialect.scales) if note)
