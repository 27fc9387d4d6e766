"""How a study stands, told to a person or as JSON."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna import Study
from rich.console import Console, RenderableType
from rich.text import Text

from evolve.budget import Budget, seconds_of
from evolve.config import EvolveConfig, mask_secrets, parse_config
from evolve.panel import say_base, say_gain
from evolve.tables import failures_table, show_duration, show_fitness, show_goal, workers_table
from studies.status import Best, Pace, Status, status_of
from studies.study import CONFIG

if TYPE_CHECKING:
    from studies.calls import Call


def look_at(study: Study) -> Status:
    """How it stands, with no password in any of the texts that came from elsewhere."""
    asked = asked_of(study)
    found = status_of(study, asked.generations if asked else None)
    failures = tuple(dataclasses.replace(one, reason=mask_secrets(one.reason)) for one in found.failures)
    said = found.call and dataclasses.replace(found.call, reason=mask_secrets(found.call.reason))
    return dataclasses.replace(found, failures=failures, call=said)


def asked_of(study: Study) -> EvolveConfig | None:
    """What the study was last asked for; None of a study of an earlier version, which did not note it."""
    text: str | None = study.user_attrs.get(CONFIG)
    return None if text is None else EvolveConfig(**parse_config(text, f"the study {study.study_name}"))


def tell_status(console: Console, study: Study) -> None:
    """Print how it stands now."""
    asked = asked_of(study)
    for part in _parts(look_at(study), _earlier(asked) if asked else ""):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def status_as_json(study: Study) -> str:
    """One JSON document: the fields of studies.status.Status."""
    return json.dumps(dataclasses.asdict(look_at(study)), indent=2, ensure_ascii=False, default=_plain)


def _parts(status: Status, earlier: str) -> Iterator[RenderableType]:
    yield Text(f"{status.study}: {say_progress(status)}")
    yield Text(_pace(status))
    yield Text(_left(status, earlier))
    if status.best is not None:
        yield Text(say_best(status.best))
    if status.race is not None:
        now = "has ended" if status.race.is_over else "is running" if _races(status) else "was interrupted"
        yield Text(f"race {status.race.name} {now}: {status.race.done} of {status.race.trainings} trainings are done")
    if status.best is not None and status.best.verdict is not None:
        yield Text(status.best.verdict)
    if status.call is not None:
        yield Text(_called(status.call))
    yield Text()
    if status.workers:
        yield workers_table(status.workers, status.study, status.epochs, time.time())
    else:
        yield Text("no trial is running")
    if status.failures:
        yield Text()
        yield failures_table(status.failures)


def say_progress(status: Status) -> str:
    """How far it is, in trials by kind."""
    counts = status.counts
    of = "" if status.generations is None else f" of {status.generations}"
    kinds = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
    return f"{counts.finished}{of} generations are done: {kinds}; {counts.lost} lost, {counts.queued} queued"


def _pace(status: Status) -> str:
    if not status.overall.trials:
        return "no trial has ended yet"
    of_it = 0 < status.last_hour.trials < status.overall.trials
    lately = f"in the last hour {_rates(status.last_hour)}; " if of_it else ""
    return f"{lately}over {show_duration(3600 * status.overall.hours)} of work {_rates(status.overall)}"


def _rates(pace: Pace) -> str:
    return f"{pace.trials_per_hour:,.1f} trials and {pace.epochs_per_hour:,.1f} epochs an hour"


def _left(status: Status, earlier: str) -> str:
    if status.generations is None:
        return "time left: not known, as the study does not say how many generations were asked for"
    if status.counts.finished >= status.generations:
        return "nothing is left to train" + (" but the race" if _races(status) else "")
    if status.left_s is None:
        why = "nobody works" if not status.workers else "too little has ended to tell"
        return f"time left: {why}"
    return f"time left {show_duration(status.left_s)}" + (f", unless it ends {earlier}" if earlier else "")


def _races(status: Status) -> bool:
    return any(worker.study != status.study for worker in status.workers)


def say_best(best: Best) -> str:
    """What is best so far, and against what."""
    if best.goals:
        goals = ", ".join(f"{name} {show_goal(name, value)}" for name, value in best.goals.items())
        return f"the front has {best.front} hyps; that of the best first goal is trial {best.trial}: {goals}"
    several = f", mean of {best.seeds} seeds" if best.seeds > 1 else ""
    against = f", {say_base(best.base)}{say_gain(best.fitness, best.base.fitness)}" if best.base else ""
    confirmed = "" if best.verdict is not None else "; not confirmed by a race"
    return f"best {show_fitness(best.fitness)} (trial {best.trial}{several}){against}{confirmed}"


def _called(call: Call) -> str:
    when = {"trial": "after their trials", "epoch": "after their epochs", "now": "at once"}[call.how]
    who = "the workers of one run" if call.run else "all workers"
    return f"{who} were called to leave {when}: {call.reason}"


def _earlier(asked: EvolveConfig) -> str:
    """What may end the study before its generations do."""
    seconds = seconds_of(asked.budget) if asked.budget is not None else None
    return Budget(asked.generations, asked.max_failures, seconds, asked.patience, asked.target).earlier


def _plain(value: Any) -> str:
    assert isinstance(value, datetime)
    return value.isoformat(timespec="seconds")
