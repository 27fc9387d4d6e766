"""How trials ended, in and out of their study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from evolve.config import mask_secrets
from evolve.standing import Outcome, Standing, State
from evolve.tables import show_value
from search_spaces import Space
from studies import BestHyp, best_front_of, noise_floor, trials_of
from studies.noise import by_hyp, is_measured, value_of
from studies.trials import (
    COSTS,
    EPOCHS,
    FAILURE,
    FINAL,
    METRICS,
    PARENTS,
    SEED,
    SOURCE,
    at_once,
    counts,
    generations,
    hyp_of,
    is_base,
    is_known,
    is_lost,
    is_surplus,
)

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "queued",
}


def tell(study: Study, trial: Trial, outcome: Outcome, seed: int) -> None:
    """Store how a trial ended. A failed one has no value, so that nothing can take it for a fitness."""
    measured = {METRICS: dict(outcome.metrics), COSTS: dict(outcome.costs), FINAL: dict(outcome.final)}
    attributes = {SEED: seed, EPOCHS: outcome.epochs, **measured, FAILURE: outcome.failure}
    with at_once(trial):
        for name, value in attributes.items():
            if value or name in (SEED, EPOCHS):
                trial.set_user_attr(name, value)
    if outcome.state == "complete":
        study.tell(trial, list(outcome.goals.values()) or outcome.fitness)
    else:
        study.tell(trial, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)


def standing_of(study: Study, space: Space) -> Standing:
    """Where a study stands when it is opened. Failures before do not count on: whoever resumes has mended something."""
    standing = with_best(Standing(), best_front_of(study, space))
    for trial in trials_of(study):
        if counts(trial):
            standing = standing.after(outcome_of(trial))
    return replace(standing, failures_in_a_row=0, last_failure="")


def fitnesses_of(study: Study) -> tuple[float, ...]:
    """What the complete trials of a study measured, in order."""
    return tuple(value_of(trial) for trial in trials_of(study) if is_measured(trial))


def stale_of(study: Study) -> int:
    """For how many generations nothing has come that is better by more than the noise floor.

    They count from the first hyp on that the best one is not ahead of by more, without those that train the base. Both
    are judged by all that is known now, so that the count follows from the trials alone.
    """
    trials = trials_of(study)
    scores = {group[0].number: fmean(map(value_of, group)) for group in by_hyp(trials)}
    if not scores:
        return 0
    floor, found = noise_floor(trials), generations(trials)
    good = max(scores.values()) - (floor.sd if floor else 0.0)
    since = min(found[number] for number, score in scores.items() if score >= good)
    return sum(counts(trial) and not is_base(trial) and found[trial.number] > since for trial in trials)


def with_best(standing: Standing, front: Sequence[BestHyp]) -> Standing:
    """The standing with what `studies.best_front_of` found."""
    best = next(iter(front), None)
    return replace(standing, best=best, front=tuple(front) if best and best.goals else ())


def outcome_of(trial: FrozenTrial) -> Outcome:
    """How a stored trial ended, with no password in its failure: earlier versions stored what they were told."""
    states: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    noted = trial.user_attrs
    return Outcome(
        trial.number,
        states.get(trial.state, "failed"),
        epochs=noted.get(EPOCHS, len(trial.intermediate_values)),
        fitness=trial.values[0] if trial.values else None,
        failure=mask_secrets(noted.get(FAILURE, "")),
        metrics=noted.get(METRICS, {}),
        costs=noted.get(COSTS, {}),
    )


def state_of(trial: FrozenTrial) -> str:
    """In a word: complete, pruned, failed, running, queued; lost, surplus, or known of those that count nowhere."""
    for word, is_so in (("known", is_known), ("surplus", is_surplus), ("lost", is_lost)):
        if is_so(trial):
            return word
    return STATES[trial.state]


def change_of(trials: Sequence[FrozenTrial], space: Space, number: int) -> str:
    """What a trial's hyp moved furthest from its parent (from the base where it has none): 'lr0 0.01 -> 0.013'."""
    trial, hyp = trials[number], hyp_of(trials[number])
    if is_base(trial):
        return "the base"
    parents = trial.user_attrs.get(PARENTS)
    parent = {**space.defaults(), **(hyp_of(trials[parents[0]]) if parents else {})}
    moved = [p for p in space.evolving if hyp[p.name] != parent[p.name]]
    if not moved:
        return "nothing"
    most = max(moved, key=lambda p: abs(p.to_unit(hyp[p.name]) - p.to_unit(parent[p.name])))
    source = f" ({trial.user_attrs[SOURCE]})" if SOURCE in trial.user_attrs else ""
    return f"{most.name} {show_value(parent[most.name])} -> {show_value(hyp[most.name])}{source}"
