"""`evolve check`: what a person reads, what a program reads, and when it is an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_world import TOY, World

sys.path.append(str(TOY))  # where the tests of the trainer lie
from drawn_data import DIRT, write_dirty, write_voc, write_yolo

KEYS = ["usable", "source", "labels", "imgsz", "names", "imbalance", "splits", "findings"]
SPLIT_KEYS = [
    "split",
    "listed",
    "images",
    "boxes",
    "polygons",
    "images_without_boxes",
    "greyscale",
    "boxes_per_image",
    "by_class",
    "images_by_class",
    "sides_px",
    "digest",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOLVE_CACHE", str(tmp_path / "cache"))


def test_a_person_reads_counts_and_every_finding_with_its_first_place(world: World):
    write_dirty(world.folder / "set")
    result = world.evolve("check", "set", "--imgsz", "200")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "set/data.yaml: YOLO labels, 3 classes"
    assert "train      11         3              1    120         0  0 to 54, mean 10.9" in lines
    assert "train: 1 × label line dropped: a box without area" in lines
    assert "    set/labels/train/lines.txt:9 (0 0.5 0.5 0 0.4)" in lines
    assert "train and val: 1 × the same picture in two splits, byte by byte" in lines
    assert lines[-1].startswith("usable, with ")


def test_a_clean_data_set_is_said_to_be_one(world: World):
    write_voc(world.folder / "set")
    result = world.evolve("check", "set")
    assert result.output.startswith("set: Pascal VOC labels, 2 classes\nbox sizes are in pixels at imgsz 320\n")
    assert result.output.endswith("usable, and nothing wrong was found\n")


def test_a_program_reads_one_json_document_with_stable_keys(world: World):
    write_dirty(world.folder / "set")
    result = world.evolve("check", "set", "--imgsz", "200", "--json")
    assert result.exit_code == 0
    report = json.loads(result.output)
    assert list(report) == KEYS
    assert [list(split) for split in report["splits"]] == [SPLIT_KEYS] * 2
    assert report["usable"] is True
    assert {finding["kind"] for finding in report["findings"]} == set(DIRT)
    assert {tuple(finding) for finding in report["findings"]} == {
        ("kind", "split", "severity", "what", "count", "examples")
    }


def test_a_single_class_is_what_a_training_with_it_would_see(world: World):
    write_yolo(world.folder / "set")
    report = json.loads(world.evolve("check", "set/data.yaml", "--single-cls", "--json").output)
    assert (report["names"], report["splits"][0]["by_class"]) == (["object"], {"object": 3})


def test_the_built_in_data_set_is_clean(world: World):
    result = world.evolve("check", "digits")
    assert result.exit_code == 0
    assert "imgsz 96" in result.output
    assert "warning" not in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "there is no data set 'nothing': expected a data.yaml, a Darknet .data file"),
        (["set/data.yaml", "--imgsz", "0"], "0 is not in the range x>=1"),
        (["set/labels"], "is a folder without a data.yaml, a COCO .json or VOC .xml files"),
        (["bare/data.yaml"], "no training picture holds a box, so there is nothing to learn"),
    ],
)
def test_what_cannot_be_trained_on_is_an_error_of_one_sentence(world: World, arguments: list[str], sentence: str):
    write_yolo(world.folder / "set")
    write_yolo(world.folder / "bare")
    for file in (world.folder / "bare/labels/train").iterdir():
        file.write_text("")
    result = world.evolve("check", *arguments)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
