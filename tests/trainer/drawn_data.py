"""A small data set of drawn pictures, written in each of the formats that can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("cat", "dog")
SIZE = (200, 100)
Box = tuple[int, int, int, int, int]  # class, x1, y1, x2, y2 in pixels

BOXES: dict[str, dict[str, list[Box]]] = {
    "train": {"a": [(0, 20, 10, 80, 50), (1, 100, 20, 180, 90)], "b": [], "c": [(1, 0, 0, 200, 100)]},
    "val": {"d": [(0, 50, 50, 150, 75)], "e": [(1, 10, 10, 30, 90), (0, 40, 10, 60, 90)]},
}


def draw(path: Path, seed: int, size: tuple[int, int] = SIZE, mode: str = "RGB", **how: object) -> None:
    """A picture of coarse random cells that only its seed decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (5, 10, 3), np.uint8)
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, **how)  # type: ignore[arg-type]


def yolo_line(box: Box, size: tuple[int, int] = SIZE) -> str:
    class_id, x1, y1, x2, y2 = box
    width, height = size
    return f"{class_id} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"


def write_yolo(root: Path, yaml: bool = True) -> Path:
    """images/<split>/*.png, labels/<split>/*.txt and a data.yaml, which is returned."""
    for split, pictures in BOXES.items():
        (root / "labels" / split).mkdir(parents=True)
        for seed, (stem, boxes) in enumerate(pictures.items(), start=ord(split[0])):
            draw(root / "images" / split / f"{stem}.png", seed)
            (root / "labels" / split / f"{stem}.txt").write_text("".join(map(yolo_line, boxes)))
    if yaml:
        (root / "data.yaml").write_text(f"names: [{', '.join(NAMES)}]\ntrain: images/train\nval: images/val\n")
    return root / "data.yaml"


def write_darknet(root: Path) -> Path:
    """As Darknet's guide has it: data/obj.data, data/obj.names, data/train.txt and labels beside data/obj/*.png."""
    (root / "data/obj").mkdir(parents=True)
    (root / "data/obj.names").write_text("\n".join(NAMES) + "\n\n")
    for split, key in (("train", "train"), ("val", "valid")):
        for seed, (stem, boxes) in enumerate(BOXES[split].items(), start=ord(split[0])):
            draw(root / f"data/obj/{stem}.png", seed)
            (root / f"data/obj/{stem}.txt").write_text("".join(map(yolo_line, boxes)))
        (root / f"data/{key}.txt").write_text("".join(f"data/obj/{stem}.png\n" for stem in BOXES[split]))
    (root / "data/obj.data").write_text(
        "classes= 2\ntrain  = data/train.txt\nvalid  = data/valid.txt\n"
        "# remark\nnames = data/obj.names\nbackup = backup/\n"
    )
    return root / "data/obj.data"


def voc_xml(objects: Sequence[str], size: tuple[int, int] | None = SIZE, filename: str = "was.png") -> str:
    stated = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{stated}{''.join(objects)}</annotation>"


def voc_object(name: str, x1: object, y1: object, x2: object, y2: object, more: str = "") -> str:
    box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc_objects(boxes: Sequence[Box]) -> list[str]:
    """In the devkit's coordinates: the first pixel is 1 and the last is included."""
    return [voc_object(NAMES[c], x1 + 1, y1 + 1, x2, y2) for c, x1, y1, x2, y2 in boxes]


def write_voc(root: Path) -> Path:
    """Annotations, JPEGImages and ImageSets/Main, as in the VOC devkit; the folder is returned."""
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    for split, pictures in BOXES.items():
        for seed, (stem, boxes) in enumerate(pictures.items(), start=ord(split[0])):
            draw(root / f"JPEGImages/{stem}.png", seed)
            (root / f"Annotations/{stem}.xml").write_text(voc_xml(voc_objects(boxes)))
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{stem}\n" for stem in pictures))
    return root


def coco_content(pictures: Mapping[str, Sequence[Box]], **more: object) -> dict[str, object]:
    """Categories with gaps, out of order, and ids that are no positions."""
    images, annotations = [], []
    for number, (stem, boxes) in enumerate(pictures.items()):
        images.append({"id": 700 - number, "file_name": f"{stem}.png", "width": SIZE[0], "height": SIZE[1]})
        for c, x1, y1, x2, y2 in boxes:
            annotations.append(
                {
                    "id": 10 + len(annotations),
                    "image_id": 700 - number,
                    "category_id": (3, 90)[c],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


def write_coco(root: Path) -> Path:
    """annotations/instances_<split>2017.json and <split>2017/*.png, as COCO's own; the folder is returned."""
    (root / "annotations").mkdir(parents=True)
    for split, pictures in BOXES.items():
        for seed, stem in enumerate(pictures, start=ord(split[0])):
            draw(root / f"{split}2017/{stem}.png", seed)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco_content(pictures)))
    return root


WRITERS = {"YOLO": write_yolo, "Darknet": write_darknet, "Pascal VOC": write_voc, "COCO": write_coco}
