"""What was run already: a file of JSON lines for each arm, so that a benchmark can be interrupted and go on."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from evolve.training import mean_and_error

WIDE = 1.96  # standard errors to each side: 95 % of many runs

Found = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Run:
    """One arm, let loose on one problem (by name) with one seed, for so many trials or trainings."""

    arm: str
    problem: str
    seed: int
    length: int


class Results:
    """Everything that was found so far, by run; `folder` has a file for each arm, or None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._found: dict[Run, Found] = {}
        for file in sorted(folder.glob("*.jsonl")) if folder else ():
            self._found.update(_read(file))

    def __getitem__(self, run: Run) -> Found:
        return self._found[run]

    def __contains__(self, run: Run) -> bool:
        return run in self._found

    def add(self, run: Run, found: Found) -> None:
        self._found[run] = found
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._file(run.arm).open("a", encoding="utf-8") as file:
                file.write(json.dumps({**vars(run), "found": found}) + "\n")

    def forget(self, arm: str) -> None:
        """Let the arm be run anew: its code has changed."""
        self._found = {run: found for run, found in self._found.items() if run.arm != arm}
        if self._folder is not None:
            self._file(arm).unlink(missing_ok=True)

    def _file(self, arm: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{re.sub('[^a-z0-9]+', '-', arm.lower())}.jsonl"


def run_all(runs: Sequence[Run], work: Callable[[Run], Found], results: Results, processes: int) -> None:
    """Do what is not among the results yet, in so many processes; progress goes to standard error."""
    left = [run for run in runs if run not in results]
    done, began = len(runs) - len(left), time.monotonic()
    for run, found in _worked(left, work, processes):
        results.add(run, found)
        done += 1
        sys.stderr.write(
            f"{done}/{len(runs)}  {time.monotonic() - began:.0f} s  {run.arm}, {run.problem}, {run.seed}\n"
        )


def interval(values: Sequence[float], *, sign: bool = False) -> str:
    """'0.302 ± 0.045': the mean and half the width of its 95 % interval, over runs that count alike."""
    mean, error = mean_and_error(values)
    text = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    return text if math.isnan(error) else f"{text} ± {WIDE * error:.3f}"


def _worked(runs: Sequence[Run], work: Callable[[Run], Found], processes: int) -> Iterable[tuple[Run, Found]]:
    if processes <= 1:
        yield from ((run, work(run)) for run in runs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(work, run): run for run in runs}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _read(file: Path) -> Iterable[tuple[Run, Found]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue  # cut short when the benchmark was killed: that run is done again
        yield Run(**{key: fields[key] for key in Run.__annotations__}), fields["found"]
