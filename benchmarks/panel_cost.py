"""What the live panel costs: the CPU time of a drawing, and its share of a processor while a study of 4 workers runs.

The panel draws to a terminal of its own (a pty, whose other end is read by a thread that is not counted). For --seconds
trials of 30 epochs end as fast as a core of small pictures makes them; what the same events cost without the panel is
taken off.
"""

from __future__ import annotations

import argparse
import os
import pty
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType

from benchmarks.report import header
from evolve.panel import LivePanel
from evolve.standing import Outcome, Standing
from evolve.watcher import Opened, Silence, Watcher
from studies import BestHyp, Score

WORKERS, EPOCHS, EPOCH_S = 4, 30, 0.2


def main() -> None:
    args = parse_args()
    print(header(__file__, sys.argv[1:], [0]), flush=True)
    for width, height in ((80, 24), (160, 48)):
        panel, draws = watched(args.seconds, width, height)
        silent = cpu_of(Silence(), args.seconds)
        share = (panel - silent) / args.seconds
        each = 1000 * (panel - silent) / draws
        print(
            f"{width} x {height}: {draws} drawings in {args.seconds} s, {each:.2f} ms each: {share:.2%} of a processor"
        )


def watched(seconds: float, width: int, height: int) -> tuple[float, int]:
    """CPU seconds of the same study with a panel, and how often that drew."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=drain, args=(ours,), daemon=True)
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        console = Console(file=terminal, width=width, height=height, force_terminal=True, color_system="256")
        panel = Counted(console)
        spent = cpu_of(panel, seconds)
        panel._stop()
    return spent, panel.draws


class Counted(LivePanel):
    draws = 0

    def draw(self) -> RenderableType:
        self.draws += 1
        return super().draw()


def cpu_of(watcher: Watcher, seconds: float) -> float:
    """The CPU seconds of this process while the watcher is told of a study."""
    best = BestHyp({"lr0": 0.013}, 0.3921, {}, 3, 3, "digits", base=Score(0.35, 3, 0.0123))
    standing = Standing(best=best)
    watcher.opened(Opened("digits", Path("runs/digits"), 300, EPOCHS, "10 classes, 320 pictures", standing))
    running = dict.fromkeys(range(WORKERS), 0)
    for number in running:
        watcher.started(number)
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        time.sleep(EPOCH_S / WORKERS)
        number = min(running, key=lambda one: (running[one], one))
        running[number] += 1
        watcher.epoch(number, running[number], 0.3)
        if running[number] == EPOCHS:
            del running[number]
            outcome = Outcome(number, "complete", EPOCHS, 0.3 + number / 1000, change="lr0 0.01 -> 0.013")
            standing = replace(standing.after(outcome), best=best)
            watcher.finished(outcome, standing)
            running[number + WORKERS] = 0
            watcher.started(number + WORKERS)
    return time.process_time() - cpu


def drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:
        return


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long each size runs (default: 60)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
