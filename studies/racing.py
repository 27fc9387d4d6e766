"""A race as an Optuna study of its own, beside the one that it ends: who runs, heat after heat, what it decided.

It is named after its study, "digits.race" (the next ones "digits.race2", ...), lies in the same storage and is resumed
like any study: a heat that was lost is run again under its seed.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import optuna
from optuna import Study
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Hyp, Space
from studies.decision import Decision
from studies.noise import by_hyp, noise_floor, value_of
from studies.persistence import BestHyp, Score, whole_hyp
from studies.race import Entrant, Heat, Race, Round, Rounds, Run, due_heats, first_seed
from studies.scores import smoothed_scores
from studies.study import IDENTITY, open_study
from studies.trials import (
    BASE,
    ENTRANT,
    EPOCHS,
    FINAL,
    METRICS,
    RETRY_OF,
    ROUND,
    SEED,
    counts,
    finished,
    generations,
    hyp_of,
    is_base,
    is_lost,
    trials_of,
)
from studies.verdict import judge

RACE = "race"  # user attribute of a race's study: its challengers and its first seed


def choose_challengers(study: Study, space: Space, most: int) -> tuple[int, ...]:
    """The hyps that may challenge the base, the best first, each by the number of the first trial that had it.

    They are the best by smoothed score, the one of the highest single fitness in place of the last of them if it is not
    among them, and before all others the leader of the race that this state of the study has had, if any.
    """
    groups = {group[0].number: group for group in by_hyp(trials_of(study)) if not any(map(is_base, group))}
    scores = smoothed_scores(study, space)
    highest_of = {number: max(map(value_of, group)) for number, group in groups.items() if number in scores}
    ranked = sorted(highest_of, key=lambda number: (-scores[number], -highest_of[number], number))
    if not ranked or most < 1:
        return ()
    chosen = ranked[:most]
    highest = max(ranked, key=highest_of.__getitem__)
    if highest not in chosen and most > 1:
        chosen[-1] = highest
    before = latest_decision(study, space)
    led = before.verdict.leader.entrant if before and before.verdict.leader else None
    if led in groups and led is not None:
        chosen = [led, *(number for number in chosen if number != led)][:most]
    return tuple(chosen)


def open_race(
    study: Study, space: Space, rounds: Rounds, *, epochs: int, seed: int, exclusive: bool
) -> tuple[Study, Race]:
    """The race of these rounds for the study as it is now: a new one, or the one that was begun or done before.

    `seed` is the study's. Fewer may challenge than the rounds have room for, and the study needs at least one. Raises
    StudyError.
    """
    asked = _asked(study, space, rounds, epochs)
    number, _ = _find(study, asked)
    opened = open_study(
        _name(study, number),
        study._storage,
        sampler=RandomSampler(seed),
        pruner=NopPruner(),
        identity=asked,
        base=space.defaults(),
        base_seeds=0,
        exclusive=exclusive,
    )
    if RACE not in opened.user_attrs:
        challengers = choose_challengers(study, space, max(round.challengers for round in rounds))
        opened.set_user_attr(RACE, {"challengers": list(challengers), "first_seed": first_seed(seed, number)})
    return opened, race_of(opened)


def is_unfinished(study: Study, space: Space, rounds: Rounds, epochs: int) -> bool:
    """Whether the race of these rounds for the study as it is now was begun, and has not ended."""
    _, there = _find(study, _asked(study, space, rounds, epochs))
    return there is not None and RACE in there.user_attrs and bool(due_heats(race_of(there), runs_of(there)))


def current_races(study: Study) -> dict[str, Study]:
    """The races of the study as it is now, by name: those that have ended, and one that has not."""
    races = [_load(study, number) for number in range(1, _count(study) + 1)]
    now = finished(study)
    return {
        race.study_name: race for race in races if race and race.user_attrs.get(IDENTITY, {}).get("generations") == now
    }


def race_of(opened: Study) -> Race:
    """The race that such a study holds."""
    noted, asked = opened.user_attrs[RACE], opened.user_attrs[IDENTITY]
    challengers = tuple(noted["challengers"])
    rounds = tuple(Round(min(most, len(challengers)), seeds) for most, seeds in asked["rounds"])
    return Race(challengers, rounds, noted["first_seed"])


def load_race(study: Study, name: str) -> Study:
    """The race of that name, beside its study, for whoever runs its heats."""
    return optuna.load_study(study_name=name, storage=study._storage, sampler=RandomSampler(), pruner=NopPruner())


def queue_heats(opened: Study, race: Race, hyps: Mapping[Entrant, Hyp]) -> bool:
    """Queue what is due and neither queued nor under way; False when the race has ended.

    `hyps` are the evolving values of those who run. Any number of processes may run the heats, one queues them.
    """
    due, trials = due_heats(race, runs_of(opened)), trials_of(opened)
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    there = {heat_of(trial) for trial in trials if not is_lost(trial) or trial.number not in retried}
    for heat in due:
        if heat not in there:
            base = {BASE: True} if heat.entrant is None else {}
            names = {ENTRANT: BASE if heat.entrant is None else heat.entrant, SEED: heat.seed, ROUND: heat.round}
            opened.enqueue_trial(dict(hyps[heat.entrant]), user_attrs={**base, **names})
    return bool(due)


def heat_of(trial: FrozenTrial) -> Heat:
    """What a trial of a race is."""
    entrant = trial.user_attrs[ENTRANT]
    return Heat(None if entrant == BASE else entrant, trial.user_attrs[SEED], trial.user_attrs[ROUND])


def hyps_of(study: Study, space: Space, race: Race) -> dict[Entrant, dict[str, Any]]:
    """The evolving values of all who run in a race of the study."""
    trials, base = trials_of(study), space.defaults()
    challengers: dict[Entrant, dict[str, Any]] = {number: hyp_of(trials[number]) for number in race.challengers}
    return {None: {param.name: base[param.name] for param in space.params}, **challengers}


def runs_of(opened: Study) -> list[Run]:
    """How the heats that have ended did, in the order in which they were queued."""
    trials = trials_of(opened)
    found = generations(trials)
    return [
        Run(
            heat_of(trial),
            trial.value if trial.state == TrialState.COMPLETE else None,
            trial.user_attrs.get(METRICS, {}),
            trial.user_attrs.get(FINAL, {}),
        )
        for trial in sorted(filter(counts, trials), key=lambda trial: found[trial.number])
    ]


def latest_decision(study: Study, space: Space) -> Decision | None:
    """What the last race of the study as it is now has decided; None if there was none since its last generation."""
    for number in reversed(range(1, _count(study) + 1)):
        there = _load(study, number)
        if there is None or RACE not in there.user_attrs:
            continue
        race, runs, asked = race_of(there), runs_of(there), there.user_attrs[IDENTITY]
        if asked["generations"] == finished(study) and not due_heats(race, runs):
            return _decide(study, space, there, race, runs)
    return None


def races_of(study: Study) -> list[Study]:
    """The races that the study has had, the first one first, but for one that is just being made."""
    races = itertools.takewhile(bool, (_load(study, number) for number in itertools.count(1)))
    return [race for race in races if race and RACE in race.user_attrs]


def best_after(decision: Decision, study: Study) -> BestHyp:
    """The winner of a race, or the base where it stays, with means over the race's runs."""
    best, trials = decision.verdict.best, trials_of(study)
    number = best.entrant or 0
    fitnesses = [run.fitness for run in decision.runs if run.heat.entrant is None and run.fitness is not None]
    return BestHyp(
        hyp=decision.hyp,
        fitness=math.nan if best.mean is None else best.mean,
        metrics=best.metrics,
        number=number,
        generation=generations(trials)[number],
        study=study.study_name,
        seed=decision.race.first_seed,
        seeds=best.n,
        base=Score.of(fitnesses) if fitnesses else None,
        found=decision.ended,
    )


