"""How a study stands, from its storage alone: who works, how fast, what failed, what is best, what is left."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from studies.calls import CALL, Call
from studies.decision import say_verdict
from studies.front import front_of
from studies.glance import glance
from studies.lease import BEAT, SILENCE_S
from studies.noise import by_hyp, mean_values, noise_floor
from studies.persistence import Score
from studies.race import cost, due_heats
from studies.racing import race_of, races_of, runs_of
from studies.study import IDENTITY, goals_of
from studies.trials import EPOCHS, FAILURE, WORKER, counts, is_base, is_known, is_lost, is_surplus
from studies.verdict import Verdict, judge
from studies.worker import Worker, is_alive, this_worker

HOUR_S = 3600.0
ENOUGH = 5  # trials that have to end within the last hour for its pace to tell what is left; else that of all time does

Life = Literal["alive", "silent", "ended"]


@dataclass(frozen=True)
class AtWork:
    """A worker and the trial that it is at, of this study or of its race.

    `host` and `pid` are None for the moment in which a trial is not claimed yet. `joined` is when the worker's first
    trial started, `done` how many it has ended, `since` when this one started. `epochs` of it are done, the last with
    that `fitness`. `sign_s` is how many seconds ago the worker last gave a sign: silent is who gave none for SILENCE_S,
    ended whose process is known to be gone, which can be seen on its own machine only.
    """

    host: str | None
    pid: int | None
    joined: datetime
    done: int
    study: str
    trial: int
    since: datetime
    epochs: int
    fitness: float | None
    sign_s: float
    life: Life


@dataclass(frozen=True)
class Counts:
    """How many trials there are of each kind. Lost ones count towards nothing; queued ones wait for a worker."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    lost: int = 0
    queued: int = 0
    running: int = 0

    @property
    def finished(self) -> int:
        """Those that count as generations."""
        return self.complete + self.pruned + self.failed


@dataclass(frozen=True)
class Pace:
    """What ended in an hour of work, over so many hours and trials. Time in which nothing ran is not counted."""

    trials_per_hour: float
    epochs_per_hour: float
    hours: float
    trials: int


@dataclass(frozen=True)
class Failure:
    """So many trials failed for this reason, whatever the numbers in it; `example` is the first of them."""

    reason: str
    count: int
    example: int


@dataclass(frozen=True)
class Best:
    """The best hyp of the search, by the number of its first trial: its mean fitness over `seeds` trainings.

    `goals` are its means in each of several, of which `front` hyps are on the front. `verdict` is what the last race
    said of the study as it is now, None where there was none; `confirmed` whether that confirmed a hyp.
    """

    trial: int
    fitness: float
    seeds: int
    base: Score | None
    goals: Mapping[str, float]
    front: int
    confirmed: bool
    verdict: str | None


@dataclass(frozen=True)
class Race:
    """The study's last race: so many trainings of so many are done."""

    name: str
    done: int
    trainings: int

    @property
    def is_over(self) -> bool:
        return self.done >= self.trainings


@dataclass(frozen=True)
class Status:
    """All of it. `generations` is how many were asked for, if that is known, `epochs` how long a trial may be.

    `left_s` are the seconds that the generations which are left take at the present pace; None while there is none, or
    while nobody works. `call` is what was last called to the workers.
    """

    study: str
    generations: int | None
    epochs: int | None
    counts: Counts
    workers: tuple[AtWork, ...]
    last_hour: Pace
    overall: Pace
    left_s: float | None
    failures: tuple[Failure, ...]
    best: Best | None
    race: Race | None
    call: Call | None


def status_of(study: Study, generations: int | None = None, *, now: float | None = None) -> Status:
    """How a study stands that was asked for so many generations; `now` is in seconds since 1970."""
    now = time.time() if now is None else now
    trials, races = glance(study), races_of(study)
    noted = study.user_attrs
    workers = workers_of(study.study_name, trials, now)
    if races:
        workers += workers_of(races[-1].study_name, glance(races[-1]), now)
    counted = counts_of(trials)
    last_hour, overall = pace_of(trials, now - HOUR_S, now), pace_of(trials, 0.0, now)
    said = noted.get(CALL)
    return Status(
        study=study.study_name,
        generations=generations,
        epochs=noted.get(IDENTITY, {}).get(EPOCHS),
        counts=counted,
        workers=workers,
        last_hour=last_hour,
        overall=overall,
        left_s=left_s(counted, generations, last_hour if last_hour.trials >= ENOUGH else overall),
        failures=failures_of(trials),
        best=best_among(study, trials, races[-1] if races else None),
        race=_race(races[-1]) if races else None,
        call=None if said is None else Call(**said),
    )


