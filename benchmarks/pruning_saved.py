"""Reads from a study what its pruner saved: trials by state, epochs run, time, and best against base on val."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from benchmarks.arms import describe
from benchmarks.report import header, print_now, table
from benchmarks.stored import StoredStudy, best_trainings, mean_value, read_stored
from evolve.config import EvolveConfig, read_config
from evolve.paths import RunPaths
from studies.trials import EPOCHS, is_base

BY_STATE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning_saved", description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_FOLDER", help="runs/<study>")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    found = []
    for folder in arguments.studies:
        stored = read_stored(folder)
        if stored is None:
            raise SystemExit(f"there is no study in {folder}")
        found.append((folder.name, EvolveConfig(**read_config(RunPaths(folder).config)), stored))
    print_now(header(__file__, argv, sorted({config.seed for _, config, _ in found})))
    for name, config, stored in found:
        print_now("\n" + show(name, config, stored))
    return 0


def show(name: str, config: EvolveConfig, stored: StoredStudy) -> str:
    trials = list(stored.by_generation.values())
    groups = {state.name: [trial for trial in trials if trial.state == state] for state in BY_STATE}
    rows = [_row(label, group) for label, group in {**groups, "all": trials}.items() if group]
    return "\n".join(
        [
            f"{name}: {describe(config.train_options())}; sampler {config.sampler}, pruner {config.pruner}",
            table(("trials", "number", "epochs run", "seconds, sum", "seconds, median"), rows),
            "",
            saved(groups["COMPLETE"] + groups["PRUNED"], config.epochs),
            elapsed(stored.trials),
            improved(stored),
        ]
    )


def saved(trials: Sequence[FrozenTrial], epochs: int) -> str:
    """Epochs run against those without pruning; failed trials would have failed without it, too."""
    run, without = sum(map(epochs_of, trials)), epochs * len(trials)
    if not without:
        return "no trial was complete or pruned"
    return f"{run} epochs run, {without} without pruning: {run / without:.1%}, {1 - run / without:.1%} saved"


def elapsed(trials: Sequence[FrozenTrial]) -> str:
    """From the first start to the last end, times between two goes of a study included."""
    started = [trial.datetime_start for trial in trials if trial.datetime_start]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    if not (started and ended):
        return "no trial has ended"
    wall_s = (max(ended) - min(started)).total_seconds()
    return f"{wall_s:.0f} s from the first trial's start to the last one's end, {wall_s / len(ended):.2f} s a trial"


def improved(stored: StoredStudy) -> str:
    """Best against base as the search saw them, on val, and by how many seeds; base_vs_best measures them fairly."""
    best, base = best_trainings(stored.complete), [trial for trial in stored.complete.values() if is_base(trial)]
    if not best:
        return "no trial is COMPLETE"
    found = f"fitness on val: best {mean_value(best):.4f} (trial {best[0].number}, seeds: {len(best)})"
    if not base:
        return f"{found}, base not known"
    difference = mean_value(best) - mean_value(base)
    return f"{found}, base {mean_value(base):.4f} (seeds: {len(base)}), difference {difference:+.4f}"


def epochs_of(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(EPOCHS, len(trial.intermediate_values)))


def _row(label: str, group: Sequence[FrozenTrial]) -> tuple[object, ...]:
    seconds = [trial.duration.total_seconds() for trial in group if trial.duration]
    return label, len(group), sum(map(epochs_of, group)), f"{sum(seconds):.0f}", f"{statistics.median(seconds):.2f}"


if __name__ == "__main__":
    sys.exit(main())
