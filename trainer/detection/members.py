"""The other processes of a training: started, watched and ended by the one that was asked, and what each of them runs.

They are fresh interpreters (a fork would copy torch's threads half), stay in this process' group, so that whatever
kills the group kills them, and end by themselves as soon as this process does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from trainer.api import TrainerError, TrainJob
from trainer.messages import job_from_dict, job_to_dict
from trainer.process import name_end

END_TIMEOUT_S = 10.0  # for a process whose training is done
WATCH_S = 0.1
# Where Gloo and NCCL listen: they would take the host name's address, or any.
LOOPBACK = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), "lo0" if sys.platform == "darwin" else "lo")


class Members:
    """The processes of ranks 1 to world - 1 and the store that all of them meet at; leave it, and they have ended.

    The store listens on this machine alone. A member reads the job from its standard input, whose end tells it that
    this process is gone; what it prints goes to this process' standard error.
    """

    def __init__(self, job: TrainJob, world: int) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        self.store = TCPStore(
            "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
        self._leaving = threading.Event()
        self._watcher: threading.Thread | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, world):
                self._processes.append(_start(job, _environment(rank, world, port)))
        except BaseException:
            self._kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.set()
        try:
            if self._watcher is not None:
                self._watcher.join()
            if kind is None:
                for process in self._processes:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(END_TIMEOUT_S)
        finally:
            self._kill()

    def find_death(self) -> str | None:
        """One sentence on a member that has ended, which none should before its training is done."""
        for rank, process in enumerate(self._processes, 1):
            if process.poll() is not None:
                how = name_end(process.returncode)
                hint = " (did memory run out?)" if process.returncode == -signal.SIGKILL else ""
                return f"process {rank} of {len(self._processes) + 1} of this training {how}{hint}"
        return None

    def watch(self, on_death: Callable[[], None]) -> None:
        """From now on call `on_death` once, in a thread, if a member ends before this is left."""

        def watch() -> None:
            while not self._leaving.wait(WATCH_S):
                if self.find_death() is not None:
                    on_death()
                    return

        self._watcher = threading.Thread(target=watch, name="members", daemon=True)
        self._watcher.start()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _start(job: TrainJob, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "trainer.detection.members"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=environment)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone, which will be noticed
        process.stdin.write(json.dumps(job_to_dict(job)).encode() + b"\n")
        process.stdin.flush()
    return process


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    """Ours, what this process can import, and the place in the team, as torchrun would tell it."""
    package_root = Path(__file__).resolve().parents[2]
    path = [*(os.path.abspath(entry) for entry in sys.path), str(package_root)]
    place = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
    return {**LOOPBACK, **ours, **place, "PYTHONPATH": os.pathsep.join(path)}


def main() -> int:
    """Train the job on standard input as one of its processes."""
    job = job_from_dict(json.loads(sys.stdin.buffer.readline()))
    die_with_the_first(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the first process answers it
    faulthandler.enable()
    from trainer.detection.trainer import DetectionTrainer

    try:
        for _ in DetectionTrainer().train(job):
            raise AssertionError("only the first process reports")
    except TrainerError:  # the first process has been told
        return 1
    return 0


def die_with_the_first(lifeline: int) -> None:
    """End this process as soon as the other end of the pipe `lifeline` is closed (see trainer.worker)."""

    def wait_for_the_end() -> None:
        while os.read(lifeline, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    if hasattr(fcntl, "F_SETSIG"):  # the kernel does it even while C code holds the interpreter's lock
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=wait_for_the_end, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
