"""Compares searches by how many workers share them: regret at equal trials on LCBench, in virtual time.

A worker asks for a trial when it is free, trains it, reports, and tells; what happens comes in the order of virtual
time over all workers, so that sampler and pruner see exactly what had been reported by then. A training takes as long
as the surrogate says that it does (a twentieth to twenty times the usual), each of its epochs alike; asking takes none.

An arm without a pruner goes on for so many trials, trained in full; one with a pruner ("+") for so many full trainings'
worth of epochs. A run is judged as in `search.sampler` and `search.together`: by the true fitness of the trial with the
best noisy score of all that have ended, as normalised regret. "trained twice" counts hyps that equal another one to six
digits without being meant to, as the base under further seeds is.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna import Study, Trial
from optuna.trial import TrialState

from benchmarks.report import header, print_now, table, without_paths
from benchmarks.search.lcbench import EPOCHS, LCBench
from benchmarks.search.problem import Problem
from benchmarks.search.results import Found, Results, Run, interval, run_all
from benchmarks.search.sampler import ARMS, QUICK_SEEDS, lcbench, new_study
from benchmarks.search.together import PAIRS, Pair, noisy_curve, regret_at
from search_spaces import Hyp, Value
from studies import suggest
from studies.trials import is_base, trials_of

FULL: Mapping[str, Pair] = {name: Pair(arm) for name, arm in ARMS.items()}  # Optuna's tpe has its constant liar on
PRUNED: Mapping[str, Pair] = {name: pair for name, pair in PAIRS.items() if "+" in name}
USUAL = ("modern", "tpe", "random", "modern + evolve")
WORKERS = (1, 4, 16, 64)
TRIALS, TRAININGS = (30, 100, 300), (10, 30, 60)
SEEDS = 10
DIGITS = 6


@dataclass
class Training:
    """One on a virtual worker: what it reports step after step, and how long a step takes."""

    trial: Trial
    hyp: Hyp
    seen: Sequence[float]
    pace: float
    done: int = 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.parallel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join((*FULL, *PRUNED))
    parser.add_argument("--lcbench", type=Path, metavar="FOLDER", required=True, help="the surrogate")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep what was run there, and go on from there")
    parser.add_argument("--arms", default=",".join(USUAL), help=f"default: %(default)s; known: {known}")
    parser.add_argument("--workers", default=",".join(map(str, WORKERS)), help="default: %(default)s")
    parser.add_argument("--again", action="store_true", help="forget these arms' results first")
    parser.add_argument("--development", action="store_true", help="the other half of the tasks: for tuning")
    parser.add_argument("--most", type=int, metavar="N", help="the first N tasks only")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds")
    parser.add_argument("--trials", type=int, default=max(TRIALS), metavar="N", help="default: %(default)s")
    parser.add_argument("--trainings", type=int, default=max(TRAININGS), metavar="N", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    seeds = range(QUICK_SEEDS if arguments.quick else arguments.seeds)
    arms = [arm.strip() for arm in arguments.arms.split(",")]
    if unknown := [arm for arm in arms if arm not in FULL and arm not in PRUNED]:
        raise SystemExit(f"unknown arm {unknown[0]!r}; known: {', '.join((*FULL, *PRUNED))}")
    counts = [int(word) for word in arguments.workers.split(",")]
    results = Results(arguments.results)
    for name in [shared(arm, n) for arm in arms for n in counts] if arguments.again else ():
        results.forget(name)
    scales = arguments.results / "lcbench-scales.json" if arguments.results else None
    world = lcbench(arguments.lcbench, scales)
    world.measure()
    tasks = (world.development if arguments.development else world.final)[: arguments.most]
    lengths = {arm: arguments.trials if arm in FULL else arguments.trainings for arm in arms}
    print_now(header(__file__, without_paths(argv), seeds))
    for arm in arms:
        runs = {n: [Run(shared(arm, n), task, seed, lengths[arm]) for task in tasks for seed in seeds] for n in counts}
        work = functools.partial(search, arguments.lcbench, scales)
        run_all([run for one in runs.values() for run in one], work, results, arguments.processes)
    for names in ([arm for arm in arms if arm in FULL], [arm for arm in arms if arm in PRUNED]):
        if names:
            print_now("\n" + show(names, counts, tasks, seeds, lengths[names[0]], results))
    return 0


def shared(arm: str, workers: int) -> str:
    """What an arm is called where so many workers share it."""
    return f"{arm} x{workers}"


def search(folder: Path, scales: Path | None, run: Run) -> Found:
    arm, workers = run.arm.rsplit(" x", 1)
    return compete(lcbench(folder, scales), run.problem, arm, int(workers), run.seed, run.length)


def compete(world: LCBench, task: str, arm: str, workers: int, seed: int, length: int) -> Found:
    """Let the workers search for so many trials, or trainings' worth of epochs where the arm has a pruner.

    "curve" holds [trials or epochs reported, regret] at the end of each COMPLETE trial, "times" the virtual time of
    each; "busy" is how many workers were at work on average, "ms" what asking costs in real time.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pair, steps = (FULL[arm], 1) if arm in FULL else (PRUNED[arm], EPOCHS)
    problem = world.problem(task)
    study = new_study(problem.space, pair.arm, seed, pruner=pair.pruner())
    budget, begun, reported, worked = length * steps, 0, 0, 0.0
    best, asked, curve, times = -math.inf, 0.0, list[tuple[int, float]](), list[float]()
    ends: list[tuple[float, int, Training]] = []  # of the steps that are being trained; numbers part what is equal

    def ask() -> Training:
        nonlocal asked
        asked -= time.perf_counter()
        trial = study.ask()
        hyp = suggest(trial, problem.space)
        asked += time.perf_counter()
        seen = _seen(world, task, problem, hyp, steps, seed, trial.number)
        return Training(trial, hyp, seen, float(world.seconds([hyp], task)[0]) / steps)

    def begin(training: Training, now: float) -> None:
        nonlocal begun, worked
        begun += 1
        worked += training.pace
        heapq.heappush(ends, (now + training.pace, training.trial.number, training))

    for _ in range(min(workers, budget)):
        begin(ask(), 0.0)
    while ends:
        now, _, training = heapq.heappop(ends)
        trial, score = training.trial, training.seen[training.done]
        training.done += 1
        reported += 1
        trial.report(score, training.done)
        if training.done < steps:
            if begun < budget and not trial.should_prune():
                begin(training, now)
                continue
            study.tell(trial, state=TrialState.PRUNED)  # or the budget ran out
        else:
            study.tell(trial, score)
            regret = problem.regret(problem.fitness(training.hyp))
            curve.append((reported, round(regret if score > best else curve[-1][1], 5)))
            times.append(now)
            best = max(best, score)
        if begun < budget:
            begin(ask(), now)
    return {
        "curve": curve,
        "times": [float(f"{moment:.6g}") for moment in times],
        "time": now,
        "busy": worked / now,
        "trials": len(study.trials),
        "twice": trained_twice(study),
        "ms": 1000 * asked / len(study.trials),
    }


