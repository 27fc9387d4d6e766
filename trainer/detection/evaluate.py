"""Detections against true boxes: COCO's average precision, and precision and recall at the best F1. numpy only.

Average precision is that of pycocotools' COCOeval (2.0.8) for area "all" without crowds, to the last digits: greedy
matching by picture, class and IoU threshold in the order of confidence, ten thresholds, 101 recalls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
MAX_CONFIDENCES = 1000


@dataclass(frozen=True, eq=False)
class Scores:
    """How good the detections of one split are; all in [0, 1].

    `ap` [nc, 10] holds AP by class and IoU threshold .50 to .95, NaN for a class without true boxes; `map50` and
    `map50_95` are its means over the classes that have some, 0 if none has. `precision` and `recall` are such means at
    IoU .50 and at `confidence`, where the mean F1 is best. `boxes` [nc] counts the true boxes.
    """

    precision: float
    recall: float
    map50: float
    map50_95: float
    confidence: float
    ap: Floats
    boxes: Integers


def score(
    detections: Sequence[NDArray[np.floating]],
    truths: Sequence[NDArray[np.floating]],
    nc: int,
    max_det: int = 300,
) -> Scores:
    """Score the detections [n, 6] (xyxy, confidence, class) of each picture by its true boxes [m, 5] (class, xyxy).

    Of each picture and class the `max_det` most confident count. Equal confidences keep the order they come in. Classes
    are whole numbers in 0..nc - 1, everything is finite.
    """
    if len(detections) != len(truths):
        raise ValueError(f"{len(detections)} pictures have detections, but {len(truths)} have true boxes")
    found = _sort_detections(detections, nc, max_det)
    true = _sort_truths(truths, nc)
    correct = _match(found, true)
    boxes = np.bincount(true.classes, minlength=nc)

    ap = np.full((nc, len(IOU_THRESHOLDS)), np.nan)
    by_confidence = np.argsort(-found.confidences, kind="stable")
    for label in np.flatnonzero(boxes):
        own = by_confidence[found.classes[by_confidence] == label]
        ap[label] = average_precision(correct[own], int(boxes[label]))
    precision, recall, confidence = _at_best_f1(found, correct[:, 0], boxes)
    seen = boxes > 0
    return Scores(
        precision=precision,
        recall=recall,
        map50=float(ap[seen, 0].mean()) if seen.any() else 0.0,
        map50_95=float(ap[seen].mean()) if seen.any() else 0.0,
        confidence=confidence,
        ap=ap,
        boxes=boxes,
    )


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of all pictures, sorted by group = picture * nc + class, and within it by falling confidence."""

    groups: Integers
    classes: Integers
    xyxy: Floats
    confidences: Floats


def _sort_detections(detections: Sequence[NDArray[np.floating]], nc: int, max_det: int) -> _Boxes:
    """All detections in order, at most `max_det` a group."""
    pictures = _picture_of_each(detections)
    rows = _stack(detections, 6)
    classes = rows[:, 5].astype(np.int64)
    groups = pictures * nc + classes
    order = np.lexsort((-rows[:, 4], groups))
    order = order[_rank_within(groups[order]) < max_det]
    return _Boxes(groups[order], classes[order], rows[order, :4], rows[order, 4])


def _sort_truths(truths: Sequence[NDArray[np.floating]], nc: int) -> _Boxes:
    pictures = _picture_of_each(truths)
    rows = _stack(truths, 5)
    classes = rows[:, 0].astype(np.int64)
    groups = pictures * nc + classes
    order = np.argsort(groups, kind="stable")
    return _Boxes(groups[order], classes[order], rows[order, 1:], np.ones(len(rows)))


def _picture_of_each(arrays: Sequence[NDArray[np.floating]]) -> Integers:
    return np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])


def _stack(arrays: Sequence[NDArray[np.floating]], width: int) -> Floats:
    return np.concatenate([np.zeros((0, width)), *(np.reshape(array, (-1, width)) for array in arrays)])


