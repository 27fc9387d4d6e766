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
BOX_SCALE = 2.0  # in a few hundred updates the places of boxes are learned last
NOMINAL_CLASSES = 20  # the number of classes at which the class gain counts in full
BALANCE_3 = (4.0, 1.0, 0.4)  # of objectness, finest head first: YOLOv5 v7.0, utils/loss.py,
BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)  # and for any other number of heads; beyond five the last goes on


class DetectionLoss:
    """Box (CIoU), objectness and class (binary cross-entropy) over all heads, weighted by a recipe.

    The recipe's gains are unscaled, as hyp files store them. As in YOLOv5, all are scaled to the number of heads
    (x 3 / heads), `obj` to the picture, by (imgsz / 640)^2, since the mean over a small picture's few cells weighs each
    one more, and `cls` to the number of classes. Two factors differ, for short runs: `box` counts twice, and `cls` is
    scaled by classes / 20, where YOLOv5 has classes / 80, which takes longer than a short run to tell ten classes
    apart. What each was measured to be worth stands in docs/levers.md; benchmarks/core_choices.py takes them back.
    `fl_gamma` > 0 makes both cross-entropies focal (Lin et al. 2017).
    """

    def __init__(self, recipe: Recipe, heads: Sequence[Head], nc: int, imgsz: int) -> None:
        self.recipe = recipe
        self.heads = tuple(heads)
        self.nc = nc
        ways = [head.new_coords for head in heads]
        # No published model mixes the two ways to decode. Made here, since making a tensor of numbers waits for a GPU.
        self._mixed = torch.tensor(ways, device=heads[0].anchors.device) if len(set(ways)) > 1 else None
        balance = BALANCE_3 if len(heads) == 3 else (BALANCE + BALANCE[-1:] * len(heads))[: len(heads)]
        by_stride = sorted(range(len(heads)), key=lambda index: heads[index].stride)
        self.balance = [balance[by_stride.index(index)] for index in range(len(heads))]
        scale = 3.0 / len(heads)
        self.box_gain = recipe.box * scale * BOX_SCALE
        self.obj_gain = recipe.obj * scale * (imgsz / NOMINAL_IMGSZ) ** 2
        self.cls_gain = recipe.cls * scale * nc / NOMINAL_CLASSES

    def __call__(self, outputs: Sequence[Tensor], matches: Matches) -> tuple[Tensor, Tensor]:
        """Raw heads [B, A, rows, columns, 5 + nc] and what cells answer for -> total (scalar), terms [3].

        Terms are box, objectness and class, already weighted and detached. They are means, so that their size does
        not depend on the batch. Nothing here waits for the device.
        """
        return self.share(outputs, matches, self.count(matches), 1.0)

    def count(self, matches: Matches) -> Tensor:
        """How many cells of each head answer for a box, float [heads]."""
        counts = matches.weights.new_zeros(len(self.heads))
        return counts.index_add(0, matches.heads, matches.weights)

    def share(
        self, outputs: Sequence[Tensor], matches: Matches, counts: Tensor, part: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a part of a batch adds to the means of the whole: as `__call__`, and the parts' results sum to it.

        counts [heads]: the matches of the whole batch; part: the share of its pictures that is here. All heads are
        computed at once: what a small network's loss costs is the number of its operations.
        """
        table = torch.cat([raw.view(-1, raw.shape[-1]) for raw in outputs]).float()
        answers = table.index_select(0, matches.places)
        weights = matches.weights / counts.clamp(min=1.0).index_select(0, matches.heads)  # a mean for each head
        overlap = self._overlap(answers, matches)
        box = ((1.0 - overlap) * weights).sum()
        # A cell with several boxes answers for the one that it overlaps most.
        best = overlap.detach().clamp(min=0.0) * matches.weights
        wanted = table.new_zeros(len(table)).scatter_reduce(0, matches.places, best, "amax")
        found = self._cross_entropy(table[:, 4], wanted, self.recipe.obj_pw)
        sizes = [raw[..., 0].numel() for raw in outputs]
        means = [
            part_of.mean() * balance for part_of, balance in zip(torch.split(found, sizes), self.balance, strict=True)
        ]
        obj = torch.stack(means).sum() * part
        cls = box.new_zeros(())
        if self.nc > 1:  # with one class there is nothing to tell apart
            cls = self._class_loss(answers[:, 5:], matches.classes, weights) / self.nc
        terms = torch.stack([box * self.box_gain, obj * self.obj_gain, cls * self.cls_gain])
        return terms.sum(), terms.detach()

    def _overlap(self, answers: Tensor, matches: Matches) -> Tensor:
        """CIoU of the boxes that the matched cells predict with the boxes that they answer for: [K]."""
        new_coords: bool | Tensor = self.heads[0].new_coords
        if self._mixed is not None:
            new_coords = self._mixed[matches.heads, None]
        predicted = decode_boxes(
            answers[:, :4], matches.cells, matches.anchors, matches.strides, matches.scales, new_coords
        )
        return ciou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(matches.boxes_cxcywh))

    def _class_loss(self, logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        wanted = torch.full_like(logits, smoothing / 2.0)
        wanted = wanted.scatter(1, classes[:, None], 1.0 - smoothing / 2.0)
        return (self._cross_entropy(logits, wanted, self.recipe.cls_pw) * weights[:, None]).sum()

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        weight = logits.new_full((), positive_weight) if positive_weight != 1.0 else None
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none")
        gamma = self.recipe.fl_gamma
        if gamma > 0.0:
            probability = logits.sigmoid()
            missed = wanted * (1.0 - probability) + (1.0 - wanted) * probability
            loss = loss * (wanted * FOCAL_ALPHA + (1.0 - wanted) * (1.0 - FOCAL_ALPHA)) * missed**gamma
        return loss
