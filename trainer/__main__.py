"""python -m trainer: one training from the shell, one JSON line an epoch on standard output."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import fields
from pathlib import Path

from trainer.api import DataError, EpochMetrics, TrainerError, TrainJob, TrainOptions, Value
from trainer.messages import metrics_to_dict, options_from_dict
from trainer.process import thread_settings
from trainer.worker import load_trainer
from trainer.yaml_files import cut_short, load_yaml, shown

DEFAULT_TRAINER = "trainer.detection.trainer:DetectionTrainer"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 1 (the training failed), 2 (asked wrongly, or data that none can train on), 130 (interrupted)."""
    arguments = build_parser().parse_args(argv)
    try:
        run(arguments)
    except TrainerError as error:
        complain(str(error))
        return 2 if isinstance(error, DataError) else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:  # whoever read our lines has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python still holds back goes nowhere
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """An option for each field of TrainOptions, so that what can be asked for is listed in one place."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("--hyp", type=Path, metavar="FILE", help="YAML of hyps; those left out keep their defaults")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="where the training writes (default: thrown away)")
    parser.add_argument("--resume", action="store_true", help="go on from the last.pt in --workdir, with equal options")
    parser.add_argument("--trainer", default=DEFAULT_TRAINER, metavar="MODULE:ATTR", help="who trains (%(default)s)")
    for option in fields(TrainOptions):
        flag = "--" + option.name.replace("_", "-")
        if isinstance(option.default, bool):
            needs = "needs --workdir" if option.name in ("save", "plots") else None
            parser.add_argument(flag, action="store_true", help=needs)
        elif isinstance(option.default, tuple):
            nargs = len(option.default)
            parser.add_argument(flag, type=float, nargs=nargs, default=option.default, help="default: %(default)s")
        else:
            parser.add_argument(flag, type=type(option.default), default=option.default, help="default: %(default)s")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Train as asked and write the epochs to standard output, what was found in the data to standard error."""
    options = options_from_dict({option.name: getattr(arguments, option.name) for option in fields(TrainOptions)})
    for flag, given in (("save", options.save), ("plots", options.plots), ("resume", arguments.resume)):
        if given and arguments.workdir is None:
            raise DataError(f"--{flag} needs --workdir DIR, the folder of the training")
    hyp = {} if arguments.hyp is None else read_hyp(arguments.hyp)
    for name, setting in thread_settings(options.threads).items():
        os.environ.setdefault(name, setting)  # read when torch is loaded, which is below
    trainer = load_trainer(arguments.trainer)
    prepared = trainer.prepare(options)
    speaks = speaks_for_all()
    for line in (prepared.summary, *(f"warning: {warning}" for warning in prepared.warnings)):
        if speaks:
            sys.stderr.write(line + "\n")
    with ExitStack() as stack:
        workdir = arguments.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workdir.mkdir(parents=True, exist_ok=True)
        epochs = trainer.train(TrainJob(hyp, options, workdir, arguments.resume))
        for metrics in stack.enter_context(closing(epochs)):
            if speaks:
                write_line(metrics)


def speaks_for_all() -> bool:
    """Whether this process reports: of those that torchrun started for one training, only the first does."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def read_hyp(path: Path) -> dict[str, Value]:
    """The hyps of a YAML file of name: value. Raises DataError. Numeric text counts as a number: to PyYAML, which is
    YAML 1.1, `1e-5` is text."""
    read = load_yaml(path)
    if not isinstance(read, dict):
        raise DataError(f"hyp file {path} must hold lines of name: value, got {type(read).__name__}")
    return {str(name): read_value(path, name, value) for name, value in read.items()}


def read_value(path: Path, name: object, value: object) -> Value:
    if not isinstance(value, Value):
        raise DataError(f"hyp file {path}: {cut_short(name)} must be one value, got {shown(value)}")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def write_line(metrics: EpochMetrics) -> None:
    sys.stdout.write(json.dumps(metrics_to_dict(metrics)) + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
