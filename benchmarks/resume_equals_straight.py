"""Runs a study in several goes and another in one, and compares them hyp for hyp, state for state, value for value.

Both have one worker, the same settings and the same total. `--split 17,23` stops the first after 17 generations and
resumes it for 23 more. Equal means the same bits: every hyp, training seed, state, and the fitness of every epoch; and
the same best/hyp.yaml. For what happens when a study is stopped in the middle of a trial see kill_and_resume.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.arms import seed_list
from benchmarks.report import header, print_now
from benchmarks.small_study import SmallStudy, add_settings, runs_folder, settings_of
from benchmarks.stored import StoredStudy, first_difference
from search_spaces import load_hyp


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume_equals_straight", description=__doc__)
    parser.add_argument("--split", type=seed_list, default=(17, 23), metavar="N,N,...", help="default: 17,23")
    add_settings(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    print_now(header(__file__, argv, [arguments.seed]) + "\n")
    totals = list(itertools.accumulate(arguments.split))
    with runs_folder(arguments.runs) as runs, ExitStack() as stack:
        resumed, straight = (SmallStudy(runs, name, settings_of(arguments)) for name in ("resumed", "straight"))
        for study, goes in ((resumed, totals), (straight, totals[-1:])):
            stack.callback(study.close)
            begun = time.monotonic()
            for total in goes:
                study.run(total)
            print_now(describe(study, goes, time.monotonic() - begun))
        difference = first_difference(read(resumed), read(straight))
        if difference is None and load_hyp(resumed.paths.best_hyp) != load_hyp(straight.paths.best_hyp):
            difference = "best/hyp.yaml is another"
    print_now(f"\n{' + '.join(map(str, arguments.split))} resumed and {totals[-1]} straight are {verdict(difference)}")
    return 1 if difference else 0


def read(study: SmallStudy) -> StoredStudy:
    stored = study.read()
    assert stored is not None, "evolve run ended with exit code 0"
    return stored


def describe(study: SmallStudy, goes: Sequence[int], seconds: float) -> str:
    trials = read(study).by_generation.values()
    states = ", ".join(f"{count} {name}" for name, count in Counter(trial.state.name for trial in trials).items())
    return f"{study.folder.name}: up to {', then '.join(map(str, goes))} generations in {seconds:.0f} s: {states}"


def verdict(difference: str | None) -> str:
    return (
        "equal: hyps, seeds, states, fitness by epoch, best/hyp.yaml"
        if difference is None
        else f"NOT equal: {difference}"
    )


if __name__ == "__main__":
    sys.exit(main())
