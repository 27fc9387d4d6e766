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

    def padded(self, length: int) -> Matches:
        """The same with `length` rows, those added of no weight: what is recorded for one shape wants one shape."""
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
class PackedMatches:
    """The matches of all heads in two tensors, so that they reach a device in two transfers.

    integers [sum of 2 K] and floats [sum of 9 K], head by head, of `lengths` K.
    """

    integers: Tensor
    floats: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> PackedMatches:
        """The same on another device; does not wait for it."""
        integers, floats = (part.to(device, non_blocking=True) for part in (self.integers, self.floats))
        return PackedMatches(integers, floats, self.lengths)

    def pinned(self) -> PackedMatches:
        """The same in memory from which a transfer to a GPU need not wait."""
        return PackedMatches(self.integers.pin_memory(), self.floats.pin_memory(), self.lengths)

    def unpack(self) -> list[Matches]:
        """The matches of each head, sharing this memory."""
        found = []
        integers = torch.split(self.integers, [count for length in self.lengths for count in (length, length)])
        floats = torch.split(self.floats, [count * length for length in self.lengths for count in (2, 2, 4, 1)])
        for head, length in enumerate(self.lengths):
            places, classes = integers[2 * head : 2 * head + 2]
            cells, anchors, boxes, weights = floats[4 * head : 4 * head + 4]
            views = (cells.view(length, 2), anchors.view(length, 2), boxes.view(length, 4))
            found.append(Matches(places, *views, classes, weights))
        return found


def pack(matches: Sequence[Matches]) -> PackedMatches:
    """Put the matches of all heads into two tensors."""
    integers = torch.cat([part for found in matches for part in (found.places, found.classes)])
    floats = [
        part.flatten() for found in matches for part in (found.cells, found.anchors, found.boxes_cxcywh, found.weights)
    ]
    return PackedMatches(integers, torch.cat(floats), tuple(len(found.places) for found in matches))


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


class Matcher:
    """Matches the batches of one training. `fixed` fills them up to one length, so that a recording can hold them."""

    SPARE = 1.5  # room beyond the first batch's matches; a batch with more comes as long as it is
    STEP = 256

    def __init__(self, heads: Sequence[Head], anchor_t: float, device: torch.device, *, fixed: bool) -> None:
        self._grids = grids_of(heads)
        self._anchor_t = anchor_t
        self._pins = device.type == "cuda"
        self._fixed = fixed
        self._room: tuple[int, ...] | None = None

    def match(self, targets: Tensor, images: Sequence[int]) -> PackedMatches:
        """The matches of targets [M, 6] in a batch of this shape, on the CPU."""
        found = match_all(targets, self._grids, images, self._anchor_t)
        if self._fixed:
            found = self._fill_up(found)
        packed = pack(found)
        return packed.pinned() if self._pins else packed

    def _fill_up(self, found: list[Matches]) -> list[Matches]:
        lengths = [len(of_head.places) for of_head in found]
        if self._room is None:
            self._room = tuple(self.STEP * (1 + int(length * self.SPARE) // self.STEP) for length in lengths)
        if any(length > room for length, room in zip(lengths, self._room, strict=True)):
            return found
        return [of_head.padded(room) for of_head, room in zip(found, self._room, strict=True)]
