"""Feeds files that nobody writes on purpose to every reader: only our own errors may come out, and no file.

A case is one file (a label file lies in a small data set), drawn by hypothesis as something that its format could hold,
or as a valid file with bytes changed, cut, repeated and exchanged. Before them come the bombs that are known: aliases
of aliases, deep nesting, long lines, archives and pictures that unfold. What is found is made small, printed, and
counted from then on. A case may take TIME_S seconds and the process MEMORY more bytes; whatever it opens for writing,
makes, moves or removes, a program that it starts and a connection that it opens are told by an audit hook. The only
folder that a reader may write to is the cache that it is given.

Exit code 1 if there is anything but our own errors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import optuna
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from benchmarks.report import ROOT, header, print_now, table
from benchmarks.scale.readers import READERS, Disagreement, Files, Reader
from evolve.config import ConfigError
from search_spaces import SpaceError
from studies import StudyError
from trainer import TrainerError
from trainer.detection.data.pictures import UnreadablePicture

OWN = (SpaceError, ConfigError, StudyError, TrainerError, UnreadablePicture)
TIME_S = 10.0
SLOW_S = 2.0  # what a case that was drawn is printed from, too
WAITING = 10
MEMORY = 3 * 2**30
LONGEST = 1000  # characters of a message: more is not one sentence
ROUND = 200  # cases of a reader before the next one has its turn
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = (
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.utime",
)
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "socket.connect")


class TooSlow(BaseException):
    """Not an Exception: no reader may take it for a flaw of its file."""


class Elsewhere(BaseException):
    """The file leads to a folder outside (`train: /`), which would be searched through for as long as that takes."""


@dataclass(frozen=True)
class Verdict:
    """What came of a case: `outcome` is 'read' or the name of our error; `problem` is '' or what went wrong.

    `kind` tells which problems are one and the same: by class and place of an error, not by what was in the file.
    """

    outcome: str
    problem: str
    kind: str
    seconds: float
    wrote: tuple[str, ...] = ()


class Watch:
    """Tells which files are written while it is on, and stops whoever searches through folders outside."""

    def __init__(self) -> None:
        self.on = False
        self.root = self.cache = Path()
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def over(self, root: Path, cache: Path) -> Iterator[list[str]]:
        self.root, self.cache, self.seen, self.on = root, cache, [], True
        try:
            yield self.seen
        finally:
            self.on = False

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event == "open" and len(arguments) == 3 and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self._note(event, arguments[0])
        elif event in CHANGES:
            for path in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                self._note(event, path)
        elif event in STARTS:
            self.seen.append(f"{event} {arguments[0]!r}")
        elif event in ("os.scandir", "os.listdir") and threading.current_thread() is threading.main_thread():
            place = os.path.abspath(os.fsdecode(arguments[0] or "."))  # type: ignore[arg-type]
            known = (str(self.root), str(ROOT), sys.prefix, sys.base_prefix, "/proc/self")
            if os.path.exists(place) and not place.startswith(known):
                raise Elsewhere

    def _note(self, event: str, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(path))
            if not Path(place).is_relative_to(self.cache) and place != os.devnull:
                self.seen.append(f"{event} {place}")


class Bench:
    """A folder for one case at a time, and the judgement of it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.folder, self.cache = folder / "above" / "input", folder / "cache"
        self.watch = Watch()

    def judge(self, reader: Reader, files: Files) -> Verdict:
        self._lay({**reader.beside, **files})
        before = self._lies()
        started = time.process_time()
        with self.watch.over(self.root, self.cache) as wrote:
            outcome, problem, kind = _outcome(reader, self.folder, self.cache)
        seconds = time.process_time() - started
        if not wrote and self._lies() != before:
            wrote.append("the folder that was read has changed")
        if wrote:
            problem, kind = problem or f"wrote: {wrote[0]}", kind or "wrote"
        return Verdict(outcome, problem, kind, seconds, tuple(wrote))

    def _lay(self, files: Files) -> None:
        for folder in (self.folder, self.cache):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _lies(self) -> list[tuple[str, int, int]]:
        found = []
        for place, _, names in os.walk(self.folder):
            for name in names:
                stat = os.stat(os.path.join(place, name))
                found.append((os.path.join(place, name), stat.st_size, stat.st_mtime_ns))
        return sorted(found)


def _outcome(reader: Reader, folder: Path, cache: Path) -> tuple[str, str, str]:
    try:
        with time_limit():
            reader.read(folder, cache)
    except OWN as error:
        unclear = _unclear(str(error))
        return type(error).__name__, f"{unclear}: {str(error)[:150]!r}" if unclear else "", unclear
    except Elsewhere:
        return "leads elsewhere", "", ""
    except Disagreement as error:
        return "disagreement", str(error), error.what
    except (Exception, TooSlow) as error:
        name, where = type(error).__name__, _where(error)
        return name, f"{name}: {str(error)[:200]} ({where})", f"{name} {where}"
    return "read", "", ""


