"""Kills whatever works on studies of many short trials, at random, and checks that nothing is lost.

Study after study is run by `evolve run --jobs 3` until so many kills (-9) have been dealt out: to the parent, to a
worker, to a training, to the database server (PostgreSQL; it is started again within 3 s) or to two or three of these
at once ("mixed"). Whenever the parent is dead it is started again, until the study has come to its end. A kill falls
evenly within `--every` seconds, four times in five counted from the moment that a trial has reported an epoch.

A process of its own reads best/hyp.yaml all the time. It has to parse at every moment, to be the hyp of a COMPLETE
trial, and to be no worse than any trial that evolve.csv tells of, since that is written after it. A trial is stored
first and then written to the file, and nobody writes while the parent is dead. So the file may be behind the storage:
how long at most is printed, while a parent with workers is there and the database with it; 30 s are too long.

After every kill all that depended on what was killed must be gone within 10 s. In the end of every study each
generation has been trained once, every COMPLETE trial ever seen is there as it was, no trial runs, none has failed but
those whose training was killed, each lost trial's hyp was queued again, hyp.yaml is the best and no process is left.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from numpy.random import Generator
from optuna.trial import FrozenTrial, TrialState

from benchmarks.report import header, print_now, table
from benchmarks.scale.sleeper import settings, write_space
from benchmarks.servers import postgres
from benchmarks.small_study import SmallStudy, runs_folder, wait_for
from search_spaces import SpaceError, load_hyp
from studies import StudyError, open_storage, sqlite_url, trials_of
from studies.trials import RETRY_OF, counts, generations, is_lost

JOBS = 3
GENERATIONS = 40
TRIAL_S = 0.4
STORAGES = ("sqlite", "postgresql")
TARGETS = ("parent", "worker", "training", "mixed")  # and "database", where there is a server
GONE_WITHIN_S = 10.0
BEHIND_S = 30.0  # for so long hyp.yaml may be behind the storage while somebody is there to write it
PATIENCE_S = 120.0
AWAY_S = 3.0  # for so long the database is away at most
fork = multiprocessing.get_context("fork")


@dataclass
class Account:
    """What was done to the studies of one storage, and what was found."""

    storage: str
    studies: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # of parents by themselves before the end: last words
    complete: int = 0
    lost: int = 0
    retried: int = 0
    failed: int = 0
    reads: int = 0
    unreadable: int = 0
    wrong: int = 0
    behind_s: float = 0.0
    orphans: int = 0
    delivered: int = 0
    asked: int = 0
    gone_s: float = 0.0
    problems: list[str] = field(default_factory=list)


class Place:
    """Where the studies of one storage lie; `server` is the database server, or None for a file."""

    def __init__(self, storage: str, server: Any = None) -> None:
        self.storage = storage
        self.server = server

    def url(self, folder: Path) -> str:
        return sqlite_url(folder / "study.db") if self.server is None else str(self.server.new_database())

    @property
    def targets(self) -> tuple[str, ...]:
        return TARGETS if self.server is None else (*TARGETS, "database")


class Ordeal:
    """One study, from its first start to its end."""

    def __init__(self, place: Place, runs: Path, name: str, rng: Generator, account: Account) -> None:
        self.place, self.rng, self.account = place, rng, account
        self.url = place.url(runs / name)
        self.name = name
        flags = [*settings(write_space(runs, TRIAL_S), epochs=2), "--jobs", str(JOBS), "--retries", "1000"]
        more = {"OMP_NUM_THREADS": "1", "EVOLVE_STORAGE": self.url}
        self.study = SmallStudy(runs, name, [*flags, "--max-failures", "1000"], more)
        self.parent: subprocess.Popen[bytes] | None = None
        self.parent_killed = False
        self.trainings_killed = 0
        self.seen: dict[int, tuple[object, ...]] = {}

    def run(self, targets: Sequence[str], every_s: float, generations: int) -> int:
        """Run the study to its end; the number of targets that were hit."""
        hit, over = 0, fork.Event()
        at_work: Synchronized[float] = fork.Value("d", math.inf)
        found = fork.SimpleQueue()
        watch = fork.Process(target=watch_hyp, args=(self.study.folder, self.url, self.name, over, at_work, found))
        watch.start()
        try:
            while self._lives(generations, at_work):
                if hit < len(targets):
                    hit += self._strike(targets[hit], every_s, at_work)
                else:
                    self._wait(at_work, PATIENCE_S, lambda: False)
            self._judge(generations)
        finally:
            over.set()
            watched: Watched = found.get()
            watch.join()
            self.study.close()
        account = self.account
        account.studies += 1
        account.reads += watched.reads
        account.unreadable += watched.unreadable
        account.wrong += watched.wrong
        account.behind_s = max(account.behind_s, watched.behind_s)
        account.problems += [f"{self.name}: {problem}" for problem in watched.problems]
        return hit

    def _lives(self, generations: int, at_work: Synchronized[float]) -> bool:
        """Start the parent if it is dead; False once the study has come to its end."""
        if self.parent is not None and (code := self.parent.poll()) is not None:
            at_work.value = math.inf
            self.parent = None
            if code == 0:
                return False
            if not self.parent_killed:
                self._note_end(code)
        if self.parent is None:
            self.account.starts += 1
            self.parent, self.parent_killed = self.study.start(generations), False
        return True

    def _note_end(self, code: int) -> None:
        """A parent that ended by itself: it has to have said why in one sentence."""
        words = self.study.last_words(1)
        self.account.ends[f"{code}: {words[:150]}"] += 1
        if code not in (1, 2) or "evolve: error:" not in words:
            self.account.problems.append(f"{self.name}: exit code {code}: {self.study.last_words(12)}")

    def _wait(self, at_work: Synchronized[float], seconds: float, is_due: Callable[[], object]) -> None:
        """Until it is due, time is up, or the parent ends. Notes when there are workers."""
        assert self.parent is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.parent.poll() is None and not is_due():
            if math.isinf(at_work.value) and self._workers():
                at_work.value = time.monotonic()
            time.sleep(0.05)

    def _strike(self, target: str, every_s: float, at_work: Synchronized[float]) -> int:
        """Wait for the moment, kill, see that all that hung on it goes, too; 1 if it was there to be killed."""
        delay_s, at_once = self.rng.random() * every_s, self.rng.random() < 0.2
        if not at_once:
            reported = self._epochs()
            self._wait(at_work, PATIENCE_S, lambda: self._epochs() > reported)
        self._wait(at_work, delay_s, lambda: False)
        assert self.parent is not None
        if self.parent.poll() is not None:
            return 0
        before = self._complete()
        targets = self._mixed() if target == "mixed" else [target]
        kills = [self._kill(one) for one in targets]
        if not any(kills):
            return 0
        if "parent" in targets or "database" in targets:
            at_work.value = math.inf
        self._see_it_go(kills)
        if "database" in targets:
            time.sleep(self.rng.random() * AWAY_S)
            self.place.server.start()
        self.account.kills[target] += 1
        self._compare(before)
        said = f"{self.name}: kill {self.account.kills.total()} {'+'.join(targets)}: {len(self.seen)} COMPLETE"
        sys.stderr.write(f"{said}, {len(self.account.problems)} problems\n")
        return 1

    def _mixed(self) -> list[str]:
        single = [target for target in self.place.targets if target != "mixed"]
        return [str(one) for one in self.rng.permutation(single)[: self.rng.integers(2, 4)]]

    def _kill(self, target: str) -> list[int]:
        """Kill one; the processes that hung on it, which have to go."""
        assert self.parent is not None
        if target == "database":
            self.place.server.kill()
            return [self.place.server.port]  # no process of the study
        if target == "parent":
            below = self.study.processes()
            self.parent_killed = True
            self.parent.kill()
            self.parent.wait()
            return below
        victims = self._workers() if target == "worker" else self._trainings()
        if not victims:
            return []
        victim = int(self.rng.choice(victims))
        below = [victim, *children_of(victim)]
        self.trainings_killed += target == "training"
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return below

    def _see_it_go(self, kills: Sequence[Sequence[int]]) -> None:
        wanted, killed = set(itertools.chain(*kills)), time.monotonic()
        wait_for(lambda: not wanted & set(self.study.processes()), GONE_WITHIN_S)
        self.account.gone_s = max(self.account.gone_s, time.monotonic() - killed)
        if left := wanted & set(self.study.processes()):
            self.account.orphans += len(left)
            self.account.problems.append(f"{self.name}: left behind: {[name_of(pid) for pid in left]}")

    def _workers(self) -> list[int]:
        return [pid for pid in self.study.processes() if "LokyProcess" in name_of(pid)]

    def _trainings(self) -> list[int]:
        return [pid for pid in self.study.processes() if "trainer.worker" in name_of(pid)]

    def _epochs(self) -> int:
        """How many bytes tell of epochs."""
        return sum(path.stat().st_size for path in self.study.paths.root.glob("trials/*/metrics.jsonl"))

    def _read(self) -> list[FrozenTrial]:
        """All trials, from a storage that is opened anew: none is remembered."""
        return read_trials(self.url, self.name)

    def _complete(self) -> dict[int, tuple[object, ...]]:
        try:
            trials = self._read()
        except (StudyError, KeyError):
            if self.seen:
                raise
            return {}  # there is no study yet
        return {trial.number: facts(trial) for trial in trials if trial.state == TrialState.COMPLETE}

    def _compare(self, before: dict[int, tuple[object, ...]]) -> None:
        self.seen |= before
        now = self._complete()
        changed = [number for number, known in self.seen.items() if now.get(number) != known]
        self.account.lost += len(changed)
        self.account.problems += [f"{self.name}: COMPLETE trial {number} is lost or has changed" for number in changed]
        self.seen |= now

    def _judge(self, asked: int) -> None:
        """The study at its end."""
        self._compare({})
        trials, account = self._read(), self.account
        found = [generation for generation, trial in zip(generations(trials), trials, strict=True) if counts(trial)]
        retried = {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}
        states = Counter(trial.state.name for trial in trials if counts(trial) or not trial.state.is_finished())
        told = {number for number, _ in read_table(self.study.paths.table)}
        complete = {trial.number: trial for trial in trials if trial.state == TrialState.COMPLETE}
        account.complete += len(complete)
        account.retried += len(retried)
        account.failed += states["FAIL"]
        account.asked += asked
        account.delivered += len(set(found))
        best = max(complete.values(), key=lambda trial: trial.value or 0.0)
        hyp = load_hyp(self.study.paths.best_hyp)
        checks = {
            f"generations are {sorted(found)}": sorted(found) == list(range(asked)),
            f"states are {dict(states)}": set(states) <= {"COMPLETE", "FAIL"},
            f"{states['FAIL']} failed, {self.trainings_killed} trainings were killed": (
                states["FAIL"] <= self.trainings_killed
            ),
            "a lost trial was not queued again": all(t.number in retried for t in trials if is_lost(t)),
            f"hyp.yaml is not that of trial {best.number}": all(hyp[name] == best.params[name] for name in best.params),
            "evolve.csv is not whole": told == {trial.number for trial in trials if counts(trial)},
        }
        account.problems += [f"{self.name}: in the end: {wrong}" for wrong, holds in checks.items() if not holds]
        wait_for(lambda: not self.study.processes(), GONE_WITHIN_S)
        if left := self.study.processes():
            account.orphans += len(left)
            account.problems.append(f"{self.name}: left in the end: {[name_of(pid) for pid in left]}")


@dataclass
class Watched:
    """What the watching process has seen of one study's hyp.yaml."""

    reads: int = 0
    unreadable: int = 0
    wrong: int = 0
    behind_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def watch_hyp(folder: Path, url: str, name: str, over: Any, at_work: Synchronized[float], found: Any) -> None:
    """Read hyp.yaml again and again until it is `over`, and compare it with table and storage."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    path, watched = folder / "best" / "hyp.yaml", Watched()
    reader = threading.Thread(target=read_on, args=(path, over, watched), daemon=True)
    reader.start()
    behind_since: float | None = None
    while not over.wait(0.1):
        calm = at_work.value
        try:
            worse_by = compare(folder, path, url, name, watched)
        except (StudyError, KeyError):  # the database is away, or the study is not there yet
            behind_since = None
            continue
        now = time.monotonic()
        if not worse_by or math.isinf(calm) or at_work.value != calm:
            behind_since = None
            continue
        behind_since = max(calm, now if behind_since is None else behind_since)
        watched.behind_s = max(watched.behind_s, now - behind_since)
        if now - behind_since > BEHIND_S:
            watched.wrong += 1
            watched.problems.append(f"hyp.yaml is behind the storage for {now - behind_since:.1f} s")
            behind_since = now
    reader.join()
    found.put(watched)


def read_on(path: Path, over: Any, watched: Watched) -> None:
    there = False
    while not over.is_set():
        try:
            hyp = yaml.safe_load(path.read_text())
            watched.reads += 1
            if not isinstance(hyp, dict) or not {"x", "y", "seconds"} <= hyp.keys():
                raise ValueError(f"it holds {hyp}")
            there = True
        except FileNotFoundError:
            if there:
                watched.unreadable += 1
                watched.problems.append("hyp.yaml has gone")
        except (ValueError, yaml.YAMLError) as error:
            watched.unreadable += 1
            watched.problems.append(f"hyp.yaml: {error}")
        time.sleep(0.002)


def compare(folder: Path, path: Path, url: str, name: str, watched: Watched) -> bool:
    """Whether the file is behind the storage; notes where it is behind the table, or tells what no trial has."""
    told = read_table(folder / "evolve.csv")  # first: what is in there must be in the file
    try:
        hyp = load_hyp(path)
    except (SpaceError, OSError):
        hyp = None
    complete = [trial for trial in read_trials(url, name) if trial.state == TrialState.COMPLETE]
    if hyp is None:
        return bool(complete)
    values = [trial.value or 0.0 for trial in complete if all(hyp[key] == trial.params[key] for key in trial.params)]
    if not values:
        watched.wrong += 1
        watched.problems.append("hyp.yaml is that of no COMPLETE trial")
        return False
    best_told = max((fitness for _, fitness in told if fitness is not None), default=0.0)
    if max(values) < best_told - 1e-9:
        watched.wrong += 1
        watched.problems.append(f"hyp.yaml has {max(values)}, evolve.csv tells of {best_told}")
    return max(values) < max(trial.value or 0.0 for trial in complete)


def read_table(path: Path) -> list[tuple[int, float | None]]:
    """Trial and fitness (None: it is not COMPLETE) of the rows of evolve.csv; a torn last one is left out."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [(int(row["trial"]), float(row["fitness"]) if row["state"] == "COMPLETE" else None) for row in rows]


