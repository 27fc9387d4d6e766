"""CommandTrainer: any program is a trainer that is told a hyp on its command line and tells of its epochs."""

from __future__ import annotations

import hashlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import IO, Protocol

import yaml

from trainer import lifeline
from trainer.api import DataError, EpochMetrics, Prepared, TrainerError, TrainJob, TrainOptions, Value
from trainer.process import has_ended, name_end, quote_end_of, signal_group, thread_settings
from trainer.results import METRICS, Epochs, Row, Told

OPTIONS = ("data", "model", "weights", "epochs", "imgsz", "batch", "seed", "device")
PLACEHOLDERS = ("hyp", *OPTIONS, "workdir")
HYP = "hyp."

GRACE_S = 5.0  # between SIGTERM and SIGKILL
LOOK_S = 0.1  # between two looks at what was told
MOST_UNREAD = 1 << 20  # bytes; a longer line tells of no epoch

Values = Mapping[str, str]
"""What placeholders stand for."""


def furnish(folder: Path, job: TrainJob) -> dict[str, str]:
    """Write hyp.yaml into the program's folder; what the placeholders stand for, those of single hyps left out."""
    hyp = folder / "hyp.yaml"
    hyp.write_text(yaml.safe_dump(dict(job.hyp), sort_keys=False, allow_unicode=True), encoding="utf-8")
    options = {name: str(getattr(job.options, name)) for name in OPTIONS}
    return {"hyp": str(hyp), "workdir": str(folder), **options}


@dataclass(frozen=True)
class Program:
    """A program that trains: its command, never a shell's, and where it tells of its epochs.

    In the command and in `cwd` (where it runs; "": where we do) stand {placeholders}; `furnish` makes what they stand
    for in a folder that is this training's own. `unsaved` are the arguments for a training that is to leave no weights,
    `unplotted` for one without pictures. `hyps` are those that it needs, and all that it understands; None: those that
    the command holds as {hyp.NAME}, or any, where it takes the file {hyp}. `warnings` are for whoever begins a study.
    Raises DataError for placeholders that stand for nothing.
    """

    command: tuple[str, ...]
    told: Told = field(default_factory=Told)
    cwd: str = ""
    hyps: frozenset[str] | None = None
    furnish: Callable[[Path, TrainJob], dict[str, str]] = field(default=furnish, repr=False)
    unsaved: tuple[str, ...] = ()
    unplotted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.command:
            raise DataError("there is no program to run: its command is empty")
        for name in sorted(self.placeholders):
            if name not in PLACEHOLDERS and not re.fullmatch(r"hyp\.[^!:]+", name):
                known = ", ".join(f"{{{known}}}" for known in (*PLACEHOLDERS, "hyp.NAME"))
                raise DataError(
                    f"the command holds {{{name}}}, which stands for nothing; there are {known}, "
                    "and braces that are meant are doubled: {{ and }}"
                )
        if self.understood == frozenset():
            raise DataError(
                "the command is told no hyp, so that all its trainings would be the same: "
                "give it {hyp}, the path of a file, or {hyp.NAME}, a value"
            )

    @property
    def placeholders(self) -> frozenset[str]:
        texts = (*self.command, *self.unsaved, *self.unplotted, self.cwd)
        return frozenset(name for text in texts for name in placeholders_in(text))

    @property
    def needs(self) -> frozenset[str]:
        """The hyps without which it cannot be run."""
        named = (name.removeprefix(HYP) for name in self.placeholders if name.startswith(HYP))
        return frozenset(named) | (self.hyps or frozenset())

    @property
    def understood(self) -> frozenset[str] | None:
        """All hyps that it understands; None: any."""
        if self.hyps is None and "hyp" in self.placeholders:
            return None
        return self.needs

    def arguments(self, options: TrainOptions, values: Values) -> list[str]:
        unsaved, unplotted = () if options.save else self.unsaved, () if options.plots else self.unplotted
        return [fill(text, values) for text in (*self.command, *unsaved, *unplotted)]


def placeholders_in(text: str) -> Iterator[str]:
    """The names between braces. Raises DataError for braces that do not match."""
    try:
        for _, name, how, conversion in Formatter().parse(text):
            if name is not None:
                yield name + (f"!{conversion}" if conversion else "") + (f":{how}" if how else "")
    except ValueError:
        raise DataError(
            f"the braces in {text!r} do not match; braces that are meant are doubled: {{{{ and }}}}"
        ) from None


def fill(text: str, values: Values) -> str:
    """The text with what its placeholders stand for."""
    parts = ((literal, name) for literal, name, *_ in Formatter().parse(text))
    return "".join(literal + ("" if name is None else values[name]) for literal, name in parts)


def literally(text: str) -> str:
    """A text that `fill` gives back as it is."""
    return text.replace("{", "{{").replace("}", "}}")


