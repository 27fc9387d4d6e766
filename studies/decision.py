"""What a race has decided for its study, and how that is said: a sentence, the first lines of a hyp file, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from search_spaces import Hyp
from studies.race import Entrant, Race, Run
from studies.verdict import MANY_SEEDS, Result, Verdict, rank_correlation


@dataclass(frozen=True)
class Decision:
    """The verdict of a race, with all that it stands on.

    `name` is that of the race's own study, `epochs` how long its trainings were. `hyps` are those that ran, whole, and
    `scores` what `smoothed_scores` said of them before. `ended` is when the last training did, in UTC.
    """

    study: str
    name: str
    race: Race
    epochs: int
    runs: tuple[Run, ...]
    verdict: Verdict
    hyps: Mapping[Entrant, Hyp]
    scores: Mapping[Entrant, float]
    ended: datetime | None = None

    @property
    def hyp(self) -> Hyp:
        """The winner's, or the base where it stays."""
        return self.hyps[self.verdict.winner]

    @property
    def results(self) -> tuple[Result, ...]:
        """The base's, then those of its challengers."""
        return self.verdict.base, *self.verdict.challengers

    @property
    def correlation(self) -> float | None:
        """Spearman's rho between what the study said and the race's means; None where too few have both."""
        both = [(self.scores[found.entrant], found.mean) for found in self.results if found.entrant in self.scores]
        known = [(score, mean) for score, mean in both if mean is not None]
        return rank_correlation([score for score, _ in known], [mean for _, mean in known])

    def sentence(self) -> str:
        return say_verdict(self.verdict)

    def title(self) -> list[str]:
        """What a hyp file with this hyp says first."""
        if self.verdict.winner is None:
            return ["The base of an evolve study: under fresh seeds no hyp was confirmed to be better."]
        return ["The winner of an evolve study's final race: better than the base under fresh seeds."]

    def facts(self) -> dict[str, str]:
        """What it says then."""
        best, base, seeds = self.verdict.best, self.verdict.base, self.verdict.seeds
        against = "" if best is base else f"; base {_mean(base)}"
        luck = "" if best is base else f" ({self.verdict.expected:.6g} without the luck of the pick)"
        on_test = _named(best.final) + (f"; base {_named(base.final)}" if against else "")
        return {
            "verdict": self.sentence(),
            "fitness": _mean(best) + luck + against,
            "metrics": _named(best.metrics),
            **({"on test": on_test} if best.final else {}),
            "seeds": f"{seeds[0]} to {seeds[-1]}, each for both",
            "trial": "the base" if best.entrant is None else str(best.entrant),
            "study": f"{self.study}, its race {self.name}",
            **({"date": self.ended.strftime("%Y-%m-%d %H:%M UTC")} if self.ended else {}),
        }

    def to_json(self) -> str:
        """All of it, for programs."""
        verdict = self.verdict
        content = {
            "study": self.study,
            "race": self.name,
            "epochs": self.epochs,
            "seeds": list(verdict.seeds),
            "rounds": [{"challengers": round.challengers, "seeds": round.seeds} for round in self.race.rounds],
            "confirmed": verdict.winner is not None,
            "winner": _named_entrant(verdict.winner),
            "verdict": self.sentence(),
            "seeds_to_settle": verdict.seeds_to_settle,
            "leader_expected": verdict.expected,
            "rank_correlation": self.correlation,
            "results": [self._row(found) for found in self.results],
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def _row(self, found: Result) -> dict[str, Any]:
        own = [run for run in self.runs if run.heat.entrant == found.entrant]
        low, high = found.interval or (None, None)
        return {
            "trial": _named_entrant(found.entrant),
            "n": found.n,
            "failed": found.failed,
            "fitness": found.mean,
            "difference": found.difference,
            "low": low,
            "high": high,
            "score_in_study": self.scores.get(found.entrant),
            "metrics": dict(found.metrics),
            "test": dict(found.final),
            "runs": [{"seed": run.heat.seed, "fitness": run.fitness, "test": dict(run.final)} for run in own],
            "hyp": dict(self.hyps[found.entrant]),
        }


def say_verdict(verdict: Verdict) -> str:
    """Who won, by how much and how surely; or that the base stays, and what would settle it."""
    leader, seeds = verdict.leader, verdict.seeds_to_settle
    if leader is None or leader.difference is None:
        return "the base stays: no challenger has come through all of its trainings beside it"
    who, how_surely = f"trial {leader.entrant}", _interval(leader)
    if verdict.winner is not None:
        return f"confirmed: {who} beats the base by {leader.difference:.4f} {how_surely}"
    if leader.difference <= 0:
        behind = f"not even {who}: {leader.difference:+.4f} {how_surely}"
        return f"the base stays: no challenger is ahead of it, {behind}"
    settled = f"about {seeds} seeds" if seeds else f"not even {MANY_SEEDS} seeds"
    ahead = f"{who} is ahead by {leader.difference:.4f} {how_surely}, which is not confirmed"
    return f"the base stays: {ahead}; {settled} would settle it"


def _named_entrant(entrant: Entrant) -> int | str:
    return "base" if entrant is None else entrant


def _interval(found: Result) -> str:
    if found.interval is None:
        return "(too few seeds for an interval)"
    low, high = found.interval
    return f"(95 % interval {low:.4f} to {high:.4f}, {found.n} seeds)"


def _mean(found: Result) -> str:
    return "not known" if found.mean is None else f"{found.mean:.6g}, mean of {found.n} seed{'s' * (found.n > 1)}"


def _named(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items()) or "none"
