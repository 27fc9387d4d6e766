"""Would it pay to take up paused trials again? Stopping against promotion, at equal epochs, in simulation.

A rule that stops ends a trial for good. A rule that promotes keeps a checkpoint of it, and takes it up again where it
stands when a slot is free and it ranks. `asha` compares at rungs (Li et al., "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020); the number behind it is eta. Promoting, every trial pauses at every rung; before a
new one is begun, the highest rung is looked for of whose best 1/eta one has not gone on. `evolve` is our own rule;
promoting, one of the last that it has stopped goes on once it would no longer stop it.

Proposals on LCBench's learning curves (with the noise of `search.together`) are those of a sampler. To this a paused
trial is as a pruned one until it goes on, then as if it had never paused, which is more than Optuna could give. On
TaskSet's curves they come in the orders of `search.pruner`. A run is judged by the true end of the COMPLETE trial with
the best noisy one after so many full trainings' worth of epochs: regret is 0 at the best known, 1 at the median.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from optuna import Study, Trial
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from benchmarks.report import header, print_now, table, without_paths
from benchmarks.search.lcbench import EPOCHS, LCBench
from benchmarks.search.ours import OURS
from benchmarks.search.pruner import ORDERS, draw, ends, read_table
from benchmarks.search.results import Found, Results, Run, interval, run_all
from benchmarks.search.rivals import RIVALS
from benchmarks.search.sampler import QUICK_SEEDS, SEEDS, lcbench, new_study
from benchmarks.search.together import noisy_curve, regret_at
from evolve.replay import Curve
from studies import EvolvePruner, suggest
from studies.pruner import AshaPruner, rungs
from studies.trials import is_base, trials_of

AT = (10, 30, 60)  # full trainings
SAMPLERS = {"modern": OURS["modern"], "random": RIVALS["random"]}
WINDOW = 3  # epochs whose mean counts at a rung, as AshaPruner has it
CURVES = 600  # at most, of a TaskSet table
RECONSIDERED = 25  # of those that `evolve` has stopped, the last: it only ever gets harder to please


@dataclass(eq=False)
class Training:
    """A trial, what it sees after each epoch, how good it truly ends, and how far it has come."""

    trial: Trial
    seen: Sequence[float]
    regret: float
    epoch: int = 0

    def at(self, epoch: int) -> float:
        return math.fsum(self.seen[max(epoch - WINDOW, 0) : epoch]) / min(WINDOW, epoch)


Stops = Callable[[Study, Training], bool]
Promotes = Callable[[Study, Sequence[Training], Sequence[Training]], Training | None]


@dataclass(frozen=True)
class Rule:
    """Whether a training stops after an epoch, and which of those that have is to go on (of all, of the paused)."""

    stops: Stops
    promotes: Promotes = lambda _study, _trainings, _paused: None


def build_rule(name: str, epochs: int) -> Rule:
    """'none', 'evolve', 'asha 2', 'asha 3', and each of these but the first with ' promoting' behind it."""
    word, *rest = name.split()
    promoting = rest[-1:] == ["promoting"]
    if word == "none":
        return Rule(_asks(NopPruner()))
    if word == "evolve":
        pruner = EvolvePruner(epochs)
        return Rule(_asks(pruner), functools.partial(_reconsider, pruner)) if promoting else Rule(_asks(pruner))
    eta = int(rest[0])
    if not promoting:
        return Rule(_asks(AshaPruner(epochs, eta=eta)))
    found = rungs(epochs, eta=eta)
    return Rule(functools.partial(_pauses_at, found), functools.partial(_best_of_rung, found, eta))


RULES = ("evolve", "evolve promoting", "asha 2", "asha 2 promoting", "asha 3", "asha 3 promoting", "none")


def _asks(pruner: BasePruner) -> Stops:
    return lambda study, training: pruner.prune(study, trials_of(study)[training.trial.number])


def _pauses_at(found: Sequence[int], study: Study, training: Training) -> bool:
    trial = trials_of(study)[training.trial.number]
    return training.epoch in found and not is_base(trial)


def _best_of_rung(
    found: Sequence[int], eta: int, _study: Study, trainings: Sequence[Training], paused: Sequence[Training]
) -> Training | None:
    for rung in reversed(found):
        reached = [one for one in trainings if one.epoch >= rung]
        best = sorted(reached, key=lambda one: -one.at(rung))[: len(reached) // eta]
        for one in best:
            if one.epoch == rung and one in paused:
                return one
    return None


def _reconsider(
    pruner: BasePruner, study: Study, _trainings: Sequence[Training], paused: Sequence[Training]
) -> Training | None:
    """The furthest of the last that the pruner would not stop now, the best of equals."""
    trials = trials_of(study)
    for one in sorted(paused[-RECONSIDERED:], key=lambda one: (-one.epoch, -one.at(one.epoch))):
        if not pruner.prune(study, trials[one.trial.number]):
            return one
    return None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.promotion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lcbench", type=Path, metavar="FOLDER", help="the surrogate; without it, TaskSet alone")
    parser.add_argument("--taskset", type=Path, metavar="FOLDER", help="tables, as .npz; without it, LCBench alone")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep what was run there, and go on from there")
    parser.add_argument("--rules", default=",".join(RULES), help="default: %(default)s")
    parser.add_argument("--proposals", default=",".join((*SAMPLERS, *(f"{order} order" for order in ORDERS))))
    parser.add_argument("--again", action="store_true", help="forget the results of these first")
    parser.add_argument("--development", action="store_true", help="LCBench's other half of the tasks: for tuning")
    parser.add_argument("--most", type=int, metavar="N", help="the first N tasks and tables only")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds")
    parser.add_argument("--trainings", type=int, default=max(AT), metavar="N", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    seeds = range(QUICK_SEEDS if arguments.quick else arguments.seeds)
    rules = [rule.strip() for rule in arguments.rules.split(",")]
    if unknown := [rule for rule in rules if rule not in RULES]:
        raise SystemExit(f"unknown rule {unknown[0]!r}; known: {', '.join(RULES)}")
    proposals = {name: found for name in arguments.proposals.split(",") if (found := problems_of(name, arguments))}
    results = Results(arguments.results)
    for arm in [arm_of(name, rule) for name in proposals for rule in rules] if arguments.again else ():
        results.forget(arm)
    scales = arguments.results / "lcbench-scales.json" if arguments.results else None
    if proposals.keys() & SAMPLERS:
        lcbench(arguments.lcbench, scales).measure()
    work = functools.partial(search, arguments.lcbench, scales, arguments.taskset)
    print_now(header(__file__, without_paths(argv), seeds))
    for name, problems in proposals.items():
        runs = {
            rule: [
                Run(arm_of(name, rule), problem, seed, arguments.trainings) for problem in problems for seed in seeds
            ]
            for rule in rules
        }
        run_all([run for of_rule in runs.values() for run in of_rule], work, results, arguments.processes)
        found = {rule: [results[run] for run in of_rule] for rule, of_rule in runs.items()}
        print_now(f"\n{name}: {len(problems)} problems, {len(seeds)} seeds each\n{show(found, arguments.trainings)}")
    return 0


def arm_of(proposals: str, rule: str) -> str:
    return f"{proposals} + {rule}"


def problems_of(proposals: str, arguments: argparse.Namespace) -> list[str]:
    """LCBench's tasks for a sampler, the tables' names for an order; none without the data."""
    if proposals in SAMPLERS:
        if arguments.lcbench is None:
            return []
        world = lcbench(arguments.lcbench, None)
        return list((world.development if arguments.development else world.final)[: arguments.most])
    if proposals.removesuffix(" order") not in ORDERS:
        raise SystemExit(f"unknown proposals {proposals!r}; known: {', '.join((*SAMPLERS, *ORDERS))} (and ' order')")
    files = sorted(arguments.taskset.glob("*.npz")) if arguments.taskset else []
    return [file.stem for file in files[: arguments.most]]


def search(folder: Path | None, scales: Path | None, taskset: Path | None, run: Run) -> Found:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    proposals, rule = run.arm.split(" + ")
    if proposals in SAMPLERS:
        assert folder is not None
        world = lcbench(folder, scales)
        study = new_study(world.problem(run.problem).space, SAMPLERS[proposals], run.seed)
        trainings = of_sampler(world, run.problem, study, run.seed)
        return compete(study, trainings, build_rule(rule, EPOCHS), run.length * EPOCHS)
    assert taskset is not None
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0))
    trainings = of_table(taskset / f"{run.problem}.npz", proposals.removesuffix(" order"), study, run.seed)
    first = next(trainings)  # curves of other tables may have other lengths
    epochs = len(first.seen)
    found = compete(study, _chained(first, trainings), build_rule(rule, epochs), run.length * epochs)
    curve = [[used * EPOCHS / epochs, regret] for used, regret in found["curve"]]
    return {**found, "curve": curve}


def of_sampler(world: LCBench, task: str, study: Study, seed: int) -> Iterator[Training]:
    """Whatever the study's sampler asks for."""
    problem = world.problem(task)
    while True:
        trial = study.ask()
        hyp = suggest(trial, problem.space)
        seen = noisy_curve(world, task, hyp, problem.noise, seed, trial.number)
        yield Training(trial, [float(value) for value in seen], problem.regret(problem.fitness(hyp)))


