"""The benchmarks of many workers in virtual time, and of promotion: run small, on curves whose answer is known."""

from __future__ import annotations

import threading

import numpy as np
import optuna
import pytest

from benchmarks.scale import chaos, memory, parallel, promotion, throughput
from benchmarks.search.problem import Problem
from benchmarks.search.rivals import Arm
from benchmarks.search.sampler import ARMS, new_study
from benchmarks.search.together import EPOCHS
from benchmarks.small_study import wait_for
from search_spaces import Param, Space
from studies import sqlite_url, suggest
from studies.trials import BASE

BOX = Space(
    "box",
    (
        Param("lr0", low=1e-5, high=1e-1, default=1e-2, log=True),
        Param("mixup", low=0, high=1, default=0),
        Param("units", low=1, high=9, default=5, step=1),
    ),
)


class Hill:
    """Learning curves that rise to minus the distance of mixup from 0.5; the further mixup, the longer they take."""

    def problem(self, task):
        return Problem(task, BOX, lambda hyp: -abs(hyp["mixup"] - 0.5), 0.02, lambda fitness: -fitness)

    def curves(self, hyps, task):
        heights = np.array([-abs(hyp["mixup"] - 0.5) for hyp in hyps])
        return heights[:, None] - 1 / np.arange(1, EPOCHS + 1)

    def seconds(self, hyps, task):
        return np.array([100 + 100 * hyp["mixup"] for hyp in hyps])


class Told(optuna.samplers.RandomSampler):
    """Draws at random, and notes at each draw how many trials there are and how many of them have ended."""

    def __init__(self):
        super().__init__(seed=0)
        self.seen = []

    def infer_relative_search_space(self, study, trial):
        states = [other.state.is_finished() for other in study.get_trials(deepcopy=False)]
        self.seen.append((len(states), sum(states)))
        return {}


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_worker_asks_when_one_of_the_trials_has_ended(workers, monkeypatch):
    told = Told()
    monkeypatch.setitem(parallel.FULL, "told", parallel.Pair(Arm(lambda space, seed: told)))
    found = parallel.compete(Hill(), "hill", "told", workers, seed=0, length=40)
    assert found["trials"] == 40
    drawn = [one for one in told.seen if one[0] > workers]  # the first trial is queued: nothing is drawn for it
    assert all(trials - ended == workers for trials, ended in drawn)
    assert [ended for ended, _ in found["curve"]] == list(range(1, 41))


def test_workers_share_the_time_and_a_long_trial_holds_no_other_up():
    alone, shared = (parallel.compete(Hill(), "hill", "random", n, seed=0, length=40) for n in (1, 8))
    assert alone["busy"] == pytest.approx(1)
    assert 6 < shared["busy"] <= 8
    assert shared["time"] < alone["time"] / 6
    assert shared["times"] == sorted(shared["times"])
    assert found_by(shared) < found_by(alone) / 2


def found_by(found):
    """When the regret came below 0.1."""
    return next(moment for moment, (_, regret) in zip(found["times"], found["curve"], strict=True) if regret < 0.1)


def test_workers_with_a_pruner_report_no_more_epochs_than_there_are():
    found = parallel.compete(Hill(), "hill", "modern + evolve", 4, seed=0, length=12)
    used = [epochs for epochs, _ in found["curve"]]
    assert used == sorted(used)
    assert used[-1] <= 12 * EPOCHS
    assert found["trials"] > 12
    assert found["twice"] == 0


def test_a_hyp_that_differs_by_less_than_a_millionth_counts_as_trained_twice():
    study = optuna.create_study(direction="maximize")
    for mixup, attrs in (
        (0.0, {BASE: True}),
        (0.0, {BASE: True}),
        (0.5, {}),
        (0.5 + 1e-8, {}),
        (0.6, {}),
        (0.0, {}),
    ):
        study.enqueue_trial({**BOX.defaults(), "mixup": mixup}, user_attrs=attrs)
        suggest(study.ask(), BOX)
    assert parallel.trained_twice(study) == 2


