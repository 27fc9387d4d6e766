"""When a study ends, as a value: what it may use, and the reason to stop."""

from __future__ import annotations

from dataclasses import dataclass

from evolve.standing import Standing


@dataclass(frozen=True)
class Stop:
    """Why a study ends. `reached` tells whether it did all that it was asked for."""

    reason: str
    reached: bool


@dataclass(frozen=True)
class Budget:
    """What a study may use. `generations` is a total over all of its runs, `max_failures` counts failures in a row."""

    generations: int
    max_failures: int

    def stop(self, standing: Standing) -> Stop | None:
        """The reason to end now, or None to go on."""
        if standing.finished >= self.generations:
            return Stop(f"{standing.finished} of {self.generations} generations are done", reached=True)
        if standing.failures_in_a_row >= self.max_failures:
            count = standing.failures_in_a_row
            return Stop(f"{count} trials in a row failed, the last one with: {standing.last_failure}", reached=False)
        return None
