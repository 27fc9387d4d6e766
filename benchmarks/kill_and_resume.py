"""Kills a study at random moments, its parent, its worker or both, and checks after each that nothing was lost.

After every kill -9: no process of the study is left behind; best/hyp.yaml parses and is the best COMPLETE trial of the
storage, which is opened read-only; every COMPLETE trial ever seen is there, the same in every bit; and the study goes
on. A killed worker must leave its parent at work and cost one trial at most (before the first trial, while the data is
being read, the parent may end with one sentence and exit code 1). In the end the study runs to its last generation and
its totals are checked. Where only parents were killed (`--only parent`), the same study is run again without a kill and
has to be the same, hyp for hyp.

A moment is drawn evenly from the time that `--trials` trials take, as measured so far (before one is COMPLETE: 10 s,
and 10 s more after each kill). A fifth of them (`--starting`) are counted from the process' start, the others from its
first write to the run folder, or from the last kill where that spared the parent. Half of all (`--aimed`) then wait for
the next write and fall up to 30 ms after it, where files and storage are being changed.

A trial is first stored, then written to best/hyp.yaml. A kill between the two leaves a file that is one trial behind
("one behind" below) until the next start makes it whole; anything else that is not the best trial is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from numpy.random import Generator
from optuna.trial import FrozenTrial, TrialState

from benchmarks.report import header, print_now, table
from benchmarks.small_study import SmallStudy, add_settings, runs_folder, settings_of, wait_for
from benchmarks.stored import StoredStudy, best_trainings, first_difference
from studies.trials import WORKER, counts

TARGETS = ("parent", "worker", "both")
HYP_MAY_BE = ("best", "one behind", "none yet")
ENDLESS = 1_000_000  # generations: the study must not end before its last kill
UNMEASURED_S = 10.0
AFTER_A_WRITE_S = 0.03
GONE_WITHIN_S = 3.0
PATIENCE_S = 120.0  # for what takes as long as it takes on a loaded machine: torch is loaded, a trial ends


@dataclass
class Kill:
    """One kill: when, of what, and what was found after it."""

    number: int
    target: str
    moment: str = ""
    at: str = ""
    finished: int = 0
    hyp: str = ""
    gone_s: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Moments:
    """Where kills may fall: see the top of this file."""

    trials: float
    starting: float
    aimed: float


class Ordeal:
    """One study and its kills."""

    def __init__(self, study: SmallStudy, rng: Generator, moments: Moments) -> None:
        self.study = study
        self.rng = rng
        self.moments = moments
        self.parent: subprocess.Popen[bytes] | None = None
        self.seen: dict[int, tuple[object, ...]] = {}  # every COMPLETE trial that was ever there
        self.workers_killed = 0
        self.longest_s = UNMEASURED_S

    def kill(self, number: int, target: str) -> Kill:
        """Let the study work for a while, kill, look at what is left."""
        kill = Kill(number, target)
        parent = self._wait_for_moment(kill)
        if target == "worker":
            wait_for(lambda: self.study.worker_of(parent) or parent.poll() is not None, PATIENCE_S)
        if parent.poll() is not None:
            kill.problems.append(f"ended by itself with exit code {parent.returncode}: {self.study.last_words()}")
            self.parent = None
            return kill
        worker = self.study.worker_of(parent)
        if target == "worker":
            self._kill_worker(kill, parent, worker)
        else:
            self._kill_parent(kill, parent, worker if target == "both" else None)
        self._look(kill)
        return kill

    def _wait_for_moment(self, kill: Kill) -> subprocess.Popen[bytes]:
        """Start the study if need be, and let it work until the kill is due."""
        starts, aims, delay, after = self.rng.random(4)
        delay_s, after_s = delay * self.longest_s, after * AFTER_A_WRITE_S
        kill.moment = f"{delay_s:.1f} s"
        if self.parent is None:
            self.parent = self.study.start(ENDLESS)
            if starts < self.moments.starting:
                kill.moment += " from the start"
            else:
                wait_for_write(self.study.folder, self.parent)
        time.sleep(delay_s)
        if aims < self.moments.aimed:
            wait_for_write(self.study.folder, self.parent)
            time.sleep(after_s)
            kill.moment += f", {after_s * 1000:.0f} ms after a write"
        return self.parent

    def _kill_parent(self, kill: Kill, parent: subprocess.Popen[bytes], worker: int | None) -> None:
        victims = [parent.pid] if worker is None else self.rng.permutation([parent.pid, worker]).tolist()
        self.workers_killed += victims[0] == worker  # the parent may live long enough to note it
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        parent.wait()
        self.parent = None
        left = wait_for(lambda: not self.study.processes(), GONE_WITHIN_S)
        kill.gone_s = time.monotonic() - killed
        if not left:
            kill.problems.append(f"processes {self.study.processes()} are left {GONE_WITHIN_S:g} s later")
        kill.at = doing(self.study.read(), parent.pid)

    def _kill_worker(self, kill: Kill, parent: subprocess.Popen[bytes], worker: int | None) -> None:
        """Kill the worker alone; the parent has to begin another one, or to say why it cannot."""
        if worker is None:
            kill.problems.append("no worker came")
            return
        self.workers_killed += 1
        before = self.study.read()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        gone = wait_for(lambda: worker not in self.study.processes(), GONE_WITHIN_S)
        kill.gone_s = time.monotonic() - killed
        if not gone:
            kill.problems.append(f"the worker is still there {GONE_WITHIN_S:g} s later")
        wait_for(lambda: self.study.worker_of(parent) not in (None, worker) or parent.poll() is not None, PATIENCE_S)
        kill.at = cost_of(before, self.study.read())
        if parent.poll() is not None:
            self.parent = None
            kill.at = f"start; exit code {parent.returncode}"
            if (
                not doing(before, parent.pid).startswith("start")
                or parent.returncode != 1
                or "evolve: error:" not in self.study.last_words(1)
            ):
                kill.problems.append(f"the parent ended, exit code {parent.returncode}: {self.study.last_words()}")

    def _look(self, kill: Kill) -> None:
        """Check the storage and best/hyp.yaml."""
        stored = self.study.read()
        kill.hyp = judge_hyp(self.study.paths.best_hyp, stored)
        if self.parent is not None and kill.hyp not in ("best", "none yet"):  # it may be between the two: a moment
            time.sleep(1)
            stored = self.study.read()
            kill.hyp = judge_hyp(self.study.paths.best_hyp, stored)
        if kill.hyp not in HYP_MAY_BE:
            kill.problems.append(kill.hyp)
        kill.problems += self._compare(stored)
        kill.finished = 0 if stored is None else len(stored.by_generation)
        took_s = [] if stored is None else [seconds(trial) for trial in stored.complete.values()]
        self.longest_s = self.moments.trials * statistics.median(took_s) if took_s else self.longest_s + UNMEASURED_S

    def _compare(self, stored: StoredStudy | None) -> list[str]:
        """What has become of the COMPLETE trials seen before; remembers those that are new."""
        now = {} if stored is None else {number: facts(trial) for number, trial in stored.complete.items()}
        problems = [f"trial {number} is lost" for number in self.seen.keys() - now.keys()]
        problems += [f"trial {n} has changed" for n in self.seen.keys() & now.keys() if self.seen[n] != now[n]]
        if stored is not None and (failed := stored.count(TrialState.FAIL)) > self.workers_killed:
            problems.append(f"{failed} trials failed, but {self.workers_killed} workers were killed")
        self.seen |= now
        return problems

    def finish(self, more: int) -> tuple[StoredStudy | None, list[str]]:
        """Let the study end by itself, after some generations more; the study then, and all that is wrong."""
        if self.parent is not None:
            self.parent.kill()
            self.parent.wait()
            wait_for(lambda: not self.study.processes(), GONE_WITHIN_S)
        before = self.study.read()
        total = (0 if before is None else len(before.by_generation)) + more
        try:
            self.study.run(total)
        except RuntimeError as error:
            return before, [str(error)]
        stored = self.study.read()
        problems = self._compare(stored)
        if (hyp := judge_hyp(self.study.paths.best_hyp, stored)) != "best":
            problems.append(f"in the end: {hyp}")
        if stored is None or sorted(stored.by_generation) != list(range(total)):
            problems.append(f"the generations are not 1 to {total}")
        if (rows := len(self.study.paths.table.read_text().splitlines()) - 1) != total:
            problems.append(f"evolve.csv has {rows} rows for {total} generations")
        if not wait_for(lambda: not self.study.processes(), GONE_WITHIN_S):
            problems.append(f"processes {self.study.processes()} are left in the end")
        return stored, problems


def seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


def facts(trial: FrozenTrial) -> tuple[object, ...]:
    return (trial.params, trial.value, trial.intermediate_values, trial.user_attrs, trial.datetime_complete)


def doing(stored: StoredStudy | None, parent: int) -> str:
    """What that process was busy with when it was killed."""
    if stored is None:
        return "start, no study yet"
    own = [trial for trial in stored.trials if trial.user_attrs.get(WORKER, {}).get("pid") == parent]
    if not own:
        return "start"
    if own[-1].state != TrialState.RUNNING:
        return f"trial {own[-1].number}, just {own[-1].state.name}"
    return f"trial {own[-1].number}, after epoch {len(own[-1].intermediate_values)}"


def cost_of(before: StoredStudy | None, after: StoredStudy | None) -> str:
    """What a killed worker cost: the trials that have failed since."""
    known = set() if before is None else {trial.number for trial in before.trials if trial.state == TrialState.FAIL}
    found = () if after is None else after.trials
    failed = [str(t.number) for t in found if t.state == TrialState.FAIL and counts(t) and t.number not in known]
    return f"trial {', '.join(failed)}, which failed" if failed else "between trials, cost nothing"


def judge_hyp(path: Path, stored: StoredStudy | None) -> str:
    """'best', 'one behind' (the best but for the trial that was stored last), 'none yet', or what is wrong."""
    complete = {} if stored is None else stored.complete
    try:
        hyp = yaml.safe_load(path.read_text()) if path.exists() else None
    except yaml.YAMLError as error:
        return f"best/hyp.yaml does not parse: {error}"
    best = best_trainings(complete)
    if stored is None or not best:
        return "none yet" if hyp is None else "best/hyp.yaml is there before any trial is COMPLETE"
    if hyp == stored.whole_hyp(best[0]):
        return "best"
    newest = max(complete.values(), key=lambda trial: (trial.datetime_complete, trial.number)).number
    before = best_trainings({number: trial for number, trial in complete.items() if number != newest})
    if hyp == (stored.whole_hyp(before[0]) if before else None):
        return "one behind"
    return f"best/hyp.yaml is not trial {best[0].number}"


def wait_for_write(folder: Path, parent: subprocess.Popen[bytes]) -> None:
    """Until something in the run folder is written, or the parent ends."""
    before, deadline = last_write(folder), time.monotonic() + PATIENCE_S
    while last_write(folder) == before and parent.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def last_write(folder: Path) -> tuple[int, ...]:
    found = []
    for name in ("study.db", "study.db-wal", "evolve.csv", "best", "trials"):
        with contextlib.suppress(OSError):
            found.append((folder / name).stat().st_mtime_ns)
    return tuple(found)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kill_and_resume",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--only", choices=TARGETS, help="what is killed (default: each in turn, in random order)")
    parser.add_argument("--trials", type=float, default=4.0, help="default: %(default)s")
    parser.add_argument("--starting", type=float, default=0.2, metavar="SHARE", help="default: %(default)s")
    parser.add_argument("--aimed", type=float, default=0.5, metavar="SHARE", help="default: %(default)s")
    parser.add_argument("--finish", type=int, default=3, help="generations after the last kill (default: %(default)s)")
    parser.add_argument("--kill-seed", type=int, default=0, help="of what is killed when (default: %(default)s)")
    add_settings(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    print_now(header(__file__, argv, [arguments.kill_seed]) + "\n")
    rng = np.random.default_rng(arguments.kill_seed)
    targets = [arguments.only] * arguments.kills if arguments.only else draw_targets(arguments.kills, rng)
    with runs_folder(arguments.runs) as runs, contextlib.ExitStack() as stack:
        study = SmallStudy(runs, "killed", settings_of(arguments))
        stack.callback(study.close)
        ordeal = Ordeal(study, rng, Moments(arguments.trials, arguments.starting, arguments.aimed))
        kills = []
        for number, target in enumerate(targets, 1):
            kills.append(ordeal.kill(number, target))
            sys.stderr.write(f"{show(kills[-1:]).splitlines()[-1]}\n")  # the whole table comes in the end
        stored, problems = ordeal.finish(arguments.finish)
        print_now(show(kills) + "\n")
        print_now(summarise(kills, stored))
        if arguments.only == "parent" and stored is not None and not problems:
            straight = SmallStudy(runs, "straight", settings_of(arguments))
            stack.callback(straight.close)
            problems += compare_with_straight(stored, straight)
    problems += [f"kill {kill.number}: {problem}" for kill in kills for problem in kill.problems]
    for problem in problems:
        print_now(f"problem: {problem}")
    print_now("FAIL" if problems else "PASS")
    return 1 if problems else 0


def draw_targets(kills: int, rng: Generator) -> list[str]:
    """Each target equally often, in random order."""
    return [str(target) for target in rng.permutation([TARGETS[n % len(TARGETS)] for n in range(kills)])]


def compare_with_straight(stored: StoredStudy, straight: SmallStudy) -> list[str]:
    total = len(stored.by_generation)
    straight.run(total)
    never_killed = straight.read()
    assert never_killed is not None
    if (difference := first_difference(stored, never_killed)) is not None:
        return [f"not the study that was never killed: {difference}"]
    print_now(
        f"equal to the study that was never killed in all {total} generations: hyp, seed, state, fitness by epoch"
    )
    return []


def show(kills: Sequence[Kill]) -> str:
    head = ("kill", "of", "moment", "it was at", "finished", "hyp.yaml", "gone after ms", "problems")
    rows = [
        (k.number, k.target, k.moment, k.at, k.finished, k.hyp, round(k.gone_s * 1000), len(k.problems)) for k in kills
    ]
    return table(head, rows)


def summarise(kills: Sequence[Kill], stored: StoredStudy | None) -> str:
    judged = ", ".join(f"{sum(kill.hyp == word for kill in kills)} {word}" for word in HYP_MAY_BE)
    if stored is None:
        return f"{len(kills)} kills; hyp.yaml: {judged}; no study came of it"
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    ended = ", ".join(f"{stored.count(state)} {state.name}" for state in states)
    lost = len(stored.trials) - len(stored.by_generation)
    return (
        f"{len(kills)} kills; hyp.yaml: {judged}; {len(stored.by_generation)} generations: {ended}; "
        f"{lost} interrupted trials were done again"
    )


if __name__ == "__main__":
    sys.exit(main())
