"""Where the time of a training step goes, and which share of the machine's convolution peak it reaches.

Parts are timed one by one, a median over many steps; the peak is that of large convolutions (3 x 3, 256 channels), in
the type that the training computes in, measured in the same process. On a GPU the clock waits for the device after each
part, which a training does not, so the parts add up to more than a step takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.arms import OPTIONS, add_options, describe, options_of
from benchmarks.report import header, print_now, table, without_paths
from search_spaces import load_space
from trainer import TrainJob, TrainOptions
from trainer.process import thread_settings

Made = TypeVar("Made")

WARM_UP = 5
EVALUATIONS = 5
PEAK_ROUNDS = 10
AHEAD = "augmentation and matching (on the next core)"
EVALUATION = "evaluation (once an epoch)"


class Clock:
    """Seconds of named parts; `wait` has the device finish."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._wait = wait

    def time(self, part: str, do: Callable[[], Made]) -> Made:
        started = time.perf_counter()
        made = do()
        self._wait()
        self.seconds.setdefault(part, []).append(time.perf_counter() - started)
        return made

    def median_ms(self, part: str) -> float:
        return 1000 * statistics.median(self.seconds[part][WARM_UP:] or self.seconds[part])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, *(name for name in OPTIONS if name != "epochs"))
    parser.add_argument("--steps", type=int, default=60, help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    options = options_of(arguments)
    for name, setting in thread_settings(options.threads).items():
        os.environ.setdefault(name, setting)  # read when torch is loaded, which is below
    print_now(header(__file__, without_paths(argv), [options.seed]) + "\n")
    print_now(describe(options))
    print_now(measure(options, arguments.steps))
    return 0


def measure(options: TrainOptions, steps: int) -> str:
    """Train for so many steps, part by part, and say what each took."""
    import torch

    from trainer.detection.distributed import Team
    from trainer.detection.phases import phase_at
    from trainer.detection.recipe import Recipe
    from trainer.detection.run import Run
    from trainer.detection.trainer import start_batches
    from trainer.detection.validation import score_split
    from trainer.detection.world import open_world

    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    device = torch.device(options.device)
    hyp = load_space("detection").defaults()
    job = TrainJob(hyp, options, Path(tempfile.gettempdir()))
    run = Run(job, Recipe.from_hyp(hyp), open_world(options), Team(device))
    run.enter(phase_at(options, 1))
    run.model.train()
    clock = Clock(torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    epoch = 0
    while len(clock.seconds.get("backward", ())) < steps:
        epoch += 1
        for images, matches in _timed_alone(clock, lambda: start_batches(run, epoch)):  # noqa: B023
            matches = matches.to(device)
            with run.precision.autocast(device):
                outputs = clock.time("forward", lambda: run.model(images))  # noqa: B023
            total, _ = clock.time("loss", lambda: run.updater.loss(outputs, matches))  # noqa: B023
            clock.time("backward", lambda: torch.autograd.backward(total * 64.0))  # noqa: B023
            run.schedule.advance()
            clock.time("clip, optimizer, average", run.updater.step)
            run.optimizer.zero_grad(set_to_none=True)
    for _ in range(EVALUATIONS):
        clock.time(
            EVALUATION, lambda: score_split(run.average.model, run.scored, run.world.spec.nc, run.precision.dtype)
        )
    return report(clock, run.steps, count_flops(run.model, images), find_peak(device, run.precision))


def _timed_alone(clock: Clock, start: Callable[[], Any]) -> list[Any]:
    """All batches of an epoch, made while nothing else runs; the time of each is their mean."""
    started = time.perf_counter()
    with closing(start()) as batches:
        made = list(batches)
    clock.seconds.setdefault(AHEAD, []).extend([(time.perf_counter() - started) / len(made)] * len(made))
    return made


def count_flops(model: Any, images: Any) -> float:
    """Floating-point operations of a forward and backward pass, two for each multiplication with its addition."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        sum(raw.float().sum() for raw in model(images)).backward()
    return float(counter.get_total_flops())


def find_peak(device: Any, precision: Any) -> float:
    """Operations a second of a large convolution, forward and backward, in this precision."""
    import torch

    conv = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False).to(device, memory_format=torch.channels_last)
    images = torch.rand(8, 256, 40, 40, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    flops = 3 * 2 * 8 * 40**2 * 256**2 * 9
    best = float("inf")
    for _ in range(PEAK_ROUNDS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        with precision.autocast(device):
            conv(images).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return flops / best


def report(clock: Clock, steps: int, flops: float, peak: float) -> str:
    """A row a part, with its share of the step; then the epoch, and the operations."""
    parts = [part for part in clock.seconds if part not in (AHEAD, EVALUATION)]
    step_ms = sum(clock.median_ms(part) for part in parts)
    rows: list[tuple[object, ...]] = [
        (part, f"{clock.median_ms(part):.2f}", f"{100 * clock.median_ms(part) / step_ms:.0f} %") for part in parts
    ]
    rows.append(("a step, these together", f"{step_ms:.2f}", "100 %"))
    rows.append((AHEAD, f"{clock.median_ms(AHEAD):.2f}", ""))
    rows.append((EVALUATION, f"{clock.median_ms(EVALUATION):.2f}", ""))
    epoch_ms = steps * step_ms + clock.median_ms(EVALUATION)
    convolution_ms = clock.median_ms("forward") + clock.median_ms("backward")
    return "\n".join(
        [
            table(("part", "ms", "of a step"), rows),
            "",
            f"an epoch of {steps} steps and its evaluation: {epoch_ms / 1000:.2f} s, evaluation "
            f"{100 * clock.median_ms(EVALUATION) / epoch_ms:.1f} % of it",
            f"{flops / 1e9:.1f} GFLOP a step; {flops / convolution_ms / 1e6:.0f} GFLOP/s in forward and backward, "
            f"{100 * flops / convolution_ms / 1e6 / (peak / 1e9):.0f} % of a large convolution's {peak / 1e9:.0f}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
