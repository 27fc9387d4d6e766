"""What the built-in core reaches in a short run and what an epoch costs: one hyp, several seeds, no study around it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arms import OPTIONS, Arm, Trained, add_options, describe, options_of, seed_list, train_arms
from benchmarks.report import header, print_now, table, with_error
from search_spaces import load_hyp, load_space
from trainer import TrainOptions


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.short_run", description=__doc__)
    add_options(parser, *OPTIONS)
    parser.add_argument("--seeds", type=seed_list, default=(0, 1, 2), metavar="N,N,...", help="default: 0,1,2")
    parser.add_argument("--hyp", type=Path, metavar="FILE", help="default: the defaults of the space `detection`")
    parser.add_argument("--split", default="val", help="what is scored (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    print_now(header(__file__, argv, arguments.seeds) + "\n")
    options = options_of(arguments)
    hyp = load_hyp(arguments.hyp) if arguments.hyp else load_space("detection").defaults()
    (trained,) = train_arms([Arm("run", hyp, options)], arguments.seeds)
    print_now(show(trained, count_parameters(options)))
    return 0


def count_parameters(options: TrainOptions) -> int:
    """Learned numbers of the model for the classes of the data."""
    from trainer.detection.darknet import load_model
    from trainer.detection.data import find_data

    return sum(parameter.numel() for parameter in load_model(options.model, find_data(options.data).nc).parameters())


def show(trained: Trained, parameters: int) -> str:
    options = trained.arm.options
    scores = zip(map(str, trained.seeds), trained.last("map50_95"), trained.last("map50"), strict=True)
    return "\n".join(
        [
            f"{describe(options)}; {parameters:,} parameters; scored on {options.split}",
            table(("seed", "map50_95", "map50"), list(scores)),
            "",
            f"mean map50_95 {with_error(*trained.mean('map50_95'))}, map50 {with_error(*trained.mean('map50'))}",
            f"{trained.epoch_s:.2f} s/epoch (median, training and evaluation)",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