def _rank_within(groups: Integers) -> Integers:
    """Position of each element within its run of equal values: [3, 3, 3, 5, 5] -> [0, 1, 2, 0, 1]."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _match(found: _Boxes, true: _Boxes) -> Booleans:
    """Which detection is correct at which IoU threshold, [N, 10].

    COCO's greedy rule: in the order of confidence each detection takes the free true box of its picture and class with
    the highest IoU of at least the threshold (of equal ones the last). Groups do not touch one another, so the first
    contenders of all groups choose at once, then the second, and so on; a contender is a detection that overlaps any
    true box by the lowest threshold. There are few, mostly.
    """
    correct = np.zeros((len(found.groups), len(IOU_THRESHOLDS)), dtype=bool)
    detection, truth, iou = _contenders(found, true)
    if len(detection) == 0:
        return correct
    contenders, contender = np.unique(detection, return_inverse=True)
    turn = _rank_within(found.groups[contenders])[contender]
    # Within a turn: contender by contender, the best true box last, so that of several writes to one place it wins.
    order = np.lexsort((truth, iou, contender, turn))
    detection, truth, iou, turn = detection[order], truth[order], iou[order], turn[order]
    reaches = iou[:, None] >= IOU_THRESHOLDS
    free = np.ones((len(true.groups), len(IOU_THRESHOLDS)), dtype=bool)
    choice = np.empty((len(found.groups), len(IOU_THRESHOLDS)), dtype=np.int64)
    for pairs in np.split(np.arange(len(turn)), np.flatnonzero(np.diff(turn)) + 1):
        pair, threshold = np.nonzero(reaches[pairs] & free[truth[pairs]])
        pair = pairs[pair]
        choice[detection[pair], threshold] = truth[pair]
        correct[detection[pair], threshold] = True
        free[choice[detection[pair], threshold], threshold] = False
    return correct


def _contenders(found: _Boxes, true: _Boxes) -> tuple[Integers, Integers, Floats]:
    """Pairs of detection and true box of one group whose IoU reaches the lowest threshold: two indices, and the IoU."""
    last_group = max(found.groups.max(initial=-1), true.groups.max(initial=-1))
    counts_of_groups = np.bincount(true.groups, minlength=last_group + 1)
    firsts_of_groups = np.cumsum(counts_of_groups) - counts_of_groups
    counts = counts_of_groups[found.groups]
    detection = np.repeat(np.arange(len(found.groups)), counts)
    place = np.arange(len(detection)) - np.repeat(np.cumsum(counts) - counts, counts)
    truth = np.repeat(firsts_of_groups[found.groups], counts) + place
    iou = _paired_iou(found.xyxy, detection, true.xyxy, truth)
    enough = iou >= IOU_THRESHOLDS[0]
    return detection[enough], truth[enough], iou[enough]


def _paired_iou(first: Floats, first_rows: Integers, second: Floats, second_rows: Integers) -> Floats:
    """IoU of the named row of one with that of the other, [N]; 0 without overlap."""
    sides = []
    for low, high in ((0, 2), (1, 3)):
        starts = np.maximum(first[:, low][first_rows], second[:, low][second_rows])
        ends = np.minimum(first[:, high][first_rows], second[:, high][second_rows])
        sides.append(np.maximum(ends - starts, 0.0))
    intersection: Floats = sides[0] * sides[1]
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (first, second)]
    union = areas[0][first_rows] + areas[1][second_rows] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def average_precision(correct: Booleans, boxes: int) -> Floats:
    """AP of one class at each threshold, [T]. `correct` [n, T] by falling confidence, of `boxes` > 0 true ones.

    The mean over 101 recalls of the best precision at that recall or beyond; a recall that is never reached counts 0.
    """
    found = np.cumsum(correct, axis=0)
    recall = found / boxes
    precision = found / (np.arange(1, len(correct) + 1)[:, None] + np.spacing(1))
    best_from_here = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    padded = np.vstack([best_from_here, np.zeros((1, correct.shape[1]))])
    reached = [np.searchsorted(column, RECALLS, side="left") for column in recall.T]
    return np.array([padded[index, threshold].mean() for threshold, index in enumerate(reached)])


def _at_best_f1(found: _Boxes, correct: Booleans, boxes: Integers) -> tuple[float, float, float]:
    """Mean precision and recall over the classes that have boxes, at the confidence of the best mean F1.

    As YOLOv5 (utils/metrics.py, `ap_per_class`), but tried at the confidences of the correct detections themselves,
    among which the best one is (just below such a confidence only errors are added; of very many 1000 are tried,
    evenly), not on a grid of 1000 steps from 0 to 1, which is blind where an early model's confidences all lie, and so
    without the smoothing that the grid needs. A class that nothing is detected of has precision 0 (YOLOv5: 1).
    """
    confidences = np.unique(found.confidences[correct])
    if len(confidences) == 0:
        return 0.0, 0.0, 0.0
    if len(confidences) > MAX_CONFIDENCES:
        confidences = confidences[np.linspace(0, len(confidences) - 1, MAX_CONFIDENCES).astype(np.int64)]
    labels = np.flatnonzero(boxes)
    precision, recall = np.zeros((2, len(labels), len(confidences)))
    for row, label in enumerate(labels):
        own = found.classes == label
        detected = _count_at_least(confidences, found.confidences[own])
        right = _count_at_least(confidences, found.confidences[own & correct])
        precision[row] = right / np.maximum(detected, 1)
        recall[row] = right / boxes[label]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    best = int(f1.mean(axis=0).argmax())
    return float(precision[:, best].mean()), float(recall[:, best].mean()), float(confidences[best])


def _count_at_least(limits: Floats, values: Floats) -> Integers:
    """How many of the values are at least each limit."""
    return len(values) - np.searchsorted(np.sort(values), limits, side="left")
