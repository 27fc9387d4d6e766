"""What a study came to: in one sentence, and in a few figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from evolve.tables import show_duration, show_fitness, show_goal
from studies.decision import say_verdict
from studies.status import covered_s
from studies.view import Seen, View

Certainty = Literal["confirmed", "open", "nothing"]


@dataclass(frozen=True)
class Summary:
    """`certainty`: a race has confirmed a hyp, something may be better, nothing is known. `figures` are by name."""

    certainty: Certainty
    sentence: str
    figures: dict[str, str]


def summarise(view: View) -> Summary:
    certainty, found = _found(view)
    return Summary(certainty, f"{found}{_cost(view)}.", _figures(view))


def saved_share(view: View) -> float | None:
    """The share of epochs that pruning has saved, of what the same trials would have run; None where nothing ran."""
    trained = _trained(view)
    whole = len(trained) * (view.epochs or 0)
    return max(0.0, 1 - sum(trial.epochs for trial in trained) / whole) if whole else None


def worked_s(view: View) -> float:
    """For how many seconds at least one trial was being trained, those of races among them."""
    return covered_s(
        (trial.started.timestamp(), (trial.ended or view.seen_at).timestamp())
        for trial in (*view.trials, *view.heats)
        if trial.started and (trial.ended or trial.state == "running") and trial.state != "known"
    )


def _found(view: View) -> tuple[Certainty, str]:
    best, decision = view.best, view.decision
    if best is None:
        return "nothing", "No trial has completed yet"
    if best.goals:
        reached = ", ".join(f"{name} {show_goal(name, value)}" for name, value in best.goals.items())
        against = ", ".join(f"{name} {show_goal(name, value)}" for name, value in best.base_goals.items())
        of_base = f", against {against} of the base" if against else ""
        hyps = f"{len(view.front)} hyps" if len(view.front) > 1 else "one hyp"
        return "open", f"The front has {hyps}: that of the best {view.goal} reaches {reached}{of_base}"
    if decision is not None:
        verdict, leader = decision.verdict, decision.verdict.leader
        if verdict.winner is None or leader is None or leader.difference is None or leader.interval is None:
            told = say_verdict(verdict)
            return "open", told[0].upper() + told[1:]
        low, high = leader.interval
        share = _share(leader.difference, verdict.base.mean)
        return "confirmed", (
            f"Trial {leader.entrant} is better than the base by {leader.difference:.4f}{share}: a race under "
            f"{leader.n} fresh seeds confirmed it (95 % interval {low:.4f} to {high:.4f})"
        )
    if best.base is None:
        return "open", f"Trial {best.number} reached {show_fitness(best.fitness)}; the base is not known"
    gain = view.sign * (best.fitness - best.base.fitness)
    if gain <= 0:
        return "nothing", f"Nothing has beaten the base yet, which gives {show_fitness(best.base.fitness)}"
    noise = f", {gain / view.noise.sd:.1f} times the noise from seed to seed" if view.noise and view.noise.sd else ""
    return "open", (
        f"Trial {best.number} seems better than the base by {gain:.4f}{_share(gain, best.base.fitness)}{noise}, which "
        "no race has confirmed: the best of many noisy trainings looks better than it is"
    )


def _share(difference: float, base: float | None) -> str:
    return f" ({100 * difference / abs(base):.1f} %)" if base else ""


def _cost(view: View) -> str:
    """'; it cost 151 trials and 14 trainings of the race in 30 minutes, and pruning saved 23 % of the epochs'."""
    ended = sum(trial.counts for trial in view.trials)
    if not ended:
        return ""
    heats = sum(heat.counts for heat in view.heats)
    race = f" and {heats} trainings of the race" if heats else ""
    saved = saved_share(view)
    pruned = any(trial.state == "pruned" for trial in view.trials)
    saving = f", and pruning saved {100 * saved:.0f} % of the epochs" if saved is not None and pruned else ""
    trials = f"{ended} trial{'s' * (ended > 1)}"
    seconds = worked_s(view)
    lasted = f" in {say_span(seconds)}" if seconds >= 1 else ""
    return f"; it cost {trials}{race}{lasted}{saving}"


def say_span(seconds: float) -> str:
    """'29 minutes', '3.2 hours'."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"


def _figures(view: View) -> dict[str, str]:
    best, saved = view.best, saved_share(view)
    states = {state: sum(trial.state == state for trial in view.trials) for state in ("complete", "pruned", "failed")}
    others = {state: _count(view.trials, state) for state in ("running", "queued", "lost")}
    told = {}
    if best is not None and not best.goals:
        told["best in the search"] = show_fitness(best.fitness)
        told["base in the search"] = show_fitness(best.base_fitness)
    if view.noise is not None:
        told["noise from seed to seed"] = f"{view.noise.sd:.4f}"
    told |= {state: f"{count}" for state, count in states.items()}
    told |= {state: f"{count}" for state, count in others.items() if count}
    if saved is not None:
        told["epochs run"] = f"{sum(trial.epochs for trial in _trained(view)):,}"
        told["epochs saved"] = f"{100 * saved:.0f} %"
    if seconds := worked_s(view):
        told["time of work"] = show_duration(seconds)
    return told


def _trained(view: View) -> list[Seen]:
    return [trial for trial in view.trials if trial.state in ("complete", "pruned")]


def _count(trials: Iterable[Seen], state: str) -> int:
    return sum(trial.state == state for trial in trials)
