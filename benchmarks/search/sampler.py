"""Compares samplers: equal numbers of full trainings on LCBench and BBOB, against rivals and random search.

Every arm tries the problem's default first. A run is judged by the true fitness of the trial with the best noisy score,
after 30, 100 and 300 trials, as normalised regret: 0 is the best known, 1 the median of random hyps. Where an arm has a
choice of its own (its highest smoothed score) that is shown beside it. What was run is kept in --results.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import optuna
from optuna import Study

from benchmarks.report import header, print_now, table, without_paths
from benchmarks.search import bbob
from benchmarks.search.lcbench import LCBench
from benchmarks.search.ours import OURS
from benchmarks.search.problem import Problem
from benchmarks.search.results import Found, Results, Run, interval, run_all
from benchmarks.search.rivals import RIVALS, Arm
from search_spaces import Space
from studies import suggest
from studies.trials import BASE

ARMS = {**OURS, **RIVALS}
USUAL = ("modern", *RIVALS)
FAMILIES = ("lcbench", *(f"bbob {noise}" for noise in bbob.NOISES))
AT = (30, 100, 300)
SEEDS, QUICK_SEEDS = 10, 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.sampler", description=__doc__)
    parser.add_argument("--lcbench", type=Path, metavar="FOLDER", help="the surrogate; without it, BBOB alone")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep what was run there, and go on from there")
    parser.add_argument("--arms", default=",".join(USUAL), help="default: %(default)s; known: " + ",".join(ARMS))
    parser.add_argument("--again", action="store_true", help="forget these arms' results first")
    parser.add_argument("--problems", default=",".join(FAMILIES), help="default: %(default)s")
    parser.add_argument("--development", action="store_true", help="LCBench's other half: for tuning, not for judging")
    parser.add_argument("--most", type=int, metavar="N", help="the first N tasks and functions only")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds")
    parser.add_argument("--trials", type=int, default=max(AT), metavar="N", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    seeds = range(QUICK_SEEDS if arguments.quick else arguments.seeds)
    arms = arguments.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise SystemExit(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
    results = Results(arguments.results)
    for arm in arms if arguments.again else ():
        results.forget(arm)
    scales = arguments.results / "lcbench-scales.json" if arguments.results else None
    families = {name: names for name in arguments.problems.split(",") if (names := list(problems_of(name, arguments)))}
    if "lcbench" in families:
        lcbench(arguments.lcbench, scales).measure()  # here once, not in every process
    problems = [problem for names in families.values() for problem in names]
    runs = [run for arm in arms for run in runs_of(arm, problems, seeds, arguments.trials)]
    work = functools.partial(search, arguments.lcbench, scales)
    print_now(header(__file__, without_paths(argv), seeds))
    run_all(runs, work, results, arguments.processes)
    for family, names in families.items():
        print_now("\n" + show(family, arms, names, seeds, arguments.trials, results))
    return 0


def problems_of(family: str, arguments: argparse.Namespace) -> Iterator[str]:
    """The names of a family's problems: 'lcbench 3945', 'bbob 0.03 f1'."""
    if family == "lcbench":
        if arguments.lcbench is not None:
            found = lcbench(arguments.lcbench, None)
            yield from (
                f"lcbench {task}"
                for task in (found.development if arguments.development else found.final)[: arguments.most]
            )
    elif family in FAMILIES:
        yield from (f"{family} f{function}" for function in bbob.FUNCTIONS[: arguments.most])
    else:
        raise SystemExit(f"unknown problems {family!r}; known: {', '.join(FAMILIES)}")


def runs_of(arm: str, problems: Sequence[str], seeds: Sequence[int], trials: int) -> list[Run]:
    return [Run(arm, problem, seed, trials) for problem in problems for seed in seeds[: ARMS[arm].seeds]]


def search(folder: Path | None, scales: Path | None, run: Run) -> Found:
    """Let the arm search: its regret after each trial, that of its own choice at AT, and milliseconds a trial."""
    return compete(build_problem(run.problem, run.seed, folder, scales), ARMS[run.arm], run.seed, run.length)


