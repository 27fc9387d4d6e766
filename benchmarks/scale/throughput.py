"""How many workers a study keeps busy: trials of a fixed time, on PostgreSQL and on SQLite, by 1 to 64 workers.

Every worker is a process that does what `evolve worker` does, and one more process does what `evolve run --jobs 0`
does: it follows the storage and writes the files. All are forked from one that has loaded everything, and a trial
sleeps in the worker itself, so that this machine's cores are left to what is measured: asking, storing, following.

Steady state is from the moment that the last worker has begun its first trial until the first one has ended its last.
The efficiency is what the trials begun and ended in it were to take, over all worker-seconds in it: 1 if nothing but
the training took time. "between ms" is the time from the end of one training to the begin of the worker's next, and
"report ms" what the storage adds while it is trained, both as means; "SQL ms" is how long a worker waits for
statements, and "statements" how many there are, both per trial and without those of its pulse, which disturb nobody.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from benchmarks.report import header, print_now, table
from benchmarks.scale.sleeper import Sleeper, write_space
from benchmarks.servers import postgres
from evolve import work
from evolve.config import EvolveConfig
from evolve.engine import evolve
from evolve.joining import join_study
from evolve.watcher import Silence
from studies import sqlite_url
from trainer import EpochMetrics, TrainJob

WORKERS = {"postgresql": (1, 2, 4, 8, 16, 32, 64), "sqlite": (2, 4, 8, 16)}
NAME = "sleep"
WAIT_S = 120.0
fork = multiprocessing.get_context("fork")


@dataclass
class Log:
    """What one worker did: when each of its trainings began and ended (s, one clock for all processes), and its SQL."""

    trainings: list[tuple[float, float]] = field(default_factory=list)
    statements: int = 0
    sql_s: float = 0.0


class Stamped(Sleeper):
    """Notes when each training begins and ends."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        began = time.monotonic()
        yield from super().train(job)
        self._log.trainings.append((began, time.monotonic()))


@dataclass(frozen=True)
class Found:
    """The figures of one run."""

    trials: int
    efficiency: float
    between_s: float
    report_s: float
    sql_s: float
    statements: float


def measure(url: str, workers: int, trial_s: float, rounds: int, hyps: int, folder: Path) -> Found:
    """Run a study of `rounds` trials a worker."""
    config = EvolveConfig(
        data="nothing",
        trainer=f"{Sleeper.__module__}:{Sleeper.__name__}",
        study=NAME,
        storage=url,
        space=str(write_space(folder, trial_s, hyps)),
        runs=str(folder / "runs"),
        jobs=0,
        race=0,
        generations=workers * rounds,
        epochs=2,
        base_seeds=1,
        pruner="none",
        threads=1,
    )
    parent = fork.Process(target=run_study, args=(config,))
    parent.start()
    logs = [folder / f"worker-{number}.json" for number in range(workers)]
    joined = [fork.Process(target=run_worker, args=(url, folder, log)) for log in logs]
    for worker in joined:
        worker.start()
    for process in (parent, *joined):
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"a process ended with exit code {process.exitcode}")
    return judge([Log(**json.loads(log.read_text())) for log in logs], trial_s)


def run_study(config: EvolveConfig) -> None:
    work.process_trainer = lambda config, log, progress: Sleeper()  # type: ignore[assignment, return-value]
    evolve(config)


def run_worker(url: str, folder: Path, path: Path) -> None:
    log = Log()
    work.process_trainer = lambda config, log_file, progress: Stamped(log)  # type: ignore[assignment, return-value]
    count_statements(log)
    with contextlib.suppress(KeyboardInterrupt):
        join_study(url, NAME, Silence(), wait_s=WAIT_S, runs=str(folder / f"runs-{os.getpid()}"))
    path.write_text(json.dumps(asdict(log)))


def count_statements(log: Log) -> None:
    """Have the SQL of this process' main thread counted and timed from its first training on."""

    def before(connection: Any, *_: Any) -> None:
        connection.info["began"] = time.monotonic()

    def after(connection: Any, *_: Any) -> None:
        if log.trainings and threading.current_thread() is threading.main_thread():
            log.statements += 1
            log.sql_s += time.monotonic() - connection.info["began"]

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)


def judge(logs: Sequence[Log], trial_s: float) -> Found:
    """The figures of the steady state; a training that lies in it in part counts in part."""
    begin = max(log.trainings[0][0] for log in logs)
    end = min(log.trainings[-1][1] for log in logs)
    busy = sum(
        max(0.0, min(ended, end) - max(began, begin)) * trial_s / (ended - began)
        for log in logs
        for began, ended in log.trainings
    )
    pairs = [(one, other) for log in logs for one, other in zip(log.trainings, log.trainings[1:], strict=False)]
    trials = sum(len(log.trainings) for log in logs)
    told = max(1, trials - len(logs))  # their SQL is counted: after the first training
    return Found(
        trials=trials,
        efficiency=busy / (len(logs) * (end - begin)) if end > begin else float("nan"),
        between_s=fmean([other[0] - one[1] for one, other in pairs]) if pairs else float("nan"),
        report_s=fmean([ended - began - trial_s for log in logs for began, ended in log.trainings]),
        sql_s=sum(log.sql_s for log in logs) / told,
        statements=sum(log.statements for log in logs) / told,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--storages", default=",".join(WORKERS), help="default: %(default)s")
    parser.add_argument("--workers", help="how many, with commas between (default: 1 to 64, with SQLite 2 to 16)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a trial (default: %(default)s)")
    parser.add_argument("--hyps", type=int, default=28, help="that evolve (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="trials a worker (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    storages = [name.strip() for name in arguments.storages.split(",")]
    if unknown := [name for name in storages if name not in WORKERS]:
        raise SystemExit(f"unknown storage {unknown[0]!r}; known: {', '.join(WORKERS)}")
    print_now(header(__file__, argv, [0]) + "\n")
    rows = []
    for storage in storages:
        counts = [int(word) for word in arguments.workers.split(",")] if arguments.workers else WORKERS[storage]
        with postgres() if storage == "postgresql" else contextlib.nullcontext() as server:
            for workers in counts:
                rows.append(row_of(storage, server, workers, arguments.seconds, arguments.rounds, arguments.hyps))
                sys.stderr.write(f"{rows[-1]}\n")
    print_now(table(HEAD, rows))


HEAD = ("storage", "workers", "trials", "efficiency", "between ms", "report ms", "SQL ms", "statements", "load")


def row_of(storage: str, server: Any, workers: int, trial_s: float, rounds: int, hyps: int) -> tuple[object, ...]:
    with TemporaryDirectory(prefix="evolve-benchmark-") as name:
        folder = Path(name)
        url = sqlite_url(folder / "study.db") if server is None else server.new_database()
        found = measure(url, workers, trial_s, rounds, hyps, folder)
    times = (round(1000 * seconds) for seconds in (found.between_s, found.report_s, found.sql_s))
    load = round(os.getloadavg()[0], 1)
    return (storage, workers, found.trials, round(found.efficiency, 3), *times, round(found.statements), str(load))


if __name__ == "__main__":
    main()
