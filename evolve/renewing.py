"""Renews a study's report.html while it runs: from time to time, in a process of its own that gives way to trainings.

Drawing a report takes seconds of computing and a few hundred megabytes. In a process of low priority they are nobody
else's, and are given back. It is begun so seldom that it takes a hundredth of the time at most.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evolve.config import EvolveConfig, mask_secrets
from evolve.paths import RunPaths
from evolve.standing import Outcome, Standing
from evolve.watcher import Ended, Relay, Watcher
from studies.persistence import temporary_of
from trainer.process import import_path

if TYPE_CHECKING:
    from studies.race import Heat

SHARE = 0.01  # of the time, at most, that is spent on computing reports
LEAST_S = 60.0  # between two; and a run that is shorter leaves none
LAST_S = 120.0  # that the last one may take
NICE = 10  # where all cores are busy, it gets a tenth of what each training thread gets
PAUSE_S = 0.05


class Renewing(Relay):
    """Tells another watcher everything, and has the report made anew when trials have ended."""

    def __init__(self, watcher: Watcher, config: EvolveConfig, paths: RunPaths) -> None:
        super().__init__(watcher)
        self._renewal = Renewal(config, paths, watcher.warned)

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        super().finished(outcome, standing)
        self._renewal.soon()

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        super().raced(heat, outcome, done)
        self._renewal.soon()

    def ended(self, ended: Ended) -> None:
        """Whoever wants to leave does not wait for a report, and neither does who cannot go on."""
        page: Path | None = None
        try:
            page = None if ended.cut else self._renewal.finish()
        finally:
            self._renewal.stop()
            super().ended(replace(ended, report=page))


class Renewal:
    """The report of one study; `clock` is in seconds."""

    def __init__(
        self,
        config: EvolveConfig,
        paths: RunPaths,
        warn: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._paths = paths
        self._warn = warn
        self._warned = False
        self._clock = clock
        self._began = clock()
        self._due = self._began + LEAST_S
        self._process: subprocess.Popen[bytes] | None = None

    def soon(self) -> None:
        """Begin one, if none is being made and the last one is old enough."""
        if not self._is_busy() and self._clock() >= self._due:
            self._start(NICE)

    def finish(self) -> Path | None:
        """Make a last one, and wait for it; None where the run was too short for any, or it could not be made."""
        if self._config.storage == "memory:" or not (
            self._clock() >= self._began + LEAST_S or self._paths.report.exists()
        ):
            return None
        self.stop()
        before = self._mark()
        self._start()
        deadline = time.monotonic() + LAST_S
        while self._is_busy() and time.monotonic() < deadline:
            time.sleep(PAUSE_S)
        return self._paths.report if self._mark() != before else None

    def stop(self) -> None:
        """End what is being made."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            with suppress(OSError):
                temporary_of(self._paths.report, self._process.pid).unlink()
            self._process = None

    def _start(self, nice: int = 0) -> None:
        if self._config.storage == "memory:":  # which no other process can read
            return
        self._due = self._clock() + LEAST_S
        env = {**os.environ, "PYTHONPATH": import_path(), "OMP_NUM_THREADS": "1"}
        env.pop("EVOLVE_STORAGE", None)  # may be another's: who calls from Python has not asked for it
        if self._config.storage is not None:  # not on the command line: its password is for nobody to see
            env["EVOLVE_STORAGE"] = self._config.storage
        # -P: a file in the working folder must not pass for a module of ours.
        command = [sys.executable, "-P", "-m", "evolve", "report", str(self._paths.root)]
        command += ["-o", str(self._paths.report)]
        try:
            self._process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # a line, or a traceback: less than a pipe holds
                start_new_session=True,
            )
        except OSError as error:
            self._complain(str(error))
            return
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))

    def _is_busy(self) -> bool:
        """Whether one is being made; one that has ended tells when the next is due, by what it has cost."""
        if self._process is None:
            return False
        try:
            pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
        except ChildProcessError:  # reaped behind our back, as where SIGCHLD is ignored
            self._process = None
            return False
        if not pid:
            return True
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        said = self._process.communicate()[1].decode(errors="replace")
        self._process = None
        self._due = max(self._due, self._clock() + (used.ru_utime + used.ru_stime) / SHARE)
        if code:
            self._complain((said.strip().splitlines() or [f"it ended with code {code}"])[-1])
        return False

    def _complain(self, reason: str) -> None:
        if not self._warned:
            told = mask_secrets(reason.removeprefix("evolve: error: "))
            self._warn(f"the report could not be made ({told}); the study goes on")
        self._warned = True

    def _mark(self) -> tuple[int, int] | None:
        try:
            stat = self._paths.report.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns
