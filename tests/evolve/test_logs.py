"""The log of a study: a line for every trial, and what was warned of; never in the way."""

import logging
import re
from pathlib import Path

import pytest
from small_world import World

from evolve.logs import LogFile, log_file

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) +\d+ ([\w.]+): (.+)")


def lines(path: Path) -> list[tuple[str, str, str]]:
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert all(found), path.read_text()
    return [match.groups() for match in found]


def test_a_study_leaves_a_line_for_every_trial_and_goes_on_in_the_same_file(faulty: World):
    faulty.run("--generations", "2", "--set", "fault=TrainerError", "--max-failures", "9")
    told = [text for _, _, text in lines(faulty.run_folder / "evolve.log")]
    trials = [text for text in told if text.startswith("trial ")]
    assert [text.split(":")[0] for text in trials] == ["trial 0 failed", "trial 1 failed"]
    assert "the toy is out of order" in trials[0]
    assert told[0] == "points: 0 of 2 generations of 3 epochs are done; 256 points"
    assert told[-2] == "ended: 2 of 2 generations are done; 0 complete, 0 pruned, 2 failed"
    assert told[-1].startswith("NoResult: no trial completed: ")
    assert told[-1].endswith("; `evolve show 1 points` tells more, and the same command goes on when that is mended")
    faulty.run("--generations", "3", "--set", "fault=TrainerError", "--max-failures", "9")
    again = [text for _, _, text in lines(faulty.run_folder / "evolve.log")]
    assert again[: len(told)] == told
    assert [text.split(":")[0] for text in again if text.startswith("trial ")][2:] == ["trial 2 failed"]


def test_what_was_asked_wrongly_leaves_no_log(world: World):
    assert world.run("--sampler", "none-such").exit_code == 2
    assert not (world.run_folder / "evolve.log").exists()


def test_workers_of_other_processes_write_into_the_same_log(world: World):
    process = world.start("--jobs", "2", "--generations", "3", "--epochs", "2", "--race", "0")
    process.communicate(timeout=300)
    told = [text for _, _, text in lines(world.run_folder / "evolve.log")]
    assert sum(text.startswith("trial ") for text in told) == 3


def test_an_error_ends_the_log_without_its_password(tmp_path: Path):
    with pytest.raises(OSError, match="gone"), log_file(tmp_path / "evolve.log"):
        raise OSError("postgresql://me:secret@db/x is gone")
    ((level, _, text),) = lines(tmp_path / "evolve.log")
    assert (level, text) == ("ERROR", "OSError: postgresql://me:***@db/x is gone")


def test_our_loggers_are_as_they_were_afterwards(tmp_path: Path):
    ours = logging.getLogger("studies")
    before = (ours.level, list(ours.handlers))
    with log_file(tmp_path / "evolve.log"):
        logging.getLogger("studies.patience").info("the storage is away")
    assert (ours.level, ours.handlers) == before
    assert lines(tmp_path / "evolve.log")[0][1:] == ("studies.patience", "the storage is away")


def test_a_log_that_cannot_be_written_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    handler = LogFile(tmp_path / "none" / "evolve.log")
    handler.emit(logging.LogRecord("evolve", logging.INFO, "", 0, "lost", None, None))
    assert capsys.readouterr().err == ""
