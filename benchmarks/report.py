"""What a benchmark prints: the line that says where figures come from, tables, and means with their errors."""

from __future__ import annotations

import math
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import evolve
from evolve.training import mean_and_error

ROOT = Path(__file__).resolve().parent.parent


def header(program: str, argv: Sequence[str], seeds: Sequence[int]) -> str:
    """One line: machine, versions, seeds and the command that prints the same again. `program` is a module's file."""
    command = shlex.join(["python", "-m", _module(program), *argv])
    versions = f"python {platform.python_version()}, torch {_version('torch')}, optuna {_version('optuna')}"
    drawn = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"# {_machine()} | {versions}, evolve {evolve.__version__}{_commit()} | {drawn} | {command}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with aligned columns: text to the left, anything else to the right; floats with 4 digits."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    right = [bool(rows) and not any(isinstance(row[column], str) for row in rows) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - to_right) + ":" * to_right for width, to_right in zip(widths, right, strict=True)]
    return "\n".join([line(head), line(rule), *map(line, cells)])


@dataclass(frozen=True)
class Difference:
    """By how much `theirs` is above `ours` in the mean, with two standard errors of that.

    `error` takes the values for independent draws, `paired_error` takes theirs[i] and ours[i] for one pair (the same
    seed). Both are NaN for a single value each.
    """

    mean: float
    error: float
    paired_error: float

    @classmethod
    def of(cls, theirs: Sequence[float], ours: Sequence[float]) -> Difference:
        """Both hold one value a seed, in the same order of seeds."""
        (their_mean, their_error), (our_mean, our_error) = mean_and_error(theirs), mean_and_error(ours)
        _, paired = mean_and_error([a - b for a, b in zip(theirs, ours, strict=True)])
        return cls(their_mean - our_mean, math.hypot(their_error, our_error), paired)

    @property
    def ratio(self) -> float:
        """The difference in standard errors of two independent means."""
        return in_errors(self.mean, self.error)

    @property
    def paired_ratio(self) -> float:
        return in_errors(self.mean, self.paired_error)


def in_errors(mean: float, error: float) -> float:
    """How many standard errors a mean is away from 0; infinitely many where there is no error."""
    return mean / error if error else math.copysign(math.inf, mean) if mean else math.nan


def with_error(mean: float, error: float, *, sign: bool = False) -> str:
    """'0.3021 ± 0.0045'; a mean whose error is not known stands alone."""
    text = f"{mean:+.4f}" if sign else f"{mean:.4f}"
    return text if math.isnan(error) else f"{text} ± {error:.4f}"


def _module(program: str) -> str:
    path = Path(program)
    inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path("benchmarks", path.name)
    return ".".join(inside.with_suffix("").parts)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{_cpu()}, {cores} cores{load}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _commit() -> str:
    """' (4340f3d)' in a checkout, with '-dirty' where something is not committed; nothing elsewhere."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({done.stdout.strip()})"


def without_paths(argv: Sequence[str]) -> list[str]:
    """A command without folders of this machine: an absolute path keeps its last two parts."""
    return [str(Path(*Path(word).parts[-2:])) if word.startswith("/") else word for word in argv]


def print_now(text: str) -> None:
    """To standard output at once: what a benchmark finds is worth seeing before it ends."""
    print(text, flush=True)
