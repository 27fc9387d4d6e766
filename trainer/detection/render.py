"""From a plan to pixels: each output pixel looks up its place in the pictures of the data set, then takes its colour.

The same code runs where the data set lies. On a GPU nothing waits for the device, and there are two transfers a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.detection.draw import Plan

GREY = 114
TILE_PX = {"cpu": 1 << 17}  # how many pixels are looked up at once: on a CPU what its cache can hold of them,
LARGE_TILE_PX = 1 << 22  # elsewhere what a small GPU's memory can


@dataclass(frozen=True)
class Tables:
    """A plan's numbers on the device of the pictures.

    back [L, 3, 3] and meet [L, 2] as in the plan; for every part of a layer, flat [4 L]: left and top (where the centre
    of its first pixel lies on the canvas), low_x, low_y, high_x, high_y (first and last pixel that shows), and start,
    int64, its picture's first pixel in the data set. colours [B, 3], kept [L - B], mixed int64 [L - B]. Where objects
    are pasted: masks uint8 [P, S, S], and for every part mask_start, int64, and last_x, its picture's last column.
    """

    back: Tensor
    meet: Tensor
    left: Tensor
    top: Tensor
    low_x: Tensor
    low_y: Tensor
    high_x: Tensor
    high_y: Tensor
    start: Tensor
    colours: Tensor
    kept: Tensor
    mixed: Tensor
    masks: Tensor
    mask_start: Tensor
    last_x: Tensor


def render(images: Tensor, plan: Plan) -> Tensor:
    """Make the planned pictures: float [B, 3, height, width] in 0..1, from all images uint8 [N, S, S, 3]."""
    tables = send(plan, images.shape[1], images.device)
    layers, count = len(plan.sources), len(plan)
    made = torch.empty(layers, 3, plan.height, plan.width, device=images.device)
    tiles = list(cut_tiles(layers, plan.height, plan.width, images.device))
    is_aslant = bool(plan.back[:, 2, :2].any())
    for some, rows in tiles:
        look_up(images, tables, some, rows, is_aslant, out=made[some, :, rows])
    if layers > count:
        both = made[count:].lerp(made.index_select(0, tables.mixed), tables.kept[:, None, None, None])
        made.index_copy_(0, tables.mixed, both)
    if (plan.colours != 1.0).any():
        for some, rows in tiles:
            tile = made[:count][some, :, rows]
            shift_colours(tile, tables.colours[some], out=tile)
    return made[:count]


def send(plan: Plan, side: int, device: torch.device) -> Tables:
    """Bring a plan to a device, all its floats in one transfer and all its integers in another."""
    left, top = (plan.corners + 0.5).reshape(-1, 2).T
    low_x, low_y, past_x, past_y = plan.seen.reshape(-1, 4).T
    floats = {
        "back": plan.back,
        "meet": plan.meet,
        "left": left,
        "top": top,
        "low_x": low_x,
        "low_y": low_y,
        "high_x": past_x - 1.0,
        "high_y": past_y - 1.0,
        "colours": plan.colours,
        "kept": plan.kept,
        "last_x": plan.widths.ravel() - 1.0,
    }
    integers = {
        "start": plan.sources.ravel() * side**2,
        "mixed": plan.mixed,
        "mask_start": plan.mask.ravel() * side**2,
    }
    masks = _send({"masks": plan.masks}, np.uint8, device) if len(plan.masks) else {"masks": torch.empty(0)}
    return Tables(**_send(floats, np.float32, device), **_send(integers, np.int64, device), **masks)


def _send(arrays: Mapping[str, np.ndarray], kind: type[np.generic], device: torch.device) -> dict[str, Tensor]:
    flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]).astype(kind))
    if device.type == "cuda":
        flat = flat.pin_memory()  # from other memory a transfer would wait for the device
    parts = torch.split(flat.to(device, non_blocking=True), [array.size for array in arrays.values()])
    return {name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)}


def cut_tiles(layers: int, height: int, width: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Cut pictures [layers, height, width] into slices of layers and rows that are small enough to be made at once."""
    most = TILE_PX.get(device.type, LARGE_TILE_PX)
    together = max(1, layers // math.ceil(layers * height * width / most))
    rows = math.ceil(height / math.ceil(height * width / most))
    for layer in range(0, layers, together):
        for row in range(0, height, rows):
            yield slice(layer, layer + together), slice(row, min(row + rows, height))


def look_up(images: Tensor, tables: Tables, some: slice, rows: slice, is_aslant: bool, out: Tensor) -> None:
    """Fill out [l, 3, h, w] with rows of some layers, in 0..1: each pixel from the part of the canvas that it shows.

    Between the pixels of a picture is interpolated; pictures that meet are not blended, and around them all is grey.
    """
    side, device = images.shape[1], images.device
    count, _, height, width = out.shape
    back, meet = tables.back[some], tables.meet[some]
    across = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    down = torch.arange(rows.start, rows.stop, device=device, dtype=torch.float32) + 0.5

    def canvas(axis: int) -> Tensor:
        column = back[:, axis, :1] * across
        row = back[:, axis, 1:2] * down + back[:, axis, 2:]
        return column[:, None, :] + row[:, :, None]

    x, y = canvas(0), canvas(1)
    if is_aslant:
        depth = canvas(2).clamp_(min=1e-6)
        x.div_(depth)
        y.div_(depth)
    part = (x >= meet[:, 0, None, None]).int().add_(y >= meet[:, 1, None, None], alpha=2)
    first = torch.arange(0, 4 * count, 4, device=device, dtype=torch.int32) + 4 * some.start
    part = part.add_(first[:, None, None]).view(-1)

    x, y = x.view(-1).sub_(tables.left.index_select(0, part)), y.view(-1).sub_(tables.top.index_select(0, part))
    near_x = torch.maximum(x, tables.low_x.index_select(0, part))
    near_x = torch.minimum(near_x, tables.high_x.index_select(0, part), out=near_x)
    near_y = torch.maximum(y, tables.low_y.index_select(0, part))
    near_y = torch.minimum(near_y, tables.high_y.index_select(0, part), out=near_y)
    is_outside = torch.maximum(x.sub_(near_x).abs_(), y.sub_(near_y).abs_()) > 0.5
    if len(tables.masks):
        near_x = mirror_pasted(tables, part, near_x, near_y, side)
    column, row = near_x.floor().clamp_(max=side - 2), near_y.floor().clamp_(max=side - 2)
    share_x, share_y = near_x.sub_(column), near_y.sub_(row)
    place = row.mul_(side).add_(column).long().add_(tables.start.index_select(0, part)).mul_(3)

    # Of each pixel's four neighbours and three channels: [4, 3, pixels], the neighbours in reading order.
    flat = images.view(-1)
    found = torch.empty(4, 3, len(place), dtype=torch.uint8, device=device)
    for neighbour, step in enumerate((0, 1, side, side + 1)):
        for channel in range(3):
            torch.index_select(flat[channel + 3 * step :], 0, place, out=found[neighbour, channel])
    rows_of_two = found.float().view(2, 2, 3, -1)
    upper, lower = rows_of_two[:, 0].lerp_(rows_of_two[:, 1], share_x)
    upper.lerp_(lower, share_y).masked_fill_(is_outside, GREY)
    torch.div(upper.view(3, count, height, width).transpose(0, 1), 255.0, out=out)


def mirror_pasted(tables: Tables, part: Tensor, x: Tensor, y: Tensor, side: int) -> Tensor:
    """The columns x, mirrored for those pixels that show a pasted object: there the picture is cut out."""
    mirrored = tables.last_x.index_select(0, part).sub_(x)
    place = (y + 0.5).floor_().mul_(side).add_((mirrored + 0.5).floor_().clamp_(min=0.0)).long()
    is_pasted = tables.masks.view(-1).index_select(0, place.add_(tables.mask_start.index_select(0, part))).bool()
    return torch.where(is_pasted & (mirrored > -0.5), mirrored, x)


def shift_colours(images: Tensor, factors: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply hue (modulo 1), saturation and value of RGB images [B, 3, H, W] in 0..1 by the factors [B, 3] in 0..2.

    Returns new images, or fills `out`, which may be the images themselves.
    """
    out = torch.empty_like(images) if out is None else out
    hue_factor, saturation_factor, value_factor = factors[:, :, None, None].unbind(1)
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    per_chroma = chroma.clamp(min=1e-6).reciprocal_()
    # The hue in sixths of the circle, from the two channels that are not the brightest.
    from_green = (blue - red).mul_(per_chroma).add_(2.0)
    from_blue = (red - green).mul_(per_chroma).add_(4.0)
    from_red = (green - blue).mul_(per_chroma)
    hue = torch.where(red == value, from_red, torch.where(green == value, from_green, from_blue))
    hue.add_(hue < 0.0, alpha=6.0).mul_(hue_factor)
    hue.add_(hue >= 6.0, alpha=-6.0)
    chroma.div_(value.clamp(min=1e-6)).mul_(saturation_factor).clamp_(max=1.0)
    value = value.mul_(value_factor).clamp_(max=1.0)
    chroma.mul_(value)
    value.sub_(chroma)  # now the darkest channel
    # How far each channel rises above the darkest one, in parts of the chroma: trapezia around red, green and blue.
    _rise((hue - 3.0).abs_().sub_(1.0), chroma, value, out[:, 0])
    _rise((hue - 2.0).abs_().neg_().add_(2.0), chroma, value, out[:, 1])
    _rise(hue.sub_(4.0).abs_().neg_().add_(2.0), chroma, value, out[:, 2])
    return out


def _rise(height: Tensor, chroma: Tensor, darkest: Tensor, out: Tensor) -> None:
    torch.addcmul(darkest, height.clamp_(0.0, 1.0), chroma, out=out)
