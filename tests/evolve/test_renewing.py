"""The report is renewed while a study runs: seldom, by a process that gives way, and once more at the end."""

import os
import time

import pytest
from made_study import make_study
from small_world import wait_for

from evolve import renewing
from evolve.config import EvolveConfig
from evolve.renewing import LEAST_S, NICE, SHARE, Renewal
from evolve.watcher import Silence
from studies.persistence import temporary_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def renewal(tmp_path):
    paths, _ = make_study(tmp_path, 8)
    clock, warnings = Clock(), []
    made = Renewal(EvolveConfig(study="points", runs=str(tmp_path)), paths, warnings.append, clock)
    made.clock, made.paths, made.warnings = clock, paths, warnings
    yield made
    made.stop()


def test_a_report_costs_a_hundredth_of_the_time_at_most(renewal):
    renewal.soon()
    assert renewal._process is None, "the run is young"
    renewal.clock.now = LEAST_S
    renewal.soon()
    assert os.getpriority(os.PRIO_PROCESS, renewal._process.pid) == max(NICE, os.getpriority(os.PRIO_PROCESS, 0))
    began = sum(os.times()[2:4])
    wait_for(lambda: not renewal._is_busy(), timeout_s=400)
    cost_s = sum(os.times()[2:4]) - began  # of children that have been waited for
    assert "<h1>points</h1>" in renewal.paths.report.read_text(encoding="utf-8")
    assert renewal._due == pytest.approx(LEAST_S + max(cost_s / SHARE, LEAST_S), rel=0.1)
    renewal.clock.now = renewal._due - 1
    renewal.soon()
    assert renewal._process is None
    renewal.clock.now += 2
    renewal.soon()
    assert renewal._process is not None
    assert renewal.warnings == []


def test_what_cannot_be_made_is_one_warning(renewal):
    renewal.paths.config.unlink()
    for _ in range(2):
        renewal.clock.now = renewal._due + 1
        renewal.soon()
        wait_for(lambda: not renewal._is_busy(), timeout_s=400)
    assert len(renewal.warnings) == 1
    assert "the report could not be made (there is no study" in renewal.warnings[0]


def test_one_that_is_being_made_ends_with_the_run(renewal):
    renewal.clock.now = LEAST_S
    renewal.soon()
    pid = renewal._process.pid
    renewal.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not renewal.paths.report.exists()


def test_a_run_leaves_the_report_of_all_its_trials(world, monkeypatch):
    monkeypatch.setattr(renewing, "LEAST_S", 0.0)
    result = world.run("--generations", "4")
    assert result.exit_code == 0
    assert "report: runs/points/report.html" in result.output
    page = (world.run_folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<tr data-state=") == 4


def test_a_run_of_seconds_leaves_none(world):
    began = time.monotonic()
    result = world.run()
    if time.monotonic() - began < LEAST_S:
        assert "report:" not in result.output
        assert not (world.run_folder / "report.html").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_neither_who_leaves_nor_who_cannot_go_on_waits_for_a_report(world, monkeypatch, error):
    monkeypatch.setattr(renewing, "LEAST_S", 0.0)
    ended = []

    class Breaking(Silence):
        def finished(self, outcome, standing):
            raise error

        def ended(self, told):
            ended.append(told)

    with pytest.raises(error):
        world.evolve_in_python(Breaking(), generations=3)
    assert (ended[0].cut, ended[0].report) == (True, None)
    assert not (world.run_folder / "report.html").exists()


def test_what_a_killed_one_was_writing_goes_with_it(renewal):
    renewal._start()
    half = temporary_of(renewal.paths.report, renewal._process.pid)
    half.write_text("<h1>")
    renewal.stop()
    assert not half.exists()


def test_the_study_that_runs_is_told_of_whatever_storage_the_surroundings_name(renewal, tmp_path, monkeypatch):
    monkeypatch.setenv("EVOLVE_STORAGE", f"sqlite:///{tmp_path}/elsewhere.db")
    renewal.clock.now = LEAST_S
    assert renewal.finish() == renewal.paths.report
    assert renewal.warnings == []


def test_files_in_the_working_folder_pass_for_no_module_of_ours(renewal, tmp_path, monkeypatch):
    for name in ("evolve", "studies", "trainer", "plotly", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    renewal.clock.now = LEAST_S
    assert renewal.finish() == renewal.paths.report
    assert renewal.warnings == []
