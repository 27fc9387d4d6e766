"""Each kind of dirt that real data sets hold is named, a clean data set is left in peace, and nothing is touched."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_data import DIRT, WRITERS, draw, write_dirty, write_yolo
from PIL import Image

from trainer import DataError
from trainer.detection.data import find_data, load_split, report
from trainer.detection.data.likeness import correlation, count_bits, glance_at, near_pairs
from trainer.detection.data.report import Report, inspect_data, near_boxes


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = tmp_path_factory.mktemp("dirty")
    return inspect_data(str(write_dirty(root / "set")), 200, cache_dir=root / "cache")


@pytest.mark.parametrize("kind", DIRT)
def test_every_kind_of_dirt_is_named(dirty: Report, kind: str) -> None:
    found = {(finding.split, finding.count) for finding in dirty.findings if finding.kind == kind}
    assert DIRT[kind] in found


def test_nothing_else_is_named(dirty: Report) -> None:
    assert {finding.kind for finding in dirty.findings} == set(DIRT)


def test_what_can_be_used_is_counted(dirty: Report) -> None:
    train, val = dirty.splits
    assert (train.listed, train.images, val.images) == (14, 11, 4)
    assert train.by_class == {"cell": 54 + 1 + 3 + 2 + 1 + 54 + 4, "star": 1, "never": 0}
    assert train.images_by_class == {"cell": 10, "star": 1, "never": 0}
    assert train.images_without_boxes == 1
    assert train.boxes_per_image.most == 54
    assert sum(train.sides_px.values()) == train.boxes == 120
    assert (train.sides_px["<2"], train.sides_px["2-4"]) == (1, 1)
    assert dirty.imbalance == 119


def test_what_costs_accuracy_comes_first_and_between_splits_before_all(dirty: Report) -> None:
    severities = [finding.severity for finding in dirty.findings]
    assert severities == sorted(severities, reverse=True)
    assert [finding.split for finding in dirty.findings[:3]] == ["train and val"] * 3
    assert dirty.warnings == dirty.findings[: severities.count("warning")]


def test_examples_lead_to_the_place(dirty: Report) -> None:
    by_kind = {finding.kind: finding for finding in dirty.findings if finding.split != "val"}
    assert by_kind["label_line_dropped_a_box_without_area"].examples[0].endswith("lines.txt:9 (0 0.5 0.5 0 0.4)")
    assert "over.jpg = " in by_kind["near_identical_images_across_splits"].examples[0]
    assert by_kind["class_absent"].examples == ("never",)


@pytest.mark.parametrize("form", WRITERS)
def test_a_clean_data_set_of_any_format_is_left_in_peace_and_untouched(tmp_path: Path, form: str) -> None:
    data = WRITERS[form](tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    report = inspect_data(str(data), 64, cache_dir=tmp_path / "cache")
    assert report.findings == ()
    assert report.labels == ("YOLO" if form == "Darknet" else form)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")} == before
    assert not list((tmp_path / "cache").rglob("*.npy")), "no pixels are cached"


def test_a_single_class_is_never_uneven_nor_absent(tmp_path: Path) -> None:
    report = inspect_data(str(write_dirty(tmp_path / "set")), 200, single_cls=True, cache_dir=tmp_path / "cache")
    kinds = {finding.kind for finding in report.findings}
    assert report.names == ("object",)
    assert not kinds & {"class_absent", "uneven_classes", "near_duplicate_boxes_of_two_classes"}


def test_a_report_is_plain_data(dirty: Report) -> None:
    assert json.loads(json.dumps(dataclasses.asdict(dirty)))["splits"][1]["images"] == 4


def test_what_nothing_can_be_learned_from_is_refused(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "set")
    for file in (tmp_path / "set/labels/train").iterdir():
        file.write_text("")
    with pytest.raises(DataError, match="no training picture holds a box, so there is nothing to learn"):
        inspect_data(str(data), 64, cache_dir=tmp_path / "cache")


def test_pictures_are_near_only_if_hash_and_pixels_agree(tmp_path: Path) -> None:
    for name, seed, size in (("a.png", 1, (200, 100)), ("small.jpg", 1, (100, 50)), ("b.png", 2, (200, 100))):
        draw(tmp_path / name, seed, size)
    Image.new("RGB", (200, 100), (9, 9, 9)).save(tmp_path / "flat.png")
    first, small, other, flat = (glance_at(tmp_path / name) for name in ("a.png", "small.jpg", "b.png", "flat.png"))
    (pair,) = near_pairs([other, flat, None, first, first], [None, small, flat])
    assert (pair.first, pair.second) == (3, 1)
    assert pair.correlation > 0.95


def test_bits_are_counted_and_flat_pictures_correlate_with_nothing() -> None:
    values = np.array([0, 1, 2**64 - 1, 2**63 + 5], np.uint64)
    assert count_bits(values).tolist() == [0, 1, 64, 3]
    flat, ramp = np.zeros((4, 4), np.float32), np.arange(16, dtype=np.float32).reshape(4, 4)
    assert (correlation(flat, ramp), correlation(ramp, ramp)) == (0.0, pytest.approx(1.0))


def test_boxes_are_compared_in_parts_and_not_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_yolo(tmp_path / "yolo")
    lines = [f"{k % 2} 0.5 0.5 0.{k}001 0.5\n0 0.5 0.5 0.{k} 0.5\n" for k in range(2, 9)]
    (tmp_path / "yolo/labels/train/b.txt").write_text("".join(lines))
    split = load_split(find_data(str(data)), "train", 64, tmp_path / "cache")
    at_once = list(near_boxes(split))
    assert len(at_once) == 7
    for rows in (1, 3):
        monkeypatch.setattr(report, "AT_ONCE", rows)
        assert list(near_boxes(split)) == at_once
    monkeypatch.setattr(report, "MOST_BOXES", 5)
    found = {finding.kind: finding for finding in inspect_data(str(data), 64, cache_dir=tmp_path / "cache").findings}
    assert "near_duplicate_boxes" not in found
    assert found["boxes_not_compared"].examples[0].endswith("b.png")
