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
        for stem, boxes in pictures.items():
            draw(root / "images" / split / f"{stem}.png", ord(stem))
            (root / "labels" / split / f"{stem}.txt").write_text("".join(map(yolo_line, boxes)))
    if yaml:
        (root / "data.yaml").write_text(f"names: [{', '.join(NAMES)}]\ntrain: images/train\nval: images/val\n")
    return root / "data.yaml"


def write_darknet(root: Path) -> Path:
    """As Darknet's guide has it: data/obj.data, data/obj.names, data/train.txt and labels beside data/obj/*.png."""
    (root / "data/obj").mkdir(parents=True)
    (root / "data/obj.names").write_text("\n".join(NAMES) + "\n\n")
    for split, key in (("train", "train"), ("val", "valid")):
        for stem, boxes in BOXES[split].items():
            draw(root / f"data/obj/{stem}.png", ord(stem))
            (root / f"data/obj/{stem}.txt").write_text("".join(map(yolo_line, boxes)))
        (root / f"data/{key}.txt").write_text("".join(f"data/obj/{stem}.png\n" for stem in BOXES[split]))
    (root / "data/obj.data").write_text(
        "classes= 2\ntrain  = data/train.txt\nvalid  = data/valid.txt\n"
        "# remark\nnames = data/obj.names\nbackup = backup/\n"
    )
    return root / "data/obj.data"


def voc_xml(objects: Sequence[str], size: tuple[object, object] | None = SIZE, filename: str = "was.png") -> str:
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
        for stem, boxes in pictures.items():
            draw(root / f"JPEGImages/{stem}.png", ord(stem))
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
        for stem in pictures:
            draw(root / f"{split}2017/{stem}.png", ord(stem))
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco_content(pictures)))
    return root


WRITERS = {"YOLO": write_yolo, "Darknet": write_darknet, "Pascal VOC": write_voc, "COCO": write_coco}


DIRT = {  # kind of finding: in which split, and how often
    "image_dropped_it_cannot_be_read": ("train", 3),
    "image_kept_although_it_is_damaged": ("train", 1),
    "odd_exif_orientation": ("train", 1),
    "turned_by_exif": ("train", 1),
    "greyscale": ("train", 1),
    "mixed_extensions": ("train", 1),
    "missing_label_file": ("train", 1),
    "label_file_without_an_image": ("train", 1),
    "label_line_dropped_neither_5_columns_a_box_nor_7_9_11_a_polygon": ("train", 1),
    "label_line_dropped_not_a_finite_number": ("train", 1),
    "label_line_dropped_not_a_number": ("train", 1),
    "label_line_dropped_outside_0_1": ("train", 2),
    "label_line_dropped_class_id_is_no_integer_from_0": ("train", 2),
    "label_line_dropped_not_utf_8": ("train", 1),
    "label_line_dropped_a_box_without_area": ("train", 1),
    "label_line_dropped_says_the_same_as_another": ("train", 1),
    "boxes_below_2_px": ("train", 1),
    "boxes_of_2_to_4_px": ("train", 1),
    "near_duplicate_boxes": ("train", 1),
    "near_duplicate_boxes_of_two_classes": ("train", 1),
    "identical_images": ("train", 2),
    "identical_images_labelled_differently": ("train", 1),
    "identical_images_across_splits": ("train and val", 1),
    "near_identical_images_across_splits": ("train and val", 1),
    "same_file_in_two_splits": ("train and val", 1),
    "class_absent": ("train", 1),
    "uneven_classes": ("train", 1),
}
DIRTY_LINES = """\
0 0.5 0.5 0.2 0.4
0 0.5 0.5 0.2 0.4 0.9
0 nan 0.5 0.2 0.4
0 0.5 half 0.2 0.4
0 1.5 0.5 0.2 0.4
0 -0.5 0.5 0.2 0.4
0.5 0.5 0.5 0.2 0.4
-1 0.5 0.5 0.2 0.4
0 0.5 0.5 0 0.4
0 0.5 0.5 0.2 0.4
"""


def write_dirty(root: Path) -> Path:
    """A YOLO data set of 200 x 100 px with all of DIRT at imgsz 200, most of it met in real data sets."""
    images, labels = root / "images/train", root / "labels/train"
    for split in ("train", "val"):
        (root / "labels" / split).mkdir(parents=True)
    crowd = "".join(f"0 {0.1 * i + 0.08:.2f} {0.15 * j + 0.1:.2f} 0.06 0.1\n" for i in range(9) for j in range(6))
    texts = {
        "clean.jpg": crowd,
        "lines.jpg": DIRTY_LINES,
        "over.jpg": "0 0.5 0.5 0.4 0.4\n0 0.5 0.505 0.4 0.4\n1 0.2 0.2 0.2 0.2\n0 0.2 0.2 0.2 0.198\n",
        "small.jpg": "0 0.5 0.5 0.005 0.4\n0 0.2 0.5 0.015 0.4\n",
        "grey.JPG": "0 0.5 0.5 0.2 0.4\n",
        "again.jpg": crowd,
        "other.jpg": "0 0.5 0.5 0.2 0.4\n",
        "turned.jpg": "0 0.5 0.5 0.2 0.4\n",
        "odd.jpg": "0 0.5 0.5 0.2 0.4\n",
        "cut.jpg": "0 0.5 0.5 0.2 0.4\n",
        "half.jpg": "0 0.5 0.5 0.2 0.4\n",
        "empty.jpg": "0 0.5 0.5 0.2 0.4\n",
        "text.jpg": "0 0.5 0.5 0.2 0.4\n",
        "orphan.jpg": "0 0.5 0.5 0.2 0.4\n",
        "unlabelled.jpg": None,
    }
    for seed, (name, text) in enumerate(texts.items()):
        exif = Image.Exif()
        if name in ("turned.jpg", "odd.jpg"):
            exif[0x0112] = 6 if name == "turned.jpg" else 9
        draw(images / name, seed, mode="L" if name == "grey.JPG" else "RGB", exif=exif)
        if text is not None:
            (labels / f"{Path(name).stem}.txt").write_text(text)
    with (labels / "lines.txt").open("ab") as file:
        file.write(b"\xff\xfe 0.5 0.5 0.2 0.4\n")
    for name in ("again.jpg", "other.jpg"):
        (images / name).write_bytes((images / "clean.jpg").read_bytes())
    whole = (images / "cut.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[:-20])
    (images / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "empty.jpg").write_bytes(b"")
    (images / "text.jpg").write_text("not a picture")
    (images / "orphan.jpg").unlink()
    draw(root / "images/val/own.jpg", 99)
    (root / "images/val/leak.jpg").write_bytes((images / "small.jpg").read_bytes())
    Image.open(images / "over.jpg").save(root / "images/val/encoded.jpg", quality=40)
    for name in ("own", "leak", "encoded"):
        (root / f"labels/val/{name}.txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.3 0.3 0.2 0.2\n2 0.7 0.7 0.2 0.2\n")
    (root / "val.txt").write_text(
        "".join(f"images/val/{n}.jpg\n" for n in ("own", "leak", "encoded")) + "images/train/lines.jpg\n"
    )
    (root / "data.yaml").write_text("names: [cell, star, never]\ntrain: images/train\nval: val.txt\n")
    return root / "data.yaml"
