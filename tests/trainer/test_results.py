"""What programs tell of their epochs, in every form that is read, and what is no epoch at all."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import EpochMetrics, TrainerError, TrainingDiverged, TrainOptions
from trainer.messages import metrics_to_dict
from trainer.results import Epochs, Told

METRICS = {"precision": 0.1, "recall": 0.2, "map50": 0.3, "map50_95": 0.4}


def take(*rows: dict[str, Any], epochs: int = 10, **options: Any) -> list[EpochMetrics]:
    taken = Epochs(TrainOptions(epochs=epochs, **options))
    return [taken.take(row) for row in rows]


# Lines


def test_what_python_m_trainer_prints_comes_back_bit_for_bit():
    told = EpochMetrics(
        2, 0.1, 1 / 3, 0.3, 0.4, {"box": 1e-17}, 0.5, {"map50": 0.25}, {"latency_ms": 7.0, "params": 300.0}
    )
    row = Told().read_line(json.dumps(metrics_to_dict(told)) + "\n")
    assert take({**METRICS, "epoch": 1}, row)[1] == told


@pytest.mark.parametrize(
    "line",
    [
        "",
        "epoch 1 of 3",
        '{"epoch": 1}',
        '{"epoch": 1, "loss": 0.5}',
        '{"map50": 0.5}',
        '[{"epoch": 1, "map50": 0.5}]',
        '{"epoch": 1, "map50": 0.5',
        "{'epoch': 1, 'map50': 0.5}",
        "{" * 5000 + "}" * 5000,
        '{"epoch": 1, "map50": 0.5} and more',
    ],
)
def test_other_lines_tell_of_no_epoch(line: str):
    assert Told().read_line(line) is None


@pytest.mark.parametrize("line", ['  {"epoch": 1, "map50": 0.5}\r\n', ' 99%|#\r100%|##\r{"epoch": 1, "map50": 0.5}\n'])
def test_a_line_is_found_behind_a_progress_bar(line: str):
    assert Told().read_line(line) == {"epoch": 1, "map50": 0.5}


def test_keys_may_have_other_names():
    told = Told(columns={"epoch": "step", "map50": "metrics/mAP_0.5"})
    row = told.read_line('{"step": 3, "metrics/mAP_0.5": 0.5, "lr": 0.1}')
    assert (row["epoch"], row["map50"]) == (3, 0.5)
    assert "step" in str(told), "whoever looks in vain is told for what"


def test_losses_and_costs_are_kept_as_far_as_they_are_numbers():
    row = {**METRICS, "epoch": 1, "losses": {"box": 1, "note": "x", "flag": True}, "costs": {"params": 3}, "final": "?"}
    (metrics,) = take(row)
    assert (metrics.losses, metrics.costs, metrics.final) == ({"box": 1.0}, {"params": 3.0}, {})
    assert take({**METRICS, "epoch": 1, "losses": 0.5})[0].losses == {}


# Files

SCORES = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")
V5_NAMES = ("epoch", "train/box_loss", *SCORES)
V5_ROWS = [(0, 0.11345, 0.0125, 0.12222, 0.10123, 0.050001), (1, 0.10345, 0.2125, 0.22222, 0.20123, 0.10001)]
V5 = "".join(
    [",".join(f"{name:>20}" for name in V5_NAMES) + "\n"]
    + [",".join(f"{value:>20.5g}" for value in row) + "\n" for row in V5_ROWS]
)
V7 = """\
       0/1     1.23G      0.05      0.02      0.01      0.08        17       640    0.0125    0.1222    0.1012      0.05
       1/1     1.23G      0.05      0.02      0.01      0.08        17       640    0.2125    0.2222    0.2012       0.1
