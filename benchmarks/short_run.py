"""What a short run learns and costs: the default hyps, several lengths and seeds, and a peer beside us, interleaved."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arms import OPTIONS, add_options, describe, options_of, seed_list
from benchmarks.peer import train_peer
from benchmarks.report import header, print_now, table, without_paths
from evolve.plugins import resolve
from search_spaces import Hyp, load_hyp, load_space
from trainer import TrainJob, TrainOptions
from trainer.process import ProcessTrainer

OURS = "evolve"
PEER_BATCH = 16  # its default, and what it is at its best with


@dataclass(frozen=True)
class Measured:
    """One training: who, how long, and what it came to. `total_s` is from the call to the last score, without imports
    for us (the process is there, as in a study), with them for the peer."""

    name: str
    epochs: int
    seed: int
    map50_95: float
    map50: float
    epoch_s: float
    total_s: float
    setup_s: float
    peak_mib: float


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.short_run", description=__doc__)
    add_options(parser, *(name for name in OPTIONS if name != "epochs"))
    parser.add_argument("--epochs", type=seed_list, default=(10,), metavar="N,N,...", help="lengths (default: 10)")
    parser.add_argument("--seeds", type=seed_list, default=(0, 1, 2), metavar="N,N,...", help="default: 0,1,2")
    parser.add_argument("--hyp", type=Path, metavar="FILE", help="default: the defaults of the space `detection`")
    parser.add_argument("--split", default="val", help="what is scored (default: %(default)s)")
    parser.add_argument("--peers", default="", metavar="NAME,...", help="models of ultralytics, e.g. yolov8n,yolo11n")
    parser.add_argument("--peer-python", default=sys.executable, metavar="FILE", help="an interpreter that has it")
    parser.add_argument("--peer-batch", type=int, default=PEER_BATCH, help="default: %(default)s")
    parser.add_argument("--peer-threads", type=int, default=2, help="its compute threads (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    print_now(header(__file__, without_paths(argv), arguments.seeds) + "\n")
    lengths: tuple[int, ...] = arguments.epochs
    arguments.epochs = lengths[0]
    options = dataclasses.replace(options_of(arguments), split=arguments.split)
    hyp = load_hyp(arguments.hyp) if arguments.hyp else load_space("detection").defaults()
    peers = [name.strip() for name in arguments.peers.split(",") if name.strip()]
    pictures = count_pictures(options)
    print_now(f"{describe(options)}; {count_parameters(options):,} parameters; scored on {options.split}")
    if peers:
        print_now(f"peers: batch {arguments.peer_batch}, {arguments.peer_threads} threads, their defaults otherwise")
    measured: list[Measured] = []
    for epochs in lengths:
        for seed in arguments.seeds:
            job = dataclasses.replace(options, epochs=epochs, seed=seed)
            measured.append(measure_ours(hyp, job))
            sys.stderr.write(f"{measured[-1]}\n")
            for peer in peers:
                theirs = dataclasses.replace(job, threads=arguments.peer_threads)
                measured.append(measure_peer(arguments.peer_python, peer, theirs, arguments.peer_batch))
                sys.stderr.write(f"{measured[-1]}\n")
    print_now(show(measured, pictures))
    return 0


def measure_ours(hyp: Hyp, options: TrainOptions) -> Measured:
    """Train once in a process that has torch loaded and the data cached, as a study's second trial finds it."""
    with tempfile.TemporaryDirectory(prefix="evolve-benchmark-") as folder:
        log = Path(folder) / "worker.log"
        with ProcessTrainer(resolve("trainer", "detection"), threads=options.threads, log=log) as process:
            process.prepare(options)
            if options.device != "cpu":  # a GPU's libraries are loaded by a training, and stay
                warm = dataclasses.replace(options, epochs=1)
                list(process.train(TrainJob(hyp, warm, Path(tempfile.mkdtemp(dir=folder)))))
            started = time.perf_counter()
            epochs = list(process.train(TrainJob(hyp, options, Path(tempfile.mkdtemp(dir=folder)))))
            total = time.perf_counter() - started
            peak = peak_mib(process.pid)
    seconds = [metrics.seconds for metrics in epochs]
    last = epochs[-1]
    return Measured(
        name=f"{OURS} {Path(options.model).stem}",
        epochs=options.epochs,
        seed=options.seed,
        map50_95=last.map50_95,
        map50=last.map50,
        epoch_s=statistics.median(seconds),
        total_s=total,
        setup_s=total - sum(seconds),
        peak_mib=peak,
    )


def measure_peer(python: str, model: str, options: TrainOptions, batch: int) -> Measured:
    run = train_peer(python, model, options, batch=batch)
    return Measured(
        name=model,
        epochs=options.epochs,
        seed=options.seed,
        map50_95=run.map50_95[-1],
        map50=run.map50[-1],
        epoch_s=statistics.median(run.epoch_s),
        total_s=run.process_s,
        setup_s=run.process_s - sum(run.epoch_s),
        peak_mib=run.peak_mib,
    )


def peak_mib(pid: int | None) -> float:
    """The most memory that a process has held; NaN where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


def count_parameters(options: TrainOptions) -> int:
    """Learned numbers of the model for the classes of the data."""
    from trainer.detection.darknet import load_model
    from trainer.detection.data import find_data

    return sum(parameter.numel() for parameter in load_model(options.model, find_data(options.data).nc).parameters())


def count_pictures(options: TrainOptions) -> int:
    """Training pictures of the data."""
    from trainer.detection.data import find_data, load_split

    return len(load_split(find_data(options.data), "train", options.imgsz).files)


def show(measured: Sequence[Measured], pictures: int) -> str:
    """A row for each length and each who: scores of all seeds, their spread, and what it cost."""
    head = (
        "epochs", "who", "map50_95 by seed", "mean", "sd", "sd / mean", "map50",
        "s/epoch", "ours / theirs", "pictures/s", "s in all", "set-up s", "map50_95 a minute", "peak MiB",
    )  # fmt: skip
    groups: dict[tuple[int, str], list[Measured]] = {}
    for each in measured:
        groups.setdefault((each.epochs, each.name), []).append(each)
    ours = {epochs: group for (epochs, name), group in groups.items() if name.startswith(OURS)}
    return table(head, [_row(group, ours[epochs], pictures) for (epochs, _), group in groups.items()])


def _row(group: Sequence[Measured], ours: Sequence[Measured], pictures: int) -> tuple[object, ...]:
    scores = [each.map50_95 for each in group]
    mean = statistics.fmean(scores)
    spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
    epoch_s = statistics.median(each.epoch_s for each in group)
    total_s = statistics.median(each.total_s for each in group)
    our_epoch_s = statistics.median(each.epoch_s for each in ours)
    return (
        group[0].epochs,
        group[0].name,
        ", ".join(f"{score:.3f}" for score in scores),
        mean,
        spread,
        f"{spread / mean:.2f}" if mean else "",
        statistics.fmean(each.map50 for each in group),
        f"{epoch_s:.3f}",
        f"{our_epoch_s / epoch_s:.2f}",
        f"{pictures / epoch_s:.0f}",
        f"{total_s:.1f}",
        f"{statistics.median(each.setup_s for each in group):.2f}",
        f"{60 * mean / total_s:.3f}",
        f"{max(each.peak_mib for each in group):.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