class CommandTrainer:
    """Runs a Program for every training, in `<job.workdir>/program`, a folder that is empty when it starts.

    What it prints goes to `<job.workdir>/train.log`, unless it tells of an epoch. It runs in a process group of its
    own; however a training ends, all that is left of the group ends with it: SIGTERM first, SIGKILL after GRACE_S.
    That holds when this process is killed, too (see `trainer.lifeline`). What moves to another session or process group
    escapes: such a program has to end its own at SIGTERM.

    `threads` caps the threads of the usual numeric libraries; 0 leaves that to the program. A training that tells no
    epoch for `timeout_s` seconds is ended (None: never). One at a time: a new one ends one that is still open.
    """

    def __init__(self, program: Program, *, threads: int = 0, timeout_s: float | None = None) -> None:
        self._program = program
        self._threads = threads
        self._timeout_s = timeout_s
        self._run: _Run | None = None

    @property
    def hyps(self) -> frozenset[str] | None:
        return self._program.understood

    @property
    def pid(self) -> int | None:
        """The number of the process group that trains; None while there is none."""
        return None if self._run is None else self._run.process.pid

    def prepare(self, options: TrainOptions) -> Prepared:
        program = self._program
        check(options)
        if "data" in program.placeholders and not options.data:
            raise DataError("the program is told {data}, and there is none: give --data")
        weighed = [name for name, weight in zip(METRICS, options.fitness_weights, strict=True) if weight]
        if lacking := program.told.lacks(weighed):
            columns = " and ".join(f"--{name.replace('_', '-')}" for name in lacking)
            raise DataError(f"the fitness weighs {' and '.join(lacking)}: say with {columns} which column that is")
        name = program.command[0]
        if not set(placeholders_in(name)) and shutil.which(fill(name, {})) is None:
            raise DataError(f"there is no program {fill(name, {})!r} that could be run")
        return Prepared(digest_of(options.data), f"trained by {shlex.join(program.command)}", program.warnings)

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        check(job.options)
        if job.resume:
            raise TrainerError("a program cannot go on with a training that was stopped")
        self.close()
        epochs, log = Epochs(job.options), job.workdir / "train.log"
        run = self._run = self._start(job, log)
        try:
            for row in run.rows(self._timeout_s):
                yield epochs.take(row)
                if self._run is not run:
                    raise TrainerError("the training was given up: another began, or the trainer was closed")
        except TimeoutError:
            run.end()
            silence = f"was ended because it told no epoch for {self._timeout_s:g} s"
            raise TrainerError(f"the program {silence}, in epoch {epochs.last + 1}{quote_end_of(log)}") from None
        finally:
            run.end()
            if self._run is run:
                self._run = None
        self._judge(run.process.returncode, job, epochs, log)

    def close(self) -> None:
        """End the training that is open, if there is one."""
        if self._run is not None:
            self._run.end()
            self._run = None

    def _start(self, job: TrainJob, log: Path) -> _Run:
        program = self._program
        if missing := sorted(program.needs - job.hyp.keys()):
            raise TrainerError(f"the program needs the hyp {missing[0]!r}, and it was not given")
        if self.hyps is not None and (unknown := sorted(job.hyp.keys() - self.hyps)):
            raise TrainerError(f"the program is told nothing of the hyp {unknown[0]!r}")
        folder = job.workdir.absolute() / "program"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier training here
        folder.mkdir(parents=True)
        values = program.furnish(folder, job) | {HYP + name: spell(value) for name, value in job.hyp.items()}
        settings = thread_settings(self._threads) if self._threads else {}
        env = {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", **os.environ, **settings}
        cwd = fill(program.cwd, values) or None
        return _Run(program.arguments(job.options, values), cwd, env, log, program.told, folder)

    def _judge(self, code: int, job: TrainJob, epochs: Epochs, log: Path) -> None:
        """Raise TrainerError unless a program that has ended with this code has done its job.

        One that stopped before the last epoch may have had its reasons: what it told last counts.
        """
        options = job.options
        if code:
            when = f"in epoch {epochs.last + 1}" if epochs.last < options.epochs else "after its last epoch"
            told = f"the program {name_end(code)} {when}"
            if code == -signal.SIGKILL:
                told += f" (did memory run out with batch {options.batch} at imgsz {options.imgsz}?)"
            raise TrainerError(told + quote_end_of(log))
        if not epochs.last:
            raise TrainerError(f"the program told of no epoch: there is {self._program.told}{quote_end_of(log)}")
        if epochs.last < options.epochs:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"[the program ended by itself after epoch {epochs.last} of {options.epochs}]\n")


def check(options: TrainOptions) -> None:
    for name in ("epochs", "batch", "imgsz"):
        if getattr(options, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(options, name)}")


