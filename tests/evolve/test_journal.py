"""What a training measured, on disk: a line an epoch, a table with YOLOv5's columns, TensorBoard's events."""

import csv
import json
import math
import sys
from pathlib import Path

import pytest
from small_world import World
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evolve.journal import Board, Journal, epoch_row, metrics_of, read_rows
from evolve.paths import TrainingPaths
from trainer import EpochMetrics

LOSSES = {"box": 0.05, "obj": 0.5, "cls": 0.25}


def row(epoch, **changes):
    values = {"precision": 0.5, "recall": 0.25, "map50": 0.125, "map50_95": 0.1, "losses": LOSSES, "seconds": 2.5}
    return epoch_row(EpochMetrics(epoch, **{**values, **changes}), fitness=0.1)


@pytest.fixture
def paths(tmp_path):
    return TrainingPaths(tmp_path)


def table(paths):
    return list(csv.DictReader(paths.table.open()))


def test_the_table_has_the_columns_of_yolov5_and_the_seconds(paths):
    journal = Journal(paths, pytest.fail)
    journal.add(row(1))
    assert paths.table.read_text() == (
        "epoch,train/box_loss,train/obj_loss,train/cls_loss,"
        "metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95,seconds\n"
        "1,0.05,0.5,0.25,0.5,0.25,0.125,0.1,2.5\n"
    )


def test_an_epoch_is_appended_to_what_is_there_and_can_be_read_at_once(paths):
    journal = Journal(paths, pytest.fail)
    journal.add(row(1))
    before = paths.metrics.stat().st_ino, paths.table.stat().st_ino
    journal.add(row(2))
    assert (paths.metrics.stat().st_ino, paths.table.stat().st_ino) == before
    assert [json.loads(line)["epoch"] for line in paths.metrics.read_text().splitlines()] == [1, 2]
    assert [line["epoch"] for line in table(paths)] == ["1", "2"]


def test_what_is_no_number_is_null_as_json_and_nan_in_the_table(paths):
    journal = Journal(paths, pytest.fail)
    journal.add(row(1, map50=math.nan, losses={"box": math.inf}))
    assert json.loads(paths.metrics.read_text())["map50"] is None
    assert [table(paths)[0][name] for name in ("metrics/mAP_0.5", "train/box_loss")] == ["nan", "nan"]
    (kept,) = map(metrics_of, read_rows(paths.metrics))
    assert math.isnan(kept.map50)
    assert kept.recall == 0.25


def test_a_loss_that_comes_later_gets_its_column_and_one_that_goes_leaves_it_empty(paths):
    journal = Journal(paths, pytest.fail)
    for epoch, losses in enumerate(({}, {"box": 0.5}, {"box": 0.25, "dfl": 1.5}, {"dfl": 2.5}), start=1):
        journal.add(row(epoch, losses=losses))
    columns = [(line["train/box_loss"], line["train/dfl_loss"]) for line in table(paths)]
    assert columns == [("", ""), ("0.5", ""), ("0.25", "1.5"), ("", "2.5")]


def test_what_was_read_back_is_what_was_measured(paths):
    metrics = EpochMetrics(1, 1 / 3, 2 / 7, 0.1, 1e-17, {"box": 5e-324}, 0.3)
    Journal(paths, pytest.fail).add(epoch_row(metrics, 0.2))
    assert [metrics_of(kept) for kept in read_rows(paths.metrics)] == [metrics]


@pytest.mark.parametrize(
    "torn",
    ['{"epoch": 3, "prec', "null\n", "[]\n", "\0\0\0\0\n", '{"epoch": "x"}\n', '{"epoch": 3, "losses": 7}\n', "\n"],
)
def test_a_torn_line_is_left_out(paths, torn):
    journal = Journal(paths, pytest.fail)
    journal.add(row(1))
    journal.add(row(2))
    with paths.metrics.open("a") as file:
        file.write(torn)
    again = Journal(paths, pytest.fail, keep=True)
    assert [kept["epoch"] for kept in again.rows] == [1, 2]
    again.add(row(3))
    assert [json.loads(line)["epoch"] for line in paths.metrics.read_text().splitlines()] == [1, 2, 3]


def test_a_training_that_goes_on_drops_what_it_trains_again_and_a_new_one_everything(paths):
    journal = Journal(paths, pytest.fail)
    for epoch in range(1, 6):
        journal.add(row(epoch))
    again = Journal(paths, pytest.fail, keep=True)
    again.add(row(3, recall=0.75))
    assert [(line["epoch"], line["metrics/recall"]) for line in table(paths)] == [
        ("1", "0.25"),
        ("2", "0.25"),
        ("3", "0.75"),
    ]
    Journal(paths, pytest.fail).add(row(1))
    assert [line["epoch"] for line in table(paths)] == ["1"]


def test_a_file_that_cannot_be_written_is_one_warning_and_made_whole_as_soon_as_it_can_be(paths):
    warnings = []
    journal = Journal(paths, warnings.append)
    paths.table.mkdir()
    journal.add(row(1))
    journal.add(row(2))
    assert len(warnings) == 1
    assert warnings[0].startswith(f"cannot write {paths.root}/")
    paths.table.rmdir()
    journal.add(row(3))
    assert [line["epoch"] for line in table(paths)] == ["1", "2", "3"]
    assert len(paths.metrics.read_text().splitlines()) == 3


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_every_column_epoch_by_epoch(world: World):
    command = ("train", "--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "3", "--tensorboard")
    assert world.evolve(*command).exit_code == 0
    paths = TrainingPaths(Path("runs/train/exp"))
    shown = scalars(paths.root)
    assert shown.pop("metrics/fitness") == [
        (kept["epoch"], pytest.approx(kept["fitness"])) for kept in read_rows(paths.metrics)
    ]
    for name in table(paths)[0].keys() - {"epoch"}:
        assert shown.pop(name) == [(int(line["epoch"]), pytest.approx(float(line[name]))) for line in table(paths)]
    assert shown == {}


def test_tensorboard_shows_an_epoch_that_is_trained_again_once(tmp_path):
    for epochs, recall in ((range(1, 5), 0.25), (range(3, 5), 0.75)):
        board = Board(tmp_path, pytest.fail)
        for epoch in epochs:
            board.add(row(epoch, recall=recall))
        board.close()
    assert scalars(tmp_path)["metrics/recall"] == [(1, 0.25), (2, 0.25), (3, 0.75), (4, 0.75)]


def test_a_disk_that_is_full_costs_two_warnings_and_not_the_training(world: World):
    command = ("train", "--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "12", "--tensorboard")
    process = world.start_command(*command, limit_bytes=1500)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "epoch 12/12" in output
    warnings = sorted(line.partition(" (")[0] for line in output.splitlines() if line.startswith("warning: cannot"))
    assert warnings == [
        "warning: cannot write TensorBoard's events to runs/train/exp",
        "warning: cannot write runs/train/exp",
    ]


def test_without_the_package_tensorboard_is_one_sentence_before_any_training(world: World, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    result = world.evolve("train", "--trainer", "toy:ToyTrainer", "--data", "points", "--tensorboard")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "pip install 'evolve-hyp[tensorboard]'" in result.stderr
    assert not Path("runs").exists()
