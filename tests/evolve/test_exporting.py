"""`evolve export`: a study's best hyp for another trainer, with how it came about and how to use it."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import yaml
from small_world import World

from evolve.dialects import DIALECTS, EVOLVE
from evolve.exporting import speech_of
from evolve.formats import FORMATS
from search_spaces import load_hyp, load_space


def export(world: World, *arguments: str):
    return world.evolve("export", "points", *arguments)


def header(text: str) -> dict[str, str]:
    """The lines of a file's header after its title, by their first words."""
    lines = [line[2:] for line in text.splitlines() if line.startswith("# ")][1:]
    return {name.strip(): value for name, _, value in (line.partition("  ") for line in lines)}


def test_the_best_hyp_of_a_study_is_written_for_yolov5_and_tells_where_it_comes_from(world: World):
    world.run("--generations", "4", "--seed", "5")
    result = export(world, "--format", "yolov5")
    best = load_hyp("runs/points/best/hyp.yaml")
    assert result.exit_code == 0, result.output
    hyp = yaml.safe_load(result.stdout)
    assert list(hyp) == list(load_space("yolov5").order)
    assert {name: hyp[name] for name in best} == best
    told = header(result.stdout)
    command = "python YOLOV5_FOLDER/train.py --hyp hyp.yolov5.yaml --data DATA.yaml --epochs 3"
    assert told["use"].strip().startswith(command)
    assert "--optimizer AdamW" in told["use"] and "--seed 5" in told["use"]
    for name, part in {
        "verdict": "Not confirmed",
        "study": "points",
        "fitness": "base ",
        "trial": "training seed",
        "data": "points",
        "epochs": "3",
        "imgsz": "320",
        "batch": "8",
        "optimizer": "adamw",
        "seed": "5",
        "not there": "schedule trapezoid",
        "filled in": "lrf 0.01, warmup_epochs 3",
    }.items():
        assert part in told[name], name
    assert result.stdout.startswith("# Hyps for YOLOv5 (v6.0 and later), by evolve ")
    assert "evolve: warning: YOLOv5 (v6.0 and later) has no schedule trapezoid: it takes its own\n" in result.stderr
    assert result.stderr.endswith(f"train with it: {told['use'].strip()}\n")


@pytest.mark.parametrize("name", FORMATS)
def test_a_study_is_written_in_every_format_and_where_it_is_asked_for(world: World, name):
    world.run("--generations", "1", "--optimizer", "sgd")
    printed = export(world, "--format", name)
    written = export(world, "--format", name, "-o", f"out/{FORMATS[name].file}")
    assert (printed.exit_code, written.exit_code) == (0, 0), printed.output + written.output
    text = (world.folder / "out" / FORMATS[name].file).read_text()
    values = [line for line in text.splitlines() if not line.startswith("#")]
    assert values == [line for line in printed.stdout.splitlines() if not line.startswith("#")]
    assert written.stdout.splitlines()[0] == f"hyp file: out/{FORMATS[name].file}"
    assert written.stdout.splitlines()[1].startswith("train with it: ")
    assert f"out/{FORMATS[name].file}" in written.stdout.splitlines()[1]
    if name != "json":
        assert header(text)["use"].strip() == written.stdout.splitlines()[1].removeprefix("train with it: ")


def test_json_is_nothing_but_the_hyp(world: World):
    world.run("--generations", "1")
    result = export(world, "--format", "json")
    assert json.loads(result.stdout) == load_hyp("runs/points/best/hyp.yaml")
    assert result.stderr.startswith("train with it: evolve train --hyp hyp.json ")


def test_what_evolve_writes_is_its_own_hyp_file(world: World):
    world.run("--generations", "1")
    export(world, "--format", "evolve", "-o", "hyp.yaml")
    assert load_hyp("hyp.yaml") == load_hyp("runs/points/best/hyp.yaml")
    command = header((world.folder / "hyp.yaml").read_text())["use"].strip()
    assert world.evolve(*shlex.split(command)[1:]).exit_code == 0, command


def test_any_trial_can_be_exported_and_says_what_it_was(world: World):
    world.run("--generations", "3", "--pruner", "none")
    for trial in world.trials():
        result = export(world, "--format", "json", "--trial", str(trial.number))
        assert json.loads(result.stdout)["lr0"] == trial.params["lr0"]
        told = header(export(world, "--format", "yolov3", "--trial", str(trial.number)).stdout)
        assert (told["trial"].strip(), told["fitness"].strip()) == (str(trial.number), f"{trial.values[0]:.6g}")
        assert told["verdict"].strip().startswith("Not confirmed")
    result = export(world, "--format", "json", "--trial", "99")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "evolve: error: --trial 99: points has the trials 0 to 2\n"


def test_a_trial_that_failed_can_be_exported_and_has_no_fitness(faulty: World):
    faulty.run("--generations", "1", "--set", "fault=NaN")
    result = export(faulty, "--format", "yolov3", "--trial", "0")
    assert result.exit_code == 0
    assert header(result.stdout)["fitness"].strip() == "none: fail"


