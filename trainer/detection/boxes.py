"""Boxes: their two forms, how far two of them overlap, and which of many to keep.

A box is xyxy (left, top, right, bottom) or cxcywh (centre, width, height), in any one unit of length.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torchvision.ops import nms

EPSILON = 1e-7
PAIRS_AT_ONCE = 2**22  # of boxes: a GPU holds some ten numbers of each while it compares them


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre and size -> [..., 4] corners."""
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """[..., 4] corners -> [..., 4] centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Pairwise intersection over union. [N, 4], [M, 4] -> [N, M] in [0, 1]; two boxes without area have 0."""
    first, second = boxes1_xyxy[:, None], boxes2_xyxy[None]
    intersection, union, _ = _overlap(first, second)
    return intersection / union.clamp(min=EPSILON)


def ciou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Complete IoU of box i with box i. [N, 4], [N, 4] -> [N] in (-2, 1], float32 at least; differentiable.

    Zheng et al. 2020, Distance-IoU Loss, equations 8 to 11: IoU - distance^2 / diagonal^2 - alpha v, where
    v = 4 / pi^2 (difference of atan(w / h))^2 and alpha = v / (1 - IoU + v) takes no gradient. Boxes without area are
    allowed: a small constant keeps value and gradient finite.
    """
    first, second = (boxes.float() if boxes.dtype.itemsize < 4 else boxes for boxes in (boxes1_xyxy, boxes2_xyxy))
    intersection, union, diagonal_squared = _overlap(first, second)
    overlap = intersection / (union + EPSILON)
    first_cxcywh, second_cxcywh = xyxy_to_cxcywh(first), xyxy_to_cxcywh(second)
    distance_squared = (first_cxcywh[..., :2] - second_cxcywh[..., :2]).square().sum(-1)
    v = 4 / math.pi**2 * (_aspect(second_cxcywh) - _aspect(first_cxcywh)).square()
    with torch.no_grad():
        alpha = v / (1 - overlap + v + EPSILON)
    return overlap - distance_squared / (diagonal_squared + EPSILON) - alpha * v


def _overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union, and the squared diagonal of the box around both."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    sides = (high - low).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]  # prod() has a gradient that waits for the device to count zeros
    union = _area(first) + _area(second) - intersection
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    return intersection, union, (high - low).square().sum(-1)


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def _aspect(boxes_cxcywh: Tensor) -> Tensor:
    """The angle atan(w / h), whose gradient is finite also for a box without area."""
    return torch.atan2(boxes_cxcywh[..., 2] + EPSILON, boxes_cxcywh[..., 3] + EPSILON)


def non_max_suppression(
    predictions: Tensor,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    max_candidates: int = 3000,
) -> list[Tensor]:
    """Decoded predictions [B, A, 5 + nc] -> for each picture [n, 6]: xyxy, confidence, class; see `suppress`."""
    rows, counts = suppress(predictions, conf, iou, max_det, max_candidates)
    return [picture[:count] for picture, count in zip(rows, counts.tolist(), strict=True)]


@torch.no_grad()
def suppress(
    predictions: Tensor, conf: float, iou: float, max_det: int = 300, max_candidates: int = 3000
) -> tuple[Tensor, Tensor]:
    """Decoded predictions [B, A, 5 + nc] -> what remains, [B, D, 6], and how many rows of each picture that are, [B].

    A prediction is cx, cy, w, h in pixels, objectness, class probabilities; a row is xyxy, confidence, class, the most
    confident first. As in YOLOv5's validation, one box may answer for several classes, each with confidence =
    objectness * probability (one class only: objectness), and boxes of different classes never suppress one another. Of
    those above `conf` the `max_candidates` most confident enter, and at most `max_det` leave. A box or confidence that
    is not finite is dropped. There is no time limit: every picture is answered for. On a GPU nothing comes to the CPU.
    """
    boxes = cxcywh_to_xyxy(predictions[..., :4])
    objectness, classes = predictions[..., 4:5], predictions[..., 5:]
    nc = classes.shape[-1]
    confidences = objectness if nc == 1 else objectness * classes
    usable = (confidences > conf) & boxes.isfinite().all(-1, keepdim=True) & confidences.isfinite()
    confidences = torch.where(usable, confidences, 0).flatten(1)
    confidences, indices = confidences.topk(min(max_candidates, confidences.shape[1]))
    chosen = indices // nc
    boxes = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    labels = indices - chosen * nc
    usable = confidences > conf
    if boxes.is_cuda:
        kept = keep_by_pairs(boxes, labels, usable, iou)
    else:
        kept = keep_by_lists(boxes, confidences, labels, usable, iou, max_det)
    kept &= kept.cumsum(1) <= max_det
    # False sorts behind True, and stably: what is kept stays in the order of confidence.
    order = kept.byte().argsort(dim=1, descending=True, stable=True)[:, :max_det]
    rows = torch.cat([boxes, confidences[..., None], labels[..., None].to(boxes.dtype)], dim=2)
    return rows.gather(1, order[..., None].expand(-1, -1, 6)), kept.sum(1)


def keep_by_lists(
    boxes: Tensor, confidences: Tensor, labels: Tensor, usable: Tensor, iou: float, max_det: int
) -> Tensor:
    """Which candidates [B, K], most confident first, remain, [B, K]: a list for each picture and class.

    Suppression goes down the list, so what it keeps of the head is the head of what it keeps. The head is enough where
    little overlaps (an untrained model), and the cost of the rest would grow with its square.
    """
    head = 4 * max_det
    if boxes.shape[1] <= head:
        return _keep_lists(boxes, confidences, labels, usable, iou)
    kept = torch.zeros_like(usable)
    kept[:, :head] = _keep_lists(boxes[:, :head], confidences[:, :head], labels[:, :head], usable[:, :head], iou)
    unfinished = (kept.sum(1) < max_det) & usable[:, head]
    if unfinished.any():
        rest = [tensor[unfinished] for tensor in (boxes, confidences, labels, usable)]
        kept[unfinished] = _keep_lists(rest[0], rest[1], rest[2], rest[3], iou)
    return kept


def _keep_lists(boxes: Tensor, confidences: Tensor, labels: Tensor, usable: Tensor, iou: float) -> Tensor:
    """A call for each picture and class compares no pairs of different ones.

    torchvision's batched_nms moves each class to a tile of its own instead; on a CPU that costs the square of all
    boxes, and its tiles overlap where boxes reach below 0.
    """
    pictures, places = usable.nonzero(as_tuple=True)
    if len(pictures) == 0:
        return usable
    lists = pictures * (labels.max() + 1) + labels[pictures, places]
    lists, order = lists.sort(stable=True)
    pictures, places = pictures[order], places[order]
    sizes = torch.unique_consecutive(lists, return_counts=True)[1].tolist()
    own_boxes = boxes[pictures, places].split_with_sizes(sizes)
    own_confidences = confidences[pictures, places].split_with_sizes(sizes)
    firsts = itertools.accumulate(sizes, initial=0)
    remaining = [nms(own, by, iou) + first for own, by, first in zip(own_boxes, own_confidences, firsts, strict=False)]
    chosen = torch.cat(remaining)
    kept = torch.zeros_like(usable)
    kept[pictures[chosen], places[chosen]] = True
    return kept


def keep_by_pairs(boxes: Tensor, labels: Tensor, usable: Tensor, limit: float) -> Tensor:
    """Which candidates [B, K], most confident first, remain, [B, K]: all pairs of a picture at once, as a GPU likes it.

    A candidate stays unless a more confident one of its class that overlaps it by more than `limit` stays. Asked again
    and again of all at once, from "all stay" on, that settles from the most confident down, after as many rounds as the
    longest chain of suppressions, which is short; what it settles on is what the greedy loop keeps.
    """
    step = max(1, PAIRS_AT_ONCE // max(1, boxes.shape[1] ** 2))
    parts = range(0, len(boxes), step)
    settled = [_settle(boxes[i : i + step], labels[i : i + step], usable[i : i + step], limit) for i in parts]
    return torch.cat([usable[:0], *settled])


def _settle(boxes: Tensor, labels: Tensor, usable: Tensor, limit: float) -> Tensor:
    intersection, union, _ = _overlap(boxes[:, :, None], boxes[:, None])
    rivals = (intersection > limit * union) & (labels[:, :, None] == labels[:, None])
    rivals = rivals.tril(-1)  # only the more confident ones suppress
    kept = usable
    while True:
        staying = usable & ~(rivals & kept[:, None]).any(2)
        if torch.equal(staying, kept):
            return kept
        kept = staying
