"""A split holds what the files hold, in pixels of its pictures; dirt is left out and reported, and digests tell."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer import DataError
from trainer.detection.data import DataSpec, Problem, Split, find_data, leaks, load_split, summarise


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three train pictures with two, no and one box; one val picture without a label file."""
    root = tmp_path / "set"
    sizes = {"train/a": (200, 100), "train/b": (100, 200), "train/c": (50, 50), "val/d": (80, 60)}
    for i, (name, size) in enumerate(sizes.items()):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10 * i, 100, 200)).save(root / "images" / f"{name}.png")
    (root / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.1 0.1\n")
    (root / "labels/train/b.txt").touch()
    (root / "labels/train/c.txt").write_text("1 0.5 0.5 1 1\n")
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    return root


def _load(root: Path, split: str = "train", imgsz: int = 64) -> Split:
    return load_split(find_data(str(root / "data.yaml")), split, imgsz, cache_dir=root.parent / "cache")


def _whats(split: Split) -> list[str]:
    return [f"{problem.file.name}:{problem.line}: {problem.what}" for problem in split.problems]


def test_arrays_have_the_promised_shapes_and_types(root: Path) -> None:
    split = _load(root)
    assert (split.images.shape, split.images.dtype) == ((3, 64, 64, 3), np.uint8)
    assert isinstance(split.images, np.memmap)
    assert not split.images.flags.writeable
    assert (split.sizes.tolist(), split.sizes.dtype) == ([[64, 32], [32, 64], [64, 64]], np.int32)
    assert split.boxes.dtype == np.float32
    assert split.boxes == pytest.approx(np.array([[16, 8, 48, 24], [12.8, 6.4, 19.2, 9.6], [0, 0, 64, 64]]))
    assert (split.classes.tolist(), split.classes.dtype) == ([0, 1, 1], np.int64)
    assert (split.image_index.tolist(), split.image_index.dtype) == ([0, 0, 2], np.int64)
    assert [file.name for file in split.files] == ["a.png", "b.png", "c.png"]
    assert split.problems == ()
    assert split.images[:, 5, 5, 0].tolist() == [0, 10, 20]
    with pytest.raises(FrozenInstanceError):
        split.digest = ""  # type: ignore[misc]


def test_labels_may_lie_beside_the_images(root: Path) -> None:
    expected = _load(root)
    for labels in (root / "labels").iterdir():
        for file in labels.iterdir():
            file.rename(root / "images" / labels.name / file.name)
        labels.rmdir()
    beside = _load(root)
    assert beside.digest == expected.digest
    assert (beside.boxes == expected.boxes).all()


def test_a_split_without_a_box_is_reported_but_loads(root: Path) -> None:
    split = _load(root, "val")
    assert split.boxes.shape == (0, 4)
    assert split.image_index.shape == (0,)
    assert _whats(split) == ["val:None: the split 'val' has no box at all"]


def test_bad_pictures_are_left_out_with_their_labels_and_the_rest_keeps_its_own(root: Path) -> None:
    (root / "images/train/a.png").write_text("Not found")
    (root / "images/train/aa.jpg").touch()
    (root / "images/train/bb.jpg").symlink_to("nowhere")
    split = _load(root)
    assert [file.name for file in split.files] == ["b.png", "c.png"]
    assert split.images.shape[0] == len(split.sizes) == 2
    assert split.image_index.tolist() == [1]
    assert split.boxes.tolist() == [[0, 0, 64, 64]]
    assert sorted(_whats(split)) == [
        f"{name}:None: image dropped: it cannot be read" for name in ("a.png", "aa.jpg", "bb.jpg")
    ]
    assert _load(root).problems == split.problems  # from the cache, too


def test_bad_label_lines_are_left_out_with_file_and_line(root: Path) -> None:
    (root / "labels/train/b.txt").write_text("0 0.5 0.5 0.2 0.2 0.9\n0 0.5 0.5 0.2 0.2\n")
    (root / "labels/train/z.txt").touch()
    split = _load(root)
    assert split.image_index.tolist() == [0, 0, 1, 2]
    assert _whats(split) == [
        "b.txt:1: label line dropped: neither 5 columns (a box) nor 7, 9, 11, ... (a polygon)",
        "z.txt:None: label file without an image",
    ]


def test_a_picture_whose_labels_cannot_be_read_does_not_pass_for_background(root: Path) -> None:
    (root / "labels/train/b.txt").unlink()
    (root / "labels/train/b.txt").mkdir()
    split = _load(root)
    assert [file.name for file in split.files] == ["a.png", "c.png"]
    assert _whats(split)[0] == "b.txt:None: image dropped: its labels cannot be read"


def test_a_class_without_a_name_ends_it(root: Path) -> None:
    (root / "labels/train/c.txt").write_text("2 0.5 0.5 1 1\n")
    with pytest.raises(DataError, match=r"labels/train/c\.txt:1 has class id 2, but names lists 2 "):
        _load(root)


def test_an_absent_split_is_named_with_those_that_are_there(root: Path) -> None:
    with pytest.raises(DataError, match=r"data\.yaml has no split 'test', only train, val"):
        _load(root, "test")


@pytest.mark.parametrize("content", [b"", b"Not found"])
def test_a_split_without_any_readable_picture_is_an_error_that_shows_one(root: Path, content: bytes) -> None:
    (root / "images/val/d.png").write_bytes(content)
    with pytest.raises(DataError, match=r"no image of the split 'val' can be read: .*d\.png"):
        _load(root, "val")
    (root / "images/val/d.png").unlink()
    (root / "images/val/d.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"no image of the split 'val' can be read: .*d\.png"):
        _load(root, "val")


def test_the_digest_follows_the_content_and_nothing_else(root: Path) -> None:
    digest = _load(root).digest
    assert _load(root, imgsz=32).digest == digest
    moved = root.rename(root.with_name("moved"))
    assert _load(moved).digest == digest
    seen = {digest}
    for change in (
        lambda: (moved / "labels/train/c.txt").write_text("1 0.5 0.5 1 0.9\n"),
        lambda: (moved / "labels/train/b.txt").write_text("1 0.5 0.5 1 0.9\n"),
        lambda: Image.new("RGB", (100, 200), (1, 1, 1)).save(moved / "images/train/b.png"),
        lambda: (moved / "data.yaml").write_text("names: [cat, cow]\ntrain: images/train\nval: images/val\n"),
        (moved / "images/train/a.png").unlink,
    ):
        change()
        seen.add(_load(moved).digest)
    assert len(seen) == 6


def test_nothing_is_written_into_the_data_set(root: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    _load(root)
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before


def test_a_file_in_place_of_another_is_seen_although_size_and_time_agree(root: Path) -> None:
    """The memory of what was hashed must not hide a change."""
    picture = root / "images/train/a.png"
    other = picture.read_bytes()
    Image.new("RGB", (200, 100), (1, 100, 200)).save(picture)
    assert len(picture.read_bytes()) == len(other)
    os.utime(picture, ns=(0, 0))
    first = _load(root).digest
    picture.write_bytes(other)
    os.utime(picture, ns=(0, 0))
    assert _load(root).digest != first


def test_loading_needs_no_torch() -> None:
    code = "import sys, trainer.detection.data; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_summary_counts_kinds_and_points_at_the_first_of_each() -> None:
    problems = [
        *(Problem(Path("a.txt"), line, "label line dropped: no number", f"x{line}") for line in (3, 4)),
        Problem(Path("b.jpg"), None, "image dropped"),
    ]
    assert summarise(problems).splitlines() == [
        "3 problems in 2 files:",
        "  2 × label line dropped: no number; first at a.txt:3 (x3)",
        "  1 × image dropped; at b.jpg",
    ]
    assert summarise([]) == ""
    many = [Problem(Path("a"), None, f"kind {i}") for i in range(20)]
    assert len(summarise(many).splitlines()) == 10
    assert summarise(many).endswith("and 12 of 12 other kinds")


def test_a_spec_may_come_from_elsewhere_than_a_yaml(root: Path) -> None:
    spec = DataSpec(None, ("cat", "dog"), {"train": (root / "images/train/c.png",)})
    split = load_split(spec, "train", 64, cache_dir=root.parent / "cache")
    assert split.boxes.tolist() == [[0, 0, 64, 64]]
    with pytest.raises(DataError, match="the data set has no split 'val', only train"):
        load_split(spec, "val", 64)


def test_polygons_are_in_pixels_of_the_picture_and_one_for_each_box(root: Path) -> None:
    (root / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.75 0.5 0.5 1\n")
    split = _load(root)
    assert [polygon is None for polygon in split.polygons] == [True, False, True]
    assert split.polygons[1] == pytest.approx(np.array([[16, 16], [48, 16], [32, 32]]))
    assert split.polygons[1].dtype == np.float32  # type: ignore[union-attr]


def test_the_digest_changes_with_an_outline_whose_box_does_not(root: Path) -> None:
    digests = set()
    for top in ("0.5 0.5", "0.4 0.5"):
        (root / "labels/train/a.txt").write_text(f"1 0.25 0.75 {top} 0.75 0.75\n")
        digests.add(_load(root).digest)
    assert len(digests) == 2


def test_of_boxes_that_differ_by_their_class_alone_a_single_class_keeps_one(root: Path) -> None:
    (root / "labels/train/a.txt").write_text("1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.1 0.1\n0 0.5 0.5 0.5 0.5\n")
    spec = find_data(str(root / "data.yaml"))
    assert len(load_split(spec, "train", 64, root.parent / "cache").boxes) == 4
    one = load_split(spec, "train", 64, root.parent / "cache", single_cls=True)
    assert one.boxes[:2] == pytest.approx(np.array([[16, 8, 48, 24], [12.8, 6.4, 19.2, 9.6]]))
    assert one.classes.tolist() == [0, 0, 0]


def test_a_data_set_of_one_class_keeps_its_name(root: Path) -> None:
    spec = DataSpec(None, ("cell",), {"train": ()})
    assert spec.as_single_class().names == ("cell",)
    assert spec.as_single_class().as_single_class() == spec.as_single_class()


def test_a_picture_that_is_in_two_splits_byte_by_byte_is_a_leak(root: Path) -> None:
    assert leaks(_load(root), _load(root, "val")) == ()
    (root / "images/val/z.png").write_bytes((root / "images/train/b.png").read_bytes())
    (problem,) = leaks(_load(root), _load(root, "val"))
    assert (problem.file.name, problem.detail) == ("z.png", str(root / "images/train/b.png"))


def test_an_unknown_cache_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="cache is 'ram', expected disk or none"):
        load_split(find_data(str(root / "data.yaml")), "train", 64, root.parent / "cache", cache="ram")
