"""Curves are read from a study, from tables and from files of one's own; what cannot be read is one sentence."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evolve import curves
from evolve.config import ConfigError
from evolve.curves import read_curves


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text, name="curves.jsonl", **more):
    Path(name).write_text(text)
    return read_curves(name, Path("runs"), **more)


def test_a_line_of_jsonl_is_a_curve():
    found = read('{"fitness": [0.1, 0.2], "seconds": [3, 4]}\n\n{"fitness": [0.2, 0.4]}\n')
    assert [dict(curve.fitness) for curve in found.curves] == [{1: 0.1, 2: 0.2}, {1: 0.2, 2: 0.4}]
    assert [dict(curve.seconds) for curve in found.curves] == [{1: 3.0, 2: 4.0}, {}]
    assert (found.epochs, found.direction, found.left_out) == (2, "maximize", {})


def test_a_line_of_csv_is_an_epoch():
    text = "curve,epoch,fitness,seconds\na,1,0.1,3\nb,1,0.5,3\na,2,0.2,4\nb,2,0.4,\n"
    found = read(text, "curves.csv", minimize=True)
    assert [dict(curve.fitness) for curve in found.curves] == [{1: 0.1, 2: 0.2}, {1: 0.5, 2: 0.4}]
    assert [dict(curve.seconds) for curve in found.curves] == [{1: 3.0, 2: 4.0}, {}]
    assert found.direction == "minimize"


def test_what_has_no_end_to_compare_is_left_out_and_counted():
    rows = ([0.1, 0.2, 0.3], [0.1, 0.2, 0.4], [0.1, 0.2], [0.1, math.nan, 0.3])
    found = read("".join(json.dumps({"fitness": row}) + "\n" for row in rows))
    assert len(found.curves) == 2
    assert found.left_out == {"not finite": 1, "shorter than the others": 1}


def test_tables_hold_losses():
    np.savez("table.npz", valid_loss=np.array([[1.0, 0.5], [1.0, np.nan], [0.9, 0.7]], np.float32))
    found = read_curves("table.npz", Path("runs"))
    assert [curve.end for curve in found.curves] == pytest.approx([0.5, 0.7])
    assert (found.direction, found.left_out) == ("minimize", {"not finite": 1})


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", "[0.1]\n", 'a.jsonl, line 1: expected {"fitness": [0.1, 0.2, ...]}, got [0.1]'),
        ("a.jsonl", '{"fitness": [0.1]}\nx\n', "a.jsonl, line 2: expected"),
        ("a.jsonl", '{"fitness": [0.1, 0.2], "seconds": [1]}\n', "a.jsonl, line 1: 2 fitnesses, but 1 seconds"),
        ("a.jsonl", '{"fitness": [0.1, 0.2]}\n', "a.jsonl holds 1 complete curves; there have to be two"),
        ("a.jsonl", "", "a.jsonl holds 0 complete curves"),
        ("a.csv", "curve,epoch\na,1\n", "a.csv lacks the column 'fitness'"),
        (
            "a.csv",
            "curve,epoch,fitness\na,one,0.1\n",
            "a.csv, line 2: expected a curve, an epoch and a fitness, got a,one",
        ),
        (
            "a.csv",
            'curve,epoch,fitness\n"a,1\nb,1',
            "a.csv, line 3: expected a curve, an epoch and a fitness, got a,1 b,1,None",
        ),
        ("evolve.csv", "trial,state\n0,complete\n", "it only tells how trials ended: give its folder"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: expected"),
        ("a.jsonl", '{"fitness": [1' + "0" * 400 + "]}\n", "a.jsonl, line 1: expected"),
        ("a.npz", "no archive", "a.npz has no table 'valid_loss'"),
        ("a.txt", "0.1", "a.txt holds no curves that are known: give a run folder, or a .jsonl, .csv or .npz file"),
    ],
)
def test_what_is_no_curve_is_told_in_one_sentence(name, text, told):
    with pytest.raises(ConfigError) as error:
        read(text, name)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_of_another_shape_is_refused():
    np.savez("table.npz", valid_loss=np.zeros(3))
    with pytest.raises(ConfigError, match=r"'valid_loss' has the shape \(3,\); expected \[curves, epochs\]"):
        read_curves("table.npz", Path("runs"))


@pytest.mark.parametrize("shape", ["(1000000000, 100)", "(-1, 3)", "(2.5, 3)", "x"])
def test_a_table_that_claims_what_is_not_there_is_refused(shape):
    said = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n"
    with zipfile.ZipFile("table.npz", "w") as archive:
        archive.writestr(
            "valid_loss.npy", b"\x93NUMPY\1\0" + len(said).to_bytes(2, "little") + said.encode() + bytes(48)
        )
    with pytest.raises(ConfigError, match=r"table\.npz has no table 'valid_loss'"):
        read_curves("table.npz", Path("runs"))


def test_a_table_without_its_archive_is_refused():
    with Path("table.npz").open("wb") as file:
        np.save(file, np.zeros((2, 3)))
    with pytest.raises(ConfigError, match=r"table\.npz has no table 'valid_loss'"):
        read_curves("table.npz", Path("runs"))


def test_a_table_that_unpacks_into_more_than_memory_holds_is_refused(monkeypatch):
    monkeypatch.setattr(curves, "MOST_BYTES", 2000)
    np.savez_compressed("table.npz", valid_loss=np.zeros((10, 100)))
    with pytest.raises(ConfigError, match="'valid_loss' unpacks to 8128 bytes; expected 2000 at most"):
        read_curves("table.npz", Path("runs"))


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(OSError, match="No such file"):
        read_curves("gone.jsonl", Path("runs"))