def of_table(file: Path, order: str, study: Study, seed: int) -> Iterator[Training]:
    """The curves of a table in that order, their losses with the sign turned."""
    curves = _table(file)
    best, median = float(ends(curves).min()), float(np.median(ends(curves)))
    for curve in draw(curves, order, np.random.default_rng(seed), CURVES):
        regret = (curve.end - best) / (median - best)
        yield Training(study.ask(), [-curve.fitness[epoch] for epoch in sorted(curve.fitness)], regret)


def compete(study: Study, proposed: Iterator[Training], rule: Rule, budget: int) -> Found:
    """Train until so many epochs are used up, or nothing is left; what may be promoted goes before what is new.

    "curve" holds [epochs used, regret] at the end of each COMPLETE trial.
    """
    used, best, promoted = 0, -math.inf, 0
    curve: list[tuple[int, float]] = []
    trainings: list[Training] = []
    paused: list[Training] = []
    while used < budget:
        training = rule.promotes(study, trainings, paused)
        if training is not None:
            paused.remove(training)
            _take_up(study, training.trial)
            promoted += 1
        elif (training := next(proposed, None)) is not None:
            trainings.append(training)
        else:
            break
        last = len(training.seen)
        while training.epoch < last and used < budget:
            training.epoch += 1
            used += 1
            training.trial.report(training.seen[training.epoch - 1], training.epoch)
            if training.epoch < last and rule.stops(study, training):
                break
        if training.epoch < last:
            study.tell(training.trial, state=TrialState.PRUNED)
            paused.append(training)
            continue
        score = training.seen[-1]
        study.tell(training.trial, score)
        curve.append((used, round(training.regret if score > best else curve[-1][1], 5)))
        best = max(best, score)
    return {"curve": curve, "trials": len(trainings), "complete": len(curve), "promoted": promoted}


