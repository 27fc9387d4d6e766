"""Matching: which cells of a head answer for which box. It goes by the boxes alone, so it can run ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.detection.darknet import Head


@dataclass(frozen=True)
class Matches:
    """The cells of one head that answer for a box: K of them.

    `places` int64 [K]: where in the raw output [B, A, rows, columns] the cell lies, counted flat. `cells` float [K, 2]:
    its column and row; `anchors` float [K, 2] and `boxes_cxcywh` float [K, 4] in pixels; `classes` int64 [K].
    `weights` float [K] are 1, and 0 where a row only fills up a fixed length.
    """

    places: Tensor
    cells: Tensor
    anchors: Tensor
    boxes_cxcywh: Tensor
    classes: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Matches:
        """The same on another device; does not wait for it."""
        return Matches(*(part.to(device, non_blocking=True) for part in self.parts()))

    def padded(self, length: int) -> Matches:
        """The same with `length` rows, those added of no weight: what is compiled for one shape wants one shape."""
        missing = length - len(self.places)
        assert missing >= 0, "a fixed length must hold all matches"
        if not missing:
            return self
        # A box and an anchor of one pixel: what is multiplied by 0 at the end must still be finite.
        fill = (0, 0.0, 1.0, 1.0, 0, 0.0)
        rows = (
            part.new_full((missing, *part.shape[1:]), value) for part, value in zip(self.parts(), fill, strict=True)
        )
        return Matches(*(torch.cat([part, more]) for part, more in zip(self.parts(), rows, strict=True)))

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of the fields."""
        return self.places, self.cells, self.anchors, self.boxes_cxcywh, self.classes, self.weights


@dataclass(frozen=True)
class Grid:
    """What matching needs to know of one head: its stride in pixels and its anchors float [A, 2], on the CPU."""

    stride: int
    anchors: Tensor


def grids_of(heads: Sequence[Head]) -> tuple[Grid, ...]:
    """The grids of heads, in the same order."""
    return tuple(Grid(head.stride, head.anchors.detach().float().cpu()) for head in heads)


def match(targets: Tensor, grid: Grid, shape: tuple[int, int, int], anchor_t: float) -> Matches:
    """Match boxes to anchors by the ratio of their sides, in the box's own cell and its two nearest neighbours.

    targets [M, 6]: image, class, cx, cy, w, h in pixels; shape: pictures, rows and columns of the head's grid. A box
    matches an anchor when no side differs by a factor of `anchor_t` or more; the neighbours are those on the side of
    the cell where the centre lies (YOLOv5 v7.0, utils/loss.py build_targets; the offset is half a cell).
    """
    _, rows, columns = shape
    ratio = targets[None, :, 4:6] / grid.anchors[:, None]  # [A, M, 2]
    fits = torch.maximum(ratio, 1.0 / ratio).amax(2) < anchor_t
    anchor, box = fits.nonzero(as_tuple=True)
    chosen = targets[box]
    centre = chosen[:, 2:4] / grid.stride
    cell = centre.floor()
    toward = torch.where(centre - cell < 0.5, -1.0, 1.0)  # the nearer neighbour along x and along y
    zeros = torch.zeros_like(toward[:, 0])
    steps = torch.stack(
        [torch.stack([zeros, zeros], 1), torch.stack([toward[:, 0], zeros], 1), torch.stack([zeros, toward[:, 1]], 1)]
    )
    cells = cell[None] + steps  # [3, K', 2]
    inside = (cells >= 0).all(2) & (cells[..., 0] < columns) & (cells[..., 1] < rows)
    index = inside.nonzero(as_tuple=True)[1]
    cells, anchor, chosen = cells[inside], anchor[index], chosen[index]
    column, row = cells.long().unbind(1)
    image = chosen[:, 0].long()
    return Matches(
        places=((image * len(grid.anchors) + anchor) * rows + row) * columns + column,
        cells=cells,
        anchors=grid.anchors[anchor],
        boxes_cxcywh=chosen[:, 2:6].contiguous(),
        classes=chosen[:, 1].long(),
        weights=torch.ones(len(chosen)),
    )


def match_all(targets: Tensor, grids: Sequence[Grid], images: Sequence[int], anchor_t: float) -> list[Matches]:
    """`match` for every head; `images` is the batch's shape: pictures, channels, height, width."""
    count, _, height, width = images
    return [match(targets, grid, (count, height // grid.stride, width // grid.stride), anchor_t) for grid in grids]
