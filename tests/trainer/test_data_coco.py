"""COCO files as they are in the wild: ids with gaps, crowds, masks, several parts, and entries that lead nowhere."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_data import BOXES, SIZE, coco_content, draw, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from trainer import DataError
from trainer.detection.data import Split, find_data, load_split
from trainer.detection.data.coco import join


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set")


def _train_file(root: Path) -> Path:
    return root / "annotations/instances_train2017.json"


def _change(root: Path, **of_first: object) -> dict[str, Any]:
    """Puts these keys into the first annotation of train, which is of a.png."""
    content = json.loads(_train_file(root).read_text())
    content["annotations"][0].update(of_first)
    _train_file(root).write_text(json.dumps(content))
    return content  # type: ignore[no-any-return]


def _load(root: Path, split: str = "train", imgsz: int = 200) -> Split:
    return load_split(find_data(str(root)), split, imgsz, root.parent / "cache")


def _whats(split: Split) -> list[tuple[str, str]]:
    return [(problem.what, problem.detail) for problem in split.problems]


def test_classes_are_the_categories_in_order_of_their_ids(root: Path) -> None:
    assert find_data(str(root)).names == ("cat", "dog")
    assert _load(root).classes.tolist() == [0, 1, 1]


def test_categories_of_another_split_are_matched_by_name(root: Path) -> None:
    file = root / "annotations/instances_val2017.json"
    content = coco_content(BOXES["val"], categories=[{"id": 3, "name": "dog"}, {"id": 90, "name": "cat"}])
    file.write_text(json.dumps(content))
    assert _load(root, "val").classes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "what", "detail"),
    [
        ({"iscrowd": 1}, "box dropped: marked as a crowd", "annotation id 10"),
        ({"bbox": [20, 10, 0, 40]}, "box dropped: a box without area", "annotation id 10: 20 10 20 50"),
        ({"bbox": [20, 10, -5, 40]}, "box dropped: a box without area", "annotation id 10: 20 10 15 50"),
        (
            {"bbox": [300, 10, 50, 40]},
            "box dropped: outside the picture",
            "annotation id 10: 300 10 350 50 in 200 x 100",
        ),
        ({"bbox": [20, 10, float("nan"), 40]}, "box dropped: not a finite number", "annotation id 10: 20 10 nan 50"),
        ({"bbox": [20, 10, "w", 40]}, "box dropped: not a number", "annotation id 10: [20, 10, 'w', 40]"),
        ({"bbox": [20, 10]}, "box dropped: bbox is not [x, y, width, height]", "annotation id 10"),
        ({"bbox": None}, "box dropped: bbox is not [x, y, width, height]", "annotation id 10"),
        ({"image_id": 12345}, "box dropped: its image is not listed", "annotation id 10"),
        (
            {"bbox": [100, 20, 80, 70], "category_id": 90},
            "box dropped: says the same as another",
            "annotation id 11 and annotation id 10",
        ),
    ],
)
def test_what_is_wrong_with_one_annotation_costs_that_box(
    root: Path, change: dict[str, object], what: str, detail: str
) -> None:
    _change(root, **change)
    train = _load(root)
    assert _whats(train) == [(what, detail)]
    assert len(train.files) == 3
    assert train.boxes.round(3).tolist() == [[100, 20, 180, 90], [0, 0, 200, 100]]


def test_an_rle_mask_costs_the_mask_and_not_the_box(root: Path) -> None:
    _change(root, segmentation={"counts": "abc", "size": [100, 200]})
    train = _load(root)
    assert _whats(train) == [("box kept without its mask: RLE masks are not read", "annotation id 10")]
    assert len(train.boxes) == 3
    assert train.polygons == (None, None, None)


def test_polygons_are_kept_in_pixels_of_the_picture(root: Path) -> None:
    _change(root, segmentation=[[20, 10, 80, 10, 50, 50]])
    train = _load(root, imgsz=100)
    outline = train.polygons[0]
    assert outline is not None
    assert (outline.tolist(), outline.dtype) == ([[10, 5], [40, 5], [25, 25]], np.float32)
    assert train.polygons[1:] == (None, None)


def test_a_box_that_is_missing_is_that_of_its_polygon(root: Path) -> None:
    _change(root, bbox=None, segmentation=[[20, 10, 80, 10, 50, 50]])
    assert _load(root).boxes[0].tolist() == [20, 10, 80, 50]


@pytest.mark.parametrize("segmentation", [[[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [["x"] * 6], "mask", [7]])
def test_a_polygon_that_is_none_costs_itself_and_not_the_box(root: Path, segmentation: object) -> None:
    _change(root, segmentation=segmentation)
    train = _load(root)
    assert _whats(train) == [("part of a polygon dropped: not 3 or more pairs of numbers", "annotation id 10")]
    assert len(train.boxes) == 3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.8 with numpy 2
def test_parts_that_are_joined_cover_what_the_parts_cover() -> None:
    square = [(10.0, 10.0), (40.0, 10.0), (40.0, 40.0), (10.0, 40.0)]
    triangle = [(60.0, 20.0), (90.0, 50.0), (55.0, 80.0)]
    far = [(120.0, 60.0), (180.0, 60.0), (180.0, 90.0), (150.0, 95.0), (120.0, 90.0)]
    whole = join([square, triangle, far])

    def drawn(*parts: Any) -> np.ndarray:
        flat = [[value for corner in part for value in corner] for part in parts]
        masks = coco_mask.frPyObjects(flat, SIZE[1], SIZE[0])
        return np.asarray(coco_mask.decode(coco_mask.merge(masks))).astype(bool)

    apart, together = drawn(square, triangle, far), drawn(whole)
    assert (apart & ~together).sum() <= 5
    assert (together & ~apart).sum() < 150, "the bridges are one pixel wide"
    x, y = np.array(whole).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pytest.approx(30 * 30 + 975 + 1950, rel=0.01)


def test_an_image_without_annotations_is_background_and_a_missing_one_is_dropped(root: Path) -> None:
    (root / "train2017/c.png").unlink()
    train = _load(root)
    assert [file.stem for file in train.files] == ["a", "b"]
    assert train.image_index.tolist() == [0, 0]
    assert [what for what, _ in _whats(train)] == ["image dropped: it cannot be read"]


@pytest.mark.parametrize("stated", [None, 0, "wide"])
def test_without_a_stated_size_the_picture_s_own_counts(root: Path, stated: object) -> None:
    expected = _load(root).boxes
    content = coco_content(BOXES["train"])
    for image in content["images"]:  # type: ignore[attr-defined]
        image["width"] = image["height"] = stated
    _train_file(root).write_text(json.dumps(content))
    assert (_load(root).boxes == expected).all()


def test_odd_entries_of_images_are_left_out(root: Path) -> None:
    content = json.loads(_train_file(root).read_text())
    content["images"] += [{"id": 1}, {"file_name": "x.png"}, 7, {"id": 700, "file_name": "twin.png"}]
    content["images"] += [{"id": 5, "file_name": "a.png", "width": 200, "height": 100}]
    content["annotations"] += ["none", {"id": 99, "image_id": 5, "category_id": 3, "bbox": [1, 1, 9, 9]}]
    _train_file(root).write_text(json.dumps(content))
    train = _load(root)
    assert [what for what, _ in _whats(train)] == [
        "image left out: its entry has no id or no file_name",
        "image left out: its entry has no id or no file_name",
        "image left out: its entry has no id or no file_name",
        "image left out: its id is another's",
        "box dropped: its image is not listed",
        "image listed twice: the annotations of both are taken",
    ]
    assert len(train.boxes) == 4


def test_files_of_a_split_s_own_folder_are_found_and_what_they_do_not_list_is_named(tmp_path: Path) -> None:
    """The layout of a large annotation service: the .json lies among its pictures."""
    for split, folder in (("train", "train"), ("val", "valid")):
        for seed, stem in enumerate(BOXES[split]):
            draw(tmp_path / "set" / folder / f"{stem}.png", seed)
        (tmp_path / "set" / folder / "_annotations.coco.json").write_text(json.dumps(coco_content(BOXES[split])))
    draw(tmp_path / "set/train/new.png", 9)
    train = _load(tmp_path / "set")
    assert len(train.boxes) == 3
    assert [(p.file.name, p.what) for p in train.problems] == [
        ("new.png", "image left out: its .json does not list it")
    ]
    assert len(_load(tmp_path / "set", "val").boxes) == 3


def test_the_files_of_other_tasks_are_not_taken_for_boxes(root: Path) -> None:
    for task in ("captions", "person_keypoints"):
        (root / f"annotations/{task}_train2017.json").write_text("{}")
    (root / "annotations/image_info_test2017.json").write_text("{}")
    assert sorted(find_data(str(root)).splits) == ["train", "val"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is not JSON: "),
        ("[" * 100_000, r"is not JSON: "),
        ("[]", "has no list 'images': expected COCO's images, annotations and categories"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "has no category"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "lists no image"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1", "name": "a"}]}', "has the category .*'1'"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "expected an id of its own and a name",
        ),
    ],
)
def test_a_file_that_is_no_coco_file_is_said_in_one_sentence(root: Path, text: str, message: str) -> None:
    _train_file(root).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        find_data(str(root))
    assert "\n" not in str(error.value)


def test_a_category_that_is_not_listed_is_a_mistake_in_the_data_set(root: Path) -> None:
    _change(root, category_id=4)
    with pytest.raises(DataError, match=r"category_id 4 in annotation id 10, but no such category"):
        _load(root)


def test_a_category_that_training_does_not_have_is_a_mistake_in_the_data_set(root: Path) -> None:
    categories = [{"id": 3, "name": "cat"}, {"id": 90, "name": "cow"}]
    (root / "annotations/instances_val2017.json").write_text(
        json.dumps(coco_content(BOXES["val"], categories=categories))
    )
    with pytest.raises(DataError, match=r"val2017\.json has class 'cow', but names lists cat, dog: add it"):
        find_data(str(root))


def test_a_category_that_is_no_text_is_refused(root: Path) -> None:
    categories = [{"id": 3, "name": "\ud800"}, {"id": 90, "name": "cow"}]
    for split, boxes in BOXES.items():
        content = coco_content(boxes, categories=categories)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"has the class name '.ud800', which is no UTF-8 text"):
        _load(root)


def test_several_files_for_a_split_and_none_are_refused(root: Path) -> None:
    (root / "annotations/train.json").write_text("{}")
    with pytest.raises(DataError, match=r"has several \.json files for 'train'"):
        find_data(str(root))
    (root / "annotations/train.json").unlink()
    (root / "annotations/instances_val2017.json").unlink()
    with pytest.raises(DataError, match=r"has no \.json for 'val', only instances_train2017\.json"):
        find_data(str(root))


def test_long_outlines_are_joined_and_too_many_are_left_out(tmp_path: Path) -> None:
    """To compare each corner with each of 100,000 others would take 100 GB."""
    x = np.linspace(0, 0.4, 100_000)
    long = [(float(x), float(x % 0.1)) for x in x]
    far = [(x + 0.5, y) for x, y in long]
    whole = np.array(join([long, far]))
    assert len(whole) == 2 * len(long) + 2
    assert whole.max(axis=0).tolist() == pytest.approx([0.9, 0.1], abs=1e-5)
    content = coco_content(BOXES["train"])
    content["annotations"][0]["segmentation"] = [[20, 10, 80, 10, 50, 50]] * 201  # type: ignore[index]
    write_coco(tmp_path / "coco")
    _train_file(tmp_path / "coco").write_text(json.dumps(content))
    split = _load(tmp_path / "coco")
    assert len(split.boxes) == 3
    assert "box kept without its mask: a polygon of more than 200 parts" in {problem.what for problem in split.problems}


ODD = [
    "x" * 300 + ".png",
    None,
    [],
    {},
    "",
    "x",
    0,
    -1,
    1e308,
    10**400,
    float("nan"),
    float("inf"),
    [1, 2],
    "\ud800",
    "a\0b",
    [[]],
    "/etc/hosts",
]


def _places(content: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [way, *(place for key, value in inside for place in _places(value, (*way, key)))]


CONTENT = coco_content(BOXES["train"])
CONTENT["annotations"][0]["segmentation"] = [[20, 10, 80, 10, 50, 50], [1, 1, 9, 1, 9, 9]]  # type: ignore[index]


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(_places(CONTENT)[1:]), odd=st.sampled_from(ODD))
def test_whatever_one_value_is_it_costs_a_label_or_is_said_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], odd: object
) -> None:
    root = tmp_path_factory.getbasetemp() / "odd"
    if not root.exists():
        write_coco(root)
    content = copy.deepcopy(CONTENT)
    inside: Any = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = odd
    _train_file(root).write_text(json.dumps(content))
    said, boxes = "", np.empty((0, 4))
    try:
        boxes = _load(root).boxes
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    assert ((boxes >= 0) & (boxes <= 200)).all()
