"""The three losses of an anchor-based detector: box and class of the cells that answer for a box, objectness of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.detection.boxes import ciou, cxcywh_to_xyxy
from trainer.detection.darknet import Head, decode_boxes
from trainer.detection.matching import Matches
from trainer.detection.recipe import Recipe

FOCAL_ALPHA = 0.25  # Lin et al. 2017, as YOLOv5 takes it
NOMINAL_IMGSZ = 640  # the picture size for which YOLOv5's gains are meant
NOMINAL_CLASSES = 20  # the number of classes at which the class gain counts in full
BALANCE_3 = (4.0, 1.0, 0.4)  # of objectness, finest head first: YOLOv5 v7.0, utils/loss.py,
BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)  # and for any other number of heads; beyond five the last goes on


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
        self.heads = tuple(heads)
        self.nc = nc
        balance = BALANCE_3 if len(heads) == 3 else (BALANCE + BALANCE[-1:] * len(heads))[: len(heads)]
        by_stride = sorted(range(len(heads)), key=lambda index: heads[index].stride)
        self.balance = [balance[by_stride.index(index)] for index in range(len(heads))]
        scale = 3.0 / len(heads)
        self.box_gain = recipe.box * scale
        self.obj_gain = recipe.obj * scale * imgsz / NOMINAL_IMGSZ
        self.cls_gain = recipe.cls * scale * nc / NOMINAL_CLASSES

    def __call__(self, outputs: Sequence[Tensor], matches: Sequence[Matches]) -> tuple[Tensor, Tensor]:
        """Raw heads [B, A, rows, columns, 5 + nc] and their matches, in the heads' order -> total (scalar), terms [3].

        Terms are box, objectness and class, already weighted and detached. They are means, so that their size does
        not depend on the batch. Nothing here waits for the device.
        """
        counts = torch.stack([found.weights.sum() for found in matches])
        return self.share(outputs, matches, counts.clamp(min=1.0), 1.0)

    def share(
        self, outputs: Sequence[Tensor], matches: Sequence[Matches], counts: Tensor, part: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a part of a batch adds to the means of the whole: as `__call__`, and the parts' results sum to it.

        counts [heads]: the matches of the whole batch, at least 1; part: the share of its pictures that is here.
        """
        box, obj, cls = (outputs[0].new_zeros((), dtype=torch.float32) for _ in range(3))
        for raw, head, balance, found, count in zip(outputs, self.heads, self.balance, matches, counts, strict=True):
            raw = raw.float()
            answers = raw.view(-1, raw.shape[-1]).index_select(0, found.places)
            overlap = _overlap(answers, found, head)
            box = box + ((1.0 - overlap) * found.weights).sum() / count
            wanted = raw.new_zeros(raw[..., 4].numel())
            # A cell with several boxes answers for the one that it overlaps most.
            best = overlap.detach().clamp(min=0.0) * found.weights
            wanted = wanted.scatter_reduce(0, found.places, best, "amax").view(raw.shape[:4])
            if self.nc > 1:  # with one class there is nothing to tell apart
                cls = cls + self._class_loss(answers[:, 5:], found) / (count * self.nc)
            obj = obj + balance * part * self._cross_entropy(raw[..., 4], wanted, self.recipe.obj_pw).mean()
        terms = torch.stack([box * self.box_gain, obj * self.obj_gain, cls * self.cls_gain])
        return terms.sum(), terms.detach()

    def _class_loss(self, logits: Tensor, found: Matches) -> Tensor:
        smoothing = self.recipe.label_smoothing
        wanted = torch.full_like(logits, smoothing / 2.0)
        wanted = wanted.scatter(1, found.classes[:, None], 1.0 - smoothing / 2.0)
        return (self._cross_entropy(logits, wanted, self.recipe.cls_pw) * found.weights[:, None]).sum()

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        weight = logits.new_full((), positive_weight) if positive_weight != 1.0 else None
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none")
        gamma = self.recipe.fl_gamma
        if gamma > 0.0:
            probability = logits.sigmoid()
            missed = wanted * (1.0 - probability) + (1.0 - wanted) * probability
            loss = loss * (wanted * FOCAL_ALPHA + (1.0 - wanted) * (1.0 - FOCAL_ALPHA)) * missed**gamma
        return loss


def _overlap(answers: Tensor, found: Matches, head: Head) -> Tensor:
    """CIoU of the boxes that the matched cells predict with the boxes that they answer for: [K]."""
    predicted = decode_boxes(answers[:, :4], found.cells, found.anchors, head.stride, head.scale_x_y, head.new_coords)
    return ciou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(found.boxes_cxcywh))
