"""When a study ends, as a value: what it may use, what is enough, and the reason to stop."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evolve.standing import Standing

UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Stop:
    """Why a study ends. `reached` tells whether it did all that it was asked for."""

    reason: str
    reached: bool


@dataclass(frozen=True)
class Budget:
    """What a study may use, and what is enough. What is None does not limit it.

    `generations` is a total over all of its runs and `max_failures` counts failures in a row; `seconds` are those of
    one run, the final race among them, for which at most half of them are kept free. `patience` is how many generations
    may bring nothing beyond the noise floor, `target` a fitness.
    """

    generations: int
    max_failures: int
    seconds: float | None = None
    patience: int | None = None
    target: float | None = None

    def stop(self, standing: Standing, ran_s: float = 0.0, race_s: float = 0.0) -> Stop | None:
        """The reason to end now, `ran_s` seconds after this run began, or None; the race would take `race_s`."""
        if standing.finished >= self.generations:
            return Stop(f"{standing.finished} of {self.generations} generations are done", reached=True)
        if standing.failures_in_a_row >= self.max_failures:
            count = standing.failures_in_a_row
            return Stop(f"{count} trials in a row failed, the last one with: {standing.last_failure}", reached=False)
        best = standing.best
        if self.target is not None and best is not None and best.fitness >= self.target:
            return Stop(f"the target of {self.target:g} is reached: {best.fitness:.4f}", reached=True)
        if self.patience is not None and standing.stale >= self.patience:
            return Stop(f"{standing.stale} generations have brought nothing beyond the noise floor", reached=True)
        if self.seconds is not None and ran_s >= self.seconds:
            return Stop(f"the {say_duration(self.seconds)} of this run are over", reached=True)
        if self.seconds is not None and ran_s >= self.seconds - min(race_s, self.seconds / 2):
            return Stop(f"the race needs what is left of the {say_duration(self.seconds)} of this run", reached=True)
        return None

    @property
    def earlier(self) -> str:
        """What may end the study before its generations do: 'after 8h, or at a fitness of 0.5'; '' for nothing."""
        found = [
            *([f"after {say_duration(self.seconds)} of this run"] if self.seconds is not None else []),
            *([f"after {self.patience} generations without gain beyond the noise"] if self.patience else []),
            *([f"at a fitness of {self.target:g}"] if self.target is not None else []),
        ]
        return ", or ".join(found)


def seconds_of(duration: str) -> float | None:
    """'8h' -> 28800.0, '1h30m' -> 5400.0; None for what is no duration: it has no unit, say, or is no time at all."""
    number = r"(?:(\d+(?:\.\d+)?)\s*{}\s*)?"
    match = re.fullmatch("".join(number.format(unit) for unit in UNITS_S), duration.strip())
    if match is None:
        return None
    parts = zip(match.groups(), UNITS_S.values(), strict=True)
    return sum(float(count) * unit_s for count, unit_s in parts if count) or None


def say_duration(seconds: float) -> str:
    """As `seconds_of` reads it: 5400 -> '1h30m'."""
    said, left = "", round(seconds, 3)
    for unit, unit_s in UNITS_S.items():
        count = left // unit_s if unit != "s" else left
        left -= count * unit_s
        said += f"{count:g}{unit}" if count else ""
    return said
