"""ProcessTrainer: a trainer whose trainings run in a child process, so that whatever kills one costs only that one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainer.api import DataError, EpochMetrics, Prepared, TrainerError, TrainJob, TrainOptions
from trainer.messages import error_from_dict, job_to_dict, metrics_from_dict
from trainer.progress import Listener
from trainer.worker import CALLERS_PYTHONPATH

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0  # for a trainer's clean-up; after it the process group is killed


class ProcessTrainer:
    """Runs the trainer that `spec` ("module:attr", or a .pkl file) names in a child process that lives between jobs.

    The child starts at the first question, so torch is loaded once a study and never in this process. Epochs are
    pulled: the child rests until the next one is asked for. What the trainer and its libraries print goes to
    `<job.workdir>/train.log` during a training, to `log` otherwise (None: this process' standard error).

    `threads` caps the child's CPU threads; 0 takes every core that this process may use, unless OMP_NUM_THREADS and its
    like already say otherwise. A training that yields no epoch for `timeout_s` seconds is ended (None: never).

    If the child dies, the job that it ran raises TrainerError and the next one gets a new child. The child leads a
    process group of its own (Ctrl-C in a terminal does not reach it), and that group, the trainer's own children
    included, never outlives this process: see `trainer.lifeline`. Only a program that the trainer moves
    to another session or process group escapes it; such a trainer must end that program in its own `finally`.

    One job at a time, from one thread at a time: a new one closes one that is still open. `listener` is told how far
    the child is with what takes long, while it is waited for.
    """

    def __init__(
        self,
        spec: str,
        *,
        threads: int = 0,
        log: Path | None = None,
        timeout_s: float | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._spec = spec
        self._threads = threads
        self._log = log
        self._timeout_s = timeout_s
        self._listener = listener
        self._child: _Child | None = None
        self._prepared: tuple[TrainOptions, str] | None = None  # what was prepared, and its digest
        self._turn: object | None = None  # the training that is open; a fresh object for each

    @cached_property
    def hyps(self) -> frozenset[str] | None:
        names = self._ask({"do": "hyps"}, "while it was loaded")["hyps"]
        return None if names is None else frozenset(names)

    @property
    def pid(self) -> int | None:
        """The child's process id, which is also its process group's; None while there is no child."""
        return None if self._child is None else self._child.process.pid

    def prepare(self, options: TrainOptions) -> Prepared:
        answer = self._ask({"do": "prepare", "options": asdict(options)}, "while it prepared")["prepared"]
        self._prepared = options, answer["digest"]
        return Prepared(**{**answer, "warnings": tuple(answer["warnings"])})

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        turn = self._turn = object()
        self._check_data_is_the_same()
        self._ask({"do": "train", "job": job_to_dict(job)}, "before epoch 1", job, self._timeout_s)
        epoch = 1
        while metrics := self._ask({"do": "next"}, f"in epoch {epoch}", job, self._timeout_s).get("metrics"):
            try:
                yield metrics_from_dict(metrics)
            except BaseException:  # GeneratorExit, as a rule: whoever pulled wants no more
                if self._turn is turn:
                    self._leave(job)
                raise
            if self._turn is not turn:
                raise TrainerError(f"{self._spec}: the training was given up: another began, or the trainer was closed")
            epoch += 1
        self._turn = None

    def _check_data_is_the_same(self) -> None:
        """A new child reads the data again: had it changed since `prepare`, trials of one study would not compare."""
        if self._prepared is None or (self._child is not None and not self._child.has_ended()):
            return
        options, digest = self._prepared
        found = self.prepare(options).digest
        if found != digest:
            self._prepared = options, digest
            self.close()
            raise DataError(f"{options.data} is no longer what this study began with: its pictures or labels changed")

    def close(self) -> None:
        """End the child: politely first, then its process group. May be called again; a later job starts another."""
        child, self._child, self._turn = self._child, None, None
        if child is not None:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(
        self, question: dict[str, Any], when: str, job: TrainJob | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The child's answer to a question; a child that does not answer is ended, and TrainerError says why."""
        child = self._child
        if child is not None and question["do"] not in ("next", "close") and child.has_ended():
            child.kill()  # it died between jobs, which costs nothing
            child = None
        if child is None:
            child = self._child = _Child(self._spec, self._threads, self._log, self._listener)
        log = self._log if job is None else job.workdir / "train.log"
        try:
            answer = child.ask(question, timeout_s)
        except _NoAnswer as silence:
            self._child = self._turn = None
            told = f"{self._spec}: the training process {silence} {when}"
            if silence.by_sigkill and job is not None:
                told += f" (did memory run out with batch {job.options.batch} at imgsz {job.options.imgsz}?)"
            raise TrainerError(told + quote_end_of(log)) from None
        except BaseException:  # Ctrl-C, as a rule
            self._child = self._turn = None
            raise
        if (error := answer.get("error")) is not None:
            self._turn = None
            if error.get("spoiled"):
                self.close()
            if error.get("unexpected") and log is not None:
                error["message"] += f"; see {log}"
            raise error_from_dict(error)
        return answer

    def _leave(self, job: TrainJob) -> None:
        """Have the child close the training of `job`; nobody waits for that any more, so a failure is a warning."""
        self._turn = None
        try:
            self._ask({"do": "close"}, "when it was to close", job, CLOSE_TIMEOUT_S)
        except TrainerError as error:
            logger.warning("%s", error)


def thread_settings(threads: int) -> dict[str, str]:
    """Environment variables that cap the CPU threads of whatever numeric library is loaded under them, and let their
    idle threads sleep. 0 threads: as many as this process may use cores (affinity and container limits counted).

    An OpenMP thread that waits for work spins by default. That is harmless on idle cores, but beside any other busy
    process it slowed torch's convolutions 15 to 60 times on 2 cores; sleeping costs 8 % when nothing else runs.
    """
    if threads == 0:
        from joblib import cpu_count

        threads = cpu_count()
    caps = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
    return {f"{library}_NUM_THREADS": str(threads) for library in caps} | {"OMP_WAIT_POLICY": "PASSIVE"}


class _NoAnswer(Exception):
    """The child ended, or was ended, instead of answering; the message continues "the training process ..."."""

    def __init__(self, what: str, *, by_sigkill: bool = False) -> None:
        super().__init__(what)
        self.by_sigkill = by_sigkill


class _Child:
    """One worker process and the three pipes to it: questions, answers, and the lifeline that nothing is written to."""

    def __init__(self, spec: str, threads: int, log: Path | None, listener: Listener | None) -> None:
        self._listener = listener
        read_end, write_end = os.pipe()
        self._lifeline = os.fdopen(write_end, "wb", buffering=0)
        # -P: a file in the working directory must not pass for a module of the standard library.
        command = [sys.executable, "-P", "-m", "trainer.worker", spec, str(read_end)]
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, read_end)
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if log is None else stack.enter_context(open(log, "ab")),
                env=_environment(threads),
                pass_fds=(read_end,),
                start_new_session=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._questions, self._answers = self.process.stdin, self.process.stdout
        self._unread = b""
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def ask(self, question: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """The answer. If it raises (death, silence, Ctrl-C here), the process group is dead by then."""
        try:
            with contextlib.suppress(BrokenPipeError):  # it is gone: reading says how
                self._questions.write(json.dumps(question).encode() + b"\n")
                self._questions.flush()
            answer: dict[str, Any] = json.loads(self._read_line(timeout_s))
            while (told := answer.get("progress")) is not None:
                if self._listener is not None:
                    self._listener(*told)
                answer = json.loads(self._read_line(timeout_s))
            return answer
        except EOFError:
            self._wait_for_end(CLOSE_TIMEOUT_S)
            self.kill()
            code = self.process.returncode
            raise _NoAnswer(name_end(code), by_sigkill=code == -signal.SIGKILL) from None
        except TimeoutError:
            self.process.send_signal(signal.SIGUSR1)  # the worker writes into the log where it is
            self._wait_for_end(0.1)
            self.kill()
            raise _NoAnswer(f"was ended because nothing came from it for {timeout_s:g} s") from None
        except BaseException:
            self.kill()
            raise

    def close(self) -> None:
        """Let the child clean up and exit, then make sure of it."""
        with contextlib.suppress(BrokenPipeError):
            # In words, as the end of the pipe is not seen while a process that we forked holds our end open.
            self._questions.write(b'{"do": "exit"}\n')
            self._questions.close()
        try:
            if not self._wait_for_end(CLOSE_TIMEOUT_S):
                logger.warning("the training process %d did not end within %g s", self.process.pid, CLOSE_TIMEOUT_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the process group and reap the child; even if it has ended, since its own children may live on."""
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()
        for pipe in (self._questions, self._answers, self._lifeline):
            with contextlib.suppress(BrokenPipeError):  # a question that was never read is still in its buffer
                pipe.close()

    def has_ended(self) -> bool:
        return has_ended(self.process)

    def _wait_for_end(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not (ended := self.has_ended()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return ended

    def _read_line(self, timeout_s: float | None) -> bytes:
        """The next line of the child; EOFError if it ended, TimeoutError if it is silent for too long."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            # The end of the pipe does not tell all: a process that the child forked may hold it open after its death.
            wait_s = 0.5 if deadline is None else max(0.0, min(0.5, deadline - time.monotonic()))
            if self._poll.poll(wait_s * 1000):
                if not (data := os.read(self._answers.fileno(), 1 << 16)):
                    raise EOFError
                self._unread += data
            elif self.has_ended():
                raise EOFError
            elif deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def has_ended(leader: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended. It is not reaped here: until it is, nobody else can get its group's number."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return leader.poll() is not None
    try:
        return os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # reaped behind our back, as where SIGCHLD is ignored
        return True


def signal_group(leader: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal all that is left of the process group that a child leads, which has not been reaped yet."""
    # On a Mac a group of which only the unreaped leader is left answers PermissionError.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, number)


def _environment(threads: int) -> dict[str, str]:
    """The child's environment: ours, thread settings, and all that this process can import, or finds where it is."""
    # Sets of strings come in an order that Python draws anew in each process: equal seeds must mean equal trainings.
    settings = thread_settings(threads)
    env = {"PYTHONHASHSEED": "0", **settings, **os.environ, **(settings if threads else {}), "PYTHONUNBUFFERED": "1"}
    if "PYTHONPATH" in env:
        env[CALLERS_PYTHONPATH] = env["PYTHONPATH"]
    env["PYTHONPATH"] = import_path()
    return env


def import_path() -> str:
    """A PYTHONPATH with which a child started with -P can import all that this process can, in the same order."""
    package_root = Path(__file__).resolve().parent.parent
    return os.pathsep.join([*(os.path.abspath(entry) for entry in sys.path), str(package_root), os.getcwd()])


def name_end(returncode: int) -> str:
    """How a process ended, to follow its name."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-returncode}"


def quote_end_of(log: Path | None) -> str:
    """The last lines of a log, to go below an error's first line."""
    if log is None:
        return ""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
            # After the traceback of a crash comes one endless line that lists every extension module.
            last = [line[:160] for line in file.read().decode(errors="replace").splitlines()[-20:]]
    except FileNotFoundError:
        last = []
    return f"; {log} ends with:\n" + "\n".join(f"    {line}" for line in last) if last else f"; {log} is empty"
