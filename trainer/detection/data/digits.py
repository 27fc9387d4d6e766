"""The built-in data set: scenes of real handwritten digits on busy grounds, drawn the same on every machine."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import Generator

from trainer.api import DataError
from trainer.detection.data.cache import cache_folder, lock, remove_left_overs, temporary

VERSION = 1  # raise it with every change of the drawing; the dials below enter the folder's name by themselves
SEED = 20240607
SCENES = {"train": 320, "val": 128, "test": 128}
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}  # of each class's handwritten samples; no sample is in two splits


@dataclass(frozen=True)
class Difficulty:
    """Every dial of how hard the scenes are. Ranges are inclusive, lengths in pixels, colours and contrasts of 255."""

    side: tuple[int, int] = (96, 128)  # of a scene
    digits: tuple[int, int] = (3, 7)  # in a scene
    height: tuple[int, int] = (36, 60)  # of a digit's 8 x 8 cells when drawn
    stretch: tuple[int, int] = (80, 115)  # width of the cells in % of their height
    overlap: int = 10  # at most this % of the smaller of two boxes
    contrast: tuple[int, int] = (125, 170)  # of ink to the ground's mean, in luma
    opacity: tuple[int, int] = (90, 100)  # of full ink, in %
    tint: int = 70  # how far each channel of the ink may leave its grey
    ground: tuple[int, int] = (10, 110)  # each channel of the ground's colour
    gradient: int = 32  # how far the ground drifts across the scene, per channel
    blobs: int = 16  # amplitude of the smooth random pattern in the ground
    blob_cells: tuple[int, int] = (3, 7)  # of that pattern along a side
    stripes: int = 12  # largest amplitude of the stripes
    stripe_period: tuple[int, int] = (6, 24)
    strokes: tuple[int, int] = (0, 3)  # clutter lines in a scene
    stroke_length: tuple[int, int] = (10, 50)
    stroke_contrast: int = 90  # largest difference of each channel to the ground
    stroke_width: tuple[int, int] = (1, 3)
    noise: int = 4  # half-width of the triangular noise on every pixel


DIFFICULTY = Difficulty()
VISIBLE = 64  # of 255: ink at least this thick belongs to the box

_LUMA = np.array([299, 587, 114])  # ITU-R BT.601, in thousandths

_YAML = f"""\
# Scenes of handwritten digits, version {VERSION}, drawn by trainer/detection/data/digits.py from the samples that
# scikit-learn ships (E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, CC BY 4.0).
path: .  # relative to this file
train: images/train
val: images/val
test: images/test
names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""


@dataclass(frozen=True)
class Scene:
    """uint8 [H, W, 3] pixels, int64 [M] classes and int64 [M, 4] tight boxes: x1, y1, x2, y2 with x2, y2 exclusive."""

    pixels: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray


def materialise(cache_dir: Path | None = None) -> Path:
    """The path of the data set's data.yaml, an ordinary YOLO data set in the cache folder, drawn there at first.

    Several processes may ask at once; a folder that is not whole is drawn again. Raises DataError if it cannot be
    written.
    """
    parent = cache_folder(cache_dir)
    target = parent / folder_name()
    if _is_whole(target):
        return target / "data.yaml"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with lock(parent / f"{target.name}.lock"):
            if not _is_whole(target):
                remove_left_overs(target)
                building = temporary(target)
                try:
                    write(building)
                    if target.exists():
                        os.rename(target, building / "replaced")
                    os.rename(building, target)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
                shutil.rmtree(target / "replaced", ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {parent} cannot be written ({error.strerror or error}):"
            " set EVOLVE_CACHE to a folder that can"
        ) from error
    return target / "data.yaml"


def folder_name() -> str:
    """Names the version of the drawing and, by a checksum, its dials: changed scenes never pass for the old ones."""
    dials = repr((SEED, SCENES, SHARES, VISIBLE, DIFFICULTY))
    return f"digits-v{VERSION}-{zlib.crc32(dials.encode()):08x}"


def write(folder: Path, difficulty: Difficulty = DIFFICULTY) -> None:
    """Draw every split into `folder`, as an ordinary YOLO data set."""
    for split in SCENES:
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i, scene in enumerate(draw(split, difficulty)):
            (images / f"{i:04d}.png").write_bytes(_png(scene.pixels))
            (labels / f"{i:04d}.txt").write_text(_label_lines(scene), encoding="ascii")
    (folder / "data.yaml").write_text(_YAML, encoding="ascii")