def test_what_has_no_equivalent_is_named_and_refused_by_strict(faulty: World):
    faulty.run("--generations", "1")
    result = export(faulty, "--format", "yolov5")
    named = "YOLOv5 (v6.0 and later) has no equivalent of fault , fault_epoch 1"
    assert f"evolve: warning: {named}: left out\n" in result.stderr
    assert header(result.stdout)["left out"].strip() == "fault , fault_epoch 1"
    refused = export(faulty, "--format", "yolov5", "--strict")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"evolve: error: --strict: {named}\n"
    assert export(faulty, "--format", "evolve", "--strict").exit_code == 0


def test_strict_lets_through_what_loses_nothing(world: World):
    world.run("--generations", "1")
    assert export(world, "--format", "yolov7", "--strict").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pionts", "--format", "yolov5"], 2, "there is no study 'pionts' in runs (did you mean 'points'?)"),
        (["points", "--format", "yolov6"], 2, "unknown format 'yolov6' (did you mean 'yolov"),
        (["failed", "--format", "yolov5"], 1, "no trial of failed has completed yet"),
    ],
)
def test_export_says_what_is_not_there(faulty: World, arguments, code, said):
    faulty.run("--generations", "1")
    faulty.run("--generations", "1", "--study", "failed", "--set", "fault=NaN")
    result = faulty.evolve("export", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_race_that_confirmed_the_hyp_is_told(world: World):
    world.run("--generations", "8", "--race", "1", "--pruner", "none")
    told = header(export(world, "--format", "ultralytics").stdout)
    decided = json.loads((world.run_folder / "race.json").read_text())
    assert told["verdict"].strip() == decided["verdict"]
    hyp = yaml.safe_load(export(world, "--format", "ultralytics").stdout)
    assert hyp["lr0"] == load_hyp("runs/points/best/hyp.yaml")["lr0"]
    assert hyp["optimizer"] == "AdamW"


def test_a_momentum_that_adam_does_not_read_there_is_told(world: World):
    world.run("--generations", "1", "--optimizer", "adam")
    result = export(world, "--format", "yolov3")
    assert "has no equivalent of momentum" in result.stderr
    assert np.loadtxt(result.stdout.splitlines()).shape == (18,)
    assert "--adam" in result.stderr
    assert "momentum" not in export(world, "--format", "yolov5").stderr


def test_a_hyp_of_the_built_in_detector_is_exported_with_all_that_it_was_trained_with(world: World):
    """Its space has four hyps, two of which are options of the training; the rest are the detector's own values."""
    (world.folder / "few.yaml").write_text(
        "lr0: {low: 0.001, high: 0.1, default: 0.01}\nbox: 0.1\nmodel: pico\nimgsz: 32\n"
    )
    asked = ("--data", "digits", "--space", "few.yaml", "--epochs", "1", "--batch", "64", "--generations", "1")
    assert world.evolve("run", *asked).exit_code == 0
    result = world.evolve("export", "digits", "--format", "ultralytics")
    hyp = yaml.safe_load(result.stdout)
    assert hyp["box"] == pytest.approx(15.0)
    assert (hyp["warmup_bias_lr"], hyp["translate"], hyp["close_mosaic"]) == (0.1, 0.1, 0)
    assert "filled in" in header(result.stdout) and "translate" not in header(result.stdout)["filled in"]
    assert "has no equivalent of obj 1, anchor_t 4: left out" in result.stderr
    assert " imgsz=32 batch=64 " in header(result.stdout)["use"]
    assert header(result.stdout)["model"].strip() == "pico"
    ours = world.evolve("export", "digits", "--format", "evolve")
    assert yaml.safe_load(ours.stdout) == {"lr0": 0.01, "box": 0.1, "model": "pico", "imgsz": 32}
    assert "--imgsz" not in header(ours.stdout)["use"]


@pytest.mark.parametrize(
    ("hyp", "trainer", "space", "name"),
    [
        ({"lr0": 0.1, "box": 7.5}, "ultralytics", "mine", "ultralytics"),
        ({"lr0": 0.1, "box": 7.5}, "command", "ultralytics", "ultralytics"),
        ({"lr0": 0.1, "dfl": 1.5}, "command", "mine", "ultralytics"),
        ({"lr0": 0.1, "iou_t": 0.2}, "yolov7", "yolov5", "yolov7"),
        ({"lr0": 0.1, "giou": 3.54}, "detection", "yolov3", "evolve"),
        ({"lr0": 0.1}, "toy:ToyTrainer", "space", "evolve"),
    ],
)
def test_a_study_speaks_as_its_trainer_its_space_or_its_hyps_do(hyp, trainer, space, name):
    assert speech_of(hyp, trainer, space) is (EVOLVE if name == "evolve" else DIALECTS[name])
