"""Boxes: their two forms, how far two of them overlap, and which of many to keep.

A box is xyxy (left, top, right, bottom) or cxcywh (centre, width, height), in any one unit of length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import nms

EPSILON = 1e-7


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
    intersection = (high - low).clamp(min=0).prod(-1)
    union = _area(first) + _area(second) - intersection
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    return intersection, union, (high - low).square().sum(-1)


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def _aspect(boxes_cxcywh: Tensor) -> Tensor:
    """The angle atan(w / h), whose gradient is finite also for a box without area."""
    return torch.atan2(boxes_cxcywh[..., 2] + EPSILON, boxes_cxcywh[..., 3] + EPSILON)


@torch.no_grad()
def non_max_suppression(
    predictions: Tensor,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    max_candidates: int = 3000,
) -> list[Tensor]:
    """Decoded predictions [B, A, 5 + nc] -> for each picture [n, 6]: xyxy, confidence, class; most confident first.

    A prediction is cx, cy, w, h in pixels, objectness, class probabilities. As in YOLOv5's validation, one box may
    answer for several classes, each with confidence = objectness * probability (one class only: objectness), and boxes
    of different classes never suppress one another. Of those above `conf` the `max_candidates` most confident enter,
    and at most `max_det` leave. A box or confidence that is not finite is dropped. There is no time limit: every
    picture is answered for.
    """
    boxes = cxcywh_to_xyxy(predictions[..., :4])
    objectness, classes = predictions[..., 4:5], predictions[..., 5:]
    nc = classes.shape[-1]
    confidences = objectness if nc == 1 else objectness * classes
    usable = (confidences > conf) & boxes.isfinite().all(-1, keepdim=True) & confidences.isfinite()
    confidences = torch.where(usable, confidences, 0).flatten(1)
    confidences, indices = confidences.topk(min(max_candidates, confidences.shape[1]))
    counts = (confidences > conf).sum(1).tolist()
    return [
        _suppress(boxes[picture][index[:count] // nc], confidence[:count], index[:count] % nc, iou, max_det)
        for picture, (confidence, index, count) in enumerate(zip(confidences, indices, counts, strict=True))
    ]


def _suppress(boxes: Tensor, confidences: Tensor, classes: Tensor, iou: float, max_det: int) -> Tensor:
    """What remains of one picture's boxes [n, 4], most confident first -> [m, 6]."""
    if len(boxes) == 0:
        return boxes.new_zeros((0, 6))
    # Suppression goes down the list, so what it keeps of the head is the head of what it keeps. The head is enough
    # where little overlaps (an untrained model), and the cost of the rest would grow with its square.
    head = 4 * max_det
    kept = _suppress_by_class(boxes[:head], confidences[:head], classes[:head], iou)
    if len(kept) < max_det and len(boxes) > head:
        kept = _suppress_by_class(boxes, confidences, classes, iou)
    kept = kept[:max_det]
    return torch.cat([boxes[kept], confidences[kept, None], classes[kept, None].to(boxes.dtype)], dim=1)


def _suppress_by_class(boxes: Tensor, confidences: Tensor, classes: Tensor, iou: float) -> Tensor:
    """Indices of what remains, most confident first. A call a class compares no pairs of different classes.

    torchvision's batched_nms moves each class to a tile of its own instead; on a CPU that costs the square of all
    boxes, and its tiles overlap where boxes reach below 0.
    """
    order = classes.argsort(stable=True)
    groups = order.tensor_split(classes.bincount().cumsum(0).cpu())
    kept = [group[nms(boxes[group], confidences[group], iou)] if len(group) > 1 else group for group in groups]
    return torch.cat(kept).sort().values
