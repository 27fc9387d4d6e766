"""Compares samplers with their pruners at equal epochs, on LCBench's learning curves with noise.

Budgets are epochs, counted in full trainings of 52. A run is judged by the true last fitness of the COMPLETE trial with
the best noisy score, as normalised regret: 0 is the best known, 1 the median of random hyps. A trial's noise has two
parts: an offset that its training seed adds to the whole curve (0.9 of the variance) and one for every epoch (0.1);
together they have the standard deviation of the sampler benchmark. What was run is kept in --results.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna import pruners
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from benchmarks.report import header, print_now, table, without_paths
from benchmarks.search.lcbench import EPOCHS, LCBench
from benchmarks.search.ours import OURS
from benchmarks.search.results import Found, Results, Run, interval, run_all
from benchmarks.search.rivals import RIVALS, Arm
from benchmarks.search.sampler import QUICK_SEEDS, SEEDS, lcbench, new_study, own_choice
from search_spaces import Hyp
from studies import build_pruner, suggest

AT = (10, 30, 60)  # full trainings
CLASSIC, CLASSIC_TRAININGS = "yolo", 300
OFFSET_SHARE = 0.9  # of the variance


@dataclass(frozen=True)
class Pair:
    """A sampler's arm and how its pruner is made; both go on for so many full trainings' worth of epochs."""

    arm: Arm
    pruner: Callable[[], BasePruner] = pruners.NopPruner
    trainings: int = max(AT)


def _ours() -> BasePruner:
    return build_pruner("evolve", epochs=EPOCHS)


def _sha() -> BasePruner:
    return pruners.SuccessiveHalvingPruner(min_resource=5, reduction_factor=2)


def _hyperband() -> BasePruner:
    return pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3)


OUR_PAIRS = {f"{name} + evolve": Pair(arm, _ours) for name, arm in OURS.items()}
PAIRS: Mapping[str, Pair] = {
    **OUR_PAIRS,
    "modern": Pair(OURS["modern"]),
    CLASSIC: Pair(RIVALS["yolo"], trainings=CLASSIC_TRAININGS),
    "ultralytics": Pair(RIVALS["ultralytics"]),
    "tpe + sha": Pair(RIVALS["tpe"], _sha),
    "tpe + hyperband": Pair(RIVALS["tpe"], _hyperband),
    "ultralytics + sha": Pair(RIVALS["ultralytics"], _sha),
}
USUAL = ("modern + evolve", *(name for name in PAIRS if name not in OUR_PAIRS))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.together", description=__doc__)
    parser.add_argument("--lcbench", type=Path, metavar="FOLDER", required=True, help="the surrogate")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep what was run there, and go on from there")
    parser.add_argument("--arms", help=f"separated by commas; default: {', '.join(USUAL)}; known: {', '.join(PAIRS)}")
    parser.add_argument("--again", action="store_true", help="forget these arms' results first")
    parser.add_argument("--development", action="store_true", help="the other half of the tasks: for tuning")
    parser.add_argument("--most", type=int, metavar="N", help="the first N tasks only")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds")
    parser.add_argument(
        "--trainings", type=int, metavar="N", default=CLASSIC_TRAININGS, help="at most (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    seeds = range(QUICK_SEEDS if arguments.quick else arguments.seeds)
    arms = [arm.strip() for arm in arguments.arms.split(",")] if arguments.arms else list(USUAL)
    if unknown := [arm for arm in arms if arm not in PAIRS]:
        raise SystemExit(f"unknown arm {unknown[0]!r}; known: {', '.join(PAIRS)}")
    results = Results(arguments.results)
    for arm in arms if arguments.again else ():
        results.forget(arm)
    scales = arguments.results / "lcbench-scales.json" if arguments.results else None
    found = lcbench(arguments.lcbench, scales)
    found.measure()
    tasks = (found.development if arguments.development else found.final)[: arguments.most]
    runs = [Run(arm, task, seed, _length(arm, arguments.trainings)) for arm in arms for task in tasks for seed in seeds]
    print_now(header(__file__, without_paths(argv), seeds))
    work = functools.partial(search, arguments.lcbench, scales)
    run_all(runs, work, results, arguments.processes)
    print_now("\n" + show(arms, tasks, seeds, results, arguments.trainings))
    return 0


def search(folder: Path, scales: Path | None, run: Run) -> Found:
    return compete(lcbench(folder, scales), run.problem, PAIRS[run.arm], run.seed, run.length)


def _length(arm: str, most: int) -> int:
    return min(PAIRS[arm].trainings, most)


def compete(world: LCBench, task: str, pair: Pair, seed: int, trainings: int) -> Found:
    """Let the pair search until the epochs are used up.

    "curve" holds [epochs used, regret] at the end of each COMPLETE trial, "chosen" the regret of its own choice.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem, budget, began = world.problem(task), trainings * EPOCHS, time.perf_counter()
    study = new_study(problem.space, pair.arm, seed, pruner=pair.pruner())
    used, best, curve, true = 0, -math.inf, [], {}
    while used < budget:
        trial = study.ask()
        hyp = suggest(trial, problem.space)
        seen = noisy_curve(world, task, hyp, problem.noise, seed, trial.number)
        for epoch in range(1, min(EPOCHS, budget - used) + 1):
            trial.report(seen[epoch - 1], epoch)
            if epoch < EPOCHS and trial.should_prune():
                break
        used += epoch
        if epoch < EPOCHS:
            study.tell(trial, state=TrialState.PRUNED)  # or the budget ran out
            continue
        true[trial.number] = problem.regret(problem.fitness(hyp))
        study.tell(trial, seen[-1])
        curve.append([used, round(true[trial.number] if seen[-1] > best else curve[-1][1], 5)])
        best = max(best, seen[-1])
    choice = own_choice(study, problem.space) if pair.arm.chooses else None
    return {
        "curve": curve,
        "chosen": None if choice is None else true[choice],
        "trials": len(study.trials),
        "ms": 1000 * (time.perf_counter() - began) / len(study.trials),
    }


