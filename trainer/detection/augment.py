"""Augmentation of whole batches: mosaic, mixup, one projective warp, colour and flips, drawn by a numpy Generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.recipe import Recipe

GREY = 114
MIN_SIDE_PX = 2.0  # what is left of a box after the warp must be larger than this,
MIN_AREA_LEFT = 0.1  # keep this share of its area,
MAX_ASPECT = 100.0  # and be no more elongated than this (YOLOv5 v7.0, utils/augmentations.py box_candidates)
MIXUP_BETA = 32.0  # Beta(32, 32): near one half

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """A training split in memory.

    images uint8 [N, S, S, 3] with the picture at the top left, sizes int [N, 2] its width and height, and per picture
    its labels float32 [n, 5]: class, x1, y1, x2, y2 in pixels.
    """

    images: NDArray[np.uint8]
    sizes: NDArray[np.integer]
    labels: tuple[Float, ...]

    @property
    def imgsz(self) -> int:
        return int(self.images.shape[1])


def make_batch(
    pictures: Pictures, indices: NDArray[np.integer], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Augment the pictures of these indices: images float [B, 3, S, S] in 0..1 and targets [M, 6] (see to_targets)."""
    count, size = len(indices), pictures.imgsz
    is_mosaic = rng.random(count) < recipe.mosaic
    # As in YOLOv5, two pictures are mixed only where both are mosaics.
    is_mixed = is_mosaic & (rng.random(count) < recipe.mixup)
    partners = rng.integers(0, len(pictures.images), int(is_mixed.sum()))
    everyone = np.concatenate([indices, partners])
    mosaic = np.concatenate([is_mosaic, np.ones(len(partners), dtype=bool)])

    images = torch.empty(len(everyone), 3, size, size, dtype=torch.float32)
    labels: list[Float] = [np.zeros((0, 5), np.float32)] * len(everyone)
    for wanted, compose in ((True, compose_mosaic), (False, compose_plain)):
        group = np.flatnonzero(mosaic == wanted)
        if not len(group):
            continue
        canvases, group_labels, centres = compose(pictures, everyone[group], rng)
        matrices = draw_warps(recipe, size, centres, rng)
        images[torch.from_numpy(group)] = warp(torch.from_numpy(canvases), matrices, size)
        for slot, matrix, boxes in zip(group, matrices, group_labels, strict=True):
            labels[slot] = warp_labels(boxes, matrix, size)

    mixed = np.flatnonzero(is_mixed)
    for slot, partner in zip(mixed, range(count, len(everyone)), strict=True):
        share = float(rng.beta(MIXUP_BETA, MIXUP_BETA))
        images[slot].mul_(share).add_(images[partner], alpha=1.0 - share)
        labels[slot] = np.concatenate([labels[slot], labels[partner]])
    images, labels = images[:count], labels[:count]

    images = shift_colours(images, draw_colours(recipe, count, rng))
    flip(images, labels, rng.random(count) < recipe.flipud, axis=0)
    flip(images, labels, rng.random(count) < recipe.fliplr, axis=1)
    return images, to_targets(labels)


def compose_plain(
    pictures: Pictures, indices: NDArray[np.integer], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Float], Float]:
    """Each picture on its own canvas: canvases uint8 [B, S, S, 3], labels, and the centres [B, 2] to warp about."""
    centres = np.asarray(pictures.sizes[indices], dtype=np.float32) / 2.0
    return np.asarray(pictures.images[indices]), [pictures.labels[index] for index in indices], centres


def compose_mosaic(
    pictures: Pictures, indices: NDArray[np.integer], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Float], Float]:
    """Four pictures around a random point: canvases uint8 [B, 2S, 2S, 3], labels, and the centres of the canvases."""
    size = pictures.imgsz
    canvases = np.full((len(indices), 2 * size, 2 * size, 3), GREY, np.uint8)
    labels: list[Float] = []
    for canvas, first in zip(canvases, indices, strict=True):
        others = rng.integers(0, len(pictures.images), 3)
        meet_x, meet_y = rng.uniform(0.5 * size, 1.5 * size, 2).astype(int)
        parts: list[Float] = []
        for corner, index in enumerate((int(first), *others.tolist())):
            width, height = (int(side) for side in pictures.sizes[index])
            left = meet_x - width if corner in (0, 2) else meet_x
            top = meet_y - height if corner in (0, 1) else meet_y
            x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, 2 * size), min(top + height, 2 * size)
            canvas[y1:y2, x1:x2] = pictures.images[index, y1 - top : y2 - top, x1 - left : x2 - left]
            part = pictures.labels[index] + np.array([0, left, top, left, top], np.float32)
            np.clip(part[:, 1:], 0, 2 * size, out=part[:, 1:])
            parts.append(part)
        labels.append(np.concatenate(parts))
    return canvases, labels, np.full((len(indices), 2), size, np.float32)