def _seen(world: LCBench, task: str, problem: Problem, hyp: Hyp, steps: int, seed: int, number: int) -> Sequence[float]:
    """What is reported after each step: the noisy curve, or its end alone with the noise of `search.sampler`."""
    if steps == 1:
        return [problem.noisy(hyp, seed, number)]
    return [float(value) for value in noisy_curve(world, task, hyp, problem.noise, seed, number)]


def trained_twice(study: Study) -> int:
    """How many trials have the hyp of another one, to DIGITS significant digits, without being meant to."""
    bases, others = set[tuple[Value, ...]](), Counter[tuple[Value, ...]]()
    for trial in trials_of(study):
        hyp = tuple(_rounded(value) for _, value in sorted(trial.params.items()))
        if is_base(trial):
            bases.add(hyp)
        else:
            others[hyp] += 1
    return sum(count - (hyp not in bases) for hyp, count in others.items())


def _rounded(value: Value) -> Value:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def show(
    arms: Sequence[str],
    counts: Sequence[int],
    tasks: Sequence[str],
    seeds: Sequence[int],
    length: int,
    results: Results,
) -> str:
    """A row an arm and number of workers: its mean regret at each budget, and how far it is behind the fewest workers.

    "busy" is the speed-up of training as such. "speed-up" is that of the search: how much sooner than the fewest
    workers these come to the mean regret that those have after a third of their budget; "-" where they do not.
    """
    steps, at, unit = (1, TRIALS, "trials") if arms[0] in FULL else (EPOCHS, TRAININGS, "trainings")
    budgets = [n for n in at if n <= length] or [length]
    rows = []
    for arm in arms:
        first: Sequence[Found] = ()
        for workers in counts:
            found = [results[Run(shared(arm, workers), task, seed, length)] for task in tasks for seed in seeds]
            first = first or found
            behind = [
                regret_at(one, length * steps) - regret_at(other, length * steps)
                for one, other in zip(found, first, strict=True)
            ]
            rows.append((
                arm,
                workers,
                *(interval([regret_at(one, n * steps) for one in found]) for n in budgets),
                interval(behind, sign=True) if found is not first else "",
                f"{_mean(found, 'busy'):.1f}",
                _speed_up(found, first, length * steps / 3),
                f"{_mean(found, 'trials'):.0f}",
                sum(one["twice"] for one in found),
                f"{_mean(found, 'ms'):.1f}",
            ))  # fmt: skip
    head = (
        "arm", "workers", *(f"{n} {unit}" for n in budgets), f"{length}, minus {counts[0]}, paired", "busy", "speed-up",
        "trials", "trained twice", "ms an ask",
    )  # fmt: skip
    title = f"{len(tasks)} tasks, {len(seeds)} seeds each; regret, mean ± half of the 95 % interval"
    return f"{title}\n{table(head, rows)}"


def _mean(found: Sequence[Found], key: str) -> float:
    return sum(one[key] for one in found) / len(found)


def _speed_up(found: Sequence[Found], first: Sequence[Found], spent: float) -> str:
    """How much sooner `found` has the mean regret that `first` has when so many steps are reported.

    Time is measured in units of how long `first` took for the same task and seed.
    """
    target = sum(regret_at(one, int(spent)) for one in first) / len(first)
    moments = np.geomspace(1e-3, 1, 500)
    reached = [_first_below(target, runs, first, moments) for runs in (first, found)]
    return f"{reached[0] / reached[1]:.1f}" if all(map(math.isfinite, reached)) else "-"


def _first_below(target: float, runs: Sequence[Found], first: Sequence[Found], moments: Sequence[float]) -> float:
    for moment in moments:
        regrets = [_regret_when(one, moment * unit["time"]) for one, unit in zip(runs, first, strict=True)]
        if sum(regrets) / len(regrets) <= target:
            return float(moment)
    return math.inf


def _regret_when(found: Found, moment: float) -> float:
    ended = int(np.searchsorted(found["times"], moment, side="right"))
    return float(found["curve"][max(ended - 1, 0)][1])


if __name__ == "__main__":
    sys.exit(main())
