"""The ultralytics package as a trainer, on a few drawn pictures: epochs as they come, and hyps as they were told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from drawn_data import draw, yolo_line

from search_spaces import load_space
from trainer import DataError, TrainerError, TrainingDiverged, TrainJob, TrainOptions
from trainer.process import ProcessTrainer
from trainer.testing import timeless
from trainer.ultralytics_yolo import HYPS, arguments_of, check_used

SPEC = "trainer.ultralytics_yolo:UltralyticsTrainer"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    for split, count in (("train", 8), ("val", 4)):
        (root / "labels" / split).mkdir(parents=True)
        for number in range(count):
            draw(root / "images" / split / f"{number}.png", number, (64, 64))
            boxes = [(number % 2, 8, 8, 40, 48), (1, 30, 20, 62, 60)]
            (root / "labels" / split / f"{number}.txt").write_text("".join(yolo_line(box, (64, 64)) for box in boxes))
    told = {"path": str(root), "train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}}
    (root / "data.yaml").write_text(yaml.safe_dump(told))
    return root / "data.yaml"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessTrainer]:
    """In a process that stays, so that the package is loaded once."""
    home = tmp_path_factory.mktemp("home")
    os.environ["YOLO_CONFIG_DIR"] = str(home)  # the settings of whoever runs the tests are theirs
    try:
        with ProcessTrainer(SPEC, threads=1, log=home / "worker.log") as trainer:
            yield trainer
    finally:
        del os.environ["YOLO_CONFIG_DIR"]


@pytest.fixture
def job(data: Path, tmp_path: Path) -> TrainJob:
    options = TrainOptions(
        data=str(data), model="yolov8n.yaml", epochs=2, imgsz=64, batch=4, schedule="linear", threads=1
    )
    hyp = {**load_space("ultralytics").defaults(), "close_mosaic": 0, "warmup_epochs": 0.0}
    return TrainJob(hyp, options, tmp_path)


def in_folder(job: TrainJob, name: str) -> TrainJob:
    (job.workdir / name).mkdir()
    return replace(job, workdir=job.workdir / name)


def test_the_space_holds_hyps_that_it_has():
    assert set(load_space("ultralytics").defaults()) <= HYPS


def test_it_tells_every_epoch_as_its_own_table_does_and_the_same_of_the_same_seed(
    trainer: ProcessTrainer, job: TrainJob
):
    prepared = trainer.prepare(job.options)
    assert "2 classes" in prepared.summary
    assert prepared.digest == trainer.prepare(job.options).digest
    first, again = in_folder(job, "first"), in_folder(job, "again")
    epochs = [timeless(metrics) for metrics in trainer.train(first)]
    assert [metrics.epoch for metrics in epochs] == [1, 2]
    names, *rows = [line.split(",") for line in (first.workdir / "train" / "results.csv").read_text().splitlines()]
    table = [dict(zip(names, map(float, row), strict=True)) for row in rows]
    for metrics, row in zip(epochs, table, strict=True):
        assert metrics.map50 == pytest.approx(row["metrics/mAP50(B)"], abs=1e-4)
        assert metrics.losses["box_loss"] == pytest.approx(row["train/box_loss"], rel=1e-3)
    assert [timeless(metrics) for metrics in trainer.train(again)] == epochs
    used = yaml.safe_load((first.workdir / "train" / "args.yaml").read_text())
    assert {name: used[name] for name in job.hyp} == dict(job.hyp)


def test_a_training_that_is_closed_ends_and_leaves_the_process_ready_for_the_next(
    trainer: ProcessTrainer, job: TrainJob
):
    closed = in_folder(job, "closed")
    epochs = trainer.train(closed)
    next(epochs)
    child = trainer.pid
    epochs.close()
    assert len(list(trainer.train(in_folder(job, "next")))) == 2
    assert trainer.pid == child
    assert len((closed.workdir / "train" / "results.csv").read_text().splitlines()) == 2, "a header and one epoch"


def test_a_loss_that_is_not_finite_ends_it(trainer: ProcessTrainer, job: TrainJob):
    wild = replace(job, hyp={**job.hyp, "box": 1e39})
    with pytest.raises(TrainingDiverged, match="no longer finite in epoch 1"):
        list(trainer.train(in_folder(wild, "wild")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "no-such.yaml"}, "ultralytics cannot use the data no-such.yaml: "),
        ({"model": "no-such-model.yaml"}, "ultralytics cannot build the model no-such-model.yaml: "),
        ({"schedule": "trapezoid"}, "ultralytics has no schedule 'trapezoid': give --schedule linear or cosine"),
        ({"device": "0,1"}, "a training of ultralytics takes one device"),
        ({"image_weights": True}, "--image-weights means nothing to ultralytics"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"data": ""}, "ultralytics needs the data.yaml of its data: give --data"),
    ],
)
def test_what_it_cannot_do_is_told_before_the_first_training(
    trainer: ProcessTrainer, job: TrainJob, changes: dict[str, object], message: str
):
    with pytest.raises(DataError) as caught:
        trainer.prepare(replace(job.options, **changes))
    assert message in str(caught.value)


def test_an_unknown_hyp_is_refused(trainer: ProcessTrainer, job: TrainJob):
    with pytest.raises(TrainerError, match="has no hyp 'anchor_t' that could be tuned"):
        next(trainer.train(replace(job, hyp={"anchor_t": 4.0})))


class Used:
    """A trainer of the package, as far as it is asked what it trains with."""

    def __init__(self, by: str, initial_lr: float, **args: object) -> None:
        self.args = type("Args", (), {})()
        vars(self.args).update(args)
        self.optimizer = type(by, (), {"param_groups": [{"initial_lr": initial_lr, "param_group": "bias"}]})()


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (Used("AdamW", 0.01, lr0=0.01, box=7.5, optimizer="AdamW"), None),
        (Used("AdamW", 0.01, lr0=0.01, box=7, optimizer="AdamW"), r"trains with box 7, and was told 7\.5"),
        (Used("AdamW", 0.01, lr0=0.01, optimizer="AdamW"), "trains with box None"),
        (Used("MuSGD", 0.01, lr0=0.01, box=7.5, optimizer="AdamW"), "trains by MuSGD, and was told 'AdamW'"),
        (Used("AdamW", 0.002, lr0=0.01, box=7.5, optimizer="AdamW"), r"trains with lr0 0\.002, and was told 0\.01"),
    ],
)
def test_a_hyp_that_it_does_not_train_with_is_named(job: TrainJob, used: Used, message: str | None):
    told = arguments_of(replace(job, hyp={"lr0": 0.01, "box": 7.5}), job.workdir)
    if message is None:
        check_used(used, told)
        return
    with pytest.raises(DataError, match=message):
        check_used(used, told)