def read_trials(url: str, name: str) -> list[FrozenTrial]:
    """Raises StudyError and KeyError."""
    storage = open_storage(url, read_only=True)
    try:
        return list(trials_of(optuna.load_study(study_name=name, storage=storage)))
    except (StudyError, KeyError):
        raise
    except Exception as error:  # the database is away, or its tables are being made
        raise StudyError(str(error)) from error
    finally:
        engine = getattr(getattr(storage, "_backend", storage), "engine", None)
        if engine is not None:
            engine.dispose()


def facts(trial: FrozenTrial) -> tuple[object, ...]:
    return trial.params, trial.value, trial.intermediate_values, trial.user_attrs, trial.datetime_complete


def name_of(pid: int) -> str:
    """The command of a process; '' for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=20, help="for each storage (default: %(default)s)")
    parser.add_argument("--storages", default=",".join(STORAGES), help="default: %(default)s")
    parser.add_argument("--generations", type=int, default=GENERATIONS, help="of a study (default: %(default)s)")
    parser.add_argument("--every", type=float, default=4.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--only", help="the only target (default: all, in random order)")
    parser.add_argument("--kill-seed", type=int, default=0, help="of what is killed when (default: %(default)s)")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep the run folders here (must be new or empty)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    storages = [name.strip() for name in arguments.storages.split(",")]
    if unknown := [name for name in storages if name not in STORAGES]:
        raise SystemExit(f"unknown storage {unknown[0]!r}; known: {', '.join(STORAGES)}")
    print_now(header(__file__, argv, [arguments.kill_seed]) + "\n")
    accounts = []
    with runs_folder(arguments.runs) as runs:
        for storage in storages:
            with postgres() if storage == "postgresql" else contextlib.nullcontext() as server:
                accounts.append(torment(Place(storage, server), runs, arguments))
            print_now(f"{show(accounts[-1])}\n")
    print_now(summarise(accounts))
    problems = [problem for account in accounts for problem in account.problems]
    for problem in problems:
        print_now(f"problem: {problem}")
    print_now("FAIL" if problems else "PASS")
    return 1 if problems else 0


def torment(place: Place, runs: Path, arguments: argparse.Namespace) -> Account:
    """Study after study, until all kills are dealt out."""
    rng, account, dealt = np.random.default_rng(arguments.kill_seed), Account(place.storage), 0
    aims = [arguments.only] if arguments.only else place.targets
    targets = [str(target) for target in rng.permutation([aims[n % len(aims)] for n in range(arguments.kills)])]
    for number in itertools.count():
        if dealt >= len(targets):
            return account
        ordeal = Ordeal(place, runs, f"{place.storage}-{number}", rng, account)
        dealt += ordeal.run(targets[dealt:], arguments.every, arguments.generations)
    raise AssertionError("one has to count on for ever")


def show(account: Account) -> str:
    kills = ", ".join(f"{count} of {target}" for target, count in sorted(account.kills.items()))
    ends = "".join(f"\n  {count} x exit code {words}" for words, count in account.ends.most_common())
    return f"{account.storage}: {account.studies} studies, {account.starts} starts; kills: {kills}{ends}"


def summarise(accounts: Sequence[Account]) -> str:
    head = ("storage", "kills", "COMPLETE", "lost", "hyp.yaml reads", "unreadable", "not the best", "behind s (most)")
    more = ("orphans", "gone s (most)", "generations", "asked", "failed", "hyps queued again")
    rows = [
        (
            *(account.storage, account.kills.total(), account.complete, account.lost, account.reads),
            *(account.unreadable, account.wrong, round(account.behind_s, 1), account.orphans, round(account.gone_s, 1)),
            *(account.delivered, account.asked, account.failed, account.retried),
        )
        for account in accounts
    ]
    return table((*head, *more), rows)


if __name__ == "__main__":
    sys.exit(main())
