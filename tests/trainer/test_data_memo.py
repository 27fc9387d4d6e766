"""What was parsed once is not parsed again, and never believed once a file has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from drawn_data import BOXES, WRITERS, coco_content, draw, voc_object, voc_xml

from trainer.detection.data import Split, cache, find_data, load_split
from trainer.detection.data.labels import Labels, NoLabels
from trainer.detection.data.memo import Table, remembered
from trainer.detection.data.problems import Problem

LABELS = {".txt", ".xml", ".json"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOLVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED", -1.0)  # the files have just been written


def _load(data: Path) -> Split:
    return load_split(find_data(str(data)), "train", 64)


def _same(one: Split, other: Split) -> bool:
    outlines = zip(one.polygons, other.polygons, strict=True)
    same = all((a is None) == (b is None) and (a is None or (a == b).all()) for a, b in outlines)
    arrays = (one.boxes == other.boxes).all() and (one.classes == other.classes).all()
    return bool(same and arrays) and (one.digest, one.problems) == (other.digest, other.problems)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    outline = np.array([[0.25, 0.5], [0.5, 0.75], [0, 1]], np.float32)
    box, none = np.array([[0.1, 0.2, 0.3, 0.4]]), np.empty((0, 4))
    problem = Problem(tmp_path / "a\udce9.txt", 3, "dropped", "why")
    return Table(
        [
            Labels(np.concatenate([box, box / 3]), np.array([1, 0]), (problem, problem), (None, outline), (200, 100)),
            NoLabels(tmp_path / "b", "image dropped", "gone"),
            Labels(none, np.empty(0, np.int64), ()),
            Labels(box, np.array([7]), ()),
        ],
        ("cat", "dög"),
        {"images": ["x"]},
    )


def test_a_table_comes_back_as_it_was(table: Table, tmp_path: Path) -> None:
    for parse in (lambda: table, lambda: pytest.fail("was parsed again")):
        found = remembered(["what"], [tmp_path / "missing"], tmp_path, parse)
    assert (found.names, found.notes) == (table.names, table.notes)
    assert found.labels is not table.labels
    for one, other in zip(found.labels, table.labels, strict=True):
        if isinstance(other, NoLabels):
            assert isinstance(one, NoLabels)
            assert (one.file, one.what, one.detail) == (other.file, other.what, other.detail)
            continue
        assert isinstance(one, Labels)
        assert (one.problems, one.stated_size) == (other.problems, other.stated_size)
        for array in ("boxes", "classes"):
            assert getattr(one, array).tolist() == getattr(other, array).tolist()
            assert getattr(one, array).dtype == getattr(other, array).dtype
        assert [p is None for p in one.polygons] == [p is None for p in other.polygons]
    assert (found.labels[0].polygons[1] == table.labels[0].polygons[1]).all()  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("form", WRITERS)
def test_a_second_start_reads_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    data = WRITERS[form](tmp_path / "set")
    first = _load(data)
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    assert _same(_load(data), first)
    labels = [path for path in read if path.suffix in LABELS and tmp_path / "set" in path.parents]
    assert {path.name for path in labels} <= {"train.txt", "val.txt", "valid.txt"}, "which list pictures"


@pytest.mark.parametrize("form", WRITERS)
def test_a_label_that_changes_is_read_again(tmp_path: Path, form: str) -> None:
    data = WRITERS[form](tmp_path / "set")
    first = _load(data)
    for file in (tmp_path / "set").rglob("*"):
        if file.stem == "c" and file.suffix == ".txt":
            file.write_text("")
        elif file.stem == "c" and file.suffix == ".xml":
            file.write_text(voc_xml([]))
        elif file.suffix == ".json" and "train" in file.name:
            file.write_text(json.dumps(coco_content(BOXES["train"] | {"c": []})))
    assert (len(first.boxes), len(_load(data).boxes)) == (3, 2)


def test_a_label_file_that_appears_or_goes_is_noticed(tmp_path: Path) -> None:
    data = WRITERS["YOLO"](tmp_path / "set")
    label = tmp_path / "set/labels/train/c.txt"
    label.rename(tmp_path / "c.txt")
    assert len(_load(data).boxes) == 2
    (tmp_path / "c.txt").rename(label)
    assert len(_load(data).boxes) == 3
    label.unlink()
    assert len(_load(data).boxes) == 2


def test_an_xml_without_a_size_is_read_again_when_its_picture_changes(tmp_path: Path) -> None:
    root = WRITERS["Pascal VOC"](tmp_path / "set")
    (root / "Annotations/c.xml").write_text(voc_xml([voc_object("cat", 1, 1, 50, 50)], None))
    assert _load(root).boxes[-1].tolist() == [0, 0, 16, 16]
    draw(root / "JPEGImages/c.png", 5, (400, 200))
    assert _load(root).boxes[-1].tolist() == [0, 0, 8, 8]


def test_other_names_or_another_class_count_are_not_answered_from_memory(tmp_path: Path) -> None:
    data = WRITERS["YOLO"](tmp_path / "set")
    _load(data)
    data.write_text(data.read_text().replace("[cat, dog]", "[cat]"))
    with pytest.raises(Exception, match="has class id 1, but names lists 1"):
        _load(data)


def test_what_was_written_a_moment_ago_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SETTLED", 3600.0)
    _load(WRITERS["YOLO"](tmp_path / "set"))
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("harm", ["cut", "empty", "garbage", "another array", "another kind of zip"])
def test_what_is_torn_is_parsed_again(tmp_path: Path, harm: str) -> None:
    data = WRITERS["YOLO"](tmp_path / "set")
    first = _load(data)
    (file,) = (tmp_path / "cache/labels").glob("*.npz")
    match harm:
        case "cut":
            os.truncate(file, file.stat().st_size // 2)
        case "empty":
            os.truncate(file, 0)
        case "garbage":
            file.write_bytes(b"garbage")
        case "another array":
            np.savez(file, stamp=np.array("x"))
        case "another kind of zip":
            content = bytearray(file.read_bytes())
            content[content.find(b"PK\1\2") + 6] = 99  # the version that reading needs
            file.write_bytes(content)
    assert _same(_load(data), first)
    assert file.stat().st_size > 500


def test_without_a_cache_folder_labels_are_parsed_every_time(tmp_path: Path, table: Table) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        assert remembered(["what"], [], tmp_path / "file/cache", lambda: table) is table