def digest_of(data: str) -> str:
    """What `data` is called; of a file, its name and content. It may lie anywhere."""
    path = Path(data)
    if not path.is_file():
        return path.name if path.is_dir() else data
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def spell(value: Value) -> str:
    """A value as an argument: true and false as in YAML, floats with all their digits."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Source(Protocol):
    """Where rows come from."""

    def read(self, *, last: bool) -> list[Row]:
        """The rows that are new. `last`: the program has ended, so that nothing more will come."""

    def wait(self, seconds: float) -> None:
        """Wait so long for more, if it can be known that there is nothing."""

    def close(self) -> None: ...


class _Run:
    """A program under way in a process group of its own, led by `trainer.lifeline`."""

    def __init__(
        self, arguments: list[str], cwd: str | None, env: Mapping[str, str], log: Path, told: Told, folder: Path
    ) -> None:
        read_end, write_end = os.pipe()
        leader = [sys.executable, "-I", "-S", lifeline.__file__, str(read_end)]
        with ExitStack() as stack, ExitStack() as kept:
            stack.callback(os.close, read_end)
            self._lifeline = kept.enter_context(os.fdopen(write_end, "wb", buffering=0))
            output = stack.enter_context(log.open("ab", buffering=0))
            self.process = subprocess.Popen(
                [*leader, *arguments],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if told.file is None else output,
                stderr=output,
                pass_fds=(read_end,),
                start_new_session=True,
            )
            kept.pop_all()
        self._ended = False
        self._source: _Source
        if told.file is None:
            assert self.process.stdout is not None
            self._source = _Lines(self.process.stdout, log, told)
        else:
            self._source = _File(folder / told.file, told)

    def rows(self, timeout_s: float | None) -> Iterator[Row]:
        """What is told, as it comes, until the program has ended. Raises TimeoutError after so long a silence."""
        since = time.monotonic()
        ended = False
        while not ended:
            ended = has_ended(self.process)  # before reading: what was told until now is there to be read
            for row in self._source.read(last=ended):
                yield row
                since = time.monotonic()
            if not ended and timeout_s is not None and time.monotonic() - since > timeout_s:
                raise TimeoutError
            if not ended:
                self._source.wait(LOOK_S)

    def end(self) -> None:
        """End what still runs of the group, politely first. May be called again."""
        if self._ended:
            return
        self._ended = True
        try:
            if not has_ended(self.process):
                signal_group(self.process, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_S
            while not has_ended(self.process) and time.monotonic() < deadline:
                with suppress(TrainerError):
                    self._source.read(last=False)  # or it could wait for us while it says goodbye
                time.sleep(0.01)
        finally:
            signal_group(self.process, signal.SIGKILL)
            self.process.wait()
            try:
                with suppress(TrainerError):
                    self._source.read(last=True)  # its last words are in the pipe still
            finally:
                self._source.close()
                self._lifeline.close()


class _Lines:
    """What a program prints: lines that tell of an epoch, and others, for the log."""

    def __init__(self, pipe: IO[bytes], log: Path, told: Told) -> None:
        self._pipe = pipe
        self._log = log.open("ab", buffering=0)
        self._told = told
        self._unread = b""
        self._open = True
        os.set_blocking(pipe.fileno(), False)
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)

    def read(self, *, last: bool) -> list[Row]:
        text = self._unread + self._take()
        end = text.rfind(b"\n") + 1
        if last or len(text) - end > MOST_UNREAD:
            end = len(text)
        self._unread = text[end:]
        return [row for line in text[:end].splitlines(keepends=True) if (row := self._sort(line)) is not None]

    def wait(self, seconds: float) -> None:
        if self._open:
            self._poll.poll(seconds * 1000)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        self._pipe.close()
        self._log.close()

    def _take(self) -> bytes:
        """What is in the pipe, and no more than MOST_UNREAD of it: whoever prints without end is read again."""
        taken = b""
        while self._open and len(taken) < MOST_UNREAD:
            try:
                data = os.read(self._pipe.fileno(), 1 << 16)
            except BlockingIOError:
                break
            self._open = bool(data)
            taken += data
        return taken

    def _sort(self, line: bytes) -> Row | None:
        row = self._told.read_line(line.decode(errors="replace"))
        if row is None:
            self._log.write(line)
        return row


class _File:
    """A file of results that grows, or is written anew; a last line without its end is one that is being written."""

    def __init__(self, path: Path, told: Told) -> None:
        self._path = path
        self._told = told
        self._seen: tuple[int, ...] = ()
        self._rows = 0

    def read(self, *, last: bool) -> list[Row]:
        try:
            now = self._path.stat()
            state = (now.st_ino, now.st_size, now.st_mtime_ns, last)
            if state == self._seen:
                return []
            text = self._path.read_text(encoding="utf-8-sig", errors="replace")
        except FileNotFoundError:
            return []
        self._seen = state
        rows = self._told.read_file(text if last else text[: text.rfind("\n") + 1])
        new = rows[self._rows :]
        self._rows = max(self._rows, len(rows))
        return new

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass
