"""Matching: which cells answer for which box. It goes by the boxes alone, so it can run ahead of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.darknet import Head

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """What matching needs to know of one head: its stride in pixels, its anchors float [A, 2], its scale_x_y."""

    stride: int
    anchors: Floats
    scale_x_y: float = 1.0

    def count_cells(self, height: int, width: int) -> int:
        """How many there are in one picture of this size."""
        return len(self.anchors) * (height // self.stride) * (width // self.stride)


def grids_of(heads: Sequence[Head]) -> tuple[Grid, ...]:
    """The grids of heads, in the same order."""
    return tuple(Grid(head.stride, head.anchors.detach().float().cpu().numpy(), head.scale_x_y) for head in heads)


@dataclass(frozen=True)
class Pairs:
    """Cells and the boxes that they answer for, K of them, of any number of pictures.

    image, head, cell (counted through one picture's anchors, rows and columns of that head) and classes: int64 [K];
    place float [K, 2]: column and row; boxes_cxcywh float [K, 4] and anchors float [K, 2] in pixels.
    """

    image: Integers
    head: Integers
    cell: Integers
    classes: Integers
    place: Floats
    anchors: Floats
    boxes_cxcywh: Floats

    def some(self, which: NDArray[np.integer]) -> Pairs:
        return Pairs(*(part[which] for part in self.parts()))

    def parts(self) -> tuple[NDArray[np.generic], ...]:
        """All arrays, in the order of the fields."""
        return self.image, self.head, self.cell, self.classes, self.place, self.anchors, self.boxes_cxcywh


def match(targets: Floats, grids: Sequence[Grid], size: tuple[int, int], anchor_t: float) -> Pairs:
    """Match boxes to anchors by the ratio of their sides, in the box's own cell and its two nearest neighbours.

    targets [M, 6]: image, class, cx, cy, w, h in pixels; size: height and width of the pictures. A box matches an
    anchor when no side differs by a factor of `anchor_t` or more; the neighbours are those on the side of the cell
    where the centre lies (YOLOv5 v7.0, utils/loss.py build_targets; the offset is half a cell).
    """
    found = [_match_head(targets, grid, head, size, anchor_t) for head, grid in enumerate(grids)]
    return Pairs(*(np.concatenate(parts) for parts in zip(*(pairs.parts() for pairs in found), strict=True)))


def _match_head(targets: Floats, grid: Grid, head: int, size: tuple[int, int], anchor_t: float) -> Pairs:
    rows, columns = size[0] // grid.stride, size[1] // grid.stride
    fits = np.ones((len(grid.anchors), len(targets)), dtype=bool)
    for axis in (0, 1):
        ratio = targets[:, 4 + axis] / grid.anchors[:, axis, None]
        fits &= (ratio < anchor_t) & (ratio * anchor_t > 1.0)
    # The three cells of each box first, since a box has several anchors.
    place = targets[:, 2:4] / np.float32(grid.stride)
    own = np.floor(place)
    toward = np.where(place - own < 0.5, -1, 1)  # the nearer neighbour along x and along y
    column, row = own.astype(np.int64).T
    cells = [(column, row), (column + toward[:, 0], row), (column, row + toward[:, 1])]
    anchors, boxes, chosen = [], [], []
    for x, y in cells:
        anchor, box = np.nonzero(fits & ((x >= 0) & (x < columns) & (y >= 0) & (y < rows)))
        anchors.append(anchor)
        boxes.append(box)
        chosen.append(np.stack([x[box], y[box]], 1))
    anchor, box, place_of = (np.concatenate(parts) for parts in (anchors, boxes, chosen))
    matched = targets[box]
    return Pairs(
        image=matched[:, 0].astype(np.int64),
        head=np.full(len(box), head),
        cell=(anchor * rows + place_of[:, 1]) * columns + place_of[:, 0],
        classes=matched[:, 1].astype(np.int64),
        place=place_of.astype(np.float32),
        anchors=grid.anchors[anchor],
        boxes_cxcywh=matched[:, 2:6],
    )


@dataclass(frozen=True)
class Matches:
    """What the loss wants to know of a batch, in two tensors, so that it reaches a device in two transfers.

    integers int64 [3, K]: where the cell lies in the outputs of all heads, head after head, each counted through
    pictures, anchors, rows and columns; its head; its class. floats [11, K]: column, row, anchor's width and height,
    the box (cx, cy, w, h), stride, all in pixels, scale_x_y, and a weight of 1, or 0 in a column that only fills up.
    """

    integers: Tensor
    floats: Tensor

    def __len__(self) -> int:
        return self.integers.shape[1]

    def to(self, device: torch.device) -> Matches:
        """The same on another device; does not wait for it."""
        return Matches(self.integers.to(device, non_blocking=True), self.floats.to(device, non_blocking=True))

    def pinned(self) -> Matches:
        """The same in memory from which a transfer to a GPU need not wait."""
        return Matches(self.integers.pin_memory(), self.floats.pin_memory())

    @property
    def places(self) -> Tensor:
        return self.integers[0]

    @property
    def heads(self) -> Tensor:
        return self.integers[1]

    @property
    def classes(self) -> Tensor:
        return self.integers[2]

    @property
    def cells(self) -> Tensor:
        return self.floats[0:2].T

    @property
    def anchors(self) -> Tensor:
        return self.floats[2:4].T

    @property
    def boxes_cxcywh(self) -> Tensor:
        return self.floats[4:8].T

    @property
    def strides(self) -> Tensor:
        return self.floats[8, :, None]

    @property
    def scales(self) -> Tensor:
        return self.floats[9, :, None]

    @property
    def weights(self) -> Tensor:
        return self.floats[10]


def arrange(
    pairs: Pairs, grids: Sequence[Grid], pictures: int, size: tuple[int, int], length: int | None = None
) -> Matches:
    """The matches of a batch of `pictures`, filled up to `length` columns if that is given.

    What fills up has a box and an anchor of one pixel: what is multiplied by 0 at the end must still be finite.
    """
    count = len(pairs.image)
    cells = np.array([grid.count_cells(*size) for grid in grids])
    before = pictures * (np.cumsum(cells) - cells)
    integers = np.zeros((3, length or count), np.int64)
    integers[0, :count] = before[pairs.head] + pairs.image * cells[pairs.head] + pairs.cell
    integers[1, :count] = pairs.head
    integers[2, :count] = pairs.classes
    floats = np.ones((11, length or count), np.float32)
    floats[0:2, :count] = pairs.place.T
    floats[2:4, :count] = pairs.anchors.T
    floats[4:8, :count] = pairs.boxes_cxcywh.T
    floats[8, :count] = np.array([grid.stride for grid in grids])[pairs.head]
    floats[9, :count] = np.array([grid.scale_x_y for grid in grids])[pairs.head]
    floats[10, count:] = 0.0
    return Matches(torch.from_numpy(integers), torch.from_numpy(floats))


def match_batch(
    targets: Floats,
    grids: Sequence[Grid],
    pictures: int,
    size: tuple[int, int],
    anchor_t: float,
    length: int | None = None,
) -> Matches:
    """`match` and `arrange` of one batch."""
    return arrange(match(targets, grids, size, anchor_t), grids, pictures, size, length)


class Matcher:
    """Matches the batches of one training. `fixed` fills them up to one length, so that a recording can hold them."""

    SPARE = 1.5  # room beyond the first batch's matches; a batch with more comes as long as it is
    STEP = 256

    def __init__(self, heads: Sequence[Head], anchor_t: float, device: torch.device, *, fixed: bool) -> None:
        self._grids = grids_of(heads)
        self._anchor_t = anchor_t
        self._pins = device.type == "cuda"
        self._fixed = fixed
        self._room: int | None = None

    def match(self, targets: Floats, bounds: Sequence[int], size: tuple[int, int]) -> list[Matches]:
        """The matches of several batches, on the CPU: batch i holds pictures bounds[i] to before bounds[i + 1].

        targets [M, 6] count their image through all batches; size: height and width of the pictures.
        """
        pairs = match(targets, self._grids, size, self._anchor_t)
        batch = np.searchsorted(bounds, pairs.image, side="right") - 1
        order = np.argsort(batch, kind="stable")
        borders = np.searchsorted(batch[order], np.arange(len(bounds)))
        return [
            self._arrange(pairs.some(order[first:last]), start, end - start, size)
            for first, last, start, end in zip(borders, borders[1:], bounds, bounds[1:], strict=False)
        ]

    def _arrange(self, pairs: Pairs, start: int, pictures: int, size: tuple[int, int]) -> Matches:
        count = len(pairs.image)
        if self._fixed and self._room is None:
            self._room = self.STEP * (1 + int(count * self.SPARE) // self.STEP)
        length = self._room if self._room is not None and count <= self._room else count
        pairs.image[:] -= start  # a copy of its own, made by `some`
        matches = arrange(pairs, self._grids, pictures, size, length)
        return matches.pinned() if self._pins else matches