"""
NDJSON = '{"epoch": 1, "map50": 0.1}\n{"epoch": 2, "map50": 0.2, "extra": [1]}\n'
V5_COLUMNS = {"precision": "metrics/precision", "map50": "metrics/mAP_0.5", "map50_95": "metrics/mAP_0.5:0.95"}


@pytest.mark.parametrize(
    ("text", "columns", "map50"),
    [
        (V5, V5_COLUMNS, [0.10123, 0.20123]),
        (V7, {"epoch": "1", "map50": "11", "map50_95": "12"}, [0.1012, 0.2012]),
        (NDJSON, {}, [0.1, 0.2]),
        (NDJSON.replace("map50", "AP"), {"map50": "AP"}, [0.1, 0.2]),
        ("epoch,map50\n1,0.1\n2,0.2\n", {}, [0.1, 0.2]),
        ("map50,loss\r\n0.1,9\r\n\r\n0.2,8\r\n", {}, [0.1, 0.2]),
        ("epoch map50\n1 0.1\n2 0.2\n", {}, [0.1, 0.2]),
        ('"name","the AP"\n"x, y",0.1\n"z",0.2\n', {"map50": "the AP"}, [0.1, 0.2]),
        ("0.1 x\n0.2 x\n", {"map50": "1"}, [0.1, 0.2]),
        ("AP,loss\n0.1,9\n0.2,8\n", {"map50": "1"}, [0.1, 0.2]),
    ],
)
def test_a_file_is_read_in_every_form(text: str, columns: dict[str, str], map50: list[float]):
    rows = Told("results", columns).read_file(text)
    taken = take(*rows, epochs=2, fitness_weights=(0, 0, 1, 0))
    assert [(metrics.epoch, metrics.map50) for metrics in taken] == list(enumerate(map50, start=1))


def test_all_columns_of_yolov5_are_found():
    rows = Told("results.csv", {**V5_COLUMNS, "recall": "metrics/recall"}).read_file(V5)
    assert take(*rows)[1] == EpochMetrics(2, 0.2125, 0.22222, 0.20123, 0.10001, seconds=pytest.approx(0, abs=1))


@given(st.integers(0, len(V5)))
def test_of_a_file_that_grows_nothing_is_told_that_will_not_be_so(size: int):
    told = Told("results.csv", V5_COLUMNS)
    whole_lines = V5[: V5[:size].rfind("\n") + 1]
    rows = told.read_file(whole_lines)
    assert rows == told.read_file(V5)[: len(rows)]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (V5, {"map50": "mAP50"}, "results has no column 'mAP50'; it has epoch, train/box_loss, metrics/precision"),
        (V7, {"map50": "99"}, "line 1 of results has 12 columns, and map50 was to be in column 99"),
        ("map50,x\n0.1\n,\n", {"map50": "x"}, "line 2 of results has 1 columns, and map50 was to be in column 2"),
        ('{"map50": 1}\nTraceback\n', {}, "line 2 of results is no JSON object: Traceback"),
        ("map50\nbad\n", {}, "map50 is bad in epoch 1; it has to lie between 0 and 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_sentence(text: str, columns: dict[str, str], message: str):
    with pytest.raises(TrainerError) as caught:
        take(*Told("results", columns).read_file(text), fitness_weights=(0, 0, 1, 0))
    assert message in str(caught.value)


def test_a_metric_without_the_number_of_its_column_is_known_to_lack():
    assert Told("results.txt", {"map50": "3"}).lacks(["map50", "map50_95"]) == ["map50_95"]
    assert Told("results.csv", {"map50": "AP"}).lacks(["map50", "map50_95"]) == []
    assert Told().lacks(["map50"]) == []


# Epochs


@pytest.mark.parametrize(
    ("told", "epochs"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([0, 1, 2], [1, 2, 3]),
        ([1, 5, 10], [1, 5, 10]),
        (["0/9", "1/9"], [1, 2]),
        (["1", " 2.0"], [1, 2]),
        ([3], [3]),
    ],
)
def test_epochs_are_counted_from_1_whatever_the_program_does(told: list[object], epochs: list[int]):
    assert [metrics.epoch for metrics in take(*({**METRICS, "epoch": epoch} for epoch in told))] == epochs


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([1, 1], "epoch 1 after epoch 1; epochs have to rise"),
        ([2, 1], "epoch 1 after epoch 2"),
        ([1, 0], "epoch 1 after epoch 1"),
        ([9, 10, 11], "epoch 11 of a training that was to have 10 epochs: give it {epochs}"),
        (["one"], "an epoch one; it has to be a whole number"),
        ([1.5], "an epoch 1.5"),
        ([-1], "an epoch -1"),
        ([math.nan], "an epoch nan"),
        ([None], "an epoch None"),
        ([True], "an epoch True"),
    ],
)
def test_epochs_that_do_not_rise_to_the_last_are_refused(told: list[object], message: str):
    with pytest.raises(TrainerError) as caught:
        take(*({**METRICS, "epoch": epoch} for epoch in told))
    assert message in str(caught.value)


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 53.2, "nan", "", None, True, [0.5], "x" * 1000])
def test_what_is_no_score_is_a_failure_and_never_a_fitness(score: object):
    with pytest.raises(TrainerError, match=r"map50 is .{0,40} in epoch 1; it has to lie between 0 and 1"):
        take({**METRICS, "epoch": 1, "map50": score})


def test_a_score_may_be_a_rounding_above_1():
    assert take({**METRICS, "epoch": 1, "map50": 1.0000001})[0].map50 == 1.0


def test_a_loss_that_is_not_finite_is_a_divergence():
    with pytest.raises(TrainingDiverged, match="no longer finite in epoch 1"):
        take({**METRICS, "epoch": 1, "losses": {"box": math.nan}})


def test_what_the_fitness_weighs_has_to_be_told_and_nothing_else():
    (metrics,) = take({"epoch": 1, "map50": 0.5}, fitness_weights=(0, 0, 1, 0))
    assert (metrics.precision, metrics.map50_95) == (0.0, 0.0)
    with pytest.raises(TrainerError, match="told no map50_95 in epoch 1, and the fitness weighs it"):
        take({"epoch": 1, "map50": 0.5})
