"""Detections against true boxes: COCO's average precision, precision and recall, curves, confusion. numpy only.

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
    `map50_95` are its means over the classes that have some, 0 if none has. `precision`, `recall` and `f1` are such
    means at IoU .50 and at `confidence`, where the mean F1 is best; `class_precision` and `class_recall` [nc] are what
    they are the means of. `boxes` [nc] counts the true boxes.
    """

    precision: float
    recall: float
    map50: float
    map50_95: float
    confidence: float
    ap: Floats
    boxes: Integers
    class_precision: Floats
    class_recall: Floats

    @property
    def f1(self) -> float:
        """The mean over the classes that have boxes, 0 if none has."""
        seen = self.boxes > 0
        return float(self.class_f1[seen].mean()) if seen.any() else 0.0

    @property
    def class_f1(self) -> Floats:
        """[nc], NaN for a class without true boxes."""
        return harmonic_mean(self.class_precision, self.class_recall)


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
    found, true, correct = _judge(detections, truths, nc, max_det)
    boxes = np.bincount(true.classes, minlength=nc)

    ap = np.full((nc, len(IOU_THRESHOLDS)), np.nan)
    by_confidence = np.argsort(-found.confidences, kind="stable")
    for label in np.flatnonzero(boxes):
        own = by_confidence[found.classes[by_confidence] == label]
        ap[label] = average_precision(correct[own], int(boxes[label]))
    confidence, precision, recall = _at_best_f1(found, correct[:, 0], boxes)
    seen = boxes > 0
    return Scores(
        precision=float(precision[seen].mean()) if seen.any() else 0.0,
        recall=float(recall[seen].mean()) if seen.any() else 0.0,
        map50=float(ap[seen, 0].mean()) if seen.any() else 0.0,
        map50_95=float(ap[seen].mean()) if seen.any() else 0.0,
        confidence=confidence,
        ap=ap,
        boxes=boxes,
        class_precision=precision,
        class_recall=recall,
    )


@dataclass(frozen=True, eq=False)
class Curves:
    """How precision, recall and F1 at IoU .50 depend on the confidence from which on a detection counts.

    By class, NaN for one without true boxes: `precision_at_recall` [nc, 101] is the best precision at each of `recalls`
    or beyond, 0 where that is never reached, so that its mean is AP50. `precision`, `recall` and `f1` [nc, C] are those
    of the detections of at least each of `confidences` [C]; where there are none the precision is NaN and F1 is 0.
    """

    recalls: Floats
    precision_at_recall: Floats
    confidences: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def trace_curves(
    detections: Sequence[NDArray[np.floating]],
    truths: Sequence[NDArray[np.floating]],
    nc: int,
    max_det: int = 300,
) -> Curves:
    """The curves of what `score` takes."""
    found, true, correct = _judge(detections, truths, nc, max_det)
    boxes = np.bincount(true.classes, minlength=nc)
    confidences = np.arange(MAX_CONFIDENCES + 1) / MAX_CONFIDENCES  # so, 0.3 is 0.3
    at_recall = np.full((nc, len(RECALLS)), np.nan)
    precision, recall, f1 = np.full((3, nc, len(confidences)), np.nan)
    by_confidence = np.argsort(-found.confidences, kind="stable")
    for label in np.flatnonzero(boxes):
        own = by_confidence[found.classes[by_confidence] == label]
        at_recall[label] = _precision_at_recalls(correct[own, :1], int(boxes[label]))[0]
        detected = _count_at_least(confidences, found.confidences[own])
        right = _count_at_least(confidences, found.confidences[own[correct[own, 0]]])
        precision[label] = np.divide(right, detected, out=precision[label], where=detected > 0)
        recall[label] = right / boxes[label]
        f1[label] = 2 * right / (detected + boxes[label])
    return Curves(RECALLS, at_recall, confidences, precision, recall, f1)


def count_confusions(
    detections: Sequence[NDArray[np.floating]],
    truths: Sequence[NDArray[np.floating]],
    nc: int,
    conf: float = 0.25,
    iou: float = 0.45,
) -> Integers:
    """How often which class was taken for which: [nc + 1, nc + 1], rows true, columns predicted, last: background.

    As YOLOv5 v7.0 (utils/metrics.py, ConfusionMatrix): of the detections more confident than `conf` each names the true
    box, of whatever class, that it overlaps most and by more than `iou`; of those that name one box the one with most
    overlap has it. A box that nobody has was missed, a detection that has none is a false one. (YOLOv5 leaves false
    ones out in a picture where nothing matches; here they count.)
    """
    _check_pictures(detections, truths)
    rows, true_rows = _stack(detections, 6), _stack(truths, 5)
    pictures, true_pictures = _picture_of_each(detections), _picture_of_each(truths)
    sure = rows[:, 4] > conf
    rows, pictures = rows[sure], pictures[sure]
    detection, truth, overlap = _overlapping(pictures, rows[:, :4], true_pictures, true_rows[:, 1:])
    enough = np.flatnonzero(overlap > iou)
    best_first = enough[np.argsort(-overlap[enough], kind="stable")]
    best_first = best_first[np.sort(np.unique(detection[best_first], return_index=True)[1])]
    best_first = best_first[np.unique(truth[best_first], return_index=True)[1]]
    predicted = np.full(len(true_rows), nc)
    predicted[truth[best_first]] = rows[detection[best_first], 5]
    false = np.ones(len(rows), dtype=bool)
    false[detection[best_first]] = False
    matrix = np.zeros((nc + 1, nc + 1), dtype=np.int64)
    np.add.at(matrix, (true_rows[:, 0].astype(np.int64), predicted), 1)
    np.add.at(matrix, (nc, rows[false, 5].astype(np.int64)), 1)
    return matrix