def compete(problem: Problem, arm: Arm, seed: int, trials: int) -> Found:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = new_study(problem.space, arm, seed)
    best, regret, chosen, true = -float("inf"), [], {}, []
    began = time.perf_counter()
    for number in range(trials):
        trial = study.ask()
        hyp = suggest(trial, problem.space)
        true.append(problem.fitness(hyp))
        score = problem.noisy(hyp, seed, number)
        study.tell(trial, score)
        regret.append(problem.regret(true[-1]) if score > best else regret[-1])
        best = max(best, score)
        if arm.chooses and number + 1 in AT and (choice := own_choice(study, problem.space)) is not None:
            chosen[str(number + 1)] = problem.regret(true[choice])
    ms = 1000 * (time.perf_counter() - began) / trials
    return {"regret": [round(value, 5) for value in regret], "chosen": chosen, "ms": ms}


def new_study(space: Space, arm: Arm, seed: int, **more: object) -> Study:
    """A study in memory whose first trials are the space's defaults."""
    study = optuna.create_study(direction="maximize", sampler=arm.make(space, seed), **more)
    for _ in range(arm.bases):
        study.enqueue_trial({param.name: param.default for param in space.params}, user_attrs={BASE: True})
    return study


def own_choice(study: Study, space: Space) -> int | None:
    """The number of the trial whose hyp has the highest smoothed score; None where there is no such score yet."""
    with suppress(ImportError):
        from studies.scores import smoothed_scores

        scores = smoothed_scores(study, space)
        return max(scores, key=lambda number: (scores[number], -number), default=None)
    return None


def build_problem(name: str, seed: int, folder: Path | None, scales: Path | None) -> Problem:
    """The problem of that name: a task of LCBench, or a function of BBOB whose instances are the seeds."""
    family, *rest = name.split()
    if family == "lcbench":
        assert folder is not None
        return lcbench(folder, scales).problem(rest[0])
    return bbob.problem(int(rest[1].removeprefix("f")), seed + 1, float(rest[0]))


def show(
    family: str, arms: Sequence[str], problems: Sequence[str], seeds: Sequence[int], trials: int, results: Results
) -> str:
    """A row an arm: its mean regret over problems x seeds, and how far it is behind the first arm."""
    at = [n for n in AT if n <= trials] or [trials]
    last = at[-1]
    runs = {
        arm: {(run.problem, run.seed): results[run] for run in runs_of(arm, problems, seeds, trials)} for arm in arms
    }
    rows = []
    for arm, by_cell in runs.items():
        found, first = list(by_cell.values()), runs[arms[0]]
        chosen = [one["chosen"][str(last)] for one in found if str(last) in one["chosen"]]
        both = by_cell.keys() & first.keys()
        behind = [by_cell[cell]["regret"][last - 1] - first[cell]["regret"][last - 1] for cell in both]
        rows.append((
            arm if len(first) <= len(found) else f"{arm}, {ARMS[arm].seeds} seeds",
            *(interval([one["regret"][n - 1] for one in found]) for n in at),
            interval(chosen) if len(chosen) == len(found) else "",
            interval(behind, sign=True) if arm != arms[0] else "",
            f"{sum(one['ms'] for one in found) / len(found):.1f}",
        ))  # fmt: skip
    head = (
        "arm",
        *(f"{n} trials" for n in at),
        f"{last}, own choice",
        f"{last}, minus {arms[0]}, paired",
        "ms a trial",
    )
    title = f"{family}: {len(problems)} problems, {len(seeds)} seeds each; regret, mean ± half of the 95 % interval"
    return f"{title}\n{table(head, rows)}"


@cache
def lcbench(folder: Path, scales: Path | None) -> LCBench:
    """The surrogate, loaded once a process; `scales` is its cache."""
    return LCBench(folder, scales)


if __name__ == "__main__":
    sys.exit(main())
