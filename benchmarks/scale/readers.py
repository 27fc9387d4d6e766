"""What is fuzzed: every reader of a file that a user hands us, with files to begin from and the worst we know of."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from benchmarks.scale.strange import (
    ODD_PATHS,
    encoded,
    fields,
    json_files,
    json_lines,
    mutated,
    npz_files,
    scalars,
    values,
    yaml_files,
    zipped,
)
from evolve.config import ConfigError, dump_config, resolve_config
from evolve.curves import read_curves
from evolve.fitness import Fitness
from evolve.formats import READABLE
from evolve.goals import Goals
from evolve.hyps import read_hyp
from evolve.importing import import_hyp
from evolve.simulating import simulate
from evolve.warm_start import Source, offer_of
from search_spaces import Hyp, Space, SpaceError, dump_hyp, dump_space, load_hyp, load_space, read_scalar
from studies import build_sampler, suggest
from studies.earlier import YOLOV3, YOLOV5_V5, read_earlier
from trainer.__main__ import read_hyp as read_hyp_of_trainer
from trainer.detection.data.labels import Labels
from trainer.detection.data.memo import Table, remembered
from trainer.detection.data.pictures import decode, picture_size
from trainer.detection.data.report import inspect_data
from trainer.detection.recipe import Recipe

Files = Mapping[str, bytes]  # path below the folder that is read -> content
IMGSZ = 16
MB = 2**20


@dataclass(frozen=True)
class Reader:
    """One reader: what is drawn for it, beside what always lies there, and the reading itself.

    `read(folder, cache)` may write into `cache` alone. It raises one of our errors or returns; what it returns is not
    looked at. `bombs()` are tried first, once each.
    """

    name: str
    drawn: SearchStrategy[Files]
    read: Callable[[Path, Path], object]
    beside: Files = field(default_factory=dict)
    bombs: Callable[[], Mapping[str, Files]] = dict


class Disagreement(Exception):
    """What was read is not what it should be; `what` names the law that does not hold."""

    def __init__(self, what: str, shown: str) -> None:
        super().__init__(f"{what}: {shown}")
        self.what = what


def agree(one: object, other: object, what: str) -> None:
    if one != other:
        raise Disagreement(what, f"{one!r:.200} became {other!r:.200}")


def as_file(name: str, contents: SearchStrategy[bytes]) -> SearchStrategy[Files]:
    return contents.map(lambda content: {name: content})


# What a YAML file can do to whoever unfolds it.
NESTED = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
LAUGHS = f"a0: &a0 [lol]\n{NESTED}"
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))


def yaml_bombs(name: str, key: str, example: str) -> dict[str, Files]:
    """`key` is one that the reader looks at, `example` a line of its format in which the name stands as %s."""
    bombs = {
        "aliases of aliases": f"{LAUGHS}{key}: *a29\n",
        "aliases of aliases in it": f"{key}: &k\n" + "".join(f"  {line}\n" for line in LAUGHS.splitlines()),
        "merges of merges": MERGES,
        "merges of merges in it": f"{key}:\n" + "".join(f"  {line}\n" for line in MERGES.splitlines()),
        "a loop": f"{key}: &a [*a, *a]\n",
        "nested 100,000 deep": f"{key}: " + "[" * 100_000,
        "nested 900 deep": f"{key}: " + "[" * 900 + "]" * 900,
        "nested 300 deep": f"{key}: " + "{a: " * 300 + "1" + "}" * 300,
        "10,000 lines": "".join(example % f"k{i}" + "\n" for i in range(10_000)),
        "a key of 1 MB": example % ("k" * MB) + "\n",
        "a value of 1 MB": f"{key}: {'v' * MB}\n",
        "a number of 1 MB": f"{key}: {'9' * MB}\n",
        "20,000 items": f"{key}: [{', '.join(map(str, range(20_000)))}]\n",
        "sixty-sixty": f"{key}: {':'.join(['59'] * 3000)}\n",
    }
    return {what: {name: text.encode()} for what, text in bombs.items()}


# hyp

HYP = {"lr0": 0.01, "lrf": 0.1, "momentum": 0.937, "optimizer": "AdamW", "hsv_h": 0, "mosaic": True, "seed": 3}
HYP_NAMES = [*YOLOV5_V5, "optimizer", "model", "imgsz", "giou", "anchors", "copy_paste", "close_mosaic"]
SOUND = ["0", "1", "0.5", "1e-3", "0.01", "0.9", "2", "'0.1'", "true"]
HYP_SEEDS = [
    dump_hyp(HYP, ["fitness 0.4", "of trial 12"]).encode(),
    dump_hyp(load_space("detection").defaults()).encode(),
]
SEED_LINE = " ".join(["0.5"] * 7 + [f"{i + 1}.5" for i in range(len(YOLOV5_V5))])
TXT_SEEDS = [f"{SEED_LINE}\n{SEED_LINE}\n".encode(), "\n".join(["0.3"] * len(YOLOV3)).encode()]


def _read_hyp(folder: Path, cache: Path) -> None:
    path = folder / "hyp.yaml"
    hyp = load_hyp(path)
    again = cache / "again.yaml"
    again.write_text(dump_hyp(hyp), "utf-8")
    agree(hyp, load_hyp(again), "a hyp that is written and read")
    for how in ("translate", "complete"):
        read_hyp(str(path), "detection", how)


def _read_results(name: str, folder: Path, cache: Path) -> None:
    results, _ = read_earlier(folder / name)
    offer_of(Source(name, results), load_detection(), "detection")


@functools.cache
def load_detection() -> Space:
    return load_space("detection")


def _read_value(folder: Path, cache: Path) -> None:
    read_scalar((folder / "value").read_bytes().decode("utf-8", errors="surrogateescape"))


def _read_hyp_of_trainer(folder: Path, cache: Path) -> None:
    Recipe.from_hyp(read_hyp_of_trainer(folder / "hyp.yaml"))


FOREIGN_NAMES = [
    *load_space("ultralytics").order,
    "paste_in",
    "loss_ota",
    "giou",
    "iou_t",
    "obj",
    "task",
    "mode",
    "data",
]
FOREIGN_SEEDS = [
    *TXT_SEEDS,
    b"yolo detect train data=a.yaml " + b" ".join(f"{name}=0.5".encode() for name in YOLOV5_V5),
    dump_hyp(load_space("ultralytics").defaults(), ["of a tuner"]).encode(),
    b"task: detect\nmode: train\nfreeze: null\n" + dump_hyp(load_space("ultralytics").defaults()).encode(),
    json.dumps(load_space("yolov7").defaults(), indent="\t").encode(),
]


def _import(folder: Path, cache: Path) -> None:
    """What is imported is a hyp file of ours, and says the same when it is imported again."""
    for known in (None, *READABLE):
        with contextlib.suppress(ConfigError, SpaceError):  # of one format, mostly not of another
            again = cache / "again.yaml"
            again.write_text(import_hyp(folder / "hyp.txt", known).text, "utf-8")
            agree(load_hyp(again), load_hyp_in_text(import_hyp(again, "evolve").text, cache), "a hyp that is imported")
    import_hyp(folder / "hyp.txt")


def load_hyp_in_text(text: str, cache: Path) -> Hyp:
    (cache / "text.yaml").write_text(text, "utf-8")
    return load_hyp(cache / "text.yaml")


TXT_BOMBS = {
    "a line of 10 MB": {"hyp.txt": b"0.5 " * (10 * MB // 4)},
    "a word of 10 MB": {"hyp.txt": b"9" * (10 * MB)},
    "200,000 lines": {"hyp.txt": b"0.5 0.5\n" * 200_000},
}
HYPS = (
    Reader(
        "hyp.yaml",
        as_file("hyp.yaml", yaml_files(HYP_NAMES) | yaml_files(HYP_NAMES, st.sampled_from(SOUND)) | mutated(HYP_SEEDS)),
        _read_hyp,
        bombs=lambda: yaml_bombs("hyp.yaml", "lr0", "%s: 1"),
    ),
    Reader(
        "hyp.yaml of python -m trainer",
        as_file("hyp.yaml", yaml_files(HYP_NAMES, st.sampled_from(SOUND)) | mutated(HYP_SEEDS)),
        _read_hyp_of_trainer,
        bombs=lambda: yaml_bombs("hyp.yaml", "lr0", "%s: 1"),
    ),
    Reader(
        "hyp.txt",
        as_file("hyp.txt", mutated(TXT_SEEDS)),
        functools.partial(_read_results, "hyp.txt"),
        bombs=lambda: TXT_BOMBS,
    ),
    Reader(
        "a hyp file of any trainer",
        as_file("hyp.txt", mutated(FOREIGN_SEEDS) | yaml_files(FOREIGN_NAMES, st.sampled_from(SOUND))),
        _import,
        bombs=lambda: {**TXT_BOMBS, "a word of 10 MB after =": {"hyp.txt": b"lr0=" + b"9" * (10 * MB)}},
    ),
    Reader(
        "NAME=VALUE",
        as_file("value", values.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=30)),
        _read_value,
        bombs=lambda: {"nested": {"value": b"[" * 100_000}, "a number of 1 MB": {"value": b"9" * MB}},
    ),
)

# space

SPACE_FIELDS = ["low", "high", "default", "gain", "log", "step", "choices", "needs", "low", "high", "default", "hi"]
SCALES = [
    "0",
    "1",
    "2",
    "10",
    "0.1",
    "1e-5",
    "1e5",
    "-3",
    "0.3",
    "1e300",
    "-1e300",
    "1e308",
    "5e-324",
    "9007199254740993",
]
ORDERED = st.lists(st.sampled_from(SCALES) | st.floats(allow_nan=False).map(repr), min_size=3, max_size=3).map(
    lambda numbers: sorted(numbers, key=float)
)
MORE = st.sampled_from(
    ["", "", ", log: true", ", step: 1", ", step: 3", ", step: 2, log: true", ", gain: 0", ", gain: 9"]
)
SOUND_ENTRIES = st.tuples(ORDERED, MORE).map(
    lambda drawn: f"{{low: {drawn[0][0]}, default: {drawn[0][1]}, high: {drawn[0][2]}{drawn[1]}}}"
)
ENTRIES = st.one_of(
    SOUND_ENTRIES,
    st.tuples(scalars, scalars, scalars, MORE).map("{{low: {0[0]}, high: {0[1]}, default: {0[2]}{0[3]}}}".format),
    st.lists(scalars, min_size=1, max_size=4).map(
        lambda drawn: f"{{choices: [{', '.join(drawn)}], default: {drawn[0]}}}"
    ),
    fields(SPACE_FIELDS),
)
PLAIN = ["lr0", "momentum", "a", "b", "optimizer", "é", "model"]
SPACE_SEEDS = [
    b"lr0: {low: 1e-5, high: 0.1, default: 0.01, log: true}  # rate\n"
    b"n: {low: 1, high: 9, default: 3, step: 2, gain: 0.5}\n"
    b"opt: {choices: [SGD, AdamW, 1, true], default: SGD}\nseed: 7\nwd: {low: 0, high: 1, default: 0.5, needs: seed}\n",
    dump_space(load_space("yolov5")).encode(),
]


def _read_space(folder: Path, cache: Path) -> None:
    """A space that is read can be written, stored, searched and measured."""
    space = load_space(folder / "space.yaml")
    again = cache / "space.yaml"
    again.write_text(dump_space(space), "utf-8")
    agree(space, load_space(again), "a space that is written and read")
    agree(
        space.to_dict(),
        Space.from_dict(json.loads(json.dumps({**space.to_dict()}))).to_dict(),
        "a space that is stored",
    )
    defaults = space.defaults()
    space.check(defaults)
    for param in space.params:
        for u in (0.0, 0.3, 1.0):
            value = param.from_unit(u)
            agree(value, param.accept(value), "a value of the cube that is accepted")
            agree(value, param.round_value(value), "a value of the cube that is rounded")
            agree(0 <= param.to_unit(value) <= 1, True, "a value lies in the cube")
    if len(space.params) <= 20:
        study = optuna.create_study(sampler=build_sampler("genetic", space, seed=0))
        for _ in range(2):
            trial = study.ask()
            hyp = suggest(trial, space)
            space.check(hyp)
            study.tell(trial, 0.5)


SPACES = (
    Reader(
        "space.yaml",
        as_file(
            "space.yaml",
            yaml_files(PLAIN, ENTRIES) | yaml_files(PLAIN, SOUND_ENTRIES) | mutated(SPACE_SEEDS),
        ),
        _read_space,
        bombs=lambda: {
            **yaml_bombs("space.yaml", "lr0", "%s: {low: 0, high: 1, default: 1}"),
            "20,000 choices": {
                "space.yaml": f"o: {{choices: [{', '.join(map(str, range(20_000)))}], default: 1}}".encode()
            },
            "choices of 1 MB": {"space.yaml": f"o: {{choices: [{'v' * MB}, b], default: x}}".encode()},
            "shared choices": {
                "space.yaml": f"o: {{choices: &c [{', '.join(map(str, range(2_000)))}], default: 1}}\n".encode()
                + b"".join(b"o%d: {choices: *c, default: 1}\n" % i for i in range(500))
            },
            "many levels": {"space.yaml": b"a: {low: 0, high: 1e300, default: 1, step: 1}\n"},
        },
    ),
)

# labels


def picture(
    form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (12, 8), seed: int = 0, **how: object
) -> bytes:
    cells = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    with io.BytesIO() as out:
        Image.fromarray(cells).convert(mode).save(out, form, **how)  # type: ignore[arg-type]
        return out.getvalue()


def flat_png(width: int, height: int, colour: int, depth: int, channels: int, rows: int | None = None) -> bytes:
    """A PNG of zeros that is small on disk: so many of its rows are really there."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer, line = zlib.compressobj(9), bytes(1 + width * channels * depth // 8)
    packed = [packer.compress(line) for _ in range(height if rows is None else rows)]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(packed) + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