def test_the_table_of_workers_is_printed_for_both_budgets(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "lcbench", lambda folder, scales: Whole())
    command = ["--lcbench", str(tmp_path), "--arms", "random,tpe + sha", "--workers", "1,3", "--seeds", "2"]
    command += ["--trials", "9", "--trainings", "3", "--results", str(tmp_path / "found")]
    parallel.main(command)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith(("| rand", "| tpe"))]
    assert [row[:2] for row in rows] == [["random", "1"], ["random", "3"], ["tpe + sha", "1"], ["tpe + sha", "3"]]
    assert [row[-2] for row in rows] == ["0"] * 4
    assert rows[0][4:6] == ["1.0", "1.0"]
    assert 2 < float(rows[1][4]) <= 3


class Whole(Hill):
    final = development = ("hill",)

    def measure(self):
        return {}


@pytest.mark.parametrize("rule", promotion.RULES)
def test_no_rule_uses_more_epochs_than_it_has(rule):
    study = new_study(BOX, ARMS["random"], 0)
    trainings = promotion.of_sampler(Hill(), "hill", study, 0)
    found = promotion.compete(study, trainings, promotion.build_rule(rule, EPOCHS), 15 * EPOCHS)
    reports = sum(len(trial.intermediate_values) for trial in study.trials)
    assert reports == 15 * EPOCHS
    assert found["curve"][-1][0] <= 15 * EPOCHS
    assert (found["trials"] > 15) == (rule != "none")
    assert (found["promoted"] > 0) >= ("asha" in rule and "promoting" in rule)


def test_a_promoted_trial_goes_on_from_its_epoch_and_counts_once():
    study = new_study(BOX, ARMS["random"], 0)
    trainings = list(zip(range(40), promotion.of_sampler(Hill(), "hill", study, 0), strict=False))
    given = [training for _, training in trainings]
    promotion.compete(study, iter(given), promotion.build_rule("asha 2 promoting", EPOCHS), 20 * EPOCHS)
    ended = [one for one in given if one.epoch == EPOCHS]
    assert len(ended) > 2
    for one in given:
        trial = study.trials[one.trial.number]
        assert list(trial.intermediate_values) == list(range(1, one.epoch + 1))
        if trial.state.is_finished():
            assert (trial.state.name == "COMPLETE") == (one.epoch == EPOCHS)


def test_promotion_takes_the_best_half_of_the_highest_rung_that_has_one_left():
    class At:
        def __init__(self, epoch, height):
            self.epoch, self.height = epoch, height

        def at(self, rung):
            return self.height

    low, middle, high, gone = At(6, 0.1), At(6, 0.2), At(6, 0.3), At(12, 0.4)
    all_four = [low, middle, high, gone]
    assert promotion._best_of_rung((6, 12), 2, None, all_four, [low, middle, high, gone]) is high
    assert promotion._best_of_rung((6, 12), 2, None, [*all_four, At(12, 0.35)], all_four) is gone
    assert promotion._best_of_rung((6, 12), 2, None, [low, middle, gone], [low, middle]) is None


def test_the_tables_of_promotion_are_printed_and_printed_again_without_running(tmp_path, capsys):
    ends = np.linspace(0.3, 2, 40)
    losses = ends[:, None] + (3 - ends[:, None]) * np.exp(-np.arange(51)[None, :] / (4 * ends[:, None]))
    np.savez(tmp_path / "one.npz", valid_loss=losses.astype(np.float32))
    command = ["--taskset", str(tmp_path), "--seeds", "2", "--trainings", "5", "--results", str(tmp_path / "found")]
    command += ["--rules", "evolve,asha 2,asha 2 promoting"]
    promotion.main(command)
    first = capsys.readouterr()
    promotion.main(command)
    second = capsys.readouterr()
    assert first.out.splitlines()[1:] == second.out.splitlines()[1:]
    assert (first.err.count("\n"), second.err) == (3 * 3 * 2, "")
    assert "improving order: 1 problems, 2 seeds each" in first.out
    promoting = [line.split("|") for line in first.out.splitlines() if line.startswith("| asha 2 promoting")]
    assert len(promoting) == 3
    assert all(int(row[-2]) > 0 for row in promoting)


