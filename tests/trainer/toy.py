"""A real trainer without torch: a linear classifier fitted by SGD, which breaks on demand in every way we know."""

# ruff: noqa: T201 - it prints, as trainers do

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from trainer import (
    DataError,
    EpochMetrics,
    Hyp,
    Prepared,
    TrainerError,
    TrainingDiverged,
    TrainJob,
    TrainOptions,
)

DEFAULTS = {"lr0": 0.05, "momentum": 0.5, "weight_decay": 0.0, "fault": "", "fault_epoch": 1}


class ToyTrainer:
    """Least squares on targets of -1 and 1; a huge lr0 really diverges. The hyp `fault` names a way to break down."""

    hyps = frozenset(DEFAULTS)

    def prepare(self, options: TrainOptions) -> Prepared:
        print("toy: preparing")
        check(options)
        points, _ = draw_points("train")
        return Prepared(hashlib.sha256(points.tobytes()).hexdigest(), f"{len(points)} points", ("a toy",))

    def train(self, job: TrainJob) -> Iterator[EpochMetrics]:
        check(job.options)
        if unknown := sorted(job.hyp.keys() - DEFAULTS.keys()):
            raise TrainerError(f"unknown hyps: {', '.join(unknown)}")
        hyp: Hyp = {**DEFAULTS, **job.hyp}
        rng = np.random.default_rng(job.options.seed)
        points, targets = draw_points("train")
        weights, velocity = rng.normal(0, 1, points.shape[1]), np.zeros(points.shape[1])
        try:
            for epoch in range(1, job.options.epochs + 1):
                started = time.perf_counter()
                if hyp["fault"] and epoch == hyp["fault_epoch"]:
                    break_down(str(hyp["fault"]), job)
                with np.errstate(all="ignore"):
                    for rows in np.array_split(rng.permutation(len(points)), len(points) // job.options.batch):
                        gradient = (points[rows] @ weights - targets[rows]) @ points[rows] / len(rows)
                        velocity = hyp["momentum"] * velocity + gradient + hyp["weight_decay"] * weights
                        weights = weights - hyp["lr0"] * velocity
                    loss = float(np.mean((points @ weights - targets) ** 2))
                if not np.isfinite(loss):
                    raise TrainingDiverged(epoch, {"squares": loss})
                yield score(weights, epoch, loss, time.perf_counter() - started)
        finally:
            (job.workdir / "cleaned-up").touch()
            if hyp["fault"] == "hang in close":
                time.sleep(600)


def train(job: TrainJob) -> Iterator[EpochMetrics]:
    """The same as a function, which is a trainer too."""
    yield from ToyTrainer().train(job)


def check(options: TrainOptions) -> None:
    if options.data != "points":
        raise DataError(f"the only data here is 'points', got {options.data!r}")
    for name in ("epochs", "batch"):
        if getattr(options, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(options, name)}")


def draw_points(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping clouds: points float64 [256, 9], the last column 1, and targets -1 or 1 [256]."""
    rng = np.random.default_rng([7, split == "train"])
    targets = rng.choice([-1.0, 1.0], 256)
    clouds = rng.normal(0, 1.5, (256, 8)) + targets[:, None] * np.linspace(0, 1, 8)
    return np.column_stack([clouds, np.ones(256)]), targets


def score(weights: np.ndarray, epoch: int, loss: float, seconds: float) -> EpochMetrics:
    """On fresh points. The "mAPs" are the share of points that are right at all, and right by ten rising margins."""
    points, targets = draw_points("val")
    outputs = points @ weights
    found = np.sum((outputs > 0) & (targets > 0))
    right_by = outputs * targets
    return EpochMetrics(
        epoch=epoch,
        precision=float(found / max(1, np.sum(outputs > 0))),
        recall=float(found / np.sum(targets > 0)),
        map50=float(np.mean(right_by > 0)),
        map50_95=float(np.mean(right_by[:, None] > np.linspace(0, 0.9, 10))),
        losses={"squares": loss},
        seconds=seconds,
    )


def break_down(fault: str, job: TrainJob) -> None:
    match fault:
        case "TrainerError":
            raise TrainerError("the toy is out of order")
        case "DataError":
            raise DataError("the points are gone")
        case "ValueError":
            raise ValueError("a bug in the toy")
        case "NaN":
            raise TrainingDiverged(2, {"box": float("nan"), "obj": float("inf"), "cls": 1 / 3})
        case "out of memory":
            np.empty(1 << 50)
        case "hog":  # more than any limit of ours, if less than what the system would promise
            _ = [np.empty(1 << 26) for _ in range(40)]
        case "CUDA out of memory":  # torch 2.5, c10/cuda/CUDACachingAllocator.cpp
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.9 GiB")
        case "CUDA":
            raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")
        case "sys.exit":
            sys.exit(1)
        case "os._exit":
            print("going now")
            os._exit(3)
        case "segmentation fault":
            ctypes.string_at(0)
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            (job.workdir / "asleep").touch()
            time.sleep(600)
        case "nap":  # of a second
            (job.workdir / "asleep").touch()
            time.sleep(1)
        case "sleep with the lock held":  # no other Python thread can run meanwhile
            (job.workdir / "asleep").touch()
            ctypes.PyDLL(None).sleep(600)
        case "program":  # as a trainer does that runs an external one, and then waits
            program = subprocess.Popen(["sleep", "600"])
            (job.workdir / "program").write_text(str(program.pid))
            print("program", program.pid)
            (job.workdir / "asleep").touch()
            program.wait()
        case "program, then segmentation fault":
            program = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
            (job.workdir / "program").write_text(str(program.pid))
            ctypes.string_at(0)
        case "fork, then exit":  # the fork holds every descriptor of ours open
            if (pid := os.fork()) == 0:
                time.sleep(600)
            (job.workdir / "program").write_text(str(pid))
            os._exit(3)
        case "chatter":
            print("Python prints")
            print("and complains", file=sys.stderr)
            ctypes.CDLL(None).puts(b"C prints")
            os.write(1, b'{"metrics": "a descriptor is written to"}\n')
            subprocess.run(["echo", "a program prints"], check=True)
            print("input:", sys.stdin.read().encode())
        case "environment":
            names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONPATH")
            print({name: os.environ.get(name) for name in names})
        case "hang in close":
            pass
        case unknown:
            raise TrainerError(f"no such fault: {unknown}")