def draw_warps(recipe: Recipe, size: int, centres: Float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Matrices [B, 3, 3] from canvas to output pixels: move the centre to 0, perspective, turn and scale, shear, move.

    The order and the ranges are YOLOv5's (v7.0, random_perspective): scale 1 +- `scale`, place 0.5 +- `translate`.
    """
    count = len(centres)

    def spread(limit: float, columns: int) -> NDArray[np.float64]:
        return rng.uniform(-limit, limit, (count, columns))

    centre = np.tile(np.eye(3), (count, 1, 1))
    centre[:, :2, 2] = -centres
    perspective = np.tile(np.eye(3), (count, 1, 1))
    perspective[:, 2, :2] = spread(recipe.perspective, 2)
    angle = np.deg2rad(spread(recipe.degrees, 1)[:, 0])
    zoom = 1.0 + spread(recipe.scale, 1)[:, 0]
    turn = np.tile(np.eye(3), (count, 1, 1))
    turn[:, 0, 0] = turn[:, 1, 1] = zoom * np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = zoom * np.sin(angle), -zoom * np.sin(angle)
    shear = np.tile(np.eye(3), (count, 1, 1))
    shear[:, 0, 1], shear[:, 1, 0] = np.tan(np.deg2rad(spread(recipe.shear, 2))).T
    move = np.tile(np.eye(3), (count, 1, 1))
    move[:, :2, 2] = (0.5 + spread(recipe.translate, 2)) * size
    return np.asarray(move @ shear @ turn @ perspective @ centre)


def warp(canvases: Tensor, matrices: NDArray[np.float64], size: int) -> Tensor:
    """Look up each output pixel's place in its canvas: uint8 [B, H, W, 3] -> float [B, 3, size, size] in 0..1."""
    height, width = canvases.shape[1:3]
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3)
    back = torch.from_numpy(np.linalg.inv(matrices).astype(np.float32))
    found = places @ back.transpose(1, 2)
    found = found[..., :2] / found[..., 2:].clamp(min=1e-6)
    grid = found * torch.tensor([2.0 / width, 2.0 / height]) - 1.0
    # Grey is made the zero of the look-up, so that what lies outside the canvas comes out grey.
    centred = canvases.permute(0, 3, 1, 2).float().sub_(GREY)
    looked_up = F.grid_sample(centred, grid.view(-1, size, size, 2), mode="bilinear", align_corners=False)
    return looked_up.add_(GREY).div_(255.0)


def warp_labels(labels: Float, matrix: NDArray[np.float64], size: int) -> Float:
    """Carry boxes along: the upright box around the four warped corners, clipped; what hardly shows is dropped."""
    if not len(labels):
        return labels
    x1, y1, x2, y2 = labels[:, 1:].T
    corners = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], 1).reshape(-1, 4, 2)
    homogeneous = np.concatenate([corners, np.ones((len(labels), 4, 1))], 2) @ matrix.T
    warped = homogeneous[..., :2] / np.maximum(homogeneous[..., 2:], 1e-6)
    full = np.concatenate([warped.min(1), warped.max(1)], 1)
    boxes = full.clip(0, size)
    sides, before = boxes[:, 2:] - boxes[:, :2], full[:, 2:] - full[:, :2]
    aspect = sides.max(1) / np.maximum(sides.min(1), 1e-9)
    left = sides.prod(1) / np.maximum(before.prod(1), 1e-9)
    keep = (sides > MIN_SIDE_PX).all(1) & (aspect < MAX_ASPECT) & (left > MIN_AREA_LEFT)
    return np.concatenate([labels[keep, :1], boxes[keep].astype(np.float32)], 1)


def draw_colours(recipe: Recipe, count: int, rng: np.random.Generator) -> Tensor:
    """Factors [count, 3] for hue, saturation and value: 1 +- hsv_h, hsv_s, hsv_v."""
    limits = np.array([recipe.hsv_h, recipe.hsv_s, recipe.hsv_v])
    return torch.from_numpy((1.0 + rng.uniform(-1.0, 1.0, (count, 3)) * limits).astype(np.float32))


def shift_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply hue (modulo 1), saturation and value of RGB images [B, 3, S, S] in 0..1 by the factors [B, 3]."""
    if torch.equal(factors, torch.ones_like(factors)):
        return images
    hue_factor, saturation_factor, value_factor = factors[:, :, None, None].unbind(1)
    red, green, blue = images.unbind(1)
    value, brightest = images.max(1)
    chroma = value - images.amin(1)
    safe = chroma.clamp(min=1e-6)
    sector = torch.where(
        brightest == 0,
        (green - blue) / safe,
        torch.where(brightest == 1, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    hue = (sector.remainder(6.0) * hue_factor).remainder(6.0)
    saturation = (chroma / value.clamp(min=1e-6) * saturation_factor).clamp(max=1.0)
    value = (value * value_factor).clamp(max=1.0)
    # RGB from HSV without branches: channel(n) = v - v s max(0, min(k, 4 - k, 1)) with k = (n + hue) mod 6.
    offsets = torch.tensor([5.0, 3.0, 1.0])[None, :, None, None]
    k = (offsets + hue[:, None]).remainder(6.0)
    return value[:, None] * (1.0 - saturation[:, None] * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0))


def flip(images: Tensor, labels: list[Float], chosen: NDArray[np.bool_], axis: int) -> None:
    """Mirror the chosen images and their labels in place: axis 0 upside down, axis 1 left to right."""
    size = images.shape[2 + axis]
    low, high = (2, 4) if axis == 0 else (1, 3)
    for slot in np.flatnonzero(chosen):
        images[slot] = images[slot].flip(1 + axis)
        mirrored = labels[slot].copy()
        mirrored[:, low], mirrored[:, high] = size - labels[slot][:, high], size - labels[slot][:, low]
        labels[slot] = mirrored


def to_targets(labels: list[Float]) -> Tensor:
    """Stack labels [n, 5] (class, xyxy) of a batch into targets [M, 6]: image, class, cx, cy, w, h in pixels."""
    images = np.repeat(np.arange(len(labels), dtype=np.float32), [len(part) for part in labels])
    stacked = np.concatenate(labels) if labels else np.zeros((0, 5), np.float32)
    corners = stacked[:, 1:]
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2.0, corners[:, 2:] - corners[:, :2]
    return torch.from_numpy(np.column_stack([images, stacked[:, 0], centres, sides]).astype(np.float32))
