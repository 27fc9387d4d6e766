"""A bad label line costs that line, never the image; only a class without a name is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import DataError
from trainer.detection.data.yolo import label_folder, orphans, read_labels

GOOD = b"0 0.5 0.5 0.2 0.4"


def _read(tmp_path: Path, content: bytes, nc: int = 3) -> tuple[list[list[float]], list[int], list[str]]:
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    labels = read_labels(file, nc)
    assert labels.boxes.dtype == np.float64
    assert labels.classes.dtype == np.int64
    assert all(problem.file == file for problem in labels.problems)
    return labels.boxes.round(9).tolist(), labels.classes.tolist(), [f"{p.line}: {p.what}" for p in labels.problems]


def test_centre_and_size_become_corners(tmp_path: Path) -> None:
    boxes, classes, problems = _read(tmp_path, b"2 0.5 0.5 0.2 0.4\r\n\r\n 0.0  0.25 0.75 0.5 0.5 \n")
    assert boxes == [[0.4, 0.3, 0.6, 0.7], [0.0, 0.5, 0.5, 1.0]]
    assert classes == [2, 0]
    assert problems == []


@pytest.mark.parametrize("content", [b"", b"\n  \n", None])
def test_a_missing_or_empty_file_is_background(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    labels = read_labels(file, 3)
    assert labels.boxes.shape == (0, 4)
    assert labels.classes.shape == (0,)
    assert labels.problems == ()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"0 0.5 0.5 0.2", "columns"),
        (b"0 0.5 0.5 0.2 0.4 0.9", "columns"),
        (b"0 0.1 0.1 0.2 0.1 0.2 0.2 0.1", "columns"),
        (b"0,0.5,0.5,0.2,0.4", "columns"),
        (b"cat 0.5 0.5 0.2 0.4", "not a number"),
        (b"0 0.5 0.5 0.2 wide", "not a number"),
        (b"0 0.5 nan 0.2 0.4", "not a finite number"),
        (b"0 0.5 0.5 inf 0.4", "not a finite number"),
        (b"nan 0.5 0.5 0.2 0.4", "not a finite number"),
        (b"0.5 0.5 0.5 0.2 0.4", "class id is no integer"),
        (b"-1 0.5 0.5 0.2 0.4", "class id is no integer"),
        (b"1e300 0.5 0.5 0.2 0.4", "class id is no integer"),
        (b"0 -0.1 0.5 0.2 0.4", "outside [0, 1]"),
        (b"0 0.5 1.2 0.2 0.4", "outside [0, 1]"),
        (b"0 0.5 0.5 -0.2 0.4", "outside [0, 1]"),
        (b"0 320 240 64 48", "outside [0, 1]"),
        (b"0 0.1 0.1 0.2 1.1 0.3 0.3", "outside [0, 1]"),
        (b"0 0.5 0.5 0 0.4", "without area"),
        (b"0 0.5 0.5 0.2 0.0000000001", "without area"),
        (b"0 0.1 0.1 0.2 0.1 0.3 0.1", "without area"),
        (b"0 0.5 0.5 0.2 0.4\xff", "not UTF-8"),
        (b"\xef\xbf\xbd", "columns"),
    ],
)
def test_a_bad_line_is_dropped_and_counted_and_its_neighbours_stay(tmp_path: Path, line: bytes, what: str) -> None:
    boxes, classes, (problem,) = _read(tmp_path, b"1 0.5 0.5 1 1\n" + line + b"\n" + GOOD)
    assert boxes == [[0, 0, 1, 1], [0.4, 0.3, 0.6, 0.7]]
    assert classes == [1, 0]
    assert problem.startswith("2: label line dropped: ")
    assert what in problem


def test_of_equal_lines_one_is_kept(tmp_path: Path) -> None:
    boxes, classes, problems = _read(tmp_path, b"\n".join([GOOD, b"1" + GOOD[1:], GOOD + b"0", GOOD]))
    assert classes == [0, 1]  # another class at the same place is another box
    assert len(boxes) == 2
    assert [problem.split(":")[0] for problem in problems] == ["3", "4"]


def test_a_polygon_becomes_its_bounding_box(tmp_path: Path) -> None:
    boxes, classes, problems = _read(tmp_path, b"1 0.2 0.3 0.6 0.1 0.4 0.8\n2 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n")
    assert boxes == [[0.2, 0.1, 0.6, 0.8], [0.1, 0.1, 0.2, 0.3]]
    assert classes == [1, 2]
    assert problems == []


def test_boxes_are_clipped_to_the_picture_and_one_percent_outside_is_forgiven(tmp_path: Path) -> None:
    boxes, _, problems = _read(tmp_path, b"0 0.95 0.5 0.3 0.2\n0 -0.005 0.5 0.2 0.2\n0 0.5 0.5 1.005 1.009\n")
    assert boxes == [[0.8, 0.4, 1, 0.6], [0, 0.4, 0.095, 0.6], [0, 0, 1, 1]]
    assert problems == []


def test_a_byte_order_mark_is_no_part_of_the_class(tmp_path: Path) -> None:
    assert _read(tmp_path, b"\xef\xbb\xbf" + GOOD)[1:] == ([0], [])


@pytest.mark.parametrize("line", [b"3 0.5 0.5 0.2 0.4", b"80 0.5 0.5 0.2 0.4", b"3 0.1 0.1 0.2 0.1 0.2 0.2"])
def test_a_class_without_a_name_is_an_error_with_file_line_id_and_count(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(DataError, match=rf"a\.txt:2 has class id {line.split()[0].decode()}, but names lists 3 "):
        _read(tmp_path, GOOD + b"\n" + line)


@given(content=st.binary(max_size=200) | st.text("0123456789.-+einfa \n\t", max_size=200).map(str.encode))
def test_no_label_file_is_too_strange(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "strange.txt"
    file.write_bytes(content)
    labels = read_labels(file, 2**31)
    assert len(labels.boxes) == len(labels.classes)
    assert (labels.boxes >= 0).all()
    assert (labels.boxes <= 1).all()
    assert (labels.boxes[:, 2:] > labels.boxes[:, :2]).all()
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()  # a byte order mark alone is an empty file
    assert len(labels.boxes) + len(labels.problems) == sum(bool(line.strip()) for line in lines)


def test_labels_lie_where_the_last_images_is_labels(tmp_path: Path) -> None:
    (tmp_path / "images/x/labels/train").mkdir(parents=True)
    assert label_folder(tmp_path / "images/x/images/train") == tmp_path / "images/x/labels/train"


@pytest.mark.parametrize("images", ["train", "images/train", "images"])
def test_labels_lie_beside_the_images_where_there_is_no_such_folder(tmp_path: Path, images: str) -> None:
    assert label_folder(tmp_path / images) == tmp_path / images


def test_a_label_without_an_image_is_reported(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    (images / "a.JPG").touch()
    (images / "b.gif").touch()
    for stem in ("a", "b", "c", "classes"):
        (labels / f"{stem}.txt").touch()
    assert [p.file.name for p in orphans([images, images], {".jpg"})] == ["b.txt", "c.txt"]
    (tmp_path / "notes.txt").touch()
    assert orphans([tmp_path], {".jpg"}) == ()  # text beside images may be anything


def test_a_polygon_is_kept_beside_its_box_and_clipped_like_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"1 0.1 0.2 0.5 -0.005 0.9 0.8\n" + GOOD)
    labels = read_labels(file, 3)
    outline, none = labels.polygons
    assert outline is not None
    assert (outline == np.array([[0.1, 0.2], [0.5, 0.0], [0.9, 0.8]], np.float32)).all()
    assert none is None
    assert labels.boxes[0].tolist() == [0.1, 0.0, 0.9, 0.8]


def test_labels_lie_beside_darknet_s_voc_pictures(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    assert label_folder(tmp_path / "JPEGImages") == tmp_path / "labels"
