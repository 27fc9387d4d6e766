"""Searches on real pictures for a given wall time each, then trains what was found with fresh seeds, beside the base.

The arms share the training core, the space and the base; they differ in how they search, and the default's time holds
its final race, too. Each is a run of `evolve run` of its own, one after the other. Its best hyp and the base are then
trained at full length with seeds that no trial had, and scored on val and, where the data has one, on test, which no
search has seen. The uplift over the base is that of pairs of one seed, with its 95 % interval (Student's t).

Every step is kept in --results, by data set and arm: what is there is not done again, so that a run that was
interrupted goes on with the arm that it was at, and the table shows all data sets that were ever searched there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from benchmarks.arms import Arm, train_arms
from benchmarks.pruning_saved import epochs_of
from benchmarks.report import header, print_now, table, without_paths
from benchmarks.small_study import SmallStudy
from evolve.config import EvolveConfig, complete
from evolve.paths import RunPaths
from evolve.training import mean_and_error
from search_spaces import load_hyp, load_space
from studies import write_atomically

BASE = "base"
ARMS: Mapping[str, Sequence[str]] = {
    "default": (),
    "classic": ("--sampler", "yolo", "--pruner", "none", "--base-seeds", "1", "--race", "0"),
    "tpe-hyperband": ("--sampler", "tpe", "--pruner", "hyperband", "--base-seeds", "1", "--race", "0"),
}
BUDGET_S = 1800
GENERATIONS = 100_000  # at most: time ends the search
SEEDS, FIRST_SEED = 5, 1_000_000  # a trial's seed is its generation's: none is that high
METRIC = "map50_95"
SPLITS = ("val", "test")
SETTINGS = ("data", "model", "imgsz", "epochs", "threads", "trainer", "space")  # of a search, as its flags are named


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.real", description=__doc__)
    parser.add_argument("--data", action="append", metavar="DATA[@IMGSZ]", help="may be repeated (default: digits)")
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER", help="keep what was run there")
    parser.add_argument("--arms", default=",".join(ARMS), help="default: %(default)s")
    parser.add_argument("--budget", type=int, default=BUDGET_S, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--generations", type=int, default=GENERATIONS, help="at most (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EvolveConfig().epochs, help="of a trial (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="fresh trainings (default: %(default)s)")
    parser.add_argument("--trainer", default=EvolveConfig().trainer, help="default: %(default)s")
    parser.add_argument("--space", default=EvolveConfig().space, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=EvolveConfig().threads, help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    arms = arguments.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise SystemExit(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    print_now(header(__file__, without_paths(argv), seeds))
    for data in arguments.data or ("digits",):
        config = config_of(data, arguments)
        folder = (arguments.results / config.study).resolve()
        for arm in (BASE, *arms):
            if arm != BASE:
                once(folder / f"{arm}-search.json", lambda: search(folder, arm, config, arguments.budget))  # noqa: B023
            once(folder / f"{arm}-again.json", lambda: train_again(folder, arm, config, seeds))  # noqa: B023
    print_now("\n" + show(arguments.results))
    return 0


def config_of(data: str, arguments: argparse.Namespace) -> EvolveConfig:
    """What the searches and trainings on this data have in common; '@160' behind it is the size of its pictures."""
    path, _, imgsz = data.partition("@")
    given = {name: getattr(arguments, name) for name in ("epochs", "generations", "threads", "trainer", "space")}
    return complete(EvolveConfig(data=path, imgsz=int(imgsz) if imgsz else None, **given))


def once(file: Path, work: Callable[[], Mapping[str, Any]]) -> None:
    """Do the work and keep what it found in the file, unless that is there."""
    if not file.exists():
        sys.stderr.write(f"{file.parent.name}: {file.stem} ...\n")
        write_atomically(file, json.dumps(work(), indent=1) + "\n")


def search(folder: Path, arm: str, config: EvolveConfig, budget_s: int) -> dict[str, Any]:
    """`evolve run` for so long; what an interrupted search has left is removed, since its time is not known."""
    shutil.rmtree(folder / arm, ignore_errors=True)
    settings = {name: getattr(config, name) for name in SETTINGS}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    study = SmallStudy(folder, arm, [*flags, "--budget", f"{budget_s}s", *ARMS[arm]], usual=())
    began = time.monotonic()
    try:
        study.run(config.generations)
    finally:
        study.close()
    stored = study.read()
    assert stored is not None
    return {
        "seconds": time.monotonic() - began,
        "trials": len(stored.by_generation),
        "complete": stored.count(TrialState.COMPLETE),
        "epochs": sum(map(epochs_of, stored.by_generation.values())),
    }


def train_again(folder: Path, arm: str, config: EvolveConfig, seeds: Sequence[int]) -> dict[str, Any]:
    """The arm's best hyp with fresh seeds: what each of them scores at the end, by split."""
    hyp = load_space(config.space).defaults() if arm == BASE else load_hyp(RunPaths(folder / arm).best_hyp)
    options = dataclasses.replace(config.train_options(), final_split="test")
    [trained] = train_arms([Arm(arm, hyp, options)], seeds, trainer=config.trainer)
    final = [run[-1].final.get(METRIC) for run in trained.runs]
    return {
        "seeds": list(seeds),
        "val": trained.last(METRIC),
        "test": final if None not in final else None,
        "hyp": dict(hyp),
    }


def show(results: Path) -> str:
    """A row for each data set and arm that was trained again there."""
    rows = []
    for file in sorted(results.glob(f"*/{BASE}-again.json")):
        base = json.loads(file.read_text())
        rows.append((file.parent.name, BASE, "", "", "", *_scores(base, None)))
        for arm in ARMS:
            again, searched = (file.with_name(f"{arm}-{step}.json") for step in ("again", "search"))
            if again.exists():
                found = json.loads(searched.read_text())
                trials = f"{found['trials']} ({found['complete']} complete)"
                cost = (f"{found['seconds']:.0f}", trials, f"{found['epochs']}")
                rows.append((file.parent.name, arm, *cost, *_scores(json.loads(again.read_text()), base)))
    columns = [f"{split}{text}" for split in SPLITS for text in ("", ", uplift [95 %]")]
    return table(("data", "arm", "search, s", "trials", "epochs", *columns), rows)


def _scores(trained: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    """For each split the mean and its standard error, and the uplift over the base."""
    cells = []
    for split in SPLITS:
        values = trained[split]
        mean, error = mean_and_error(values) if values else (0.0, 0.0)
        cells.append(f"{mean:.3f} ± {error:.3f}" if values else "")
        cells.append(uplift(values, base[split]) if values and base else "")
    return cells


def uplift(theirs: Sequence[float], base: Sequence[float]) -> str:
    """'+0.120 [+0.090, +0.150]': the mean difference of pairs and its 95 % interval."""
    from scipy.stats import t

    differences = [a - b for a, b in zip(theirs, base, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return f"{mean:+.3f}"
    half = t.ppf(0.975, len(differences) - 1) * mean_and_error(differences)[1]
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


if __name__ == "__main__":
    sys.exit(main())
