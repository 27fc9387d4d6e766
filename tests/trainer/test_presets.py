"""The presets against programs that speak exactly as the train.py of YOLOv5, YOLOv7 and YOLOv3 do."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from search_spaces import load_space
from trainer import DataError, TrainerError, TrainJob, TrainOptions
from trainer.command import CommandTrainer
from trainer.presets import PRESETS, V3_HYPS, cuda_numbers, preset_program, with_whole_paths

HERE = Path(__file__).parent / "check_outs"
MAP50 = (0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return check_out(tmp_path, request.param)


def check_out(folder: Path, name: str) -> Path:
    """A check-out with models, data and an environment of its own, in a folder whose name has braces."""
    repo = folder / f"{name} {{repo}}"
    shutil.copytree(HERE / name, repo)
    for file, text in {
        "data/cells.yaml": "nc: 3\n",
        "data/cells.data": "classes=3\ntrain=data/lists/train.txt\nvalid = data/lists/val.txt\nnames=data/a.names\n",
        "data/lists/train.txt": "./1.jpg\n",
        "data/lists/val.txt": "./2.jpg\n",
        "data/a.names": "a\nb\nc\n",
        "cfg/training/yolov7-tiny.yaml": "nc: 3\n",
        "cfg/yolov3-spp.cfg": "[net] spp\n",
        "cfg/yolov3-tiny.cfg": "[net] tiny\n",
        ".venv/bin/python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
    }.items():
        (repo / file).parent.mkdir(parents=True, exist_ok=True)
        (repo / file).write_text(text)
    (repo / ".venv" / "bin" / "python").chmod(0o755)
    return repo


def job_for(repo: Path, tmp_path: Path, **options: Any) -> TrainJob:
    name = repo.name.split()[0]
    data = "data/cells.data" if name == "yolov3" else str(repo / "data" / "cells.yaml")
    usual: dict[str, Any] = {"data": data, "model": "", "epochs": 3, "imgsz": 640, "fitness_weights": MAP50}
    (tmp_path / "00001").mkdir(exist_ok=True)
    hyp = {**load_space(name).defaults(), "lr0": 0.02}
    return TrainJob(hyp, TrainOptions(**{**usual, **options}), tmp_path / "00001")


def trainer_for(repo: Path, *more: str) -> CommandTrainer:
    return CommandTrainer(preset_program(repo.name.split()[0], repo, more))


@pytest.mark.parametrize("name", PRESETS)
def test_each_knows_the_hyps_of_the_space_of_its_name(name: str):
    space = load_space(name)
    assert tuple(space.defaults()) == PRESETS[name].hyps


@pytest.mark.parametrize("repo", PRESETS, indirect=True)
def test_every_epoch_of_the_results_is_told(repo: Path, tmp_path: Path):
    job = job_for(repo, tmp_path)
    trainer = trainer_for(repo)
    trainer.prepare(job.options)
    epochs = list(trainer.train(job))
    program = job.workdir / "program"
    if repo.name.startswith("yolov5"):
        table = np.genfromtxt(program / "train" / "results.csv", delimiter=",", skip_header=1)[:, 4:8]
    elif repo.name.startswith("yolov7"):
        table = np.loadtxt(program / "train" / "results.txt", usecols=(8, 9, 10, 11))
    else:
        table = np.loadtxt(program / "results.txt", usecols=(8, 9, 10))
        table = np.column_stack([table, np.zeros(3)])
    assert [metrics.epoch for metrics in epochs] == [1, 2, 3]
    assert [[m.precision, m.recall, m.map50, m.map50_95] for m in epochs] == table.tolist()
    assert table[2, 2] > table[0, 2] > 0


@pytest.mark.parametrize("repo", ["yolov5", "yolov7"], indirect=True)
def test_the_hyp_file_holds_exactly_what_the_space_does(repo: Path, tmp_path: Path):
    job = job_for(repo, tmp_path)
    list(trainer_for(repo).train(job))
    assert yaml.safe_load((job.workdir / "program" / "hyp.yaml").read_text()) == dict(job.hyp)
    if repo.name.startswith("yolov7"):
        assert "loss: OTA" in (job.workdir / "train.log").read_text()


@pytest.mark.parametrize("repo", ["yolov3"], indirect=True)
def test_yolov3_finds_18_values_in_its_order_and_what_its_data_names(repo: Path, tmp_path: Path):
    job = job_for(repo, tmp_path, model="cfg/yolov3-tiny.cfg")
    job = replace(job, hyp={**job.hyp, "giou": 1 / 3, "shear": 0.5})
    list(trainer_for(repo).train(job))
    values = np.loadtxt(job.workdir / "program" / "hyp.txt")
    assert values.tolist() == [job.hyp[name] for name in V3_HYPS]
    log = (job.workdir / "train.log").read_text()
    assert "Using hyp.txt" in log
    assert f"model [net] tiny hyp {dict(zip(V3_HYPS, values.tolist(), strict=True))}" in log
    assert not list(repo.glob("hyp*.txt")) + list(repo.glob("results.txt")), "nothing is left in the check-out"


@pytest.mark.parametrize("repo", PRESETS, indirect=True)
def test_a_trial_keeps_no_weights_but_its_last_and_a_training_that_is_to_save_keeps_them(repo: Path, tmp_path: Path):
    list(trainer_for(repo).train(job_for(repo, tmp_path)))
    log = tmp_path / "00001" / "train.log"
    assert "nosave=True" in log.read_text() or "'nosave': True" in log.read_text()
    log.unlink()
    list(trainer_for(repo).train(job_for(repo, tmp_path, save=True, plots=True)))
    assert "nosave=False" in log.read_text() or "'nosave': False" in log.read_text()
    if repo.name.startswith("yolov5"):
        assert (tmp_path / "00001" / "program" / "train" / "results.png").exists()


@pytest.mark.parametrize("repo", ["yolov5"], indirect=True)
def test_yolov5_is_seeded_and_the_others_warn_that_they_are_not(repo: Path, tmp_path: Path):
    scores = [[m.map50 for m in trainer_for(repo).train(job_for(repo, tmp_path, seed=seed))] for seed in (3, 3, 4)]
    assert scores[0] == scores[1] != scores[2]
    assert trainer_for(repo).prepare(job_for(repo, tmp_path).options).warnings == ()
    (other,) = trainer_for(check_out(tmp_path, "yolov7")).prepare(job_for(repo, tmp_path).options).warnings
    assert other.startswith("yolov7 takes no seed")


@pytest.mark.parametrize("repo", PRESETS, indirect=True)
def test_more_arguments_are_handed_on_and_unknown_ones_fail_with_its_own_words(repo: Path, tmp_path: Path):
    rect = trainer_for(repo, "--rect")
    assert len(list(rect.train(job_for(repo, tmp_path)))) == 3
    with pytest.raises(TrainerError, match=r"exited with code 2(?s:.*)unrecognized arguments: --no-such-flag"):
        list(trainer_for(repo, "--no-such-flag").train(job_for(repo, tmp_path)))


@pytest.mark.parametrize("repo", ["yolov5", "yolov7"], indirect=True)
def test_weights_bring_their_own_model(repo: Path, tmp_path: Path):
    list(trainer_for(repo).train(job_for(repo, tmp_path, weights="own.pt")))
    log = (tmp_path / "00001" / "train.log").read_text()
    assert "cfg=''" in log or "'cfg': ''" in log


@pytest.mark.parametrize("repo", ["yolov5"], indirect=True)
def test_a_hyp_that_is_missing_or_unknown_fails_before_it_starts(repo: Path, tmp_path: Path):
    job = job_for(repo, tmp_path)
    without = {name: value for name, value in job.hyp.items() if name != "obj_pw"}
    with pytest.raises(TrainerError, match="needs the hyp 'obj_pw'"):
        next(trainer_for(repo).train(replace(job, hyp=without)))
    with pytest.raises(TrainerError, match="told nothing of the hyp 'dfl'"):
        next(trainer_for(repo).train(replace(job, hyp={**job.hyp, "dfl": 1.5})))
    assert not (job.workdir / "train.log").exists()


def test_a_folder_that_is_no_check_out_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"is no check-out of yolov5: it has no train\.py"):
        preset_program("yolov5", tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("cpu", "cpu"), ("cuda", "0"), ("cuda:1", "1"), ("cuda:0, cuda:2", "0,2"), ("0,1", "0,1")]
)
def test_devices_are_numbered_as_they_number_them(ours: str, theirs: str):
    assert cuda_numbers(ours) == theirs


def test_paths_of_a_data_file_are_made_whole_and_nothing_else_is():
    data = "classes= 2\n# train=x\ntrain=../coco/a.txt\nvalid = /b.txt\n"
    assert with_whole_paths(Path("/repo"), data) == "classes= 2\n# train=x\ntrain=/repo/../coco/a.txt\nvalid =/b.txt\n"
