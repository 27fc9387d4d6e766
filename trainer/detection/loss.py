"""The three losses of an anchor-based detector: which cells answer for which box, then box, objectness and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.detection.boxes import ciou, cxcywh_to_xyxy
from trainer.detection.darknet import Head, decode_boxes
from trainer.detection.recipe import Recipe

FOCAL_ALPHA = 0.25  # Lin et al. 2017, as YOLOv5 takes it
NOMINAL_IMGSZ = 640  # the picture size for which YOLOv5's gains are meant
NOMINAL_CLASSES = 20  # the number of classes at which the class gain counts in full
BALANCE_3 = (4.0, 1.0, 0.4)  # of objectness, finest head first: YOLOv5 v7.0, utils/loss.py,
BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)  # and for any other number of heads; beyond five the last goes on


@dataclass(frozen=True)
class Matches:
    """The cells of one head that answer for a box: K of them.

    image, anchor, row, column, classes: int64 [K]; boxes_cxcywh: float [K, 4] in pixels.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    classes: Tensor
    boxes_cxcywh: Tensor


def match(targets: Tensor, head: Head, shape: tuple[int, int], anchor_t: float) -> Matches:
    """Match boxes to anchors by the ratio of their sides, in the box's own cell and its two nearest neighbours.

    targets [M, 6]: image, class, cx, cy, w, h in pixels; shape: rows and columns of the head's grid. A box matches
    an anchor when no side differs by a factor of `anchor_t` or more; the neighbours are those on the side of the cell
    where the centre lies (YOLOv5 v7.0, utils/loss.py build_targets; the offset is half a cell).
    """
    rows, columns = shape
    anchors = head.anchors.to(targets)
    wh = targets[:, 4:6]
    ratio = wh[None] / anchors[:, None]  # [A, M, 2]
    fits = torch.maximum(ratio, 1.0 / ratio).amax(2) < anchor_t
    anchor, box = fits.nonzero(as_tuple=True)
    chosen = targets[box]
    centre = chosen[:, 2:4] / head.stride
    cell = centre.floor()
    toward = torch.where(centre - cell < 0.5, -1.0, 1.0)  # the nearer neighbour along x and along y
    zeros = torch.zeros_like(toward[:, 0])
    steps = torch.stack(
        [torch.stack([zeros, zeros], 1), torch.stack([toward[:, 0], zeros], 1), torch.stack([zeros, toward[:, 1]], 1)]
    )
    cells = (cell[None] + steps).long()  # [3, K', 2]
    inside = (cells >= 0).all(2) & (cells[..., 0] < columns) & (cells[..., 1] < rows)
    _, index = inside.nonzero(as_tuple=True)
    column, row = cells[inside].unbind(1)
    chosen = chosen[index]
    return Matches(
        image=chosen[:, 0].long(),
        anchor=anchor[index],
        row=row,
        column=column,
        classes=chosen[:, 1].long(),
        boxes_cxcywh=chosen[:, 2:6],
    )


