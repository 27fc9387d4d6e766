"""The final race of a study in its run folder: heat after heat until it is decided, then the files that tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from optuna import Study, Trial
from optuna.trial import FrozenTrial

from evolve.budget import Stop
from evolve.clusters import Cluster
from evolve.config import EvolveConfig
from evolve.following import Follower
from evolve.goals import Goals
from evolve.keeping import Shelf
from evolve.outcomes import outcome_of
from evolve.pool import run_pool
from evolve.records import Records
from evolve.standing import NoResult, Standing
from evolve.watcher import Racing
from evolve.work import Work
from evolve.worker import run_trials, until_called
from studies import best_front_of, finished, trials_of
from studies.decision import Decision
from studies.noise import by_hyp
from studies.race import LEAST_TRAININGS, Rounds, cost, rounds_for, rounds_within
from studies.racing import (
    choose_challengers,
    heat_of,
    hyps_of,
    is_unfinished,
    latest_decision,
    load_race,
    open_race,
    queue_heats,
    runs_of,
)
from studies.study import ask_queued
from studies.trials import is_base

TEST = "test"
SHARE = 10  # a race may cost a tenth of the study's generations, each counted as a full training


def race_or_say_why_not(work: Work, cluster: Cluster | None = None) -> str:
    """Run the final race, if the study is worth one; the reason if it is not."""
    rounds = rounds_of(work.config, work.study)
    reason = why_no_race(work, rounds)
    if not reason:
        work.watcher.decided(run_race(work, rounds, work.config.epochs, cluster))
    return reason


def unfinished_race(work: Work) -> Stop | None:
    """Why a run is to have no trial: it goes on with the race in which an earlier one was interrupted.

    Only with a --budget, which begins anew in every run: whatever else has ended the search ends it again.
    """
    rounds = rounds_of(work.config, work.study)
    if work.config.budget is None or why_no_race(work, rounds):
        return None
    unfinished = is_unfinished(work.study, work.space, rounds, work.config.epochs)
    return Stop("the race that was interrupted came first", reached=True) if unfinished else None


def rounds_of(config: EvolveConfig, study: Study) -> Rounds:
    """The rounds that a study pays for, or those of as many challengers as were asked for."""
    return rounds_within(finished(study) // SHARE) if config.race is None else rounds_for(config.race)


def expected_race_s(study: Study, config: EvolveConfig) -> float:
    """The seconds of a race for the study as it is, each training taking as long as the complete trials did."""
    groups = by_hyp(trials_of(study))
    took = [trial.duration.total_seconds() for group in groups for trial in group if trial.duration]
    challengers = sum(not is_base(group[0]) for group in groups)
    if not (took and challengers) or Goals.parse(config.objective).several:
        return 0.0
    rounds = rounds_of(config, study)
    return fmean(took) * cost(tuple(replace(r, challengers=min(r.challengers, challengers)) for r in rounds))


def why_no_race(work: Work, rounds: Rounds) -> str:
    """The reason not to race, '' where there is none."""
    if work.objective.goals.several:
        return "no race: of several goals there is no one best to confirm"
    if work.config.race == 0:
        return "no race, as was asked for: what is best is not confirmed"
    if not rounds:
        trained = finished(work.study)
        least = f"the least takes {LEAST_TRAININGS}: --race 1 or `evolve verify` asks for one"
        return f"no race: a tenth of {trained} generations pays for {trained // SHARE} trainings, and {least}"
    if not choose_challengers(work.study, work.space, 1):
        return "no race: no hyp but the base has been trained to the end"
    return ""


def run_race(work: Work, rounds: Rounds, epochs: int, cluster: Cluster | None = None) -> Decision:
    """Run the race of these rounds for the study as it is, or what is left of it; leave and return its decision.

    Its heats are run here, or by the workers of the cluster. Whatever interrupts one, it is queued again. Raises
    NoResult where too many heats in a row fail.
    """
    study, space, watcher = work.study, work.space, work.watcher
    seed, exclusive = work.objective.options.seed, work.config.storage is None
    opened, race = open_race(study, space, rounds, epochs=epochs, seed=seed, exclusive=exclusive)
    done, total = len(runs_of(opened)), cost(race.rounds)
    if done < total:
        watcher.racing(Racing(opened.study_name, len(race.challengers), race.seeds, epochs, total, done))
    heats, hyps = heats_of(work, opened, epochs), hyps_of(study, space, race)
    follower = RaceFollower(heats, Standing(complete=done))

    def stop(trials: Sequence[FrozenTrial]) -> Stop | None:
        standing = follower.look(trials)
        if standing.failures_in_a_row >= work.config.max_failures:
            told = f"{standing.failures_in_a_row} trainings of the race in a row failed"
            raise NoResult(f"{told}, the last one with: {standing.last_failure}")
        return None if queue_heats(opened, race, hyps) else Stop("the race is decided", reached=True)

    if cluster is None or not cluster.slots:
        run_trials(heats, stop, told=follower.look, ask=next_heat)
    else:
        run_pool(heats, cluster, stop, follower, partial(run_heats, name=opened.study_name, epochs=epochs))
    decision = latest_decision(study, space)
    assert decision is not None, "it has just been made"
    work.records.decide(decision)
    return decision


def run_heats(work: Work, run: str, *, name: str, epochs: int) -> Stop:
    """Run heats of the race of that name until called to leave: what a worker does."""
    heats = heats_of(work, load_race(work.study, name), epochs)
    return run_trials(heats, until_called(heats, run), told=lambda: None, run=run, ask=next_heat)


def heats_of(work: Work, opened: Study, epochs: int) -> Work:
    """The same work on the heats of a race."""
    usual, paths = work.objective, work.paths.of_race(opened.study_name)
    records = Records(opened, work.space, work.config, paths, work.watcher)
    options = replace(usual.options, epochs=epochs, final_split=TEST)
    objective = replace(usual, options=options, paths=paths, records=records)
    return replace(work, study=opened, objective=objective, shelf=Shelf(opened, paths, work.config.keep))


def next_heat(heats: Work, _: Sequence[FrozenTrial]) -> Trial | None:
    return ask_queued(heats.study)  # read anew: heats have just been queued


class RaceFollower(Follower):
    """Tells the watcher of a race; `standing` counts its heats."""

    def _follow_to_their_end(self, ended: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> None:
        heats = self._work
        front = best_front_of(heats.study, heats.space, trials)
        heats.shelf.ended([trial.number for trial in ended], trials, front)
        for trial in ended:
            self.standing = self.standing.after(outcome_of(trial))
            heats.watcher.raced(heat_of(trial), outcome_of(trial), self.standing.finished)
