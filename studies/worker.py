"""Who works on a trial: which process of which host, and whether that process still lives."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import TypedDict


class Worker(TypedDict):
    """A process, told apart from any later one that gets its pid: `started` is None where the system does not say."""

    host: str
    pid: int
    started: str | None


def this_worker() -> Worker:
    return _worker(os.getpid()).copy()


@lru_cache(maxsize=1)
def _worker(pid: int) -> Worker:
    """The process that asks: after a fork it is another one."""
    return Worker(host=socket.gethostname(), pid=pid, started=_started(pid))


def is_alive(worker: Worker) -> bool:
    """Whether that process of this host still runs. A zombie does not; when in doubt it does."""
    try:
        os.kill(worker["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, so it is there
    started = _started(worker["pid"])
    return started is None or worker["started"] in (None, started)


def _started(pid: int) -> str | None:
    """When process `pid` started: boot id and clock tick, 'ended' for a zombie, None without a Linux /proc.

    See proc_pid_stat(5): field 3 is the state, field 22 the start in ticks since boot.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # behind the name, which may hold ")"
        return "ended" if fields[0] in (b"Z", b"X") else f"{_boot()}/{int(fields[19])}"
    except OSError:
        return None


@lru_cache(maxsize=1)
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
