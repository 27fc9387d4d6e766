"""Times asking for a hyp and telling its fitness: each sampler, each storage, studies of 100 to 10,000 trials.

The space is the built-in one for detection. The trials before are drawn around its defaults; half are COMPLETE, half
PRUNED. An ask includes storing all params, which is all that it costs with "random". Each figure is the median of
several, after one that is not counted, since it reads the study. CMA-ES and NSGA-II know their own trials only: in such
a study they begin anew, which is cheap.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.report import header, print_now, table
from benchmarks.search.ours import OURS
from benchmarks.search.rivals import RIVALS
from search_spaces import Space, Value, load_space
from studies import distribution, open_storage, sqlite_url, suggest
from studies.trials import trials_of

ARMS = {**OURS, **RIVALS}
USUAL = ("modern", *RIVALS)
SIZES = (100, 300, 1000, 10_000)
STORAGES = ("memory", "sqlite", "journal")
EPOCHS, PRUNED_AFTER = 10, 2
SPREAD = 0.1  # of the hyps around the defaults, in the unit cube
SEED = 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.cost", description=__doc__)
    parser.add_argument("--arms", default=",".join(USUAL), help="default: %(default)s; known: " + ",".join(ARMS))
    parser.add_argument("--sizes", type=_ints, default=SIZES, help="trials before; default: 100,300,1000,10000")
    parser.add_argument("--storages", default=",".join(STORAGES), help="default: %(default)s")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="asks of each (default: %(default)s)")
    parser.add_argument(
        "--limit-s", type=float, default=10, help="whose ask took longer is left out of larger studies (%(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arms, sizes = [arm.strip() for arm in arguments.arms.split(",")], sorted(arguments.sizes)
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise SystemExit(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
    space = load_space("detection")
    print_now(header(__file__, argv, [SEED]))
    print_now(f"\nmilliseconds, ask / tell; {len(space.evolving)} hyps, median of {arguments.times}")
    rows = []
    for storage in arguments.storages.split(","):
        with tempfile.TemporaryDirectory(prefix="evolve-benchmark-") as folder:
            found = dict.fromkeys(arms, ())
            for size, study in growing(_open(storage, Path(folder)), space, sizes):
                for arm in arms:
                    found[arm] += (_measured(study, arm, space, size, arguments.times, found[arm], arguments.limit_s),)
            rows += [(storage, arm, *map(_cell, found[arm])) for arm in arms]
    print_now(table(("storage", "sampler", *(f"{size} trials" for size in sizes)), rows))
    return 0


def growing(storage: BaseStorage, space: Space, sizes: Sequence[int]) -> Iterator[tuple[int, Study]]:
    """One study that has grown to each of these sizes in turn."""
    study = optuna.create_study(study_name="cost", storage=storage, direction="maximize")
    rng = np.random.default_rng(SEED)
    for size in sizes:
        study.add_trials([past_trial(space, rng) for _ in range(size - len(trials_of(study)))])
        sys.stderr.write(f"{type(storage).__name__}: a study of {size} trials\n")
        yield size, study


def past_trial(space: Space, rng: np.random.Generator) -> FrozenTrial:
    """A trial around the defaults, fitter the nearer it is; one of two was pruned."""
    hyp: dict[str, Value] = {}
    distance = 0.0
    for param in space.evolving:
        step = SPREAD * float(rng.standard_normal())
        hyp[param.name] = param.from_unit(param.to_unit(param.default) + step)
        distance += step**2
    pruned = rng.random() < 0.5
    fitness = float(np.exp(-distance) + 0.05 * rng.standard_normal())
    reported = range(1, (PRUNED_AFTER if pruned else EPOCHS) + 1)
    return create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=fitness,
        params=hyp,
        distributions={param.name: distribution(param) for param in space.evolving},
        intermediate_values={epoch: fitness * epoch / EPOCHS for epoch in reported},
    )


def ask_and_tell(study: Study, arm: str, space: Space, times: int) -> tuple[float, float]:
    """Median seconds of an ask and of a tell of this arm, in a study opened by it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = ARMS[arm].make(space, SEED)
    study = optuna.load_study(study_name=study.study_name, storage=study._storage, sampler=sampler)
    asks, tells = [], []
    for _ in range(times + 1):
        began = time.perf_counter()
        trial = study.ask()
        suggest(trial, space)
        asked = time.perf_counter()
        study.tell(trial, 0.5)
        asks.append(asked - began)
        tells.append(time.perf_counter() - asked)
    return statistics.median(asks[1:]), statistics.median(tells[1:])


def _measured(
    study: Study,
    arm: str,
    space: Space,
    size: int,
    times: int,
    before: Sequence[tuple[float, float] | None],
    limit: float,
) -> tuple[float, float] | None:
    """None where the arm was too slow before."""
    if any(found is None or found[0] > limit for found in before):
        return None
    found = ask_and_tell(study, arm, space, times)
    sys.stderr.write(f"{arm}, {size} trials: {1000 * found[0]:.1f} ms an ask\n")
    return found


def _cell(found: tuple[float, float] | None) -> str:
    return "-" if found is None else f"{1000 * found[0]:.1f} / {1000 * found[1]:.1f}"


def _open(storage: str, folder: Path) -> BaseStorage:
    if storage not in STORAGES:
        raise SystemExit(f"unknown storage {storage!r}; known: {', '.join(STORAGES)}")
    urls = {
        "memory": "memory:",
        "sqlite": sqlite_url(folder / "study.db"),
        "journal": f"journal:{folder / 'study.log'}",
    }
    return open_storage(urls[storage])


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