def _unclear(message: str) -> str:
    if not message.strip():
        return "a message without words"
    if len(message) > LONGEST:
        return f"a message of more than {LONGEST} characters"
    return "a message of several lines" if "\n" in message else ""


def _where(error: BaseException) -> str:
    """The last place of ours on the way to an error, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and "benchmarks" not in frame.filename
    ]
    places = [*ours[-1:], *(frame for frame in frames[-1:] if frame not in ours[-1:])]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(places[:1]))


@contextlib.contextmanager
def time_limit(seconds: float = TIME_S) -> Iterator[None]:
    """Raise TooSlow in the main thread after so long: of the processors' time, as the machine may be busy."""

    def ring(*_: object) -> None:
        raise TooSlow(f"more than {seconds:g} s of computing, or {WAITING} times as long")

    before = [signal.signal(number, ring) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


@dataclass
class Tally:
    """What was found of one reader."""

    reader: str
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    wrote: int = 0
    slowest: tuple[float, str] = (0.0, "")
    peak_mb: int = 0

    def add(self, verdict: Verdict, label: str) -> None:
        self.cases += 1
        self.outcomes[verdict.outcome] += 1
        self.wrote += bool(verdict.wrote)
        self.slowest = max(self.slowest, (verdict.seconds, label))
        self.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        if verdict.problem:
            self.problems[verdict.kind] += 1


def explode(reader: Reader, bench: Bench, tally: Tally) -> None:
    """Every bomb once."""
    for name, files in reader.bombs().items():
        verdict = bench.judge(reader, files)
        if verdict.problem and verdict.kind not in tally.problems:
            print_now(f"\n{reader.name}, {name}: {verdict.problem}")
        tally.add(verdict, name)


def explore(reader: Reader, bench: Bench, tally: Tally, *, seed: int, cases: int, end: float) -> None:
    """Draw cases; the first problem that is new is made small and printed."""
    target: list[str] = []
    smallest: list[tuple[Files, Verdict]] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    @given(reader.drawn)
    def one(files: Files) -> None:
        if time.monotonic() > end and not target:
            return
        verdict = bench.judge(reader, files)
        known = set(tally.problems)
        tally.add(verdict, "drawn")
        if verdict.seconds > SLOW_S:
            print_now(f"\n{reader.name}: {verdict.seconds:.1f} s for {dict(files)!r:.200}")
        if not verdict.problem or verdict.kind in known - set(target):
            return
        target[:] = target or [verdict.kind]
        if target == [verdict.kind]:
            smallest[:] = [(files, verdict)]
            if verdict.seconds < 1:  # making a slow one small would take all the time there is
                raise AssertionError(verdict.kind)

    with contextlib.suppress(Exception):
        one()
    for files, verdict in smallest:
        print_now(f"\n{reader.name}: {verdict.problem}")
        for name, content in files.items():
            print_now(f"    {name}: {content!r:.1000}")


def fuzz(kind: str, seconds: float, seed: int) -> list[Tally]:
    tallies = [Tally(reader.name) for reader in READERS[kind]]
    with tempfile.TemporaryDirectory(prefix="evolve-fuzz-") as folder, contextlib.chdir(folder):
        bench = Bench(Path(folder).resolve())
        for reader, tally in zip(READERS[kind], tallies, strict=True):
            explode(reader, bench, tally)
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for reader, tally in zip(READERS[kind], tallies, strict=True):
                explore(reader, bench, tally, seed=seed + turn, cases=ROUND, end=end)
            turn += 1
    return tallies


def show(tallies: Sequence[Tally]) -> str:
    rows = [
        (
            tally.reader,
            tally.cases,
            ", ".join(f"{name} {count}" for name, count in tally.outcomes.most_common()),
            len(tally.problems),
            tally.wrote,
            f"{tally.slowest[0]:.2f} s ({tally.slowest[1]})",
            tally.peak_mb,
        )
        for tally in tallies
    ]
    return table(("reader", "cases", "outcomes", "problems", "files written", "slowest", "peak MB"), rows)


def limit_memory(more: int) -> None:
    """Let this process have so many bytes more of address space than now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.fuzz", description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--kind", choices=READERS, action="append", help="may be repeated; default: all")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of each kind, after its bombs; default: %(default)g"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    sys.dont_write_bytecode = True
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    limit_memory(MEMORY)
    print_now(header(__file__, argv, [arguments.seed]))
    problems = 0
    for kind in arguments.kind or READERS:
        started = time.monotonic()
        tallies = fuzz(kind, 60 * arguments.minutes, arguments.seed)
        problems += sum(len(tally.problems) for tally in tallies)
        cases = sum(tally.cases for tally in tallies)
        print_now(f"\n{kind}: {cases} cases in {time.monotonic() - started:.0f} s\n\n{show(tallies)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
