"""What was wrong in a data set without being worth an end: one Problem each, and a summary for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_KINDS = 8  # kinds of problems that a summary lists before it only counts


@dataclass(frozen=True, slots=True)
class Problem:
    """One flaw: where it is, what kind it is, and the particular (`line` counts from 1; None means the whole file).

    `what` names the kind and what was done about it, in words that are the same for every flaw of its kind, so that
    `summarise` can count; `detail` is what was found here.
    """

    file: Path
    line: int | None
    what: str
    detail: str = ""

    @property
    def where(self) -> str:
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.detail})" if self.detail else "")


def summarise(problems: Sequence[Problem]) -> str:
    """A headline with the number of problems and files, then a line per kind, the most frequent first; '' for none."""
    if not problems:
        return ""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.what, []).append(problem)
    ranked = sorted(kinds.values(), key=len, reverse=True)
    lines = [f"{_count(len(problems), 'problem')} in {_count(len({p.file for p in problems}), 'file')}:"]
    lines += [f"  {len(same)} × {same[0].what}; {_first(same)}" for same in ranked[:MAX_KINDS]]
    if len(ranked) > MAX_KINDS:
        lines.append(f"  and {sum(map(len, ranked[MAX_KINDS:]))} of {len(ranked) - MAX_KINDS} other kinds")
    return "\n".join(lines)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _first(same: Sequence[Problem]) -> str:
    detail = f" ({same[0].detail})" if same[0].detail else ""
    return ("at " if len(same) == 1 else "first at ") + same[0].where + detail
