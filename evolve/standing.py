"""How a trial ended and where its study stands then: values for the budget and for whoever watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from studies import BestHyp

State = Literal["complete", "pruned", "failed"]


class NoResult(Exception):
    """There is not what a study was for: no trial completed, or too many failed. The message says which."""


def nothing_yet(study: str) -> NoResult:
    """While no trial has completed."""
    return NoResult(f"no trial of {study} has completed yet; `evolve status {study}` tells how it stands")


@dataclass(frozen=True)
class Outcome:
    """How one trial ended. `fitness` is its last epoch's (None: no epoch ended), `change` what it moved most.

    `goals` are what it reached in each of several, the first of which is the fitness; `costs` what its trainer told.
    `final` holds the metrics and the fitness on a second split, if one was scored.
    """

    number: int
    state: State
    epochs: int = 0
    fitness: float | None = None
    change: str = ""
    failure: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    goals: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """Where a study stands. Lost trials count nowhere; `epochs_run` are those of the complete and the pruned trials.

    `best` is what `studies.best_of` says, and the first of `front`, empty but for several goals. `stale` counts
    the generations that have brought nothing beyond the noise floor; it is 0 where nobody has asked for it.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    epochs_run: int = 0
    best: BestHyp | None = None
    front: tuple[BestHyp, ...] = ()
    stale: int = 0
    failures_in_a_row: int = 0
    last_failure: str = ""

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.failed

    def after(self, outcome: Outcome) -> Standing:
        """The standing with one trial more counted; what is best is for the study to say."""
        if outcome.state == "failed":
            in_a_row = self.failures_in_a_row + 1
            return replace(self, failed=self.failed + 1, failures_in_a_row=in_a_row, last_failure=outcome.failure)
        counted = replace(self, epochs_run=self.epochs_run + outcome.epochs, failures_in_a_row=0, last_failure="")
        if outcome.state == "pruned":
            return replace(counted, pruned=self.pruned + 1)
        return replace(counted, complete=self.complete + 1)
