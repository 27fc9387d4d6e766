"""What the core's departures from the trainers' conventions are worth in a short run, each taken back by hyps alone.

Every arm is the default with one thing changed, and all arms train with the same seeds in turn. `obj` and `cls` stand
in the loss only as products with the scales that trainer/detection/loss.py explains, so another scale is another hyp:

    box scale   2 is ours; YOLOv5 v7.0 has none
    obj scale   (imgsz / 640)^2 is ours and YOLOv5's; the first power and none weigh a small picture's cells more
    cls scale   nc / 20 is ours; YOLOv5 v7.0 has nc / 80
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from benchmarks.arms import OPTIONS, Arm, Trained, add_options, describe, options_of, seed_list, train_arms
from benchmarks.report import Difference, header, print_now, table, with_error
from search_spaces import Hyp, Value, load_space
from trainer import TrainOptions

OURS = "ours"
ADAMW_LR0 = 0.003  # a rate that suits it better than SGD's 0.01


def arms_of(hyp: dict[str, Value], options: TrainOptions) -> list[Arm]:
    """Ours, then one arm for each choice that was made."""
    shrunk = options.imgsz / 640
    found = [
        Arm(OURS, hyp, options),
        Arm("box scale 1", _scaled(hyp, "box", 0.5), options),
        Arm("obj scale imgsz/640", _scaled(hyp, "obj", 1 / shrunk), options),
        Arm("obj scale 1", _scaled(hyp, "obj", 1 / shrunk**2), options),
        Arm("cls scale nc/80", _scaled(hyp, "cls", 20 / 80), options),
    ]
    found += [
        Arm(name, hyp, dataclasses.replace(options, schedule=name))
        for name in ("cosine", "linear", "trapezoid")
        if name != options.schedule
    ]
    found += [
        Arm(f"batch {size}", hyp, dataclasses.replace(options, batch=size)) for size in (8, 16) if size != options.batch
    ]
    if options.optimizer != "adamw":
        adamw = dataclasses.replace(options, optimizer="adamw")
        found.append(Arm("adamw", hyp, adamw))
        found.append(Arm(f"adamw, lr0 {ADAMW_LR0}", {**hyp, "lr0": ADAMW_LR0}, adamw))
    if options.optimizer != "sgd":
        found.append(Arm("sgd", hyp, dataclasses.replace(options, optimizer="sgd")))
    found += [
        Arm(f"mosaic {share:g}", {**hyp, "mosaic": share}, options) for share in (0.0, 1.0) if share != hyp["mosaic"]
    ]
    return found


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.core_choices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, *OPTIONS)
    parser.add_argument("--seeds", type=seed_list, default=(0, 1, 2), metavar="N,N,...", help="default: 0,1,2")
    parser.add_argument("--arms", metavar="TEXT,...", help="only arms whose name holds one of these texts")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    print_now(header(__file__, argv, arguments.seeds) + "\n")
    options = options_of(arguments)
    arms = chosen(arms_of(load_space("detection").defaults(), options), arguments.arms)
    print_now(f"ours: {describe(options)}, the defaults of the space `detection`; scored on {options.split}")
    print_now(show(train_arms(arms, arguments.seeds)))
    return 0


def chosen(arms: Sequence[Arm], wanted: str | None) -> list[Arm]:
    """Ours and what was asked for."""
    if wanted is None:
        return list(arms)
    found = [arm for arm in arms if arm.name == OURS or any(text.strip() in arm.name for text in wanted.split(","))]
    if len(found) == 1:
        raise SystemExit(f"no arm is named {wanted}; there are {', '.join(arm.name for arm in arms)}")
    return found


def show(trained: Sequence[Trained]) -> str:
    """A row an arm: means over the seeds, ratio to ours, and the paired difference."""
    ours = next(each for each in trained if each.arm.name == OURS)
    head = ("arm", "map50_95", "map50", "map50_95 / ours", "- ours, paired", "s/epoch")
    return table(head, [_row(each, ours) for each in trained])


def _row(each: Trained, ours: Trained) -> tuple[object, ...]:
    (mean, error), (our_mean, _) = each.mean("map50_95"), ours.mean("map50_95")
    difference = Difference.of(each.last("map50_95"), ours.last("map50_95"))
    return (
        each.arm.name,
        with_error(mean, error),
        with_error(*each.mean("map50")),
        f"{mean / our_mean:.2f}" if our_mean else "",
        "" if each is ours else with_error(difference.mean, difference.paired_error, sign=True),
        f"{each.epoch_s:.2f}",
    )


def _scaled(hyp: Hyp, name: str, factor: float) -> dict[str, Value]:
    return {**hyp, name: float(hyp[name]) * factor}


if __name__ == "__main__":
    sys.exit(main())