A, B, C = (picture(seed=seed) for seed in range(3))
YOLO_LABELS = b"0 0.5 0.5 0.4 0.4\n1 0.25 0.25 0.1 0.2\n1 0.1 0.1 0.9 0.1 0.9 0.9\n"
YAML = b"names: [cat, dog]\ntrain: images/train\nval: images/val\n"
YOLO_TREE = {
    "images/train/a.png": A,
    "images/train/c.png": C,
    "images/val/b.png": B,
    "labels/train/a.txt": YOLO_LABELS,
    "labels/train/c.txt": YOLO_LABELS,
    "labels/val/b.txt": b"0 0.5 0.5 0.5 0.5\n",
    "data.yaml": YAML,
    "train.txt": b"images/train/a.png\n",
}
YAML_PATHS = [
    *ODD_PATHS,
    "images/train",
    "images/val",
    "train.txt",
    "data.yaml",
    "labels",
    "[images/train, images/val]",
    "images",
]
SET_KEYS = ["names", "train", "val", "test", "nc", "path", "images", "download", "kpt_shape", "names", "train", "val"]
SET_SEEDS = [
    YAML,
    b"path: .\nnames: {0: cat, 1: dog}\nnc: 2\ntrain: [images/train]\nval: train.txt\ntest:\n",
    b"names: &n [cat, dog]\ntrain: &t images/train\nval: *t\nother: *n\n",
]

