"""The same data set says the same in every format, wherever it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from drawn_data import NAMES, WRITERS, write_coco, write_voc, write_yolo

from trainer import DataError
from trainer.detection.data import find_data, load_split


def _fingerprint(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_pictures_boxes_and_digest(tmp_path: Path, form: str, split: str) -> None:
    yolo = load_split(find_data(str(write_yolo(tmp_path / "yolo"))), split, 64, tmp_path / "cache")
    found = find_data(str(WRITERS[form](tmp_path / "set")))
    other = load_split(found, split, 64, tmp_path / "cache")
    assert found.names == NAMES
    assert [file.stem for file in other.files] == [file.stem for file in yolo.files]
    assert other.boxes == pytest.approx(yolo.boxes, abs=1e-4)
    assert other.classes.tolist() == yolo.classes.tolist()
    assert other.file_digests == yolo.file_digests
    assert other.problems == ()


@pytest.mark.parametrize("form", WRITERS)
def test_a_digest_tells_of_labels_and_not_of_the_place(tmp_path: Path, form: str) -> None:
    digests = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        data = WRITERS[form](tmp_path / place / "set")
        digests.append(load_split(find_data(str(data)), "train", 64, tmp_path / "cache").digest)
    assert digests[0] == digests[1]
    for file in (tmp_path / "there").rglob("*"):  # one edge of one box
        if file.suffix in (".txt", ".xml", ".json"):
            text = file.read_text()
            file.write_text(
                text.replace("<ymax>50<", "<ymax>49<")
                .replace("0 0.25 0.3", "0 0.25 0.31")
                .replace('"bbox": [20, 10, 60, 40]', '"bbox": [20, 10, 60, 39]')
            )
    assert load_split(find_data(str(data)), "train", 64, tmp_path / "cache").digest != digests[0]


@pytest.mark.parametrize("form", WRITERS)
def test_nothing_is_written_beside_the_data(tmp_path: Path, form: str) -> None:
    data = WRITERS[form](tmp_path / "set")
    before = _fingerprint(tmp_path / "set")
    load_split(find_data(str(data)), "train", 64, tmp_path / "cache")
    assert _fingerprint(tmp_path / "set") == before


@pytest.mark.parametrize("form", WRITERS)
def test_all_classes_can_be_taken_for_one(tmp_path: Path, form: str) -> None:
    data = str(WRITERS[form](tmp_path / "set"))
    several = load_split(find_data(data), "val", 64, tmp_path / "cache")
    spec = find_data(data, single_cls=True)
    one = load_split(spec, "val", 64, tmp_path / "cache")
    assert (spec.nc, spec.names) == (1, ("object",))
    assert (one.classes.tolist(), several.classes.tolist()) == ([0, 0, 0], [0, 1, 0])
    assert (one.boxes == several.boxes).all()
    assert one.digest != several.digest
    assert one.digest == load_split(find_data(data), "val", 64, tmp_path / "cache", single_cls=True).digest


def test_a_data_yaml_may_lead_to_coco_files_and_say_what_the_classes_are(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    (root / "train2017").rename(root / "pictures")
    for image in (root / "val2017").iterdir():
        image.rename(root / "pictures" / image.name)
    yaml = root / "data.yaml"
    stated = "train: annotations/instances_train2017.json\nval: annotations/instances_val2017.json\n"
    yaml.write_text(stated)
    with pytest.raises(DataError, match=r"the images of .*train2017\.json are nowhere: a\.png lies not in"):
        find_data(str(yaml))
    yaml.write_text(f"{stated}images: pictures\nnames: [dog, bird, cat]\n")
    train = load_split(find_data(str(yaml)), "train", 64, tmp_path / "cache")
    assert train.classes.tolist() == [2, 0, 0], "by name, not by position"


def test_a_data_yaml_may_lead_to_voc_lists_or_to_pictures_with_xml_files(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    expected = find_data(str(root))
    yaml = tmp_path / "voc.yaml"
    yaml.write_text("path: set\ntrain: ImageSets/Main/train.txt\nval: ImageSets/Main/val.txt\n")
    listed = find_data(str(yaml))
    assert (listed.names, listed.splits) == (expected.names, expected.splits)
    assert len(load_split(listed, "train", 64, tmp_path / "cache").boxes) == 3
    for split, stems in {"train": "abc", "val": "de"}.items():
        (root / split).mkdir()
        for stem in stems:
            (root / "JPEGImages" / f"{stem}.png").rename(root / split / f"{stem}.png")
            (root / "Annotations" / f"{stem}.xml").rename(root / split / f"{stem}.xml")
    yaml.write_text("path: set\ntrain: train\nval: val\nnames: [dog, cat]\n")
    beside = load_split(find_data(str(yaml)), "train", 64, tmp_path / "cache")
    assert beside.classes.tolist() == [1, 0, 0]


def test_yolo_labels_win_over_xml_files_that_an_annotation_tool_left(tmp_path: Path) -> None:
    yaml = write_yolo(tmp_path / "set")
    (tmp_path / "set/images/train/a.xml").write_text("<annotation/>")
    assert len(load_split(find_data(str(yaml)), "train", 64, tmp_path / "cache").boxes) == 3


def test_yolo_data_still_needs_names(tmp_path: Path) -> None:
    yaml = write_yolo(tmp_path / "set")
    yaml.write_text("train: images/train\nval: images/val\n")
    with pytest.raises(DataError, match="has no 'names'"):
        find_data(str(yaml))


@pytest.mark.parametrize("form", ["Pascal VOC", "COCO"])
def test_splits_that_nobody_stated_are_drawn_by_name_and_said(tmp_path: Path, form: str) -> None:
    from drawn_data import BOXES, coco_content, draw, voc_objects, voc_xml

    many = {f"{stem}{i}": boxes for i in range(4) for stem, boxes in (BOXES["train"] | BOXES["val"]).items()}
    for seed, (stem, boxes) in enumerate(many.items()):
        draw(tmp_path / f"set/images/{stem}.png", seed)
        if form == "Pascal VOC":
            (tmp_path / f"set/images/{stem}.xml").write_text(voc_xml(voc_objects(boxes)))
    data = tmp_path / "set"
    if form == "COCO":
        import json

        data = tmp_path / "set/all.json"
        data.write_text(json.dumps(coco_content(many)))
    spec = find_data(str(data))
    train, val = (set(spec.splits[split]) for split in ("train", "val"))
    assert (len(train), len(val), len(train & val)) == (16, 4, 0)
    said = [problem.what for problem in load_split(spec, "train", 64, tmp_path / "cache").problems]
    assert said == ["no splits are stated: 20% of the pictures, drawn by their names, are val"]
    draw(tmp_path / "set/images/z.png", 99)
    if form == "Pascal VOC":
        (tmp_path / "set/images/z.xml").write_text(voc_xml([]))
        assert len(set(find_data(str(data)).splits["val"]) ^ val) <= 1, "one more picture moves hardly another"