def harmonic_mean(precision: Floats, recall: Floats) -> Floats:
    """F1: 0 where both are 0."""
    total = precision + recall
    return np.asarray(
        np.divide(2 * precision * recall, total, out=np.where(np.isnan(total), total, 0.0), where=total > 0)
    )


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of all pictures, sorted by group = picture * nc + class, and within it by falling confidence."""

    groups: Integers
    classes: Integers
    xyxy: Floats
    confidences: Floats


def _judge(
    detections: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.floating]], nc: int, max_det: int
) -> tuple[_Boxes, _Boxes, Booleans]:
    """Detections and true boxes in order, and which detection is correct at which IoU threshold."""
    _check_pictures(detections, truths)
    found = _sort_detections(detections, nc, max_det)
    true = _sort_truths(truths, nc)
    return found, true, _match(found, true)


def _check_pictures(detections: Sequence[object], truths: Sequence[object]) -> None:
    if len(detections) != len(truths):
        raise ValueError(f"{len(detections)} pictures have detections, but {len(truths)} have true boxes")


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
    detection, truth, iou = _overlapping(found.groups, found.xyxy, true.groups, true.xyxy)
    enough = iou >= IOU_THRESHOLDS[0]
    return detection[enough], truth[enough], iou[enough]


def _overlapping(
    groups: Integers, boxes: Floats, true_groups: Integers, true_boxes: Floats
) -> tuple[Integers, Integers, Floats]:
    """All pairs within a group, of a box and of a true one, both ordered by group: two indices, and the IoU."""
    last_group = max(groups.max(initial=-1), true_groups.max(initial=-1))
    counts_of_groups = np.bincount(true_groups, minlength=last_group + 1)
    firsts_of_groups = np.cumsum(counts_of_groups) - counts_of_groups
    counts = counts_of_groups[groups]
    box = np.repeat(np.arange(len(groups)), counts)
    place = np.arange(len(box)) - np.repeat(np.cumsum(counts) - counts, counts)
    truth = np.repeat(firsts_of_groups[groups], counts) + place
    return box, truth, _paired_iou(boxes, box, true_boxes, truth)


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
    means: Floats = _precision_at_recalls(correct, boxes).mean(axis=1)
    return means


def _precision_at_recalls(correct: Booleans, boxes: int) -> Floats:
    """The best precision at each of 101 recalls or beyond, [T, 101]."""
    found = np.cumsum(correct, axis=0)
    recall = found / boxes
    precision = found / (np.arange(1, len(correct) + 1)[:, None] + np.spacing(1))
    best_from_here = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    padded = np.vstack([best_from_here, np.zeros((1, correct.shape[1]))])
    reached = [np.searchsorted(column, RECALLS, side="left") for column in recall.T]
    return np.array([padded[index, threshold] for threshold, index in enumerate(reached)])


def _at_best_f1(found: _Boxes, correct: Booleans, boxes: Integers) -> tuple[float, Floats, Floats]:
    """The confidence of the best mean F1, and at it precision and recall [nc], NaN for a class without boxes.

    As YOLOv5 (utils/metrics.py, `ap_per_class`), but tried at the confidences of the correct detections themselves,
    among which the best one is (just below such a confidence only errors are added; of very many 1000 are tried,
    evenly), not on a grid of 1000 steps from 0 to 1, which is blind where an early model's confidences all lie, and so
    without the smoothing that the grid needs. A class that nothing is detected of has precision 0 (YOLOv5: 1).
    """
    best_precision = np.where(boxes > 0, 0.0, np.nan)
    best_recall = best_precision.copy()
    confidences = np.unique(found.confidences[correct])
    if len(confidences) == 0:
        return 0.0, best_precision, best_recall
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
    best = int(harmonic_mean(precision, recall).mean(axis=0).argmax())
    best_precision[labels], best_recall[labels] = precision[:, best], recall[:, best]
    return float(confidences[best]), best_precision, best_recall


def _count_at_least(limits: Floats, values: Floats) -> Integers:
    """How many of the values are at least each limit."""
    return len(values) - np.searchsorted(np.sort(values), limits, side="left")
