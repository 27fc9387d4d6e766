"""`evolve show`: one trial, from where its hyp came to how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from optuna import Study
from rich.console import Console, RenderableType
from rich.text import Text

from evolve.config import ConfigError, mask_secrets
from evolve.lookup import find_with_folder
from evolve.outcomes import state_of
from evolve.paths import RunPaths, from_here
from evolve.standing import nothing_yet
from evolve.tables import changes_table, describe_change, show_duration, show_fitness, show_goal, show_value, sparkline
from search_spaces import Hyp, Space, Value
from studies import best_of, storage_errors, trials_of
from studies.persistence import whole_hyp
from studies.study import IDENTITY, goals_of
from studies.trials import (
    COSTS,
    EPOCHS,
    FAILURE,
    FINAL,
    KNOWN,
    METRICS,
    OPERATOR,
    PARENTS,
    RESUMED,
    RETRY_OF,
    SEED,
    SOURCE,
    WORKER,
    generations,
    hyp_of,
    is_base,
)

BEST = "best"  # names a trial, as its number does
LOG_LINES = 10
CURVE = 60  # columns


@dataclass(frozen=True)
class Shown:
    """All that is known of a trial. What is not known, or does not apply, is None or empty.

    `state` is complete, pruned, failed, lost, known, surplus, running or queued. `parents` are the trials that its hyp
    was made of, by `operator`, or `source` says where it was taken from. `changes` hold the value before and after of
    every hyp that differs from `against`: 'trial 7', or 'the base'. `curve` is the fitness after each epoch, `final`
    what was scored on a second split. `log` are the last lines of what its training printed, where that was kept.
    """

    study: str
    trial: int
    generation: int
    state: str
    fitness: float | None
    goals: Mapping[str, float]
    seed: int | None
    epochs: int
    of_epochs: int | None
    started: datetime | None
    ended: datetime | None
    worker: str
    operator: str
    source: str
    parents: tuple[int, ...]
    retry_of: int | None
    resumed_after: int | None
    against: str
    changes: Mapping[str, tuple[Value | None, Value]]
    hyp: Hyp
    metrics: Mapping[str, float]
    costs: Mapping[str, float]
    final: Mapping[str, float]
    curve: Mapping[int, float]
    failure: str
    folder: Path | None
    log: tuple[str, ...]


def look_at_trial(which: str, name: str | None, runs: Path, storage: str | None = None) -> Shown:
    """The trial of that number, or the best one, of the study that `find_stored` finds.

    Raises ConfigError where it is no trial, StudyError, and NoResult while there is no best.
    """
    with storage_errors(storage or ""):
        study, paths = find_with_folder(name, runs, storage)
        return show(study, number_of(study, which), paths or RunPaths(runs / study.study_name))


def number_of(study: Study, which: str) -> int:
    """The number of the trial that is called so."""
    if which == BEST:
        best = best_of(study, space_of(study))
        if best is None:
            raise nothing_yet(study.study_name)
        return best.number
    count = len(trials_of(study))
    if not which.isdecimal() or int(which) >= count:
        there = f"the trials 0 to {count - 1}" if count else "no trial yet"
        raise ConfigError(f"there is no trial {which!r}: {study.study_name} has {there}, one of which may be 'best'")
    return int(which)


def space_of(study: Study) -> Space:
    return Space.from_dict(study.user_attrs[IDENTITY]["space"])


def show(study: Study, number: int, paths: RunPaths) -> Shown:
    """What the study, and the run folder, know of a trial."""
    trials, space = trials_of(study), space_of(study)
    trial = trials[number]
    noted, hyp = trial.user_attrs, whole_hyp(hyp_of(trial), space)
    parents = tuple(noted.get(PARENTS, ()))
    before = whole_hyp(hyp_of(trials[parents[0]]), space) if parents else space.defaults()
    names = list(goals_of(study))
    folder = paths.trial(number)
    worker = noted.get(WORKER)
    return Shown(
        study=study.study_name,
        trial=number,
        generation=generations(trials)[number],
        state=state_of(trial),
        fitness=trial.values[0] if trial.values else _last(trial.intermediate_values),
        goals=dict(zip(names, trial.values, strict=True)) if trial.values and len(names) > 1 else {},
        seed=noted.get(SEED),
        epochs=noted.get(EPOCHS, len(trial.intermediate_values)),
        of_epochs=study.user_attrs[IDENTITY].get(EPOCHS),
        started=_in_utc(trial.datetime_start),
        ended=_in_utc(trial.datetime_complete),
        worker=f"{worker['host']} {worker['pid']}" if worker else "",
        operator=noted.get(OPERATOR, ""),
        source=noted.get(SOURCE, "") or noted.get(KNOWN, "") or ("the base" if is_base(trial) else ""),
        parents=parents,
        retry_of=noted.get(RETRY_OF),
        resumed_after=noted.get(RESUMED),
        against=f"trial {parents[0]}" if parents else "the base",
        changes={name: (before.get(name), value) for name, value in hyp.items() if before.get(name) != value},
        hyp=hyp,
        metrics=noted.get(METRICS, {}),
        costs=noted.get(COSTS, {}),
        final=noted.get(FINAL, {}),
        curve=dict(sorted(trial.intermediate_values.items())),
        failure=mask_secrets(noted.get(FAILURE, "")),
        folder=folder if folder.is_dir() else None,
        log=end_of(paths.train_log(number)),
    )


def tell_trial(console: Console, shown: Shown) -> None:
    """Print it."""
    for part in _parts(shown):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def end_of(log: Path) -> tuple[str, ...]:
    """The last lines of a log without their passwords; none of one that is not there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 16384))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return tuple(map(mask_secrets, [line for line in lines if line][-LOG_LINES:]))


