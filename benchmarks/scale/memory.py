"""Does a long study grow? Memory and open files of whoever runs it, and of a worker, over 10,000 trials.

The trials train nothing. Two workers, each of which does what `evolve worker` does, and a parent, which does what
`evolve run --jobs 0` does, share a study on SQLite; all three are processes of their own. Optuna keeps every trial that
has ended in memory, in each process: "trials MiB" is what these alone take up, measured in a process that has read the
study and done nothing else. What remains of the growth is a leak.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from benchmarks.report import header, print_now, table
from benchmarks.scale.sleeper import Sleeper, write_space
from evolve import work
from evolve.config import EvolveConfig
from evolve.engine import evolve
from evolve.joining import join_study
from evolve.watcher import Silence
from studies import finished, open_storage, sqlite_url, trials_of

NAME = "long"
AT = (100, 1000, 3000, 10000)
LOOK_S = 0.2
MIB = 1 << 20
HEAD = ("trials", "parent MiB", "its files", "worker MiB", "its files", "trials MiB", "seconds")
fork = multiprocessing.get_context("fork")


def run_study(config: EvolveConfig) -> None:
    work.process_trainer = lambda config, log, progress: Sleeper()  # type: ignore[assignment, return-value]
    evolve(config)


def run_worker(url: str, runs: Path) -> None:
    work.process_trainer = lambda config, log, progress: Sleeper()  # type: ignore[assignment, return-value]
    with contextlib.suppress(KeyboardInterrupt):
        join_study(url, NAME, Silence(), wait_s=60, runs=str(runs))


def watch(url: str, processes: Sequence[Any], at: Sequence[int]) -> list[tuple[object, ...]]:
    """A row as soon as so many trials have ended; the processes are those of the parent and of a worker."""
    began, rows = time.monotonic(), []
    for wanted in at:
        while (ended := count(url)) < wanted:
            if not all(process.is_alive() for process in processes):
                raise RuntimeError(f"a process ended after {ended} trials")
            time.sleep(LOOK_S)
        seen = [part for process in processes for part in (round(memory_mib(process.pid), 1), files(process.pid))]
        rows.append((str(wanted), *seen, round(trials_mib(url), 1), round(time.monotonic() - began)))
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def count(url: str) -> int:
    """How many trials have ended, counted by the database itself: nothing is kept here."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as database:
        try:
            (ended,) = database.execute("SELECT count(*) FROM trials WHERE state != 'RUNNING'").fetchone()
        except sqlite3.OperationalError:  # no table yet
            return 0
    return int(ended)


def memory_mib(pid: int) -> float:
    """What the process has in memory that no other has: those of one fork share the rest."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) * 1024 / MIB


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def trials_mib(url: str) -> float:
    """What the trials take up in a process that has read them."""
    found = fork.SimpleQueue()
    process = fork.Process(target=read_study, args=(url, found))
    process.start()
    grown: float = found.get()
    process.join()
    return grown


def read_study(url: str, found: Any) -> None:
    gc.collect()  # what it touches is this process' own from then on
    before = memory_mib(os.getpid())
    study = optuna.load_study(study_name=NAME, storage=open_storage(url, read_only=True))
    assert finished(study) <= len(trials_of(study))
    gc.collect()
    found.put(memory_mib(os.getpid()) - before)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--at", default=",".join(map(str, AT)), help="after so many trials (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--sampler", default="random", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    at = [int(word) for word in arguments.at.split(",")]
    print_now(header(__file__, argv, [0]) + "\n")
    with TemporaryDirectory(prefix="evolve-benchmark-") as name:
        folder = Path(name)
        url = sqlite_url(folder / "study.db")
        config = EvolveConfig(
            data="nothing",
            trainer=f"{Sleeper.__module__}:{Sleeper.__name__}",
            study=NAME,
            storage=url,
            space=str(write_space(folder, 0.0)),
            runs=str(folder / "runs"),
            jobs=0,
            race=0,
            generations=at[-1] + 1000,
            epochs=1,
            base_seeds=1,
            pruner="none",
            threads=1,
            sampler=arguments.sampler,
        )
        parent = fork.Process(target=run_study, args=(config,))
        workers = [fork.Process(target=run_worker, args=(url, folder / f"runs-{n}")) for n in range(arguments.workers)]
        for process in (parent, *workers):
            process.start()
        try:
            rows = watch(url, [parent, workers[0]], at)
        finally:
            for process in (*workers, parent):
                process.kill()
                process.join()
    print_now(table(HEAD, rows))


if __name__ == "__main__":
    main()