def _decide(study: Study, space: Space, there: Study, race: Race, runs: list[Run]) -> Decision:
    trials, epochs = trials_of(study), there.user_attrs[IDENTITY]["epochs"]
    as_long = study.user_attrs.get(IDENTITY, {}).get(EPOCHS) == epochs
    scores = smoothed_scores(study, space)
    base = next((trial.number for trial in trials if is_base(trial) and trial.number in scores), None)
    known: dict[Entrant, int | None] = {None: base, **{number: number for number in race.challengers}}
    ends = [trial.datetime_complete.astimezone(UTC) for trial in trials_of(there) if trial.datetime_complete]
    return Decision(
        study=study.study_name,
        name=there.study_name,
        race=race,
        epochs=epochs,
        runs=tuple(runs),
        verdict=judge(race, runs, noise_floor(trials) if as_long else None),
        hyps={entrant: whole_hyp(hyp, space) for entrant, hyp in hyps_of(study, space, race).items()},
        scores={entrant: scores[number] for entrant, number in known.items() if number in scores},
        ended=max(ends, default=None),
    )


def _asked(study: Study, space: Space, rounds: Rounds, epochs: int) -> dict[str, Any]:
    """The identity of a race."""
    return {
        "race of": study.study_name,
        "generations": finished(study),
        "epochs": epochs,
        "rounds": [[round.challengers, round.seeds] for round in rounds],
        "space": json.loads(json.dumps(space.to_dict())),  # as a storage gives it back
    }


def _find(study: Study, asked: Mapping[str, Any]) -> tuple[int, Study | None]:
    """The number of the race that is the same, and its study; the next free number, and None, where there is none."""
    for number in itertools.count(1):
        there = _load(study, number)
        if there is None or there.user_attrs.get(IDENTITY, asked) == asked:
            break
    return number, there


def _name(study: Study, number: int) -> str:
    return f"{study.study_name}.race" + (str(number) if number > 1 else "")


def _load(study: Study, number: int) -> Study | None:
    try:
        return optuna.load_study(study_name=_name(study, number), storage=study._storage)
    except KeyError:
        return None


def _count(study: Study) -> int:
    """How many races the study has had; they are numbered without a gap."""
    return next(number for number in itertools.count() if _load(study, number + 1) is None)