def workers_of(study: str, trials: Sequence[FrozenTrial], now: float) -> tuple[AtWork, ...]:
    """Who is at which of these trials, by host and process."""
    theirs: defaultdict[tuple[str, int] | None, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        theirs[_who(trial)].append(trial)
    found = []
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            who, reports = _who(trial), trial.intermediate_values
            own = theirs[who] if who else [trial]
            sign_s = max(0.0, now - _last_sign(trial, now))
            found.append(
                AtWork(
                    host=who[0] if who else None,
                    pid=who[1] if who else None,
                    joined=_moment(min(_start(one, now) for one in own)),
                    done=sum(map(counts, own)),
                    study=study,
                    trial=trial.number,
                    since=_moment(_start(trial, now)),
                    epochs=max(reports, default=trial.user_attrs.get(EPOCHS, 0)),
                    fitness=reports[max(reports)] if reports else None,
                    sign_s=sign_s,
                    life=_life(trial.user_attrs.get(WORKER), sign_s),
                )
            )
    return tuple(sorted(found, key=lambda one: (one.host or "", one.pid or 0, one.trial)))


def counts_of(trials: Iterable[FrozenTrial]) -> Counts:
    """Trials by kind; what was taken over from elsewhere, or given back untrained, is none of them."""
    kinds = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.WAITING: "queued",
        TrialState.RUNNING: "running",
    }
    found: defaultdict[str, int] = defaultdict(int)
    for trial in trials:
        if not (is_known(trial) or is_surplus(trial)):
            found["lost" if is_lost(trial) else kinds[trial.state]] += 1
    return Counts(**found)


def pace_of(trials: Iterable[FrozenTrial], start: float, now: float) -> Pace:
    """How fast the trials went that ended between these moments, in seconds since 1970."""
    spans, ended, epochs = [], 0, 0
    for trial in trials:
        if not (counts(trial) or trial.state == TrialState.RUNNING):
            continue
        end = min(_seconds(trial.datetime_complete) or _last_sign(trial, now), now)
        if end > start:
            spans.append((max(_start(trial, end), start), end))
            if trial.state.is_finished():
                ended += 1
                epochs += trial.user_attrs.get(EPOCHS, len(trial.intermediate_values))
    hours = covered_s(spans) / HOUR_S
    return Pace(ended / hours, epochs / hours, hours, ended) if hours else Pace(0.0, 0.0, 0.0, ended)


def left_s(counted: Counts, generations: int | None, pace: Pace) -> float | None:
    """The seconds that what is left to do takes at this pace."""
    if generations is None:
        return None
    left = max(0, generations - counted.finished)
    if not left:
        return 0.0
    return left / pace.trials_per_hour * HOUR_S if counted.running and pace.trials_per_hour else None


def failures_of(trials: Iterable[FrozenTrial]) -> tuple[Failure, ...]:
    """The reasons of those that failed, the most frequent first. Reasons that differ in their numbers alone are one."""
    found: defaultdict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        if trial.state == TrialState.FAIL and counts(trial):
            found[re.sub(r"\d+(?:\.\d+)?", "0", _reason(trial))].append(trial)
    groups = sorted(found.values(), key=lambda group: (-len(group), group[0].number))
    return tuple(Failure(_reason(group[0]), len(group), group[0].number) for group in groups)


def best_among(study: Study, trials: Sequence[FrozenTrial], race: Study | None) -> Best | None:
    """The best hyp of these trials of the study, as `studies.best_of` has it; None while none has completed."""
    groups, names = by_hyp(trials), list(goals_of(study))
    means = [mean_values(group) for group in groups]
    front = front_of(means, study.directions)
    if not front:
        return None
    base = next((group for group in groups if any(map(is_base, group))), None)
    own, verdict = groups[front[0]], _verdict(study, trials, race)
    return Best(
        trial=own[0].number,
        fitness=means[front[0]][0],
        seeds=len(own),
        base=None if base is None else Score.of([trial.values[0] for trial in base]),
        goals=dict(zip(names, means[front[0]], strict=True)) if len(names) > 1 else {},
        front=len(front),
        confirmed=verdict is not None and verdict.winner is not None,
        verdict=None if verdict is None else say_verdict(verdict),
    )


def _verdict(study: Study, trials: Sequence[FrozenTrial], race: Study | None) -> Verdict | None:
    """What the race has decided for the study as it is now; None where it has not, or there is none."""
    if race is None or not _race(race).is_over:
        return None
    asked = race.user_attrs[IDENTITY]
    if asked["generations"] != counts_of(trials).finished:
        return None
    as_long = study.user_attrs.get(IDENTITY, {}).get(EPOCHS) == asked[EPOCHS]
    return judge(race_of(race), runs_of(race), noise_floor(trials) if as_long else None)


def _race(race: Study) -> Race:
    asked, runs = race_of(race), runs_of(race)
    total = cost(asked.rounds)
    return Race(race.study_name, len(runs) if due_heats(asked, runs) else total, total)


def _life(worker: Worker | None, sign_s: float) -> Life:
    if worker is not None and worker["host"] == this_worker()["host"] and not is_alive(worker):
        return "ended"
    return "silent" if sign_s >= SILENCE_S else "alive"


def _reason(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get(FAILURE) or "no reason is noted")


def covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """How many seconds lie in at least one of these spans."""
    covered, reached = 0.0, 0.0
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _who(trial: FrozenTrial) -> tuple[str, int] | None:
    worker = trial.user_attrs.get(WORKER)
    return (worker["host"], worker["pid"]) if worker else None


def _start(trial: FrozenTrial, otherwise: float) -> float:
    """When it started; a trial that was queued and never ran did not."""
    return _seconds(trial.datetime_start) or otherwise


def _last_sign(trial: FrozenTrial, now: float) -> float:
    """When a running trial's worker last said that it is there: by its beat, which the first ten seconds have not."""
    start = _start(trial, now)
    return max(start, float(trial.user_attrs.get(BEAT, (0, start))[1]))


def _seconds(moment: datetime | None) -> float | None:
    """Since 1970; Optuna's moments are those of this machine's time zone."""
    return None if moment is None else moment.timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
