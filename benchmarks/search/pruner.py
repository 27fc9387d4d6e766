"""Compares pruners on TaskSet's learning curves: what share of the epochs they run, and what they lose by it.

A study is 150 curves of one table, replayed one after the other through Optuna and the pruner. They come in three
orders: `random`, drawn from the whole table; `near`, drawn from its best fifth, as an evolution near its best proposes
them; `improving`, drawn from a best share that shrinks from everything to a tenth, as an evolution goes. Regret is that
of the best curve that was not pruned against the best of the 150: 0 is that, 1 the table's median. Trainings that
diverged to NaN are left out; losses are cut at twice the median. The first curve is the base, which all spare.

`evolve` was tuned on every second table, and the idea of it was found on all six; --tables shows halves.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna import pruners
from optuna.pruners import BasePruner

from benchmarks.report import header, print_now, table, with_error, without_paths
from evolve.cli import quieten_libraries
from evolve.curves import Recording, read_curves
from evolve.replay import Curve, replay
from evolve.training import mean_and_error
from studies import PRUNERS, build_pruner
from studies.stock import Sparing

ORDERS = ("random", "near", "improving")
TRIALS = 150
NEAR = 0.2  # of a table
LAST = 0.1  # of a table, from which the last curves of `improving` are drawn
HALVES = {"all": slice(None), "tuned": slice(1, None, 2), "fresh": slice(0, None, 2)}


OTHERS = {  # with the arguments that the comparison beside which they stand has given them
    "median 10 5": partial(pruners.MedianPruner, 10, 5),
    "percentile 25 10 5": partial(pruners.PercentilePruner, 25.0, 10, 5),
    "patient median 5": lambda: pruners.PatientPruner(pruners.MedianPruner(10, 5), 5),
    "sha 1 3": partial(pruners.SuccessiveHalvingPruner, 1, 3),
    "sha 5 2": partial(pruners.SuccessiveHalvingPruner, 5, 2),
    "sha 5 3": partial(pruners.SuccessiveHalvingPruner, 5, 3),
    "sha defaults": pruners.SuccessiveHalvingPruner,
    "hyperband 1 3": partial(pruners.HyperbandPruner, 1, 51, 3),
    "hyperband 5 3": partial(pruners.HyperbandPruner, 5, 51, 3),
}
USUAL = ("evolve", "asha", "none", *OTHERS)


@dataclass(frozen=True)
class Measured:
    """One study: which order of which table, the share of its epochs that were run, and the regret."""

    order: str
    share: float
    regret: float


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.pruner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("taskset", type=Path, metavar="FOLDER", help="the tables, as .npz")
    parser.add_argument("--pruners", default=",".join(USUAL), help="default: %(default)s; also " + ", ".join(PRUNERS))
    parser.add_argument("--orders", default=",".join(ORDERS), help="default: %(default)s")
    parser.add_argument("--tables", choices=HALVES, default="all", help="which half (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="of each order (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="SEED", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    quieten_libraries()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    orders, names = arguments.orders.split(","), arguments.pruners.split(",")
    for name in (*orders, *names):
        if name not in (*ORDERS, *PRUNERS, *OTHERS):
            raise SystemExit(f"unknown name {name!r}; known: {', '.join((*ORDERS, *PRUNERS, *OTHERS))}")
    tables = [read_table(file) for file in sorted(arguments.taskset.glob("*.npz"))[HALVES[arguments.tables]]]
    if not tables:
        raise SystemExit(f"{arguments.taskset} holds no .npz tables")
    print_now(header(__file__, without_paths(argv), list(seeds)) + "\n")
    rows = []
    for name in names:
        began = time.monotonic()
        found = [one for recording in tables for one in measure(recording, name, orders, seeds)]
        rows += [show(name, order, [one for one in found if one.order == order]) for order in orders]
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    print_now(table(("pruner", "order", "epochs", "regret", "largest", "true best kept"), rows))
    return 0


def read_table(file: Path) -> Recording:
    """The curves of one table that did not diverge, cut at twice the median of their ends."""
    found = read_curves(str(file), Path())
    most = 2 * float(np.median(ends(found.curves)))
    return replace(found, curves=tuple(_cut(curve, most) for curve in found.curves))


def measure(recording: Recording, name: str, orders: Sequence[str], seeds: Sequence[int]) -> Iterator[Measured]:
    """A study for each order and seed."""
    median = float(np.median(ends(recording.curves)))
    for order in orders:
        for seed in seeds:
            curves = draw(recording.curves, order, np.random.default_rng(seed))
            found = replay(curves, pruner_of(name, recording.epochs), recording.direction)
            yield Measured(order, found.share, found.regret / (median - found.best.end))


def draw(curves: Sequence[Curve], order: str, rng: np.random.Generator, count: int = TRIALS) -> list[Curve]:
    """So many curves in that order, none twice; fewer where a table is small."""
    by_end = np.argsort(ends(curves), kind="stable")
    if order == "random":
        picked = rng.permutation(by_end)[:count]
    elif order == "near":
        picked = rng.permutation(by_end[: int(NEAR * len(by_end))])[:count]
    else:
        found: list[int] = []
        for share in np.geomspace(1, LAST, count):
            left = [i for i in by_end[: int(share * len(by_end))] if i not in found]
            found += [int(rng.choice(left))] if left else []
        picked = np.array(found)
    return [curves[i] for i in picked]


def pruner_of(name: str, epochs: int) -> BasePruner:
    """A pruner of ours by name, or one of Optuna's with other arguments."""
    return Sparing(OTHERS[name](), epochs) if name in OTHERS else build_pruner(name, epochs=epochs)


def show(name: str, order: str, found: Sequence[Measured]) -> tuple[str, ...]:
    share, _ = mean_and_error([one.share for one in found])
    regret = with_error(*mean_and_error([one.regret for one in found]))
    kept = sum(one.regret == 0 for one in found) / len(found)
    return name, order, f"{share:.3f}", regret, f"{max(one.regret for one in found):.3f}", f"{kept:.0%}"


def ends(curves: Sequence[Curve]) -> NDArray[np.float64]:
    return np.array([curve.end for curve in curves])


def _cut(curve: Curve, most: float) -> Curve:
    return replace(curve, fitness={epoch: min(value, most) for epoch, value in curve.fitness.items()})


if __name__ == "__main__":
    sys.exit(main())