def _parts(shown: Shown) -> Iterator[RenderableType]:
    of = "" if shown.of_epochs is None else f" of {shown.of_epochs}"
    seed = "" if shown.seed is None else f", seed {shown.seed}"
    yield Text(f"{shown.study}, trial {shown.trial}: {_ended(shown)} after {shown.epochs}{of} epochs{seed}")
    if shown.failure:
        yield Text(f"failed with: {shown.failure}" if shown.state == "failed" else shown.failure)
    yield from map(Text, _origin(shown))
    if shown.started is not None:
        yield Text(_when(shown))
    if shown.metrics:
        yield Text(_scores("metrics", shown.metrics))
    for name, told in (("goals", shown.goals), ("costs", shown.costs)):
        if told:
            yield Text(f"{name}: " + ", ".join(f"{key} {show_goal(key, value)}" for key, value in told.items()))
    if shown.final:
        yield Text(_scores("on the second split", shown.final))
    if len(shown.curve) > 1:
        curve = list(shown.curve.values())
        yield Text(f"{sparkline(curve, CURVE)}  fitness {show_fitness(curve[0])} to {show_fitness(curve[-1])}")
    yield Text()
    before = {name: pair[0] for name, pair in shown.changes.items() if pair[0] is not None}
    yield changes_table({**shown.hyp, **before}, shown.hyp, (shown.against.removeprefix("the "), "here"))
    if shown.folder is not None:
        yield Text()
        yield Text(f"its folder: {from_here(shown.folder)}")
    if shown.log:
        yield Text("its log ends with:")
        yield from (Text(f"    {line}") for line in shown.log)


def _ended(shown: Shown) -> str:
    return f"{shown.state}, fitness {show_fitness(shown.fitness)}," if shown.fitness is not None else f"{shown.state},"


def _origin(shown: Shown) -> Iterator[str]:
    """Where its hyp came from, and what it changed most."""
    if shown.retry_of is not None:
        after = "" if shown.resumed_after is None else f", from epoch {shown.resumed_after} on"
        yield f"the retry of trial {shown.retry_of}, whose worker was lost{after}"
    if shown.source:
        yield f"its hyp: {shown.source}"
    elif shown.parents:
        parents = f"trial{'s' * (len(shown.parents) > 1)} {', '.join(map(str, shown.parents))}"
        yield f"its hyp: of {parents}" + (f", by {shown.operator}" if shown.operator else "")
    moved = [
        f"{name} {show_value(before)} -> {show_value(after)} ({how})"
        for name, (before, after) in shown.changes.items()
        if (how := describe_change(before, after))
    ]
    if moved:
        yield f"changed against {shown.against}: {len(moved)} of {len(shown.hyp)} hyps"


def _when(shown: Shown) -> str:
    assert shown.started is not None
    took = "" if shown.ended is None else f", took {show_duration((shown.ended - shown.started).total_seconds())}"
    where = f", by {shown.worker}" if shown.worker else ""
    return f"began {shown.started.astimezone():%Y-%m-%d %H:%M:%S}{took}{where}"


def _scores(what: str, scores: Mapping[str, float]) -> str:
    return f"{what}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _last(curve: Mapping[int, float]) -> float | None:
    return curve[max(curve)] if curve else None


def _in_utc(moment: datetime | None) -> datetime | None:
    """Optuna's moments are those of this machine's time zone."""
    return None if moment is None else moment.astimezone(UTC)
