"""Copy-paste: objects cut out along their polygons, and pasted, mirrored, into the picture in which they stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from trainer.detection.pictures import Pictures

MAX_COVERED = 0.3  # of any other box may be pasted over (YOLOv5 v7.0, utils/augmentations.py copy_paste)

Double = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Pastes:
    """What is pasted into the parts [L, 4] of a batch: K objects.

    masks uint8 [P, S, S]: 1 where a picture is cut out; the first is empty, and P is 0 if nothing is pasted. mask int64
    [L, 4]: which of them belongs to each part. labels [K, 5]: class and mirrored box in pixels of the picture, and part
    [K] whose they are: 4 x layer + part.
    """

    masks: NDArray[np.uint8]
    mask: Int
    labels: Double
    part: Int


def draw_pastes(
    pictures: Pictures, sources: Int, is_part: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> Pastes:
    """Choose each object that has a polygon with the probability `share`, and paste it where it covers no other.

    A part that is not one (`is_part` [L, 4]) shows the same as the first of its layer.
    """
    side = pictures.imgsz
    mask = np.zeros(sources.shape, np.int64)
    masks: list[NDArray[np.uint8]] = []
    labels: list[Double] = []
    parts: list[int] = []
    if share > 0.0 and pictures.has_polygons:
        for layer, place in np.argwhere(is_part):
            pasted = paste(pictures, int(sources[layer, place]), share, rng)
            if not pasted:
                continue
            masks.append(cut_out([pictures.polygons[row] for row, _ in pasted], side))
            mask[layer, place if is_part[layer].all() else slice(None)] = len(masks)
            labels += [np.array([pictures.rows[row, 0], *box]) for row, box in pasted]
            parts += [int(4 * layer + place)] * len(pasted)
    stacked = np.stack([np.zeros((side, side), np.uint8), *masks]) if masks else np.zeros((0, side, side), np.uint8)
    return Pastes(stacked, mask, np.reshape(labels, (-1, 5)), np.array(parts, np.int64))


def paste(pictures: Pictures, index: int, share: float, rng: np.random.Generator) -> list[tuple[int, Double]]:
    """Which objects of one picture are pasted: their rows, and their mirrored boxes (xyxy)."""
    rows = np.arange(pictures.first[index], pictures.first[index + 1])
    outlined = np.array([row for row in rows if pictures.polygons[row] is not None], np.int64)
    boxes = pictures.rows[rows, 1:].astype(np.float64)
    width = float(pictures.sizes[index][0])
    pasted: list[tuple[int, Double]] = []
    for row in rng.permutation(outlined[rng.random(len(outlined)) < share]):
        x1, y1, x2, y2 = pictures.rows[row, 1:].astype(np.float64)
        mirrored = np.array([width - x2, y1, width - x1, y2])
        if (covered(boxes, mirrored) < MAX_COVERED).all():
            boxes = np.concatenate([boxes, mirrored[None]])
            pasted.append((int(row), mirrored))
    return pasted


def covered(boxes: Double, by: Double) -> Double:
    """Which share of each of the boxes [n, 4] another box [4] covers: [n] (all xyxy)."""
    shared = np.minimum(boxes[:, 2:], by[2:]) - np.maximum(boxes[:, :2], by[:2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return np.asarray(shared.clip(min=0.0).prod(1) / np.maximum(areas, 1e-9))


def cut_out(polygons: list[NDArray[np.float32] | None], side: int) -> NDArray[np.uint8]:
    """uint8 [side, side], 1 inside of any of the polygons."""
    image = Image.new("L", (side, side))
    for polygon in polygons:
        assert polygon is not None, "only outlined objects are chosen"
        # Polygons count from the edge of the first pixel, Pillow from its centre.
        ImageDraw.Draw(image).polygon((polygon - 0.5).ravel().tolist(), fill=1)
    return np.asarray(image)