def handwriting(split: str) -> np.ndarray:
    """int64 [K]: which of scikit-learn's 1,797 samples the scenes of a split are drawn from, in order of class."""
    classes, _ = _samples()
    rng = np.random.default_rng(SEED)
    mine = []
    for class_id in range(10):
        samples = np.flatnonzero(classes == class_id)
        samples = samples[_shuffled(len(samples), rng)]
        start = 0
        for name, share in SHARES.items():
            end = len(samples) if name == "test" else start + int(share * len(samples))
            if name == split:
                mine.append(samples[start:end])
            start = end
    return np.concatenate(mine).astype(np.int64)


def draw(split: str, difficulty: Difficulty = DIFFICULTY) -> list[Scene]:
    """The scenes of a split. Integers throughout, so that no machine rounds differently."""
    classes, ink = _samples()
    pool = handwriting(split)
    rng = np.random.default_rng([SEED, list(SCENES).index(split)])
    deck: list[int] = []
    scenes = []
    for _ in range(SCENES[split]):
        n = _between(difficulty.digits, rng)
        if len(deck) < n:  # every sample is used once before any is used again
            deck = [int(pool[i]) for i in _shuffled(len(pool), rng)] + deck
        chosen = [deck.pop() for _ in range(n)]
        scenes.append(_scene([(int(classes[i]), ink[i]) for i in chosen], difficulty, rng))
    return scenes


@cache
def _samples() -> tuple[np.ndarray, np.ndarray]:
    """Classes int64 [1797] and ink int64 [1797, 10, 10] in 0..255: the 8 x 8 cells and a clear ring around them."""
    from sklearn.datasets import load_digits  # a second's import that only the first drawing needs

    source = load_digits()
    ink = source.images.astype(np.int64) * 255 // 16
    return source.target.astype(np.int64), np.pad(ink, ((0, 0), (1, 1), (1, 1)))


