"""The ultralytics package's models tuned by its own tuner and by `evolve run`, for the same time on the same data.

Its tuner runs --iterations trials of --epochs; `evolve run --trainer ultralytics` then has as many seconds as that
took, its final race within them. Both winners, each as the file that its tuner leaves (ours by `evolve export`), and
the package's defaults are then trained by plain `yolo detect train cfg=FILE` with fresh seeds. Its tuner trains by
AdamW and does not write that down, so that its file gets optimizer=AdamW beside it.

Overhead is what a trial costs beyond its epochs: the search's seconds without those within epochs, for each trial. Ours
counts a training's first epoch, which holds its preparation, as its other epochs.

Every step is kept in --results, and what is there is not done again. Wants `pip install -e '.[ultralytics]'`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from benchmarks.peer import train_peer, tune_peer, with_absolute_path
from benchmarks.report import ROOT, header, print_now, table, without_paths
from benchmarks.search.real import once, uplift
from benchmarks.small_study import SmallStudy
from evolve.paths import RunPaths
from evolve.training import mean_and_error
from trainer import TrainOptions

TUNE, EVOLVE, DEFAULTS = "model.tune", "evolve", "defaults"
GENERATIONS = 100_000  # at most: time ends the search
FIRST_SEED = 1_000_000


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_tune", description=__doc__)
    parser.add_argument("--data", required=True, help="a data.yaml")
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER", help="keep what was run there")
    parser.add_argument("--model", default="yolov8n", help="trained from scratch (default: %(default)s)")
    parser.add_argument("--imgsz", type=int, default=160, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=10, help="of a trial (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=20, help="of model.tune (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="fresh trainings (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    asked = build_parser().parse_args(argv)
    results = asked.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    options = TrainOptions(
        data=str(with_absolute_path(Path(asked.data).absolute(), results / "data.yaml")),
        model=asked.model,
        epochs=asked.epochs,
        imgsz=asked.imgsz,
        batch=asked.batch,
        threads=asked.threads,
    )
    seeds = range(FIRST_SEED, FIRST_SEED + asked.seeds)
    print_now(header(__file__, without_paths(argv), seeds))
    once(results / f"{TUNE}-search.json", lambda: search_theirs(results / TUNE, options, asked.iterations))
    seconds = read(results / f"{TUNE}-search.json")["seconds"]
    once(results / f"{EVOLVE}-search.json", lambda: search_ours(results, options, seconds))
    for arm in (DEFAULTS, TUNE, EVOLVE):
        once(results / f"{arm}-again.json", lambda: train_again(results, arm, options, seeds))  # noqa: B023
    print_now("\n" + show(results))
    return 0


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def search_theirs(folder: Path, options: TrainOptions, iterations: int) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tuned = tune_peer(sys.executable, options.model, options, batch=options.batch, iterations=iterations, folder=folder)
    shutil.copy(tuned.best, cfg_of(folder.parent, TUNE))
    return {
        "seconds": tuned.seconds,
        "trials": len(tuned.fitness),
        "complete": len(tuned.fitness),
        "epochs": tuned.epochs,
        "best": max(tuned.fitness),
        "overhead": (tuned.seconds - tuned.epoch_s) / len(tuned.fitness),
    }


def search_ours(results: Path, options: TrainOptions, seconds: float) -> dict[str, Any]:
    """`evolve run` for so long, and its best hyp exported."""
    folder = results / EVOLVE
    shutil.rmtree(folder, ignore_errors=True)
    settings = {name: getattr(options, name) for name in ("data", "epochs", "imgsz", "batch", "threads")}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    flags += ["--trainer", "ultralytics", "--model", f"{options.model}.yaml", "--budget", f"{seconds:.0f}s"]
    study = SmallStudy(results, EVOLVE, flags, usual=())
    began = time.monotonic()
    try:
        study.run(GENERATIONS)
    finally:
        study.close()
    took = time.monotonic() - began
    stored = study.read()
    assert stored is not None
    out = cfg_of(results, EVOLVE)
    export = ["export", EVOLVE, "--runs", str(results), "--format", "ultralytics", "--output", str(out)]
    subprocess.run([sys.executable, "-m", "evolve", *export], check=True, cwd=ROOT)
    trials = list(stored.by_generation.values())
    paths = RunPaths(folder)
    within = epochs_of(trials, paths)
    return {
        "seconds": took,
        "trials": len(trials),
        "complete": stored.count(TrialState.COMPLETE),
        "epochs": sum(map(len, within)),
        "best": max(trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None),
        "overhead": (span_of(trials) - in_epochs(within)) / len(trials),
    }


def epochs_of(trials: Sequence[FrozenTrial], paths: RunPaths) -> list[list[float]]:
    """The seconds of each trial's epochs."""
    files = [paths.trial(trial.number) / "metrics.jsonl" for trial in trials]
    return [[json.loads(line)["seconds"] for line in file.read_text().splitlines()] for file in files if file.exists()]


