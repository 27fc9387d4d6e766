"""What a batch will look like, drawn without a pixel looked at: mosaic, mixup, warp, flips, colours, and the boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.detection.paste import draw_pastes
from trainer.detection.pictures import Float, Pictures
from trainer.detection.recipe import Recipe

MIN_SIDE_PX = 2.0  # what is left of a box after the warp must be larger than this,
MIN_AREA_LEFT = 0.1  # keep this share of its area,
MAX_ASPECT = 100.0  # and be no more elongated than this (YOLOv5 v7.0, utils/augmentations.py box_candidates)
MIXUP_BETA = 32.0  # Beta(32, 32): near one half

# Of a mosaic's parts, those left of its point and those above it: their far corner lies there, not their near one.
BEFORE = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])

Int = NDArray[np.int64]
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """A batch of B pictures of `height` x `width`, as `render` makes it.

    It has L >= B layers: layer i is picture i, those from B on are mixed in: layer B + k into picture `mixed`[k] (int64
    [L - B]), which keeps `kept`[k] of itself. A layer looks at a canvas through `back` [L, 3, 3], from output to canvas
    pixels. On the canvas four parts meet in the point `meet` [L, 2], in the order of `BEFORE`: part k shows picture
    `sources`[:, k] (int64 [L, 4]), whose top left lies at `corners` [L, 4, 2] and of which `seen` [L, 4, 4] shows (x1,
    y1, x2, y2 in its own pixels). A plain picture is its own four parts, all in one place. `colours` [B, 3]: factors of
    hue, saturation and value.

    Where objects are pasted, `masks` uint8 [P, S, S] tell which pixels of a source are (mask 0: none), `mask` int64
    [L, 4] which mask is each part's, and `widths` [L, 4] about which width it is mirrored. Otherwise P is 0.

    `targets` float32 [M, 6]: image, class, cx, cy, w, h in output pixels, by ascending image.
    """

    height: int
    width: int
    sources: Int
    meet: Double
    corners: Double
    seen: Double
    back: Double
    mixed: Int
    kept: Double
    colours: Double
    masks: NDArray[np.uint8]
    mask: Int
    widths: Double
    targets: Float

    def __len__(self) -> int:
        return len(self.colours)

    def part(self, first: int, last: int) -> Plan:
        """The pictures from `first` to before `last` alone, the targets counted from the first of them."""
        return self.some(np.arange(first, last))

    def some(self, which: NDArray[np.integer]) -> Plan:
        """Some pictures alone, by ascending index, the targets counted through them."""
        now = np.full(len(self), -1)
        now[which] = np.arange(len(which))
        mixed = np.flatnonzero(now[self.mixed] >= 0)
        layers = np.concatenate([which, len(self) + mixed])
        image = now[self.targets[:, 0].astype(np.int64)]
        targets = self.targets[image >= 0]
        targets[:, 0] = image[image >= 0]
        masks, mask = self.masks, self.mask[layers]
        if len(masks):
            # Mask 0 is none, and stays the first.
            used, mask = np.unique(np.append(mask.ravel(), 0), return_inverse=True)
            masks, mask = masks[used], mask[:-1].reshape(-1, 4)
        return replace(
            self,
            sources=self.sources[layers],
            meet=self.meet[layers],
            corners=self.corners[layers],
            seen=self.seen[layers],
            back=self.back[layers],
            mixed=now[self.mixed[mixed]],
            kept=self.kept[mixed],
            colours=self.colours[which],
            masks=masks,
            mask=mask,
            widths=self.widths[layers],
            targets=targets,
        )


def draw(
    pictures: Pictures,
    indices: NDArray[np.integer],
    recipe: Recipe,
    rng: np.random.Generator,
    shape: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> Plan:
    """Draw how the pictures of these indices are augmented.

    `shape` is the height and width of the augmented pictures (the square of the data set), `size` is what they are then
    scaled to (their shape). The same generator draws the same, whatever the size.
    """
    count = len(indices)
    shape = shape or (pictures.imgsz, pictures.imgsz)
    size = size or shape
    is_mosaic = rng.random(count) < recipe.mosaic
    # As in YOLOv5, two pictures are mixed only where both are mosaics.
    mixed = np.flatnonzero(is_mosaic & (rng.random(count) < recipe.mixup))
    firsts = np.concatenate([indices, rng.integers(0, len(pictures), len(mixed))]).astype(np.int64)
    is_mosaic = np.concatenate([is_mosaic, np.ones(len(mixed), dtype=bool)])
    kept = rng.beta(MIXUP_BETA, MIXUP_BETA, len(mixed))

    sources, meet, corners, seen = lay_out(pictures, firsts, is_mosaic, rng)
    centres = np.where(is_mosaic[:, None], float(pictures.imgsz), pictures.sizes[firsts] / 2.0)
    flips = draw_flips(recipe, count, shape, rng)[np.concatenate([np.arange(count), mixed])]
    matrices = flips @ draw_warps(recipe, shape, centres, rng)
    colours = draw_colours(recipe, count, rng)

    is_part = is_mosaic[:, None] | (np.arange(4) == 0)  # the four parts of a plain picture are one
    labels, part = gather_labels(pictures, sources, is_part)
    pastes = draw_pastes(pictures, sources, is_part, recipe.copy_paste, rng)
    labels, part = np.concatenate([labels, pastes.labels]), np.concatenate([part, pastes.part])
    labels[:, 1:] += np.tile(corners.reshape(-1, 2), 2)[part]
    labels[:, 1:] = np.clip(labels[:, 1:], 0.0, 2.0 * pictures.imgsz)
    layer = part // 4
    boxes, keep = warp_boxes(labels[:, 1:], matrices[layer], shape)
    image = np.concatenate([np.arange(count), mixed])[layer[keep]]
    scale = np.array([size[1] / shape[1], size[0] / shape[0]])
    return Plan(
        height=size[0],
        width=size[1],
        sources=sources,
        meet=meet,
        corners=corners,
        seen=seen,
        back=np.linalg.inv(matrices) @ np.diag([*(1.0 / scale), 1.0]),
        mixed=mixed,
        kept=kept,
        colours=colours,
        masks=pastes.masks,
        mask=pastes.mask,
        widths=pictures.sizes[sources][..., 0].astype(np.float64),
        targets=to_targets(image, labels[keep, 0], boxes[keep] * np.tile(scale, 2)),
    )


def lay_out(
    pictures: Pictures, firsts: Int, is_mosaic: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Int, Double, Double, Double]:
    """`sources`, `meet`, `corners` and `seen` of a Plan: four pictures around a random point, or one alone."""
    side, count = pictures.imgsz, len(firsts)
    others = rng.integers(0, len(pictures), (count, 3))
    meet = np.floor(rng.uniform(0.5 * side, 1.5 * side, (count, 2)))
    meet[~is_mosaic] = 0.0
    sources = np.column_stack([firsts, others])
    sources[~is_mosaic] = firsts[~is_mosaic, None]
    sizes = np.asarray(pictures.sizes[sources], dtype=np.float64)
    corners = meet[:, None] - sizes * BEFORE
    seen = np.concatenate([np.maximum(-corners, 0.0), np.minimum(2.0 * side - corners, sizes)], 2)
    corners[~is_mosaic] = 0.0
    seen[~is_mosaic] = (0.0, 0.0, side, side)
    return sources, meet, corners, seen


def gather_labels(pictures: Pictures, sources: Int, is_part: NDArray[np.bool_]) -> tuple[Double, Int]:
    """The labels [n, 5] of all parts, as in their pictures, and whose they are [n], ascending: 4 x layer + part."""
    counts = np.where(is_part, pictures.first[sources + 1] - pictures.first[sources], 0).ravel()
    part = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    rows = np.arange(len(part)) + (pictures.first[sources.ravel()] - before)[part]
    return pictures.rows[rows].astype(np.float64), part


def draw_warps(recipe: Recipe, shape: tuple[int, int], centres: Double, rng: np.random.Generator) -> Double:
    """Matrices [L, 3, 3] from canvas to output pixels: move the centre to 0, perspective, turn and scale, shear, move.

    The order and the ranges are YOLOv5's (v7.0, random_perspective): scale 1 +- `scale`, place 0.5 +- `translate`.
    """
    count = len(centres)

    def spread(limit: float, columns: int) -> Double:
        return rng.uniform(-limit, limit, (count, columns))

    def ones() -> Double:
        return np.tile(np.eye(3), (count, 1, 1))

    centre, perspective, turn, shear, move = ones(), ones(), ones(), ones(), ones()
    centre[:, :2, 2] = -centres
    perspective[:, 2, :2] = spread(recipe.perspective, 2)
    angle = np.deg2rad(spread(recipe.degrees, 1)[:, 0])
    zoom = 1.0 + spread(recipe.scale, 1)[:, 0]
    turn[:, 0, 0] = turn[:, 1, 1] = zoom * np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = zoom * np.sin(angle), -zoom * np.sin(angle)
    shear[:, 0, 1], shear[:, 1, 0] = np.tan(np.deg2rad(spread(recipe.shear, 2))).T
    move[:, :2, 2] = (0.5 + spread(recipe.translate, 2)) * shape[::-1]
    return np.asarray(move @ shear @ turn @ perspective @ centre)


def draw_flips(recipe: Recipe, count: int, shape: tuple[int, int], rng: np.random.Generator) -> Double:
    """Matrices [count, 3, 3] that mirror upside down, left to right, both or not at all."""
    flips = np.tile(np.eye(3), (count, 1, 1))
    for axis, share, side in ((1, recipe.flipud, shape[0]), (0, recipe.fliplr, shape[1])):
        flips[rng.random(count) < share, axis] = np.eye(3)[axis] * -1.0 + (0.0, 0.0, side)
    return flips


def draw_colours(recipe: Recipe, count: int, rng: np.random.Generator) -> Double:
    """Factors [count, 3] for hue, saturation and value: 1 +- hsv_h, hsv_s, hsv_v."""
    limits = np.array([recipe.hsv_h, recipe.hsv_s, recipe.hsv_v])
    return np.asarray(1.0 + rng.uniform(-1.0, 1.0, (count, 3)) * limits)


def warp_boxes(boxes: Double, matrices: Double, shape: tuple[int, int]) -> tuple[Double, NDArray[np.bool_]]:
    """Carry boxes [n, 4] (xyxy) along, each by its matrix [n, 3, 3] into pictures of this height and width.

    Returns the upright boxes around the four warped corners, clipped, and which of them show enough to be kept.
    """
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    warped = corners @ matrices[:, :2, :2].transpose(0, 2, 1) + matrices[:, None, :2, 2]
    depth = corners @ matrices[:, 2, :2, None] + matrices[:, 2, 2, None, None]
    warped /= np.maximum(depth, 1e-6)
    full = np.concatenate([warped.min(1), warped.max(1)], 1)
    clipped = np.clip(full, 0.0, np.array([*shape[::-1], *shape[::-1]], dtype=np.float64))
    sides, before = clipped[:, 2:] - clipped[:, :2], full[:, 2:] - full[:, :2]
    narrow, wide = sides.min(1), sides.max(1)
    left = sides.prod(1) / np.maximum(before.prod(1), 1e-9)
    keep = (narrow > MIN_SIDE_PX) & (wide < MAX_ASPECT * narrow) & (left > MIN_AREA_LEFT)
    return clipped, keep


def to_targets(image: Int, classes: Double, boxes: Double) -> Float:
    """Targets float32 [M, 6] by ascending image: image, class, cx, cy, w, h; from boxes [M, 4] (xyxy)."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2.0, boxes[:, 2:] - boxes[:, :2]
    targets = np.column_stack([image, classes, centres, sides]).astype(np.float32)
    return targets[np.argsort(image, kind="stable")]