class DetectionLoss:
    """Box (CIoU), objectness and class (binary cross-entropy) over all heads, weighted by a recipe.

    The recipe's gains are unscaled, as hyp files store them. As in YOLOv5, all are scaled to the number of heads
    (x 3 / heads) and `cls` to the number of classes. Two factors differ, for short runs at small sizes. A small picture
    has few cells, so the mean over them weighs each one more: `obj` is scaled by imgsz / 640, where YOLOv5 has the
    square of it. And `cls` is scaled by classes / 20, where YOLOv5 has classes / 80, which takes longer than a short
    run to tell ten classes apart. benchmarks/core_choices.py (10 epochs, 2 seeds, mAP50-95 as a share of ours, digits
    and blood cells): no scale on `obj` .53 and .84, its square 1.24 and 1.04, classes / 80 on `cls` .56 and .94. So the
    square would serve as well or better; a search gets there by `obj`, whose bounds reach down to 0.2.
    `fl_gamma` > 0 makes both cross-entropies focal (Lin et al. 2017).
    """

    def __init__(self, recipe: Recipe, heads: Sequence[Head], nc: int, imgsz: int) -> None:
        self.recipe = recipe
        self.heads = tuple(sorted(heads, key=lambda head: head.stride))
        self.order = sorted(range(len(heads)), key=lambda index: heads[index].stride)
        self.nc = nc
        self.balance = BALANCE_3 if len(heads) == 3 else (BALANCE + BALANCE[-1:] * len(heads))[: len(heads)]
        scale = 3.0 / len(heads)
        self.box_gain = recipe.box * scale
        self.obj_gain = recipe.obj * scale * imgsz / NOMINAL_IMGSZ
        self.cls_gain = recipe.cls * scale * nc / NOMINAL_CLASSES

    def __call__(self, outputs: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Raw heads [B, A, rows, columns, 5 + nc] and targets [M, 6] (as in `match`) -> total (scalar), terms [3].

        Terms are box, objectness and class, already weighted and detached. They are means, so that their size does
        not depend on the batch.
        """
        device = outputs[0].device
        box, obj, cls = (torch.zeros((), device=device) for _ in range(3))
        for index, head, balance in zip(self.order, self.heads, self.balance, strict=True):
            raw = outputs[index].float()
            matches = match(targets, head, (raw.shape[2], raw.shape[3]), self.recipe.anchor_t)
            wanted = torch.zeros(raw.shape[:4], device=device)
            if len(matches.image):
                where = (matches.image, matches.anchor, matches.row, matches.column)
                answers = raw[where]
                overlap = self._overlap(answers, matches, head)
                box = box + (1.0 - overlap).mean()
                wanted = _best_of_each_cell(wanted, where, overlap.detach().clamp(min=0.0))
                if self.nc > 1:  # with one class there is nothing to tell apart
                    cls = cls + self._class_loss(answers[:, 5:], matches.classes)
            obj = obj + balance * self._cross_entropy(raw[..., 4], wanted, self.recipe.obj_pw)
        terms = torch.stack([box * self.box_gain, obj * self.obj_gain, cls * self.cls_gain])
        return terms.sum(), terms.detach()

    def _overlap(self, answers: Tensor, matches: Matches, head: Head) -> Tensor:
        """CIoU of the boxes that the matched cells predict with the boxes that they answer for: [K]."""
        grid = torch.stack([matches.column, matches.row], 1).to(answers)
        anchors = head.anchors.to(answers)[matches.anchor]
        predicted = decode_boxes(answers[:, :4], grid, anchors, head.stride, head.scale_x_y, head.new_coords)
        return ciou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(matches.boxes_cxcywh))

    def _class_loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        wanted = torch.full_like(logits, smoothing / 2.0)
        wanted[torch.arange(len(classes), device=logits.device), classes] = 1.0 - smoothing / 2.0
        return self._cross_entropy(logits, wanted, self.recipe.cls_pw)

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        weight = logits.new_tensor(positive_weight) if positive_weight != 1.0 else None
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none")
        gamma = self.recipe.fl_gamma
        if gamma > 0.0:
            probability = logits.sigmoid()
            missed = wanted * (1.0 - probability) + (1.0 - wanted) * probability
            loss = loss * (wanted * FOCAL_ALPHA + (1.0 - wanted) * (1.0 - FOCAL_ALPHA)) * missed**gamma
        return loss.mean()


def _best_of_each_cell(wanted: Tensor, where: tuple[Tensor, ...], overlap: Tensor) -> Tensor:
    """Write overlaps [K] at their cells of `wanted` [B, A, rows, columns]; a cell with several keeps the largest."""
    places = torch.arange(wanted.numel(), device=wanted.device).view(wanted.shape)[where]
    return wanted.flatten().scatter_reduce(0, places, overlap, "amax").view(wanted.shape)
