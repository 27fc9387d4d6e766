"""`evolve compare`: two studies side by side, and whether what they found can be told apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import Study
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from evolve.config import key_of
from evolve.lookup import find_stored
from evolve.status import asked_of, look_at
from evolve.tables import changes_table, show_fitness
from search_spaces import Hyp, Space
from studies import BestHyp, NoiseFloor, Score, best_of, noise_floor, storage_errors, trials_of
from studies.status import Counts
from studies.study import IDENTITY
from studies.trials import EPOCHS, counts

MEASURE = {"data": "the data", "fitness": "the weights of the fitness", "single_cls": "--single-cls"}
"""Of what makes a study the same: what its fitness is measured with."""
OWN = ("study", "runs", "storage", "bucket", "log_to", "from_")  # settings that say nothing of how it searched
ENOUGH = 2.0  # standard errors that two results have to be apart


@dataclass(frozen=True)
class Side:
    """What came of a study: `best` of the search over `seeds` trainings, at the cost of so many epochs and hours.

    `noise` is the standard deviation of a single training; `verdict` what its race has said.
    """

    study: str
    counts: Counts
    epochs: int
    hours: float
    base: Score | None
    best: float | None
    trial: int | None
    seeds: int
    hyp: Hyp
    noise: float | None
    verdict: str | None


@dataclass(frozen=True)
class Comparison:
    """Two studies. `settings` are those that differ; `unlike` is what makes their fitnesses two different measures.

    `difference` is that of the bests, second less first; `error` its standard error, None while no hyp of a study was
    trained twice. `told_apart`: whether it is more than ENOUGH of these.
    """

    first: Side
    second: Side
    settings: Mapping[str, tuple[Any, Any]]
    unlike: tuple[str, ...]
    difference: float | None
    error: float | None
    told_apart: bool | None
    sentence: str


def compare(names: Sequence[str], runs: Path, storage: str | None = None) -> Comparison:
    """The two studies of these names. Raises ConfigError, StudyError."""
    with storage_errors(storage or ""):
        first, second = (find_stored(name, runs, storage) for name in names)
        return compare_studies(first, second)


def compare_studies(first: Study, second: Study) -> Comparison:
    one, other = _side(first), _side(second)
    identities = [study.user_attrs[IDENTITY] for study in (first, second)]
    unlike = tuple(told for name, told in MEASURE.items() if identities[0].get(name) != identities[1].get(name))
    difference = None if None in (one.best, other.best) or unlike else (other.best or 0.0) - (one.best or 0.0)
    error = None if one.noise is None or other.noise is None or difference is None else _error(one, other)
    apart = None if error is None or difference is None else abs(difference) > ENOUGH * error
    sentence = _sentence(one, other, unlike, difference, error)
    return Comparison(one, other, _settings(first, second), unlike, difference, error, apart, sentence)


def tell_comparison(console: Console, found: Comparison) -> None:
    """Print it, the sentence first."""
    for part in _parts(found):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def _side(study: Study) -> Side:
    trials, known = trials_of(study), look_at(study)
    best: BestHyp | None = best_of(study, Space.from_dict(study.user_attrs[IDENTITY]["space"]))
    floor: NoiseFloor | None = noise_floor(trials)
    return Side(
        study=study.study_name,
        counts=known.counts,
        epochs=sum(t.user_attrs.get(EPOCHS, len(t.intermediate_values)) for t in trials if counts(t)),
        hours=known.overall.hours,
        base=best.base if best else None,
        best=best.fitness if best else None,
        trial=best.number if best else None,
        seeds=best.seeds if best else 0,
        hyp=best.hyp if best else {},
        noise=floor.sd if floor else None,
        verdict=known.best.verdict if known.best else None,
    )


def _error(one: Side, other: Side) -> float:
    """Of the difference of two means, each of the noise of its own study."""
    return math.hypot(*((side.noise or 0.0) / math.sqrt(side.seeds) for side in (one, other)))


def _settings(first: Study, second: Study) -> dict[str, tuple[Any, Any]]:
    asked = [vars(config) if (config := asked_of(study)) else {} for study in (first, second)]
    names = [name for name in {**asked[0], **asked[1]} if name not in OWN]
    pairs = {key_of(name): (asked[0].get(name), asked[1].get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _sentence(one: Side, other: Side, unlike: Sequence[str], difference: float | None, error: float | None) -> str:
    if unlike:
        return f"what they measured cannot be compared: they differ in {' and in '.join(unlike)}"
    if difference is None:
        nothing = [side.study for side in (one, other) if side.best is None]
        return f"there is nothing to compare yet: no trial of {' and of '.join(nothing)} has completed"
    better = other.study if difference > 0 else one.study
    lead = f"the best of {better} is better by {abs(difference):.4f}" if difference else "their bests are equal"
    if error is None:
        return f"{lead}; what noise there is nobody knows, as a study has trained no hyp twice (--base-seeds)"
    if not error:
        return f"{lead}; equal hyps have always come out equal"
    if abs(difference) > ENOUGH * error:
        more = "the best of many noisy trainings looks better than it is: `evolve verify` tells how good each is"
        return f"{lead}, {abs(difference) / error:.1f} standard errors; {more}"
    return f"{lead}, which noise explains: it is {abs(difference) / error:.1f} standard errors of {error:.4f}"


def _parts(found: Comparison) -> Iterator[RenderableType]:
    yield Text(found.sentence)
    yield Text()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for side in (found.first, found.second):
        table.add_column(side.study, overflow="fold")
    for name, told in _ROWS.items():
        table.add_row(name, *(told(side) for side in (found.first, found.second)))
    for name, pair in found.settings.items():
        table.add_row(name, *(_shown(value) for value in pair))
    yield table
    differing = {name: value for name, value in found.second.hyp.items() if found.first.hyp.get(name) != value}
    if found.first.hyp and differing:
        yield Text()
        yield changes_table(found.first.hyp, differing, (found.first.study, found.second.study))


def _counts(side: Side) -> str:
    return f"{side.counts.complete} complete, {side.counts.pruned} pruned, {side.counts.failed} failed"


def _score(side: Side) -> str:
    several = f", {side.seeds} seeds" if side.seeds > 1 else ""
    return "-" if side.best is None else f"{show_fitness(side.best)} (trial {side.trial}{several})"


_ROWS: Mapping[str, Callable[[Side], str]] = {
    "trials": _counts,
    "cost": lambda side: f"{side.epochs} epochs, {side.hours:.2f} h",
    "base": lambda side: show_fitness(side.base.fitness if side.base else None),
    "best": _score,
    "noise": lambda side: "not known" if side.noise is None else f"± {show_fitness(side.noise)}",
    "race": lambda side: side.verdict or "none",
}


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}={item}" for name, item in value.items()]
    told = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return "-" if told in (None, "") else str(told)
