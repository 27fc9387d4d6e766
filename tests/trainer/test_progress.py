"""Progress of what takes long: told seldom, to the last that listens, across processes too, and never for an answer."""

from pathlib import Path

import pytest

from trainer import TrainJob, TrainOptions, progress
from trainer.process import ProcessTrainer
from trainer.progress import listening

SLOW = """
import time
from trainer import EpochMetrics, Prepared
from trainer.progress import progress


class Slow:
    hyps = None

    def prepare(self, options):
        for done in range(1, 5):
            time.sleep(0.6)
            progress("reading", done, 4)
        return Prepared("digest", "slow")

    def train(self, job):
        progress("fetching", 10, None)
        yield EpochMetrics(1, 0.1, 0.2, 0.3, 0.4, {}, 0.0)
"""


@pytest.fixture(autouse=True)
def _first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.progress._told_at", [0.0])


def test_it_is_told_seldom_and_to_nobody_where_nobody_listens(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("trainer.progress.time.monotonic", lambda: now[0])
    told: list[tuple[str, int, int | None]] = []
    progress.progress("reading", 1, 9)
    with listening(lambda *one: told.append(one)):
        for done in range(2, 9):
            progress.progress("reading", done, 9)
            now[0] += 0.2
    progress.progress("reading", 9, 9)
    assert told == [("reading", 2, 9), ("reading", 5, 9), ("reading", 8, 9)]


def test_a_process_tells_its_progress_before_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "slow_one.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    told: list[tuple[str, int, int | None]] = []
    log = tmp_path / "log"
    with ProcessTrainer("slow_one:Slow", log=log, listener=lambda *one: told.append(one)) as trainer:
        assert trainer.prepare(TrainOptions()).digest == "digest"
        assert told == [("reading", done, 4) for done in range(1, 5)]
        (epoch,) = trainer.train(TrainJob({}, TrainOptions(), tmp_path))
    assert epoch.map50 == 0.3
    assert log.read_text() == ""


def test_progress_that_nobody_waits_for_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "slow_one.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    with ProcessTrainer("slow_one:Slow", log=tmp_path / "log") as trainer:
        assert trainer.prepare(TrainOptions()).digest == "digest"
