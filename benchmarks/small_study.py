"""A study so small that it can be run over and over: its settings, and `evolve run` on it in processes of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from benchmarks.report import ROOT
from benchmarks.stored import StoredStudy, read_stored
from evolve.paths import RunPaths

MARK = "EVOLVE_BENCHMARK"  # an environment variable: whatever a study started, and what that started, has inherited it
SETTINGS = {"data": "digits", "model": "pico", "epochs": 3, "imgsz": 64, "batch": 16, "threads": 1, "seed": 0}

Found = TypeVar("Found")


class SmallStudy:
    """`evolve run` on one run folder, started as often as asked; `close` leaves no process behind.

    `usual` are settings of a study that may be started with any total of generations, and again with more of them.
    """

    def __init__(
        self,
        runs: Path,
        name: str,
        settings: Sequence[str],
        environment: Mapping[str, str] | None = None,
        usual: Sequence[str] = ("--race", "0", "--base-seeds", "3"),
    ) -> None:
        self.folder = runs / name
        self.paths = RunPaths(self.folder)
        self.output = runs / f"{name}.log"
        self._arguments = [*usual, "--runs", str(runs), "--study", name, *settings]
        self._mark = uuid.uuid4().hex
        self._environment = dict(environment or {})
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, generations: int) -> subprocess.Popen[bytes]:
        """`evolve run` up to that total of generations; what it says is appended to `output`."""
        command = [sys.executable, "-m", "evolve", "run", "--generations", str(generations), *self._arguments]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with open(self.output, "ab") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path, **self._environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def run(self, generations: int) -> None:
        """`evolve run` to its end; RuntimeError with what it said last where that is not exit code 0."""
        code = self.start(generations).wait()
        if code != 0:
            raise RuntimeError(f"evolve run ended with exit code {code}: {self.last_words()}")

    def read(self) -> StoredStudy | None:
        return read_stored(self.folder)

    def processes(self) -> list[int]:
        """Every living process that was started by or for this study, however many parents it has outlived."""
        wanted = f"{MARK}={self._mark}".encode()
        return [pid for pid in _all_processes() if wanted in _environment(pid)]

    def worker_of(self, parent: subprocess.Popen[bytes]) -> int | None:
        """The process in which `parent` trains; None while there is none."""
        return next((pid for pid in self.processes() if pid != parent.pid and os.getpgid(pid) == pid), None)

    def last_words(self, lines: int = 3) -> str:
        said = self.output.read_text(errors="replace").splitlines() if self.output.exists() else []
        return " / ".join(line.strip() for line in said[-lines:]) or "it said nothing"

    def close(self) -> None:
        """End what is left of it."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait()


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of a small study as options, and --runs."""
    for name, default in SETTINGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="default: %(default)s")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep the run folders here (must be new or empty)")


def settings_of(arguments: argparse.Namespace) -> list[str]:
    """The settings as flags of `evolve run`."""
    return [text for name in SETTINGS for text in (f"--{name}", str(getattr(arguments, name)))]


@contextmanager
def runs_folder(wanted: Path | None) -> Iterator[Path]:
    """A fresh folder for run folders: the wanted one, which stays, or one that is removed in the end."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="evolve-benchmark-") as folder:
            yield Path(folder)
        return
    wanted.mkdir(parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        raise SystemExit(f"{wanted} is not empty; these studies have to begin anew")
    yield wanted.resolve()


def wait_for(condition: Callable[[], Found], timeout_s: float) -> Found:
    """What the condition gives as soon as that is true in itself, or at last when time is up."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _all_processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _environment(pid: int) -> list[bytes]:
    """The variables a process was started with; none for a zombie, or for somebody else's process."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
