"""No file makes a reader fail but with one of our errors in one sentence, and none makes it write elsewhere."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.scale import fuzz
from benchmarks.scale.fuzz import Bench, Tally, explode, explore, show
from benchmarks.scale.readers import READERS, Reader
from search_spaces import SpaceError

ALL = [reader for readers in READERS.values() for reader in readers]
SETS = [reader for reader in ALL if reader.beside]
FILES = st.just({"a.txt": b"a"})
WATCH = fuzz.Watch()  # an audit hook stays for as long as the process lives: one is enough


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(fuzz, "Watch", lambda: WATCH)
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


@pytest.mark.parametrize("reader", ALL, ids=[reader.name for reader in ALL])
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_sentence(bench: Bench, reader: Reader) -> None:
    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(reader.drawn)
    def judge(files):
        verdict = bench.judge(reader, files)
        assert not verdict.problem

    judge()


@pytest.mark.parametrize("reader", SETS, ids=[reader.name for reader in SETS])
def test_what_always_lies_beside_a_file_can_be_read(bench: Bench, reader: Reader) -> None:
    """Else nothing but that would ever be refused."""
    assert bench.judge(reader, {}).outcome == "read"


def broken(folder: Path, cache: Path) -> None:
    raise ValueError("who would write such a thing")


def slow(folder: Path, cache: Path) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0.05)  # TIME_S is more than a test may take
    while True:
        time.process_time()


def talkative(folder: Path, cache: Path) -> None:
    raise SpaceError("one\ntwo")


def wordy(folder: Path, cache: Path) -> None:
    raise SpaceError("x" * 2000)


def beside(folder: Path, cache: Path) -> None:
    (folder / "b.txt").write_text("b")


def outside(folder: Path, cache: Path) -> None:
    (folder.parents[1] / "b.txt").write_text("b")


def removing(folder: Path, cache: Path) -> None:
    (folder / "a.txt").unlink()


def starting(folder: Path, cache: Path) -> None:
    os.system("true")


def cached(folder: Path, cache: Path) -> None:
    (cache / "b.txt").write_text("b")


def refusing(folder: Path, cache: Path) -> None:
    raise SpaceError("a.txt holds an a; expected a b")


def searching(folder: Path, cache: Path) -> None:
    list(Path("/").rglob("*"))


@pytest.mark.parametrize(
    ("read", "outcome", "problem"),
    [
        (broken, "ValueError", "ValueError: who would write such a thing"),
        (slow, "TooSlow", "TooSlow: more than"),
        (talkative, "SpaceError", "a message of several lines"),
        (wordy, "SpaceError", "a message of more than 1000 characters"),
        (beside, "read", "wrote: open "),
        (outside, "read", "wrote: open "),
        (removing, "read", "wrote: os.remove "),
        (starting, "read", "wrote: os.system "),
        (cached, "read", ""),
        (refusing, "SpaceError", ""),
        (searching, "leads elsewhere", ""),
    ],
)
def test_a_reader_that_does_what_it_must_not_is_found_out(bench: Bench, read, outcome: str, problem: str) -> None:
    verdict = bench.judge(Reader("mine", FILES, read), {"a.txt": b"a"})
    assert verdict.outcome == outcome
    assert verdict.problem.startswith(problem) and bool(verdict.problem) == bool(problem)


def test_what_is_found_is_made_small_and_printed_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def read(folder: Path, cache: Path) -> None:
        if b"z" in (folder / "a.txt").read_bytes():
            raise KeyError("z")

    contents = st.lists(st.sampled_from([b"a", b"z"]), max_size=9).map(b"".join)
    reader = Reader(
        "mine", contents.map(lambda content: {"a.txt": content}), read, bombs=lambda: {"z": {"a.txt": b"a"}}
    )
    tally = Tally("mine")
    explode(reader, bench, tally)
    for seed in range(3):
        explore(reader, bench, tally, seed=seed, cases=50, end=time.monotonic() + 60)
    told = capsys.readouterr().out
    assert told.count("KeyError") == 1 and "a.txt: b'z'" in told
    assert len(tally.problems) == 1 and tally.outcomes["KeyError"] > 1
    assert "| mine " in show([tally])
