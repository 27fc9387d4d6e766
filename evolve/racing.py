"""The final race of a study in its run folder: heat after heat until it is decided, then the files that tell of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from statistics import fmean

from optuna import Study

from evolve.budget import Stop
from evolve.config import EvolveConfig
from evolve.goals import Goals
from evolve.keeping import Shelf
from evolve.outcomes import tell
from evolve.records import Records
from evolve.standing import NoResult, Outcome
from evolve.watcher import Racing
from evolve.work import Work
from studies import StudyError, abandon, best_front_of, finished, make_durable, storage_errors, suggest, trials_of
from studies.decision import Decision
from studies.lease import Pulse
from studies.noise import by_hyp
from studies.race import LEAST_TRAININGS, Race, Rounds, cost, rounds_for, rounds_within
from studies.racing import ask_heat, choose_challengers, hyps_of, is_unfinished, latest_decision, open_race, runs_of
from studies.study import is_base

TEST = "test"
SHARE = 10  # a race may cost a tenth of the study's generations, each counted as a full training


def race_or_say_why_not(work: Work) -> str:
    """Run the final race, if the study is worth one; the reason if it is not."""
    rounds = rounds_of(work.config, work.study)
    reason = why_no_race(work, rounds)
    if not reason:
        work.watcher.decided(run_race(work, rounds, work.config.epochs))
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


def run_race(work: Work, rounds: Rounds, epochs: int) -> Decision:
    """Run the race of these rounds for the study as it is, or what is left of it; leave and return its decision.

    Whatever interrupts it, the heat is queued again. Raises NoResult where too many heats in a row fail.
    """
    study, space, watcher = work.study, work.space, work.watcher
    seed, exclusive = work.objective.options.seed, work.config.storage is None
    opened, race = open_race(study, space, rounds, epochs=epochs, seed=seed, exclusive=exclusive)
    done = len(runs_of(opened))
    total = cost(race.rounds)
    if done < total:
        watcher.racing(Racing(opened.study_name, len(race.challengers), race.seeds, epochs, total, done))
    heats = Heats(work, opened, race, epochs)
    with Pulse(opened) as pulse:
        while heats.run_one(pulse):
            pass
    decision = latest_decision(study, space)
    assert decision is not None, "it has just been made"
    work.records.decide(decision)
    return decision


class Heats:
    """The heats of one race."""

    def __init__(self, work: Work, opened: Study, race: Race, epochs: int) -> None:
        self._work = work
        self._opened = opened
        self._race = race
        self._hyps = hyps_of(work.study, work.space, race)
        self._failures_in_a_row = 0
        paths = work.paths.of_race(opened.study_name)
        usual = work.objective
        self._objective = replace(
            usual,
            options=replace(usual.options, epochs=epochs, final_split=TEST),
            paths=paths,
            records=Records(opened, work.space, work.config, paths, work.watcher),
        )
        self._shelf = Shelf(opened, paths, work.config.keep)

    def run_one(self, pulse: Pulse) -> bool:
        """Run the heat that is due; False where the race has ended."""
        trial = None
        interrupts, watcher = self._objective.interrupts, self._work.watcher
        try:
            with interrupts.patient():
                with interrupts.held():
                    asked = ask_heat(self._opened, self._race, self._hyps)
                    if asked is None:
                        return False
                    trial, heat = asked
                    pulse.of(trial._trial_id)
                    hyp = suggest(trial, self._work.space)
                    watcher.started(trial.number)
                outcome = self._objective(trial, hyp, heat.seed)
                if outcome.state == "failed":
                    interrupts.check()
                with interrupts.held():
                    tell(self._opened, trial, outcome, heat.seed)
                    make_durable(self._opened)
                    self._shelf.ended(trial.number, best_front_of(self._opened, self._work.space))
                    watcher.raced(heat, outcome, len(runs_of(self._opened)))
        except BaseException as error:
            if trial is not None:
                with suppress(StudyError), storage_errors():  # the error that came first is the one to tell
                    abandon(self._opened, trial, f"{type(error).__name__} in the process that ran it")
            raise
        finally:
            pulse.of(None)
        self._count(outcome)
        return True

    def _count(self, outcome: Outcome) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if outcome.state == "failed" else 0
        if self._failures_in_a_row >= self._work.config.max_failures:
            told = f"{self._failures_in_a_row} trainings of the race in a row failed"
            raise NoResult(f"{told}, the last one with: {outcome.failure}")