def in_epochs(trials: Sequence[Sequence[float]]) -> float:
    """All seconds within epochs; a training's first counts as its others do, or as all do where it has no others."""
    usual = statistics.fmean(second for epochs in trials for second in epochs[1:])
    return sum(sum(epochs[1:]) + (statistics.fmean(epochs[1:]) if epochs[1:] else usual) for epochs in trials if epochs)


def span_of(trials: Sequence[FrozenTrial]) -> float:
    """Seconds from the first trial's beginning to the last one's end."""
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    return (max(ends) - min(starts)).total_seconds()


def cfg_of(results: Path, arm: str) -> Path:
    return results / f"{arm}.yaml"


def train_again(results: Path, arm: str, options: TrainOptions, seeds: Sequence[int]) -> dict[str, Any]:
    """What `yolo detect train` with the arm's file scores after its last epoch, with each seed."""
    cfg = None if arm == DEFAULTS else cfg_of(results, arm)
    settings = {"optimizer": "AdamW"} if arm == TUNE else {}
    runs = []
    for seed in seeds:
        told = TrainOptions(**{**vars(options), "seed": seed})
        run = train_peer(sys.executable, options.model, told, batch=options.batch, cfg=cfg, settings=settings)
        sys.stderr.write(f"{arm}, seed {seed}: map50_95 {run.map50_95[-1]:.4f}, {run.process_s:.0f} s\n")
        runs.append(run)
    return {
        "seeds": list(seeds),
        "map50_95": [run.map50_95[-1] for run in runs],
        "map50": [run.map50[-1] for run in runs],
    }


def show(results: Path) -> str:
    """A row for each arm."""
    base = read(results / f"{DEFAULTS}-again.json")
    rows = []
    for arm in (DEFAULTS, TUNE, EVOLVE):
        again, cells = read(results / f"{arm}-again.json"), [""] * 5
        if arm != DEFAULTS:
            found: Mapping[str, Any] = read(results / f"{arm}-search.json")
            trials = f"{found['trials']} ({found['complete']} complete)"
            cells = [f"{found['seconds']:.0f}", trials, f"{found['epochs']}", f"{found['best']:.3f}"]
            cells.append(f"{found['overhead']:.2f}")
        scores = []
        for name in ("map50_95", "map50"):
            mean, error = mean_and_error(again[name])
            scores.append(f"{mean:.3f} ± {error:.3f}")
        gain = "" if arm == DEFAULTS else uplift(again["map50_95"], base["map50_95"])
        rows.append((arm, *cells, scores[0], gain, scores[1]))
    head = ("arm", "search, s", "trials", "epochs", "best fitness", "overhead, s a trial")
    return table((*head, "mAP50-95, again", "uplift [95 %]", "mAP50, again"), rows)


if __name__ == "__main__":
    sys.exit(main())