def _scene(digits: list[tuple[int, np.ndarray]], difficulty: Difficulty, rng: Generator) -> Scene:
    height, width = _between(difficulty.side, rng), _between(difficulty.side, rng)
    ground = _ground(height, width, difficulty, rng)
    pixels = ground
    classes: list[int] = []
    boxes: list[tuple[int, int, int, int]] = []
    for class_id, ink in digits:
        cells_high = _between(difficulty.height, rng)
        cells_wide = max(cells_high * _between(difficulty.stretch, rng) // 100, 8)
        alpha = _enlarged(ink, cells_high * 10 // 8, cells_wide * 10 // 8)
        rows, columns = np.flatnonzero((alpha >= VISIBLE).any(1)), np.flatnonzero((alpha >= VISIBLE).any(0))
        alpha = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        box = _place(alpha.shape, (height, width), boxes, difficulty.overlap, rng)
        if box is None:
            continue
        x1, y1, x2, y2 = box
        under = pixels[y1:y2, x1:x2]
        colour = _ink_colour(under, difficulty, rng)
        cover = (alpha * _between(difficulty.opacity, rng) // 100)[..., None]
        pixels[y1:y2, x1:x2] = (under * (255 - cover) + colour * cover) // 255
        classes.append(class_id)
        boxes.append(box)
    amplitude = difficulty.noise
    pixels += rng.integers(0, amplitude + 1, pixels.shape) - rng.integers(0, amplitude + 1, pixels.shape)
    return Scene(
        np.clip(pixels, 0, 255).astype(np.uint8),
        np.array(classes, np.int64),
        np.array(boxes, np.int64).reshape(-1, 4),
    )


def _ground(height: int, width: int, difficulty: Difficulty, rng: Generator) -> np.ndarray:
    """int64 [height, width, 3]: a colour, drifting, with a smooth random pattern, stripes and clutter strokes."""
    y, x = np.mgrid[0:height, 0:width]
    base = rng.integers(difficulty.ground[0], difficulty.ground[1] + 1, 3)
    drift = rng.integers(-difficulty.gradient, difficulty.gradient + 1, (2, 3))
    ground: np.ndarray = base + (x[..., None] * drift[0] // width) + (y[..., None] * drift[1] // height)
    cells = _between(difficulty.blob_cells, rng)
    pattern = rng.integers(0, 2 * difficulty.blobs + 1, (cells, cells))
    ground += (_enlarged(pattern, height, width) - difficulty.blobs)[..., None] * rng.integers(1, 5, 3) // 4
    amplitude = int(rng.integers(0, difficulty.stripes + 1))
    period = _between(difficulty.stripe_period, rng)
    along = (x * int(rng.integers(-8, 9)) + y * int(rng.integers(-8, 9))) // 8 % period
    ground += (np.abs(2 * along - period) * 2 * amplitude // period - amplitude)[..., None]
    for _ in range(_between(difficulty.strokes, rng)):
        _stroke(ground, difficulty, rng)
    return ground


def _stroke(ground: np.ndarray, difficulty: Difficulty, rng: Generator) -> None:
    height, width = ground.shape[:2]
    x, y = int(rng.integers(width)), int(rng.integers(height))
    dx, dy = (int(rng.integers(-16, 17)) for _ in range(2))
    bend = int(rng.integers(-4, 5))
    colour = np.clip(
        ground[y, x] + rng.integers(-difficulty.stroke_contrast, difficulty.stroke_contrast + 1, 3), 0, 255
    )
    thick = _between(difficulty.stroke_width, rng)
    steps = np.arange(_between(difficulty.stroke_length, rng))
    xs = x + (dx * steps + bend * steps * steps // 32) // 16
    ys = y + (dy * steps - bend * steps * steps // 32) // 16
    for i in range(thick):
        for j in range(thick):
            inside = (xs + i >= 0) & (xs + i < width) & (ys + j >= 0) & (ys + j < height)
            ground[ys[inside] + j, xs[inside] + i] = colour


def _ink_colour(under: np.ndarray, difficulty: Difficulty, rng: Generator) -> np.ndarray:
    """A random colour whose luma differs from the ground's mean by a random contrast, on a side that has room."""
    ground = int((under @ _LUMA).sum()) // (1000 * under.shape[0] * under.shape[1])
    contrast = _between(difficulty.contrast, rng)
    sides = [luma for luma in (ground - contrast, ground + contrast) if 0 <= luma <= 255]
    luma = sides[int(rng.integers(len(sides)))] if sides else (0 if ground > 127 else 255)
    tint = rng.integers(-difficulty.tint, difficulty.tint + 1, 3)
    tint -= int(tint @ _LUMA) // 1000  # moves the hue and leaves the luma
    return np.clip(luma + tint, 0, 255)


def _place(
    size: tuple[int, ...], scene: tuple[int, int], boxes: list[tuple[int, int, int, int]], overlap: int, rng: Generator
) -> tuple[int, int, int, int] | None:
    height, width = size
    for _ in range(40):
        x, y = int(rng.integers(scene[1] - width + 1)), int(rng.integers(scene[0] - height + 1))
        box = x, y, x + width, y + height
        if all(_overlap(box, other) <= overlap for other in boxes):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    """Intersection in % of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return 100 * max(width, 0) * max(height, 0) // smaller


def _enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """int64 [height, width] from int64 [h, w], smoothly (linear between cell centres), in integers."""
    larger: np.ndarray = _weights(height, values.shape[0]) @ values @ _weights(width, values.shape[1]).T >> 20
    return larger


def _weights(n: int, cells: int) -> np.ndarray:
    """int64 [n, cells]: row i says, in 1/1024, how pixel i of n mixes the cells; rows sum to 1024."""
    position = (
        2 * np.arange(n) + 1
    ) * cells * 512 // n - 512  # pixel centre in 1/1024 cells from the first cell's centre
    position = np.clip(position, 0, (cells - 1) * 1024)
    first = np.minimum(position // 1024, cells - 2)
    part = position - first * 1024
    weights = np.zeros((n, cells), np.int64)
    weights[np.arange(n), first] = 1024 - part
    weights[np.arange(n), first + 1] = part
    return weights


def _between(low_high: tuple[int, int], rng: Generator) -> int:
    return int(rng.integers(low_high[0], low_high[1] + 1))


def _shuffled(n: int, rng: Generator) -> np.ndarray:
    """A random order of 0..n-1, by sorting random integers: the plainest use of a generator there is."""
    return np.argsort(rng.integers(0, 2**62, n), kind="stable")


def _is_whole(folder: Path) -> bool:
    """Whether every file is there and none is empty (a cleaner of old files, or a power cut, may have been there)."""
    try:
        if (folder / "data.yaml").stat().st_size == 0:
            return False
        for split, n in SCENES.items():
            for kind in ("images", "labels"):
                with os.scandir(folder / kind / split) as entries:
                    if sum(entry.stat().st_size > 0 for entry in entries) != n:
                        return False
    except OSError:
        return False
    return True


def _label_lines(scene: Scene) -> str:
    height, width = scene.pixels.shape[:2]
    return "".join(
        f"{class_id} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f}"
        f" {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
        for class_id, (x1, y1, x2, y2) in zip(scene.classes, scene.boxes, strict=True)
    )


def _png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG (W3C, 3rd edition), not compressed: what comes of that differs from zlib to zlib."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    raw = rows.tobytes()
    blocks = [raw[i : i + 65535] for i in range(0, len(raw), 65535)]
    stored = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), 65535 - len(block)) + block for block in blocks
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
