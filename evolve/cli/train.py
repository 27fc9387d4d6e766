"""The commands that train, score and check outside of any search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evolve.cli.door import quieten_libraries, under
from evolve.cli.options import (
    AT_LEAST_1,
    DEFAULTS,
    command_argument,
    program_options,
    run_folder_options,
    trained_options,
    training_options,
)
from evolve.config import resolve_config

command = under("Train by itself")


@command()
@trained_options
@training_options("--freeze")
@program_options
@run_folder_options
@command_argument
def train(**flags: Any) -> None:
    """Train with one hyp, outside of any study.

    Weights and results go to runs/train/exp, the next time to exp2. Of several seeds each has a folder in there.
    COMMAND, after --, is as with `evolve run`.
    """
    from evolve.order import take_order
    from evolve.training import train_and_tell

    for line in train_and_tell(take_order(flags)):
        click.echo(line)


@command()
@click.option("--weights", required=True, metavar="FILE", help="best.pt of a training, or other weights of --model.")
@click.option("--data", default="", metavar="NAME|PATH", help="Data set to score on.  [default: that of the training]")
@click.option(
    "--model",
    default="",
    metavar="NAME|FILE",
    help="Model of weights that do not say theirs: a built-in one or a Darknet cfg.",
)
@click.option("--split", default="val", show_default=True, metavar="NAME", help="What is scored: train, val, test.")
@click.option("--imgsz", type=AT_LEAST_1, metavar="N", help="Image size in pixels.  [default: as in the training]")
@click.option("--batch", type=AT_LEAST_1, metavar="N", help="Images in a batch.  [default: what suits the device]")
@click.option(
    "--device",
    default=DEFAULTS["device"],
    show_default=True,
    metavar="NAME",
    help="Where to compute: cpu, cuda, cuda:1, ...",
)
@click.option("--conf", type=float, metavar="SHARE", help="Drop detections of less confidence.  [default: 0.001]")
@click.option(
    "--iou", type=float, metavar="SHARE", help="Drop a detection that overlaps a surer one by more.  [default: 0.6]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--plots", metavar="FOLDER", help="Leave figures and pictures there.")
def val(weights: str, plots: str | None, as_json: bool, **asked: Any) -> None:
    """Score a file of weights: overall, and each class for itself."""
    from rich.console import Console

    from evolve.validating import score_weights, scores_as_json, tell_scores
    from evolve.waiting import Bar
    from trainer.progress import listening

    with Bar(Console(stderr=True)) as bar, listening(bar.tell):
        report = score_weights(weights, **asked)
    if as_json:
        click.echo(scores_as_json(report))
    else:
        tell_scores(Console(), report)
    if plots:
        from trainer.detection.figures import leave_validation

        page = leave_validation(Path(plots), names=report.names, scored=report.pictures, detections=report.detections)
        click.echo(f"figures: {page}", err=as_json)


@command()
@click.argument("data")
@click.option("--imgsz", type=AT_LEAST_1, metavar="N", help="Pixels to measure boxes at.  [default: as in training]")
@click.option("--single-cls", is_flag=True, help="Take all classes for one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def check(data: str, imgsz: int | None, single_cls: bool, as_json: bool) -> None:
    """Tell what a data set holds, and what is wrong with it.

    DATA is whatever --data may be. Exit code 2, with one sentence, if it cannot be trained on; 0 if it can.
    """
    from rich.console import Console

    from evolve.checking import report_as_json, tell_report
    from evolve.waiting import Bar
    from trainer.detection.data.report import inspect_data
    from trainer.progress import listening

    options = resolve_config({"data": data, "imgsz": imgsz}).train_options()
    with Bar(Console(stderr=True)) as bar, listening(bar.tell):
        report = inspect_data(data, options.imgsz, single_cls=single_cls)
    if as_json:
        click.echo(report_as_json(report))
    else:
        tell_report(Console(), report)


@command()
@click.option(
    "--curves", required=True, metavar="SOURCE", help="A study, a run folder, or a .jsonl, .csv or .npz file."
)
@click.option("--pruner", "pruners", multiple=True, metavar="NAME", help="May be repeated.  [default: all]")
@click.option("--orders", type=click.IntRange(min=0), default=0, help="Replay in N random orders.", metavar="N")
@click.option("--sampler", metavar="NAME", help="Let it choose the order.  [default: as the study had it]")
@click.option("--minimize", is_flag=True, help="The fitness in a .jsonl or .csv is a loss: lower is better.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Of orders and sampler."
)
@click.option(
    "--runs", default=DEFAULTS["runs"], show_default=True, metavar="FOLDER", help="Folder of the run folders."
)
def simulate(curves: str, pruners: tuple[str, ...], runs: str, minimize: bool, **asked: Any) -> None:
    """Replay recorded trainings through pruners.

    Tells what each would have cost or saved. Only a training that ran to its end can be replayed, so a study without
    pruning tells most. With --sampler each of its proposals stands for the nearest recorded hyp that is left, since it
    was never trained itself: the sampler changes the order and nothing else.
    """
    quieten_libraries()
    from rich.console import Console

    from evolve.curves import read_curves
    from evolve.simulating import known_pruners, simulate, tell_simulated

    recording = read_curves(curves, Path(runs), minimize=minimize)
    tell_simulated(Console(), recording, list(simulate(recording, known_pruners(pruners), **asked)))