DATA = (
    b"classes= 2\ntrain  = data/train.txt\nvalid  = data/valid.txt\n"
    b"# remark\nnames = data/obj.names\nbackup = backup/\n"
)
DARKNET_TREE = {
    "data/obj.data": DATA,
    "data/obj.names": b"cat\ndog\n\n",
    "data/train.txt": b"data/obj/a.png\ndata/obj/c.png\n",
    "data/valid.txt": b"data/obj/b.png\n",
    "data/obj/a.png": A,
    "data/obj/b.png": B,
    "data/obj/c.png": C,
    "data/obj/a.txt": YOLO_LABELS,
    "data/obj/c.txt": YOLO_LABELS,
    "data/obj/b.txt": b"0 0.5 0.5 0.5 0.5\n",
}
XML = (
    b"<annotation><filename>a.png</filename><size><width>12</width><height>8</height><depth>3</depth></size>"
    b"<object><name>cat</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox>"
    b"</object><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>12</xmax><ymax>8</ymax></bndbox></object></annotation>"
)
VOC_TREE = {
    "JPEGImages/a.png": A,
    "JPEGImages/b.png": B,
    "JPEGImages/c.png": C,
    "Annotations/a.xml": XML,
    "Annotations/c.xml": XML,
    "Annotations/b.xml": XML,
    "ImageSets/Main/train.txt": b"a\nc\n",
    "ImageSets/Main/val.txt": b"b\n",
}
COCO = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 12, "height": 8},
        {"id": 8, "file_name": "b.png", "width": 12, "height": 8},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": 0},
        {
            "id": 2,
            "image_id": 8,
            "category_id": 9,
            "segmentation": [[1, 1, 5, 1, 5, 5], [6, 6, 7, 6, 7, 7]],
            "iscrowd": 0,
        },
        {
            "id": 3,
            "image_id": 7,
            "category_id": 9,
            "bbox": [2, 2, 3, 3],
            "segmentation": {"size": [8, 12], "counts": "x"},
        },
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}],
}
COCO_TREE = {
    "data.yaml": b"train: annotations/instances_train2017.json\nval: annotations/instances_val2017.json\n",
    "train2017/a.png": A,
    "train2017/b.png": B,
    "val2017/a.png": B,
    "val2017/b.png": A,
    "annotations/instances_train2017.json": json.dumps(COCO).encode(),
    "annotations/instances_val2017.json": json.dumps(COCO).encode(),
}
PICTURES = [
    *(picture("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")),
    *(picture("JPEG", mode, (24, 16)) for mode in ("RGB", "L", "CMYK")),
    *(picture(form) for form in ("BMP", "WEBP", "TIFF", "GIF")),
    picture("TIFF", compression="tiff_lzw"),
    picture("TIFF", compression="jpeg"),
    picture("TIFF", "F"),
    picture("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
]


def _inspect(name: str, folder: Path, cache: Path) -> None:
    inspect_data(str(folder / name), IMGSZ, cache_dir=cache)


def _decode(folder: Path, cache: Path) -> None:
    file = folder / "a.png"
    try:
        picture_size(file)
    finally:
        found = decode(file.read_bytes(), IMGSZ)
        agree(found.pixels.shape, (IMGSZ, IMGSZ, 3), "a picture")
        agree(max(found.width, found.height), IMGSZ, "the long side of a picture")


def a_table() -> Table:
    boxes, classes = np.array([[0.1, 0.1, 0.5, 0.5]]), np.zeros(1, np.int64)
    return Table(
        [Labels(boxes, classes, (), (np.zeros((3, 2), np.float32),), (12, 8)), Labels(boxes, classes, ())],
        ("cat",),
        {"n": 1},
    )


def memo_of(folder: Path) -> Path:
    """The file of what is remembered of nothing, which is there after the first call."""
    remembered(["fuzz"], [], folder, a_table)
    return next((folder / "labels").iterdir())


def _remember(folder: Path, cache: Path) -> None:
    memo = memo_of(cache)
    memo.write_bytes((folder / "memo.npz").read_bytes())
    agree(len(remembered(["fuzz"], [], cache, a_table).labels) < 100, True, "a table that is remembered")


@functools.cache
def memo_seed() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return memo_of(Path(folder)).read_bytes()


def label_bombs(name: str) -> dict[str, Files]:
    return {
        "a line of 10 MB": {name: b"0" + b" 0.5" * (10 * MB // 4)},
        "a polygon of 10 MB": {name: b"0" + b" 0.1 0.1 0.9 0.1 0.9 0.9" * (10 * MB // 24)},
        "a word of 10 MB": {name: b"9" * (10 * MB)},
        "200,000 lines": {name: b"".join(b"0 0.5 0.5 0.4 0.%d\n" % (i + 1) for i in range(200_000))},
        "200,000 bad lines": {name: b"x\n" * 200_000},
        "10 MB without a line": {name: b"\0" * (10 * MB)},
    }


def laughing_xml() -> bytes:
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    return f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "lol">{entities}]><annotation>&a11;</annotation>'.encode()


OBJECT = b"<object><name>%d</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object>"
TXT, INSTANCES = "labels/train/a.txt", "annotations/instances_train2017.json"
LABELS = (
    Reader(
        "YOLO .txt",
        as_file(TXT, mutated([YOLO_LABELS, b"0 0.5 0.5 0.4 0.4"]) | st.binary(max_size=60)),
        functools.partial(_inspect, "data.yaml"),
        YOLO_TREE,
        lambda: label_bombs(TXT),
    ),
    Reader(
        "data.yaml",
        as_file(
            "data.yaml",
            mutated(SET_SEEDS)
            | yaml_files(SET_KEYS, values | st.sampled_from(YAML_PATHS))
            | yaml_files(SET_KEYS, st.sampled_from(YAML_PATHS)).map(lambda more: more + b"\n" + YAML),
        ),
        functools.partial(_inspect, "data.yaml"),
        YOLO_TREE,
        lambda: {
            **yaml_bombs("data.yaml", "names", "%s: x"),
            **{
                f"{what} as a folder": files
                for what, files in yaml_bombs("data.yaml", "names: [a]\ntrain", "%s: x").items()
            },
        },
    ),
    Reader(
        "Darknet",
        st.one_of(
            as_file(
                "data/obj.data",
                mutated([DATA])
                | encoded(
                    st.lists(
                        st.tuples(
                            st.sampled_from(["train", "valid", "names", "classes"]),
                            scalars | st.sampled_from(ODD_PATHS),
                        ).map(" = ".join),
                        max_size=6,
                    ).map("\n".join)
                ),
            ),
            as_file("data/obj.names", mutated([b"cat\ndog\n\n"])),
            as_file(
                "data/train.txt",
                mutated([b"data/obj/a.png\ndata/obj/b.png\n"])
                | encoded(st.lists(st.sampled_from(ODD_PATHS) | st.text(), max_size=3).map("\n".join)),
            ),
        ),
        functools.partial(_inspect, "data/obj.data"),
        DARKNET_TREE,
        lambda: {
            "a .data line of 10 MB": {"data/obj.data": b"names = " + b"x" * (10 * MB)},
            "a name of 10 MB": {"data/obj.names": b"x" * (10 * MB)},
            "100,000 names": {
                "data/obj.names": b"".join(b"n%d\n" % i for i in range(100_000)),
                "data/obj.data": DATA.replace(b"classes= 2\n", b""),
            },
            "a path of 10 MB": {"data/train.txt": b"x" * (10 * MB)},
            "a device of zeros": {"data/obj.data": DATA.replace(b"data/obj.names", b"/dev/zero")},
            "a list that is a device": {"data/obj.data": DATA.replace(b"data/train.txt", b"/dev/zero")},
        },
    ),
    Reader(
        "VOC .xml",
        st.one_of(
            as_file("Annotations/a.xml", mutated([XML])),
            as_file("Annotations/b.xml", mutated([XML, b"<annotation/>"])),
            as_file("ImageSets/Main/train.txt", mutated([b"a\n", b"a 1\nb -1\n"])),
        ),
        functools.partial(_inspect, "."),
        VOC_TREE,
        lambda: {
            "entities of entities": {"Annotations/a.xml": laughing_xml()},
            "nested 1,000,000 deep": {
                "Annotations/a.xml": b"<annotation>" + b"<a>" * 1_000_000 + b"</a>" * 1_000_000 + b"</annotation>"
            },
            "20,000 classes": {
                "Annotations/a.xml": b"<annotation>" + b"".join(OBJECT % i for i in range(20_000)) + b"</annotation>"
            },
            "10 MB of text": {
                "Annotations/a.xml": b"<annotation><filename>" + b"x" * (10 * MB) + b"</filename></annotation>"
            },
            "a name of 10 MB": {"Annotations/a.xml": XML.replace(b"cat", b"x" * (10 * MB))},
        },
    ),
    Reader(
        "COCO .json",
        as_file(INSTANCES, json_files(COCO) | json_files(COCO) | mutated([json.dumps(COCO).encode()])),
        functools.partial(_inspect, "data.yaml"),
        COCO_TREE,
        lambda: {
            "nested 1,000,000 deep": {INSTANCES: b"[" * 1_000_000},
            "a number of 1 MB": {INSTANCES: json.dumps(COCO).encode().replace(b"12", b"9" * MB, 1)},
            "20,000 categories": {
                INSTANCES: json.dumps(
                    {**COCO, "categories": [{"id": i, "name": str(i)} for i in range(20_000)]}
                ).encode()
            },
            "20,000 images": {
                INSTANCES: json.dumps(
                    {**COCO, "images": [{"id": i, "file_name": f"{i}.png"} for i in range(20_000)]}
                ).encode()
            },
            "200,000 corners": {
                INSTANCES: json.dumps(
                    {
                        **COCO,
                        "annotations": [
                            {
                                "id": 1,
                                "image_id": 7,
                                "category_id": 3,
                                "segmentation": [[1, 1, 5, 1, 5, 5] * 30_000] * 2,
                            }
                        ],
                    }
                ).encode()
            },
            "20,000 parts": {
                INSTANCES: json.dumps(
                    {
                        **COCO,
                        "annotations": [
                            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 5]] * 20_000}
                        ],
                    }
                ).encode()
            },
        },
    ),
    Reader(
        "pictures",
        as_file("a.png", mutated(PICTURES)),
        _decode,
        bombs=lambda: {
            "178 million pixels": {"a.png": flat_png(13_300, 13_300, 2, 8, 3)},
            "178 million pixels of 16 bit": {"a.png": flat_png(13_300, 13_300, 0, 16, 1)},
            "more pixels than that": {"a.png": flat_png(30_000, 30_000, 0, 8, 1, rows=1)},
            "a header alone": {"a.png": flat_png(2**31 - 1, 1, 0, 8, 1, rows=0)},
            "long and thin": {"a.png": flat_png(10_000_000, 1, 0, 8, 1)},
        },
    ),
    Reader(
        "pictures of a set",
        as_file("images/train/a.png", mutated(PICTURES)),
        functools.partial(_inspect, "data.yaml"),
        YOLO_TREE,
    ),
    Reader(
        "remembered labels",
        as_file("memo.npz", st.deferred(lambda: mutated([memo_seed()]) | npz_files("text", [memo_seed()]))),
        _remember,
    ),
)

# results

CSV = (
    b"metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95,val/box_loss,lr0,momentum,optimizer\n"
    b"0.6,0.5,0.4,0.2,0,0.01,0.937,SGD\n0.6,0.5,0.4,0.3,0,0.02,0.9,AdamW\n"
)
OURS = (
    b"trial,state,fitness,seconds,lr0,momentum\n"
    b"0,COMPLETE,0.5,3,0.01,0.9\n1,PRUNED,,1,0.02,0.9\n2,COMPLETE,0.6,3,0.03,0.8\n"
)
TUNED = [
    {"iteration": 1, "fitness": 0.5, "hyperparameters": {"lr0": 0.01, "momentum": 0.9, "cos_lr": True}, "datasets": {}}
] * 2
CURVES = b"curve,epoch,fitness,seconds\na,1,0.1,3\nb,1,0.5,3\na,2,0.2,4\nb,2,0.4,\n"
CURVE_ROWS = [{"fitness": [0.1, 0.2, 0.3], "seconds": [1, 2, 3]}, {"fitness": [0.2, 0.1, 0.5]}]
CONFIG_SEEDS = [
    dump_config(resolve_config({})).encode(),
    b"data: cells.yaml\nepochs: 30\nset: {lr0: 0.1}\nonly: [lr0, momentum]\nbudget: 8h\n"
    b"target: 0.5\ndevice: 0\nobjective: map50,params\n",
]
CONFIG_KEYS = [line.partition(":")[0] for line in dump_config(resolve_config({})).splitlines() if line[0].isalpha()]
CONFIG_KEYS += [
    "set",
    "freeze",
    "only",
    "from",
    "hyp",
    "storage",
    "bucket",
    "budget",
    "target",
    "race",
    "patience",
    "base_seeds",
]
CONFIG_VALUES = [
    *ODD_PATHS,
    "{lr0: 0.1}",
    "[lr0]",
    "8h",
    "9" * 400 + "h",
    "0.5",
    "3",
    "postgresql://a:b@c/d",
    "../up",
    "map50=1e999",
    "a,b",
]
MOST_EPOCHS = 60  # that are replayed


def _read_curves(name: str, folder: Path, cache: Path) -> None:
    recording = read_curves(str(folder / name), cache)
    epochs = [epoch for curve in recording.curves for epoch in curve.fitness]
    if len(epochs) <= MOST_EPOCHS:
        for found in simulate(recording, ["evolve", "asha"], orders=1):
            _ = found.replays[0].regret, found.replays[0].seconds_saved


def _read_config(folder: Path, cache: Path) -> None:
    config = resolve_config({}, folder / "evolve.yaml")
    again = cache / "evolve.yaml"
    again.write_text(dump_config(config), "utf-8")
    if "***" not in again.read_text("utf-8"):
        agree(vars(config), vars(resolve_config({}, again)), "a configuration that is written and read")
    Fitness.parse(config.fitness)
    Goals.parse(config.objective)


def read_of(name: str) -> Callable[[Path, Path], None]:
    return functools.partial(_read_results, name)


def npz(array: np.ndarray) -> bytes:
    with io.BytesIO() as out:
        np.savez_compressed(out, valid_loss=array)
        return out.getvalue()


def npz_bombs() -> dict[str, Files]:
    said = "{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, 16), }}"

    def head(rows: int) -> bytes:
        return b"\x93NUMPY\1\0" + (118).to_bytes(2, "little") + said.format(rows).ljust(117).encode() + b"\n"

    with io.BytesIO() as out:
        with (
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("valid_loss.npy", "w", force_zip64=True) as file,
        ):
            file.write(head(20 * MB))
            for _ in range(160):
                file.write(bytes(16 * MB))
        zeros = out.getvalue()
    return {
        "a header that claims 128 GB": {"t.npz": zipped({"valid_loss.npy": head(10**9) + bytes(128)})},
        "2.5 GB of zeros": {"t.npz": zeros},
    }


RESULTS = (
    Reader(
        "evolve.txt",
        as_file("evolve.txt", mutated(TXT_SEEDS)),
        read_of("evolve.txt"),
        bombs=lambda: {what: {"evolve.txt": files["hyp.txt"]} for what, files in TXT_BOMBS.items()},
    ),
    Reader(
        "evolve.csv",
        as_file("evolve.csv", mutated([CSV, OURS])),
        read_of("evolve.csv"),
        bombs=lambda: {
            "a cell of 10 MB": {"evolve.csv": CSV + b"x" * (10 * MB)},
            "a line of 10 MB": {"evolve.csv": CSV + b"1," * (5 * MB)},
            "a header of 1 MB": {"evolve.csv": b"fitness," + b"a," * (MB // 2) + b"\n1\n"},
            "a cell that nests": {"evolve.csv": CSV + b"0.6,0.5,0.4,0.2,0,0.01,0.937," + b"[" * 100_000 + b"\n"},
            "20,000 lines": {"evolve.csv": CSV + b"0.6,0.5,0.4,0.3,0,0.02,0.9,AdamW\n" * 20_000},
        },
    ),
    Reader(
        "tune_results.ndjson",
        as_file("tune_results.ndjson", json_lines(TUNED) | mutated([json.dumps(TUNED[0]).encode()])),
        read_of("tune_results.ndjson"),
        bombs=lambda: {
            "nested": {"tune_results.ndjson": b"[" * 1_000_000},
            "a line of 10 MB": {"tune_results.ndjson": json.dumps({**TUNED[0], "x": "x" * (10 * MB)}).encode()},
            "a number of 1 MB": {"tune_results.ndjson": b'{"fitness": ' + b"9" * MB + b"}"},
            "100,000 lines": {"tune_results.ndjson": (json.dumps(TUNED[0]).encode() + b"\n") * 100_000},
        },
    ),
    Reader("hyp.yaml of --from", as_file("hyp.yaml", yaml_files(HYP_NAMES) | mutated(HYP_SEEDS)), read_of("hyp.yaml")),
    Reader(
        "curves.csv",
        as_file("t.csv", mutated([CURVES])),
        functools.partial(_read_curves, "t.csv"),
        bombs=lambda: {
            "an epoch of 20 digits": {"t.csv": b"curve,epoch,fitness\na,%d,1\nb,%d,1\n" % (10**20, 10**20)},
            "a cell of 10 MB": {"t.csv": CURVES + b"x" * (10 * MB)},
            "200,000 lines": {"t.csv": CURVES + b"a,1,0.1,3\n" * 200_000},
        },
    ),
    Reader(
        "curves.jsonl",
        as_file(
            "t.jsonl", json_lines(CURVE_ROWS) | mutated([b"\n".join(json.dumps(row).encode() for row in CURVE_ROWS)])
        ),
        functools.partial(_read_curves, "t.jsonl"),
        bombs=lambda: {
            "nested": {"t.jsonl": b"[" * 1_000_000},
            "a number of 1 MB": {"t.jsonl": b'{"fitness": [' + b"9" * MB + b"]}"},
        },
    ),
    Reader(
        "curves.npz",
        as_file("t.npz", npz_files("valid_loss", [npz(np.ones((2, 3))), npz(np.ones((3, 4), np.float32))])),
        functools.partial(_read_curves, "t.npz"),
        bombs=npz_bombs,
    ),
    Reader(
        "evolve.yaml",
        as_file(
            "evolve.yaml",
            mutated(CONFIG_SEEDS) | yaml_files(CONFIG_KEYS) | yaml_files(CONFIG_KEYS, st.sampled_from(CONFIG_VALUES)),
        ),
        _read_config,
        bombs=lambda: {
            **yaml_bombs("evolve.yaml", "set", "%s: 1"),
            **{f"{what} at epochs": files for what, files in yaml_bombs("evolve.yaml", "epochs", "%s: 1").items()},
        },
    ),
)

READERS: Mapping[str, tuple[Reader, ...]] = {"hyp": HYPS, "space": SPACES, "label": LABELS, "results": RESULTS}