def noisy_curve(world: LCBench, task: str, hyp: Hyp, noise: float, seed: int, number: int) -> NDArray[np.float64]:
    """What trial `number` of the run with this seed sees after each epoch [52]: the same deviations for every arm."""
    offset, *own = np.random.default_rng([seed, number]).standard_normal(1 + EPOCHS)
    deviation = math.sqrt(OFFSET_SHARE) * offset + math.sqrt(1 - OFFSET_SHARE) * np.array(own)
    return world.curves([hyp], task)[0] + noise * deviation


def regret_at(found: Found, epochs: int) -> float:
    """The regret when so many epochs were used; of what had not completed one trial by then that of its first."""
    reached = [regret for used, regret in found["curve"] if used <= epochs]
    return float(reached[-1] if reached else found["curve"][0][1])


def show(arms: Sequence[str], tasks: Sequence[str], seeds: Sequence[int], results: Results, most: int) -> str:
    """A row an arm: its mean regret over tasks x seeds at each budget; then what the first needs to equal the classic.

    No arm went on for longer than `most` trainings.
    """
    runs = {
        arm: [results[Run(arm, task, seed, _length(arm, most))] for task in tasks for seed in seeds] for arm in arms
    }
    budgets = [n for n in (*AT, CLASSIC_TRAININGS) if n <= most] or [most]
    last = min(max(AT), most)
    rows = []
    for arm, found in runs.items():
        ahead = [
            regret_at(one, last * EPOCHS) - regret_at(first, last * EPOCHS)
            for one, first in zip(found, runs[arms[0]], strict=True)
        ]
        chosen = [one["chosen"] for one in found if one["chosen"] is not None]
        rows.append((
            arm,
            *(_budget_cell(found, n) if n <= _length(arm, most) else "" for n in budgets),
            interval(chosen) if len(chosen) == len(found) else "",
            interval(ahead, sign=True) if arm != arms[0] else "",
            f"{sum(one['trials'] for one in found) / len(found):.0f}",
            f"{sum(one['ms'] for one in found) / len(found):.1f}",
        ))  # fmt: skip
    head = (
        "arm", *(f"{n} trainings" for n in budgets), "last, own choice", f"{last}, minus the first, paired", "trials",
        "ms a trial",
    )  # fmt: skip
    title = f"{len(tasks)} tasks, {len(seeds)} seeds each; regret, mean ± half of the 95 % interval"
    return "\n".join([title, table(head, rows), "", *_equalled(runs, arms[0], most)])


def _budget_cell(found: Sequence[Found], trainings: int) -> str:
    return interval([regret_at(one, trainings * EPOCHS) for one in found])


def _equalled(runs: Mapping[str, Sequence[Found]], ours: str, most: int) -> list[str]:
    """How many epochs `ours` needs to come down to the classic rule's mean regret at its end."""
    if CLASSIC not in runs or ours == CLASSIC:
        return []
    trainings = min(CLASSIC_TRAININGS, most)
    target = _mean_regret(runs[CLASSIC], trainings * EPOCHS)
    said = f"{CLASSIC} ends at {target:.3f} after {trainings} full trainings ({trainings * EPOCHS} epochs)"
    for epochs in range(EPOCHS, _length(ours, most) * EPOCHS + 1):
        if _mean_regret(runs[ours], epochs) <= target:
            return [f"{said}; {ours} is there after {epochs} epochs, 1/{trainings * EPOCHS / epochs:.1f} of them"]
    return [f"{said}; {ours} does not come there"]


def _mean_regret(found: Sequence[Found], epochs: int) -> float:
    return sum(regret_at(one, epochs) for one in found) / len(found)


if __name__ == "__main__":
    sys.exit(main())
