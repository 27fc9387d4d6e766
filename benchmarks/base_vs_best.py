"""Trains base and best hyp of a study again with fresh seeds and scores both on a split that no search has seen.

The search saw each hyp once, with one seed, on the validation split, and kept the highest of hundreds of scores: that
score flatters its hyp. So both are trained anew, at full length and as the study trained, with seeds that no trial had
(base and best with the same ones, in turn), and scored on the test split. The difference is given with two standard
errors: that of two independent means, and that of pairs of one seed. Where a race has left the base as best, it is held
against the best of the search, best/unconfirmed.yaml.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arms import Arm, Trained, describe, train_arms
from benchmarks.report import Difference, header, print_now, table, with_error
from benchmarks.stored import read_stored
from evolve.config import EvolveConfig, read_config
from evolve.paths import RunPaths
from search_spaces import load_hyp
from studies.trials import SEED

METRICS = ("map50_95", "map50")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base_vs_best", description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_FOLDER", help="runs/<study>")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="trainings of each (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1000, metavar="SEED", help="default: %(default)s")
    parser.add_argument("--split", default="test", help="what is scored (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    line = header(__file__, argv, seeds)
    print_now(line)
    found = []
    for folder in arguments.studies:
        base, best = train_again(folder, seeds, arguments.split)
        print_now("\n" + show(folder.name, base, best))
        found.append(figures(folder.name, base, best))
    if arguments.json:
        arguments.json.write_text(json.dumps({"header": line, "studies": found}, indent=2) + "\n")
    return 0


def train_again(folder: Path, seeds: Sequence[int], split: str) -> tuple[Trained, Trained]:
    """Base and best of a run folder, trained with these seeds as its trials were, scored on `split`."""
    paths = RunPaths(folder)
    config = EvolveConfig(**read_config(paths.config))
    stored = read_stored(folder)
    if stored is None:
        raise SystemExit(f"there is no study in {folder}")
    searched = {trial.user_attrs.get(SEED) for trial in stored.trials}
    if used := [seed for seed in seeds if seed in searched]:
        raise SystemExit(f"{folder}: its trials were trained with seeds {used}; give another --first-seed")
    options = dataclasses.replace(config.train_options(), split=split)
    arms = [Arm("base", stored.base, options), Arm("best", load_hyp(best_of_search(paths)), options)]
    base, best = train_arms(arms, seeds, trainer=config.trainer)
    return base, best


def best_of_search(paths: RunPaths) -> Path:
    """The file of the best hyp; of the one that was not confirmed, where a race has put the base in its place."""
    return paths.unconfirmed if paths.unconfirmed.exists() else paths.best_hyp


def show(study: str, base: Trained, best: Trained) -> str:
    """A row a seed, then the means, the differences and whether best is better."""
    title = f"{study}: {describe(base.arm.options)}; scored on {base.arm.options.split}"
    columns = [(trained, metric) for metric in METRICS for trained in (base, best)]
    scores = [[f"{score:.4f}" for score in trained.last(metric)] for trained, metric in columns]
    means = [with_error(*trained.mean(metric)) for trained, metric in columns]
    rows = [*zip(map(str, base.seeds), *scores, strict=True), ("mean ± SE", *means)]
    seeds = table(("seed", *(f"{trained.arm.name} {metric}" for trained, metric in columns)), rows)
    return "\n".join([title, seeds, "", *(_difference_line(metric, base, best) for metric in METRICS)])


def figures(study: str, base: Trained, best: Trained) -> dict[str, Any]:
    """The same as plain values, for a file."""
    found: dict[str, Any] = {"study": study, "options": dataclasses.asdict(base.arm.options), "seeds": base.seeds}
    for metric in METRICS:
        difference = Difference.of(best.last(metric), base.last(metric))
        ratios = {"ratio": difference.ratio, "paired_ratio": difference.paired_ratio}
        values = {trained.arm.name: trained.last(metric) for trained in (base, best)}
        found[metric] = {**values, "difference": {**dataclasses.asdict(difference), **ratios}}
    return {**found, "hyps": {trained.arm.name: dict(trained.arm.hyp) for trained in (base, best)}}


def _difference_line(metric: str, base: Trained, best: Trained) -> str:
    found = Difference.of(best.last(metric), base.last(metric))
    verdict = "more than 2 SE above the base" if found.ratio > 2 else "not more than 2 SE above the base"
    return (
        f"{metric}: best - base {found.mean:+.4f}, SE {found.error:.4f} ({found.ratio:+.1f} SE), "
        f"paired SE {found.paired_error:.4f} ({found.paired_ratio:+.1f} SE): {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
