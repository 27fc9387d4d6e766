"""Pascal VOC as tools really write it: coordinates from 1 or 0, names that are not the file's, and broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_data import draw, voc_object, voc_xml, write_voc

from trainer import DataError
from trainer.detection.data import Split, find_data, load_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "set")


def _load(root: Path, split: str = "train", imgsz: int = 200) -> Split:
    return load_split(find_data(str(root)), split, imgsz, root.parent / "cache")


def _boxes(root: Path, stem: str, split: str = "train") -> list[list[float]]:
    found = _load(root, split)
    index = [file.stem for file in found.files].index(stem)
    return found.boxes[found.image_index == index].round(3).tolist()


def _whats(split: Split) -> list[tuple[str, str, str]]:
    return [(problem.file.name, problem.what, problem.detail) for problem in split.problems]


def test_the_first_pixel_is_1_and_the_last_is_included(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(
        voc_xml([voc_object("cat", 1, 1, 200, 100), voc_object("dog", 11, 1, 11.5, 50)])
    )
    assert _boxes(root, "a") == [[0, 0, 200, 100], [10, 0, 11.5, 50]]


def test_coordinates_that_begin_at_0_are_told_by_the_boxes_of_the_whole_set(root: Path) -> None:
    edge = voc_object("cat", 0, 0, 50, 50)
    (root / "Annotations/d.xml").write_text(voc_xml([edge]))
    (root / "Annotations/a.xml").write_text(voc_xml([voc_object("cat", 11, 11, 50, 50)]))
    assert _boxes(root, "a") == [[10, 10, 50, 50]], "as often at 1 as at 0: one box is no proof"
    (root / "Annotations/e.xml").write_text(voc_xml([edge]))
    assert _boxes(root, "a") == [[11, 11, 50, 50]]


def test_fractions_say_that_coordinates_begin_at_0(root: Path) -> None:
    for stem in "abcde":
        (root / f"Annotations/{stem}.xml").write_text(voc_xml([voc_object("cat", 10.25, 11.5, 50, 50)]))
    assert _boxes(root, "a") == [[10.25, 11.5, 50, 50]]


def test_an_xml_belongs_to_the_picture_of_its_own_name(root: Path) -> None:
    """BCCD and others leave in <filename> what the picture was called before, also without its extension."""
    expected = _boxes(root, "a")
    text = (root / "Annotations/a.xml").read_text()
    for filename in ("c.png", "a", "", "C:\\pictures\\a.png"):
        (root / "Annotations/a.xml").write_text(text.replace("was.png", filename))
        assert _boxes(root, "a") == expected


def test_a_filename_counts_where_the_own_name_leads_nowhere(root: Path) -> None:
    expected = _boxes(root, "a")
    text = (root / "Annotations/a.xml").read_text()
    (root / "Annotations/a.xml").unlink()
    (root / "Annotations/000001.xml").write_text(text.replace("was.png", "D:\\x\\a.jpg"))
    assert _boxes(root, "a") == expected


@pytest.mark.parametrize(
    ("thing", "what", "detail"),
    [
        (voc_object("cat", 50, 33, 50, 33), "box dropped: a box without area", "50 33 50 33"),
        (voc_object("cat", 80, 10, 20, 50), "box dropped: a box without area", "80 10 20 50"),
        (voc_object("cat", "x", 10, 20, 50), "box dropped: not a number", "object 2: x 10 20 50"),
        (voc_object("cat", 10, 10, "nan", 50), "box dropped: not a finite number", "9 9 nan 50"),
        (voc_object("cat", 10, 10, "inf", 50), "box dropped: not a finite number", "9 9 inf 50"),
        (voc_object("cat", 500, 10, 600, 50), "box dropped: outside the picture", "499 9 600 50 in 200 x 100"),
        (voc_object("", 10, 10, 20, 50), "box dropped: an object without a class name", "object 2"),
        ("<object><name>cat</name></object>", "box dropped: an object without a bndbox", "object 2: cat"),
        (voc_object("cat", 1, 1, 20, 20), "box dropped: says the same as another", "object 2 and object 1"),
        (
            voc_object("cat", 10, 10, 20, 50, "<difficult>1</difficult>"),
            "box dropped: marked as difficult",
            "object 2",
        ),
    ],
)
def test_what_is_wrong_with_one_object_costs_that_object(root: Path, thing: str, what: str, detail: str) -> None:
    (root / "Annotations/a.xml").write_text(voc_xml([voc_object("cat", 1, 1, 20, 20), thing]))
    train = _load(root)
    assert _boxes(root, "a") == [[0, 0, 20, 20]]
    assert _whats(train) == [("a.xml", what, detail)]


def test_parts_of_an_object_are_not_objects(root: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    thing = voc_object("cat", 11, 11, 50, 50).replace("</object>", f"{part}</object>")
    (root / "Annotations/a.xml").write_text(voc_xml([thing]))
    assert _boxes(root, "a") == [[10, 10, 50, 50]]
    assert find_data(str(root)).names == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "image dropped: its annotation file is not XML"),
        (b"<annotation><object>", "image dropped: its annotation file is not XML"),
        (
            b'<!DOCTYPE x [<!ENTITY a "ha">]><annotation>&a;</annotation>',
            "image dropped: its annotation file is not XML",
        ),
        (
            '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x []><annotation/>'.encode("utf-16"),
            "image dropped: its annotation file is not XML",
        ),
        (None, "image dropped: it has no annotation file"),
    ],
)
def test_a_picture_whose_annotation_is_not_known_is_no_background(root: Path, content: bytes | None, what: str) -> None:
    file = root / "Annotations/a.xml"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    train = _load(root)
    assert [file.stem for file in train.files] == ["b", "c"]
    assert [found for _, found, _ in _whats(train)] == [what]


def test_entities_are_never_expanded_nor_files_fetched(root: Path) -> None:
    secret = root / "secret.txt"
    secret.write_text("cat")
    bomb = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{secret}">]>' + voc_xml([voc_object("&a;", 1, 1, 20, 20)])
    (root / "Annotations/a.xml").write_text(bomb)
    (problem,) = _load(root).problems
    assert problem.detail == "it declares a document type"


def test_a_list_entry_and_an_xml_without_an_image_are_named(root: Path) -> None:
    (root / "ImageSets/Main/train.txt").write_text("a  1\nb -1\nc\nghost\n")
    (root / "Annotations/ghost.xml").write_text(voc_xml([]))
    train = _load(root)
    assert [file.stem for file in train.files] == ["a", "b", "c"]
    assert {(name, what) for name, what, _ in _whats(train)} == {
        ("ghost.xml", "annotation file without an image"),
        ("ghost.jpg", "image dropped: it has no annotation file"),
    }


@pytest.mark.parametrize("size", [None, (0, 0), (100, 200), (20, 10), (-1, 5), ("1e300", "inf"), ("wide", "")])
def test_a_stated_size_that_cannot_be_right_gives_way_to_the_picture_s_own(
    root: Path, size: tuple[object, object] | None
) -> None:
    (root / "Annotations/a.xml").write_text(voc_xml([voc_object("cat", 11, 11, 200, 50)], size))
    assert _boxes(root, "a") == [[10, 10, 200, 50]]
    assert _load(root).problems == ()


def test_a_picture_of_another_size_than_stated_is_one_that_was_resized(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(voc_xml([voc_object("cat", 1, 1, 200, 100)], (400, 200)))
    assert _boxes(root, "a") == [[0, 0, 100, 50]]
    assert _load(root).problems == ()


def test_a_picture_of_another_shape_than_stated_is_named(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(voc_xml([voc_object("cat", 11, 11, 50, 50)], (200, 200)))
    assert _whats(_load(root)) == [("a.png", "its labels state another shape of picture", "200 x 200")]


def test_splits_may_be_folders(root: Path) -> None:
    for split, stems in {"train": "abc", "valid": "de"}.items():
        for stem in stems:
            for folder in ("JPEGImages", "Annotations"):
                (file,) = (root / folder).glob(f"{stem}.*")
                (root / split).mkdir(exist_ok=True)
                file.rename(root / split / file.name)
    (root / "ImageSets/Main/train.txt").unlink()
    spec = find_data(str(root))
    assert {split: [file.stem for file in files] for split, files in spec.splits.items()} == {
        "train": ["a", "b", "c"],
        "val": ["d", "e"],
    }
    assert len(_load(root).boxes) == 3


def test_pictures_without_a_file_are_left_out_where_splits_are_drawn(root: Path) -> None:
    (root / "ImageSets/Main/train.txt").unlink()
    draw(root / "JPEGImages/f.png", 7)
    spec = find_data(str(root))
    assert "f" not in {file.stem for files in spec.splits.values() for file in files}
    assert ("f.png", "image left out: it has no annotation file", "") in _whats(_load(root))


def test_a_class_without_a_name_is_a_mistake_in_the_data_set(root: Path) -> None:
    (root / "data.yaml").write_text("train: ImageSets/Main/train.txt\nval: ImageSets/Main/val.txt\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"[ac]\.xml has class 'dog', but names lists cat: add it or mend the label"):
        _load(root)


def test_a_set_without_any_object_is_refused(root: Path) -> None:
    for file in (root / "Annotations").iterdir():
        file.write_text(voc_xml([]))
    with pytest.raises(DataError, match="has an object, so that there is no class to learn"):
        find_data(str(root))


def test_boxes_are_carried_as_they_are_to_any_size(root: Path) -> None:
    small, large = _load(root, imgsz=100).boxes, _load(root, imgsz=400).boxes
    assert np.allclose(4 * small, large, atol=1e-3)