def _take_up(study: Study, trial: Trial) -> None:
    """The pruned trial runs again, which Optuna knows no way to say: in memory alone."""
    storage = study._storage
    frozen = copy(trials_of(study)[trial.number])
    frozen.state, frozen.values, frozen.datetime_complete = TrialState.RUNNING, None, None
    storage._set_trial(trial._trial_id, frozen)
    if hasattr(study.sampler, "_memory"):
        study.sampler._memory = None  # has seen it end


def _chained(first: Training, rest: Iterator[Training]) -> Iterator[Training]:
    yield first
    yield from rest


@cache
def _table(file: Path) -> tuple[Curve, ...]:
    return read_table(file).curves


def show(found: Mapping[str, Sequence[Found]], trainings: int) -> str:
    """A row a rule: its mean regret at each budget, and how far it is behind the first rule."""
    budgets = [n for n in AT if n <= trainings] or [trainings]
    first = next(iter(found.values()))
    rows = []
    for rule, runs in found.items():
        behind = [
            regret_at(one, trainings * EPOCHS) - regret_at(other, trainings * EPOCHS)
            for one, other in zip(runs, first, strict=True)
        ]
        rows.append((
            rule,
            *(interval([regret_at(one, n * EPOCHS) for one in runs]) for n in budgets),
            interval(behind, sign=True) if runs is not first else "",
            *(f"{sum(one[key] for one in runs) / len(runs):.0f}" for key in ("trials", "complete", "promoted")),
        ))  # fmt: skip
    head = (
        "rule", *(f"{n} trainings" for n in budgets), f"{trainings}, minus the first, paired", "trials", "complete",
        "promoted",
    )  # fmt: skip
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