def test_an_unknown_name_is_told(tmp_path):
    with pytest.raises(SystemExit, match="unknown arm 'modem'"):
        parallel.main(["--lcbench", str(tmp_path), "--arms", "modem"])
    with pytest.raises(SystemExit, match="unknown rule 'asha'"):
        promotion.main(["--rules", "asha"])
    with pytest.raises(SystemExit, match="unknown proposals 'modem'"):
        promotion.main(["--proposals", "modem"])


# what may die at any moment


def test_whatever_is_killed_a_study_is_whole(capsys):
    """That parents and databases may die, too, is for the benchmark itself."""
    command = ["--kills", "1", "--storages", "sqlite", "--generations", "5", "--every", "1", "--only", "training"]
    assert chaos.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| sqlite ")]
    found = dict(zip([cell.strip() for cell in lines[lines.index("") + 3].split("|")[1:-1]], row, strict=True))
    assert (found["kills"], found["lost"], found["unreadable"], found["orphans"]) == ("1", "0", "0", "0")
    assert int(found["generations"]) == int(found["asked"]) >= 5
    assert lines[-1] == "PASS"


def test_a_hyp_file_that_is_torn_behind_or_of_no_trial_is_noticed(tmp_path):
    folder, url = tmp_path / "study", sqlite_url(tmp_path / "study.db")
    (folder / "best").mkdir(parents=True)
    path, study = (
        folder / "best" / "hyp.yaml",
        optuna.create_study(study_name="study", storage=url, direction="maximize"),
    )
    for x in (0.25, 0.5):
        study.enqueue_trial({"x": x, "y": 0.5})
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1))

    def look(x):
        watched = chaos.Watched()
        path.write_text(f"x: {x}\ny: 0.5\nseconds: 0.1\n")
        return chaos.compare(folder, path, url, "study", watched), watched.wrong

    assert look(0.5) == (False, 0)
    assert look(0.25) == (True, 0), "behind the storage, which may be for a moment"
    assert look(0.3) == (False, 1), "that of no trial"
    (folder / "evolve.csv").write_text("trial,state,fitness\n0,COMPLETE,0.75\n1,COMPLETE,1.0\n2,COMPL")
    assert look(0.25) == (True, 1), "behind its own table"
    torn, over = chaos.Watched(), threading.Event()
    path.write_text("x: [0.5")
    reader = threading.Thread(target=chaos.read_on, args=(path, over, torn))
    reader.start()
    wait_for(lambda: torn.unreadable, 240)
    over.set()
    reader.join()
    assert torn.unreadable > 0


# how much it takes


def test_the_efficiency_is_the_share_of_time_in_which_the_workers_train():
    one = throughput.Log([(0.0, 5.0), (5.5, 10.5), (11.0, 16.0)], statements=60, sql_s=0.2)
    other = throughput.Log([(1.0, 6.0), (6.0, 11.0), (11.0, 16.0)], statements=20, sql_s=0.0)
    found = throughput.judge([one, other], 5.0)
    assert found.efficiency == pytest.approx((15 + 14) / 30)
    assert found.between_s == pytest.approx(0.25)
    assert found.report_s == pytest.approx(0)
    assert (found.trials, found.statements, found.sql_s) == (6, 20, pytest.approx(0.05))


def test_throughput_is_measured_with_real_workers(capsys):
    rounds = "30"  # so long that both work at a time on a busy machine, too
    throughput.main(["--storages", "sqlite", "--workers", "2", "--seconds", "0.3", "--rounds", rounds])
    (row,) = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| sqlite")]
    assert [cell.strip() for cell in row[:3]] == ["sqlite", "2", "60"]
    assert 0 < float(row[3]) <= 1
    assert int(row[-2]) > 10


def test_memory_is_measured_while_the_study_runs(capsys):
    memory.main(["--at", "5,10", "--workers", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[float(cell) for cell in line.split("|")[1:-1]] for line in lines if line.startswith(("| 5 ", "| 10 "))]
    assert [row[0] for row in rows] == [5, 10]
    assert all(memory_mib > 0 and files > 3 for row in rows for memory_mib, files in (row[1:3], row[3:5]))
