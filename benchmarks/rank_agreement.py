"""Does a short training rank hyps as a long one does? The same hyps trained both ways, and how far the ranks agree.

A study can only afford short trainings, and hopes that what wins them would win long ones. Here hyps that differ far
more than those of one generation are drawn around the base, by the genetic kernel's own step taken several times; each
is trained for --short and for --long epochs with one seed, and Spearman's rho compares the fitness after the last epoch
of the long training with that after several epochs of the short one. The interval is a bootstrap over the hyps (95 %).

A schedule ends where its training ends, so the first epochs of a long training are no short one: both are run. With
--stored every training is kept as it ends and never run again: the same command goes on where it was stopped, and
trainings under other options are kept beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.arms import OPTIONS, add_options, describe, options_of
from benchmarks.report import header, print_now, table, without_paths
from evolve.config import EvolveConfig
from evolve.fitness import Fitness
from evolve.plugins import resolve
from search_spaces import Hyp, Space, Value, load_space
from studies.genetics import step_in_unit_cube
from trainer import TrainerError, TrainJob, TrainOptions
from trainer.process import ProcessTrainer

STEPS = 6  # of the kernel, one after the other: a hyp is then as far from the base as a lineage of so many children
RESAMPLED = 2000
LEVEL = 0.95

Floats = NDArray[np.float64]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rank_agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, *(name for name in OPTIONS if name != "epochs"))
    parser.add_argument("--short", type=int, default=10, metavar="EPOCHS", help="default: %(default)s")
    parser.add_argument("--long", type=int, default=60, metavar="EPOCHS", help="default: %(default)s")
    parser.add_argument("--at", type=_epochs, default=(3, 5), metavar="N,N,...", help="epochs of the short run, too")
    parser.add_argument(
        "--also", default="", metavar="SCHEDULE,...", help="other schedules of the short run, against the same long one"
    )
    parser.add_argument("--hyps", type=int, default=16, metavar="N", help="the base among them (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="from the base (default: %(default)s)")
    parser.add_argument("--draw", type=int, default=0, metavar="SEED", help="of the hyps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="of the trainings (default: %(default)s)")
    parser.add_argument("--stored", type=Path, metavar="FOLDER", help="keep every training there, and read it again")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    if arguments.hyps < 3:
        raise SystemExit(f"--hyps must be at least 3 to have ranks that can disagree, got {arguments.hyps}")
    print_now(header(__file__, without_paths(argv), [arguments.seed]) + "\n")
    short = dataclasses.replace(options_of(arguments), epochs=arguments.short, seed=arguments.seed)
    long = dataclasses.replace(short, epochs=arguments.long)
    hyps = draw_hyps(load_space("detection"), arguments.hyps, arguments.steps, np.random.default_rng(arguments.draw))
    others = [dataclasses.replace(short, schedule=name.strip()) for name in arguments.also.split(",") if name.strip()]
    with tempfile.TemporaryDirectory(prefix="evolve-benchmark-") as folder:
        log = Path(folder) / "worker.log"
        with ProcessTrainer(resolve("trainer", "detection"), threads=short.threads, log=log) as process:
            runs = {
                options: [train(process, hyp, options, arguments.stored, Path(folder)) for hyp in hyps]
                for options in (short, *others, long)
            }
    for options in (short, *others):
        earlier = [epoch for epoch in arguments.at if epoch < short.epochs]
        print_now(compare(options, long, runs[options], runs[long], earlier) + "\n")
    return 0


def draw_hyps(space: Space, count: int, steps: int, rng: np.random.Generator) -> list[dict[str, Value]]:
    """The defaults of the space, then hyps that stand so many steps of the kernel from them, each on its own way."""
    hyps = [space.defaults()]
    while len(hyps) < count:
        hyp = space.defaults()
        for _ in range(steps):
            hyp |= step_in_unit_cube(hyp, space.evolving, rng)
        hyps.append(hyp)
    return hyps


def train(process: ProcessTrainer, hyp: Hyp, options: TrainOptions, stored: Path | None, folder: Path) -> list[float]:
    """The fitness after every epoch, 0 for a training that failed; read from `stored` if it is there."""
    kept = stored / f"{identify(hyp, options)}.json" if stored else None
    if kept and kept.exists():
        return [float(value) for value in json.loads(kept.read_text())["fitness"]]
    fitness = Fitness.parse(EvolveConfig().fitness)
    job = TrainJob(hyp, options, Path(tempfile.mkdtemp(dir=folder)))
    try:
        found = [fitness(metrics) for metrics in process.train(job)]
    except TrainerError as error:
        sys.stderr.write(f"{error}\n")
        found = [0.0] * options.epochs
    sys.stderr.write(f"{options.epochs} epochs, {options.schedule}: {found[-1]:.4f}\n")
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps({"hyp": dict(hyp), "epochs": options.epochs, "fitness": found}, indent=2) + "\n")
        partial.replace(kept)
    return found


def identify(hyp: Hyp, options: TrainOptions) -> str:
    """A name that only the same hyp under the same options has."""
    text = json.dumps([dict(hyp), dataclasses.asdict(options)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def compare(
    short: TrainOptions,
    long: TrainOptions,
    brief: Sequence[Sequence[float]],
    full: Sequence[Sequence[float]],
    earlier: Sequence[int],
) -> str:
    """The fitness of every hyp, the base first, and the agreement of each epoch with the end of the long training."""
    epochs = [*earlier, short.epochs]
    ends = np.array([run[-1] for run in full])
    scores = {epoch: np.array([run[epoch - 1] for run in brief]) for epoch in epochs}
    hyps = table(
        ("hyp", *(f"{epoch} of {short.epochs}" for epoch in epochs), f"{long.epochs} of {long.epochs}"),
        [
            ("base" if number == 0 else str(number), *(float(scores[epoch][number]) for epoch in epochs), float(end))
            for number, end in enumerate(ends)
        ],
    )
    rows = [(f"{epoch} of {short.epochs}", *agreement(scores[epoch], ends)) for epoch in epochs]
    head = ("short run's epoch", "rho", "low", "high", "rank of its best in the long run")
    return "\n".join([f"{describe(short)}, against {long.epochs} epochs", hyps, "", table(head, rows)])


def agreement(short: Floats, long: Floats) -> tuple[float, float, float, int]:
    """Spearman's rho, the ends of its bootstrap interval, and the long run's rank (from 1) of the short run's best."""
    rng = np.random.default_rng(0)
    drawn = [rho(short[pick], long[pick]) for pick in rng.integers(0, len(short), (RESAMPLED, len(short)))]
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return rho(short, long), float(low), float(high), 1 + int((long > long[short.argmax()]).sum())


def rho(short: Floats, long: Floats) -> float:
    """Spearman's rank correlation; NaN where one of them is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the constant input, which the NaN says as well
        return float(spearmanr(short, long).statistic)


def _epochs(text: str) -> tuple[int, ...]:
    """'3,5' -> (3, 5), for argparse."""
    return tuple(sorted(int(part) for part in text.split(",") if part.strip()))


if __name__ == "__main__":
    sys.exit(main())
