"""A whole study from the command line: what it leaves, how it goes on, and what it does when a training breaks."""

import csv
import json
import re
import shlex
import shutil
import sqlite3
import statistics
import time
from contextlib import closing

import optuna
import pytest
import yaml
from small_world import SPACE, is_running

from evolve.config import read_config
from evolve.opening import usual_base_seeds
from evolve.watcher import Silence
from search_spaces import load_hyp, load_space


def hyps(trials):
    return [trial.params for trial in trials]


def test_a_run_leaves_the_best_hyp_the_table_and_its_configuration(world):
    result = world.run("--generations", "6")
    assert result.exit_code == 0, result.output
    complete = {trial.value: trial for trial in world.trials() if trial.state.name == "COMPLETE"}
    best = complete[max(complete)]
    text = (world.run_folder / "best" / "hyp.yaml").read_text()
    assert yaml.safe_load(text) == best.params
    assert f"# trial      {best.number} " in text
    rows = list(csv.DictReader((world.run_folder / "evolve.csv").open()))
    assert [int(row["trial"]) for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [float(row["lr0"]) for row in rows] == [trial.params["lr0"] for trial in world.trials()]
    assert read_config(world.run_folder / "evolve.yaml")["generations"] == 6


def test_the_first_trial_trains_the_base(world):
    base = world.folder / "base.yaml"
    base.write_text("momentum: 0.25\n")
    assert world.run("--generations", "1", "--hyp", str(base)).exit_code == 0
    assert hyps(world.trials()) == [{"lr0": 0.0005, "momentum": 0.25, "weight_decay": 0.0}]


def test_the_base_is_trained_under_several_seeds_and_their_spread_is_the_noise_floor(world):
    result = world.run("--generations", "5", "--base-seeds", "3")
    assert result.exit_code == 0, result.output
    trials = world.trials()
    assert hyps(trials)[:3] == [hyps(trials)[0]] * 3
    assert hyps(trials)[0] not in hyps(trials)[3:]
    assert [trial.user_attrs["seed"] for trial in trials] == [0, 1, 2, 3, 4]
    assert [bool(trial.user_attrs.get("base")) for trial in trials] == [True, True, True, False, False]
    values = [trial.value for trial in trials[:3]]
    assert statistics.stdev(values) > 0
    assert study_attributes(world)["noise"] == {"sd": pytest.approx(statistics.stdev(values)), "degrees": 2}
    assert "(3 seeds)" in result.output
    assert read_config(world.run_folder / "evolve.yaml")["base_seeds"] == 3


def study_attributes(world, study="points"):
    return optuna.load_study(study_name=study, storage=f"sqlite:///{world.folder}/runs/{study}/study.db").user_attrs


@pytest.mark.parametrize(("generations", "seeds"), [(1, 1), (19, 1), (20, 2), (30, 3), (300, 3)])
def test_a_short_study_trains_its_base_once(generations, seeds):
    assert usual_base_seeds(generations) == seeds


def test_with_how_many_seeds_a_study_began_cannot_be_changed(world):
    assert world.run("--generations", "2").exit_code == 0
    assert world.run("--generations", "20").exit_code == 0, "what was not asked for is no difference"
    result = world.run("--base-seeds", "3")
    assert result.exit_code == 2
    assert "was made with --base-seeds 1, which cannot become 3" in result.stderr


def test_every_epoch_of_every_trial_is_a_line_of_its_metrics(world):
    world.run("--pruner", "none", "--fitness", "map50=1")
    for trial in world.trials():
        lines = (world.run_folder / "trials" / f"{trial.number:05}" / "metrics.jsonl").read_text().splitlines()
        epochs = [json.loads(line) for line in lines]
        assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
        assert [epoch["fitness"] for epoch in epochs] == list(trial.intermediate_values.values())
        assert epochs[-1]["map50"] == epochs[-1]["fitness"] == trial.value == trial.user_attrs["metrics"]["map50"]


def test_a_trial_is_safe_from_a_power_cut_as_soon_as_it_is_told(world):
    """What a power cut leaves for sure is the database without the log beside it."""
    told, kept = [], []

    class PowerCut(Silence):
        def finished(self, outcome, standing):
            told.append((outcome.number, outcome.state.upper()))
            shutil.copy(world.run_folder / "study.db", world.folder / "left.db")
            with closing(sqlite3.connect(world.folder / "left.db")) as database:
                kept.extend(database.execute("SELECT number, state FROM trials ORDER BY number DESC LIMIT 1"))

    world.evolve_in_python(watcher=PowerCut(), generations=3)
    assert kept == told
    assert len(told) == 3


def test_seventeen_and_twenty_three_generations_are_the_forty_of_one_go_hyp_for_hyp(world):
    world.evolve_in_python(study="halves", generations=17, base_seeds=3)
    world.evolve_in_python(study="halves", generations=40)
    world.evolve_in_python(study="whole", generations=40)
    halves, whole = world.trials("halves"), world.trials("whole")
    assert len(halves) == len(whole) == 40
    assert hyps(halves) == hyps(whole)
    assert [trial.values for trial in halves] == [trial.values for trial in whole]
    assert [trial.state for trial in halves] == [trial.state for trial in whole]


def test_generations_are_a_total_so_that_a_finished_study_has_nothing_to_do(world):
    world.run("--generations", "3")
    result = world.run("--generations", "3")
    assert result.exit_code == 0
    assert "3 of 3 generations are done" in result.output
    assert len(world.trials()) == 3


@pytest.mark.parametrize("sampler", ["yolo", "tpe", "random"])
def test_every_sampler_begins_with_the_base_and_can_be_resumed(world, sampler):
    world.run("--sampler", sampler, "--generations", "4", "--epochs", "1")
    world.run("--sampler", sampler, "--generations", "8", "--epochs", "1")
    found = hyps(world.trials())
    assert found[0] == load_hyp("space.yaml")
    assert len({json.dumps(hyp) for hyp in found}) == 8


def test_the_resolved_configuration_repeats_the_study_and_under_another_name_makes_an_equal_one(world, monkeypatch):
    (world.folder / "elsewhere").mkdir()
    world.run("--generations", "2", "--set", "momentum=0.3", "--seed", "7", "--fitness", "map50=1")
    monkeypatch.chdir(world.folder / "elsewhere")
    config = str(world.run_folder / "evolve.yaml")
    assert world.evolve("run", "--config", config, "--generations", "4").exit_code == 0
    assert world.evolve("run", "--config", config, "--generations", "4", "--study", "equal").exit_code == 0
    assert len(world.trials()) == 4
    assert hyps(world.trials()) == hyps(world.trials("equal"))
    assert not (world.folder / "elsewhere" / "runs").exists()


def test_a_run_begins_no_trial_after_its_time_and_the_next_run_has_as_much_again(world):
    world.run("--generations", "2")
    for _ in range(2):
        began = time.monotonic()
        result = world.run("--generations", "100000", "--budget", "1.5s", "--race", "0")
        assert result.exit_code == 0, result.output
        assert time.monotonic() - began >= 1.5
        assert "the 1.5s of this run are over" in result.output
        assert "ends earlier after 1.5s of this run\n" in result.output
    assert all(trial.state.is_finished() and "lost" not in trial.user_attrs for trial in world.trials())


def test_a_run_without_time_for_one_trial_has_no_result(world):
    result = world.run("--budget", "0.001s")
    assert result.exit_code == 1
    assert "no trial completed: the 0.001s of this run are over" in result.stderr


def test_a_target_that_is_reached_ends_the_study_for_good(world):
    for _ in range(2):
        result = world.run(
            *("--generations", "200", "--base-seeds", "1", "--seed", "3", "--sampler", "random", "--target", "0.45")
        )
        assert result.exit_code == 0, result.output
        assert "the target of 0.45 is reached: 0." in result.output
    base, *others, last = [trial.value for trial in world.trials() if trial.state.name == "COMPLETE"]
    assert last >= 0.45 > max(base, *others, 0)


def test_patience_ends_a_resumed_study_where_it_ends_one_that_never_stopped(world):
    settings = {"base_seeds": 3, "patience": 6, "pruner": "none"}
    world.evolve_in_python(study="whole", generations=100, **settings)
    for generations in (2, 5, 9, 100, 100):
        world.evolve_in_python(study="pieces", generations=generations, **settings)
    whole, pieces = world.trials("whole"), world.trials("pieces")
    assert 9 <= len(whole) < 100
    assert hyps(pieces) == hyps(whole)
    assert [trial.values for trial in pieces] == [trial.values for trial in whole]


def test_only_what_may_evolve_does(world):
    assert world.run("--freeze", "lr0", "--set", "weight_decay=1e-3", "--generations", "4").exit_code == 0
    assert all(trial.params.keys() == {"momentum"} for trial in world.trials())
    assert load_hyp(world.run_folder / "best" / "hyp.yaml")["weight_decay"] == 0.001


def test_the_best_hyp_is_the_base_of_the_next_study(world):
    world.run("--generations", "6")
    best = load_hyp(world.run_folder / "best" / "hyp.yaml")
    assert world.run("--hyp", "runs/points/best/hyp.yaml", "--study", "next", "--generations", "1").exit_code == 0
    assert hyps(world.trials("next")) == [best]


@pytest.mark.parametrize("fault", ["SIGKILL", "NaN", "TrainerError"])
def test_a_training_that_breaks_costs_its_trial_and_not_the_study(faulty, fault):
    """Seed 1 draws healthy trials and broken ones; the base is healthy."""
    space = faulty.folder / "space.yaml"
    space.write_text(space.read_text().replace('"sleep", "nap", "NaN", "SIGKILL", "TrainerError"', f'"{fault}"'))
    result = faulty.run("--sampler", "random", "--seed", "1", "--generations", "6", "--pruner", "none")
    assert result.exit_code == 0, result.output
    trials = faulty.trials()
    broken = [trial for trial in trials if trial.params["fault"] == fault]
    assert 0 < len(broken) < 6
    for trial in broken:
        assert trial.state.name == "FAIL"
        assert trial.value is None
        assert trial.user_attrs["failure"] in result.output
    assert {trial.state.name for trial in trials if trial not in broken} == {"COMPLETE"}


def test_a_training_that_falls_silent_is_ended_and_has_failed(faulty):
    """Its own child, which holds nothing of ours, is ended with it: both are in one process group."""
    (faulty.folder / "space.yaml").write_text(SPACE + 'fault: {choices: ["", "program"], default: ""}\n')
    result = faulty.run("--sampler", "random", "--seed", "1", "--generations", "5", "--trial-timeout", "1")
    assert result.exit_code == 0, result.output
    silent = [trial for trial in faulty.trials() if trial.params["fault"]]
    assert 0 < len(silent) < 5
    for trial in silent:
        assert trial.state.name == "FAIL"
        told = "the training process was ended because nothing came from it for 1 s in epoch 1"
        assert trial.user_attrs["failure"].startswith(told)
        assert "failed    fitness       -  epochs   0/3" in result.output
        log = (faulty.run_folder / "trials" / f"{trial.number:05}" / "train.log").read_text()
        (program,) = re.findall(r"^program (\d+)$", log, re.MULTILINE)
        assert not is_running(int(program))


def test_failures_in_a_row_end_the_study_with_the_reason_of_the_last(faulty):
    result = faulty.run("--set", "fault=TrainerError", "--max-failures", "4", "--generations", "30")
    assert result.exit_code == 1
    reason = "4 trials in a row failed, the last one with: the toy is out of order"
    then = "`evolve show 3 points` tells more, and the same command goes on when that is mended"
    assert result.stderr == f"evolve: error: no trial completed: {reason}; {then}\n"
    assert not (faulty.run_folder / "best").exists()
    again = faulty.run("--set", "fault=TrainerError", "--max-failures", "4", "--generations", "30")
    assert again.exit_code == 1
    assert len(faulty.trials()) == 8, "whoever resumes gets as many attempts again"


def test_a_file_that_cannot_be_written_is_one_warning_and_the_study_goes_on(world):
    (world.run_folder / "best" / "hyp.yaml").mkdir(parents=True)
    (world.run_folder / "evolve.csv").mkdir()
    result = world.run("--generations", "4")
    assert result.exit_code == 0
    assert len([line for line in result.output.splitlines() if line.startswith("warning: cannot write")]) == 1
    (world.run_folder / "best" / "hyp.yaml").rmdir()
    (world.run_folder / "evolve.csv").rmdir()
    assert world.run("--generations", "4").exit_code == 0
    assert load_hyp(world.run_folder / "best" / "hyp.yaml")
    assert len((world.run_folder / "evolve.csv").read_text().splitlines()) == 1 + 4


def test_the_files_are_brought_in_line_with_the_study_when_it_is_opened(world):
    world.run("--generations", "4")
    hyp, table = world.run_folder / "best" / "hyp.yaml", world.run_folder / "evolve.csv"
    before = load_hyp(hyp), table.read_text()
    hyp.write_text("lr0: 1\n")
    table.write_text(table.read_text()[:90])
    world.run("--generations", "4")
    assert (load_hyp(hyp), table.read_text()) == before


def test_a_study_that_goes_on_without_finding_better_leaves_the_hyp_file_as_it_was(world):
    world.run("--generations", "1", "--fitness", "map50=1")
    hyp = world.run_folder / "best" / "hyp.yaml"
    before = hyp.read_bytes(), hyp.stat().st_mtime_ns
    world.run("--generations", "2", "--fitness", "map50=1", "--pruner", "none", "--sampler", "yolo")
    assert [trial.value for trial in world.trials()] == sorted((t.value for t in world.trials()), reverse=True)
    assert (hyp.read_bytes(), hyp.stat().st_mtime_ns) == before


def test_the_printed_command_trains_with_the_best_hyp(world):
    printed = world.run("--fitness", "recall=1").output.partition("train with it: ")[2]
    result = world.evolve(*shlex.split(printed)[1:])
    assert result.exit_code == 0, result.output
    assert "epoch 3/3" in result.output
    assert "--fitness recall=1" in printed


def test_the_printed_command_and_the_hyp_file_tell_every_option_that_is_not_as_usual(world):
    (world.folder / "yolo.weights").touch()
    more = ("--weights", "yolo.weights", "--freeze-layers", "3", "--freeze-epochs", "1", "--rect", "--amp", "off")
    printed = world.run(*more, "--device", "0", "--cache", "none").output.partition("train with it: ")[2].strip()
    told = " --device 0 --trainer toy:ToyTrainer --weights yolo.weights --freeze-layers 3 --freeze-epochs 1"
    assert printed.endswith(f"{told} --rect --cache none --amp off")
    header = (world.run_folder / "best" / "hyp.yaml").read_text()
    assert all(f"# {name} " in header for name in ("weights", "freeze_layers", "freeze_epochs", "rect", "amp"))
    assert "# multi_scale" not in header


def test_the_built_in_trainer_runs_a_study_on_the_built_in_data(world, monkeypatch):
    monkeypatch.setenv("EVOLVE_CACHE", str(world.folder / "cache"))
    result = world.evolve("run", "--data", "digits", "--epochs", "1", "--imgsz", "32", "--generations", "2")
    assert result.exit_code == 0, result.output
    base, child = world.trials("digits")
    defaults = load_space("detection").defaults()
    assert {**defaults, **base.params} == defaults
    assert base.params.keys() == child.params.keys()
    assert base.params != child.params
    assert all(0 <= trial.value <= 1 for trial in (base, child))
    best = base if base.value >= child.value else child
    assert load_hyp("runs/digits/best/hyp.yaml") == {**defaults, **best.params}


def test_quiet_says_nothing(world):
    assert world.run("--quiet").output == ""
