"""AP against pycocotools on random scenes; precision, recall, curves and confusions against what they mean; speed."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.detection.evaluate import RECALLS, count_confusions, score, trace_curves

Arrays = list[NDArray[np.float64]]


def coco_ap(detections: Arrays, truths: Arrays, nc: int, max_det: int) -> NDArray[np.float64]:
    """AP [nc, 10] by pycocotools, NaN for classes without boxes."""
    annotations = [
        {
            "id": 0,
            "image_id": picture,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for picture, boxes in enumerate(truths)
        for label, x1, y1, x2, y2 in boxes
    ]
    results = [
        {
            "image_id": picture,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": confidence,
        }
        for picture, boxes in enumerate(detections)
        for x1, y1, x2, y2, confidence, label in boxes
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": picture} for picture in range(len(truths))],
            "categories": [{"id": label} for label in range(nc)],
            "annotations": [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)],
        }
        truth.createIndex()
        found = truth.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [max_det]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # [threshold, recall, class]
    ap = precision.mean(axis=1).T
    return np.where(ap < 0, np.nan, ap)


@dataclass(frozen=True)
class World:
    """What random scenes are like. `crowded`: boxes are much alike, so that many detections contend for many boxes.

    `whole`: coordinates are whole numbers, so that overlaps tie and hit thresholds exactly. `levels`: so many different
    confidences. The last class never has true boxes, unless it is the only one.
    """

    seed: int
    nc: int
    pictures: int
    most_truths: int
    most_detections: int
    crowded: bool
    whole: bool
    levels: int

    def scenes(self) -> tuple[Arrays, Arrays]:
        """Detections, half of them near a true box of their class, and true boxes."""
        rng = np.random.default_rng(self.seed)
        detections: Arrays = []
        truths: Arrays = []
        for _ in range(self.pictures):
            m, n = rng.integers(0, self.most_truths + 1), rng.integers(0, self.most_detections + 1)
            truth = np.hstack([rng.integers(0, max(1, self.nc - 1), (m, 1)), self._boxes(rng, m)])
            boxes, labels = self._boxes(rng, n), rng.integers(0, self.nc, n)
            if m:
                near, source = rng.random(n) < 0.5, rng.integers(0, m, n)
                boxes[near] = self._tidy(truth[source[near], 1:] + rng.normal(0, 1.5, (int(near.sum()), 4)))
                labels[near] = truth[source[near], 0]
            confidences = rng.integers(1, self.levels + 1, n) / self.levels
            detections.append(np.hstack([boxes, confidences[:, None], labels[:, None]]))
            truths.append(truth)
        return detections, truths

    def _boxes(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        low = rng.uniform(0, 5 if self.crowded else 40, (n, 2))
        return self._tidy(np.hstack([low, low + rng.uniform(8 if self.crowded else 1, 15, (n, 2))]))

    def _tidy(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        boxes = boxes.round() if self.whole else boxes
        return np.hstack([boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1)])


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        World,
        seed=st.integers(0, 2**32 - 1),
        nc=st.integers(1, 4),
        pictures=st.integers(1, 5),
        most_truths=st.sampled_from([0, 1, 5, 25]),
        most_detections=st.sampled_from([0, 1, 20, 130]),
        crowded=st.booleans(),
        whole=st.booleans(),
        levels=st.sampled_from([1, 3, 20, 10**9]),
    ),
    st.sampled_from([1, 5, 100, 300]),
)
def test_ap_equals_pycocotools(world: World, max_det: int) -> None:
    detections, truths = world.scenes()
    scores = score(detections, truths, world.nc, max_det)
    expected = coco_ap(detections, truths, world.nc, max_det)
    np.testing.assert_allclose(scores.ap, expected, rtol=0, atol=1e-6)
    if np.isfinite(expected).any():
        assert scores.map50 == pytest.approx(np.nanmean(expected[:, 0]), abs=1e-6)
        assert scores.map50_95 == pytest.approx(np.nanmean(expected), abs=1e-6)


def test_ap_equals_pycocotools_beyond_100_detections_of_a_class() -> None:
    detections, truths = World(0, 1, 4, 30, 400, crowded=False, whole=False, levels=10**9).scenes()
    assert max(map(len, detections)) > 300
    for max_det in (100, 300, 1000):
        expected = coco_ap(detections, truths, 1, max_det)
        np.testing.assert_allclose(score(detections, truths, 1, max_det).ap, expected, rtol=0, atol=1e-6)


# by hand ------------------------------------------------------------------------------------------------------------

SQUARE = [10.0, 10.0, 20.0, 20.0]
ELSEWHERE = [50.0, 50.0, 60.0, 60.0]


def found(*rows: list[float]) -> NDArray[np.float64]:
    """Detections of one picture, each a box, a confidence and a class."""
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def true(*rows: list[float]) -> NDArray[np.float64]:
    """True boxes of one picture, each a class and a box."""
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def test_all_found_and_nothing_else_is_1_throughout() -> None:
    scores = score([found([*SQUARE, 0.3, 1])], [true([1, *SQUARE])], nc=2)
    assert (scores.precision, scores.recall, scores.confidence) == (1.0, 1.0, 0.3)
    assert scores.map50 == pytest.approx(1)
    assert scores.map50_95 == pytest.approx(1)
    assert np.isnan(scores.ap[0]).all()
    assert scores.boxes.tolist() == [0, 1]


def test_a_detection_of_the_wrong_class_or_picture_is_wrong() -> None:
    truths = [true([0, *SQUARE]), true()]
    assert score([found([*SQUARE, 0.9, 1]), found()], truths, nc=2).map50 == 0
    assert score([found(), found([*SQUARE, 0.9, 0])], truths, nc=2).map50 == 0


def test_an_overlap_of_exactly_a_threshold_is_enough() -> None:
    half = [10.0, 10.0, 20.0, 15.0]
    scores = score([found([*half, 0.9, 0])], [true([0, *SQUARE])], nc=1)
    assert scores.ap[0].tolist() == pytest.approx([1, *[0] * 9])


def test_a_second_detection_of_one_box_is_wrong() -> None:
    scores = score([found([*SQUARE, 0.9, 0], [*SQUARE, 0.8, 0])], [true([0, *SQUARE], [0, *ELSEWHERE])], nc=1)
    assert scores.ap[0, 0] == pytest.approx(51 / 101)  # recalls 0, .01 ... .50 are reached, at precision 1
    assert (scores.precision, scores.recall, scores.confidence) == (1.0, 0.5, 0.9)


@pytest.mark.parametrize(
    ("detections", "truths"),
    [
        ([], []),
        ([found()], [true()]),
        ([found([*SQUARE, 0.9, 0])], [true()]),
        ([found()], [true([0, *SQUARE])]),
        ([found([*ELSEWHERE, 0.9, 0])], [true([0, *SQUARE])]),
    ],
)
def test_nothing_right_is_0_throughout(detections: Arrays, truths: Arrays) -> None:
    scores = score(detections, truths, nc=1)
    assert (scores.precision, scores.recall, scores.map50, scores.map50_95) == (0.0, 0.0, 0.0, 0.0)


def test_precision_and_recall_are_taken_where_the_mean_f1_is_best() -> None:
    # At 0.8: classes (1, 1/2) and (0, 0). At 0.5: (2/3, 1) and (1, 1). At 0.2 one more error each.
    detections = [
        found(
            [*SQUARE, 0.8, 0],
            [30, 30, 40, 40, 0.7, 0],
            [*ELSEWHERE, 0.6, 0],
            [*SQUARE, 0.5, 1],
            [30, 30, 40, 40, 0.2, 0],
            [30, 30, 40, 40, 0.2, 1],
        )
    ]
    truths = [true([0, *SQUARE], [0, *ELSEWHERE], [1, *SQUARE])]
    scores = score(detections, truths, nc=3)
    assert scores.confidence == 0.5
    assert scores.precision == pytest.approx((2 / 3 + 1) / 2)
    assert scores.recall == 1


def test_a_class_that_is_never_detected_has_precision_0() -> None:
    scores = score([found([*SQUARE, 0.9, 0])], [true([0, *SQUARE], [1, *ELSEWHERE])], nc=2)
    assert (scores.precision, scores.recall) == (0.5, 0.5)


def test_confidences_of_an_early_model_are_told_apart() -> None:
    # All below 0.001, where a grid from 0 to 1 in steps of 0.001 sees one confidence only.
    detections = [found([*SQUARE, 0.0009, 0], *([*ELSEWHERE, 0.0005 + step * 1e-5, 0] for step in range(9)))]
    scores = score(detections, [true([0, *SQUARE])], nc=1)
    assert (scores.precision, scores.recall) == (1.0, 1.0)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), whole=st.booleans())
def test_no_confidence_has_a_better_mean_f1(seed: int, whole: bool) -> None:
    detections, truths = World(seed, 3, 3, 6, 20, crowded=False, whole=whole, levels=10).scenes()
    scores = score(detections, truths, nc=3)
    f1 = mean_f1(detections, truths, scores.confidence)
    for confidence in np.linspace(0, 1.1, 23):
        assert mean_f1(detections, truths, float(confidence)) <= f1 + 1e-12


def mean_f1(detections: Arrays, truths: Arrays, confidence: float, nc: int = 3) -> float:
    """Mean F1 at IoU .50 over the classes with boxes, of what is at least as confident: from the counts alone.

    Dropping the less confident does not change how the others match, so that the recall is that of a score of its own.
    """
    kept = [rows[rows[:, 4] >= confidence] for rows in detections]
    values = []
    for label in range(nc):
        boxes = sum(int((rows[:, 0] == label).sum()) for rows in truths)
        if boxes:
            own = [rows[rows[:, 5] == label] for rows in kept]
            right = sum(greedy_matches(a, b[b[:, 0] == label]) for a, b in zip(own, truths, strict=True))
            values.append(2 * right / (sum(map(len, own)) + boxes))
    return float(np.mean(values)) if values else 0.0


def greedy_matches(detections: NDArray[np.float64], truths: NDArray[np.float64]) -> int:
    """How many detections of one picture and class are right at IoU .50, by COCO's rule, one by one."""
    free = list(range(len(truths)))
    for row in detections[np.argsort(-detections[:, 4], kind="stable")]:
        overlaps = [(overlap(row[:4], truths[index, 1:]), index) for index in free]
        if overlaps and max(overlaps)[0] >= 0.5:
            free.remove(max(overlaps)[1])
    return len(truths) - len(free)


def overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    width, height = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return float(width * height / (areas[0] + areas[1] - width * height))


def test_what_is_said_of_a_class_is_what_the_whole_is_the_mean_of() -> None:
    detections, truths = World(3, 4, 6, 8, 40, crowded=False, whole=False, levels=10**9).scenes()
    scores = score(detections, truths, nc=4)
    assert scores.boxes[3] == 0
    assert np.isnan([scores.class_precision[3], scores.class_recall[3], scores.class_f1[3]]).all()
    assert scores.precision == pytest.approx(np.nanmean(scores.class_precision))
    assert scores.recall == pytest.approx(np.nanmean(scores.class_recall))
    assert scores.f1 == pytest.approx(mean_f1(detections, truths, scores.confidence, nc=4))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), whole=st.booleans())
def test_curves_pass_through_the_scores(seed: int, whole: bool) -> None:
    detections, truths = World(seed, 3, 3, 6, 20, crowded=False, whole=whole, levels=10).scenes()
    scores, curves = score(detections, truths, nc=3), trace_curves(detections, truths, nc=3)
    np.testing.assert_allclose(curves.precision_at_recall.mean(axis=1), scores.ap[:, 0])
    at = int(np.abs(curves.confidences - scores.confidence).argmin())
    np.testing.assert_allclose(curves.recall[:, at], scores.class_recall)
    np.testing.assert_allclose(curves.f1[:, at], scores.class_f1)
    np.testing.assert_allclose(np.nan_to_num(curves.precision[:, at]), np.nan_to_num(scores.class_precision))
    if (scores.boxes > 0).any():
        for confidence, f1 in zip(curves.confidences[::125], np.nanmean(curves.f1[:, ::125], axis=0), strict=True):
            assert f1 == pytest.approx(mean_f1(detections, truths, float(confidence)))


def test_curves_by_hand() -> None:
    detections = [found([*SQUARE, 0.9, 0], [30, 30, 40, 40, 0.5, 0])]
    curves = trace_curves(detections, [true([0, *SQUARE], [0, *ELSEWHERE])], nc=2)
    assert curves.precision_at_recall[0].tolist() == pytest.approx([1.0] * 51 + [0.0] * 50)
    assert curves.recalls.tolist() == RECALLS.tolist()
    assert curves.precision[0, [0, 500, 501, 900]].tolist() == [0.5, 0.5, 1, 1]
    assert np.isnan(curves.precision[0, 901:]).all()
    assert curves.recall[0, [0, 900, 901]].tolist() == [0.5, 0.5, 0]
    assert curves.f1[0, [0, 900, 901]].tolist() == pytest.approx([0.5, 2 / 3, 0])
    assert np.isnan(curves.f1[1]).all()


# confusions ---------------------------------------------------------------------------------------------------------


def test_each_cell_of_the_confusion_matrix() -> None:
    detections = [
        found(
            [*SQUARE, 0.9, 0],  # right
            [11, 11, 21, 21, 0.95, 1],  # overlaps the same box less: false
            [*ELSEWHERE, 0.8, 1],  # taken for another class
            [80, 80, 90, 90, 0.25, 0],  # not confident enough
        ),
        found([*SQUARE, 0.7, 1]),  # false, in a picture without a box
    ]
    truths = [true([0, *SQUARE], [0, *ELSEWHERE], [1, 80, 80, 90, 90]), true()]
    matrix = count_confusions(detections, truths, nc=2)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1], [0, 2, 0]]


@pytest.mark.parametrize(("overlap", "matches"), [(4.4, 0), (4.6, 1)])
def test_more_than_an_iou_of_45_is_a_match(overlap: float, matches: int) -> None:
    part = [10.0, 10.0, 20.0, 10.0 + overlap]  # IoU = overlap / 10
    matrix = count_confusions([found([*part, 0.9, 0])], [true([0, *SQUARE])], nc=1)
    assert matrix.tolist() == [[matches, 1 - matches], [1 - matches, 0]]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), crowded=st.booleans())
def test_confusions_equal_the_plain_loop(seed: int, crowded: bool) -> None:
    detections, truths = World(seed, 3, 4, 8, 25, crowded=crowded, whole=False, levels=10**9).scenes()
    expected = sum(plain_confusions(rows, boxes, 3) for rows, boxes in zip(detections, truths, strict=True))
    assert count_confusions(detections, truths, 3).tolist() == np.asarray(expected).tolist()


def plain_confusions(detections: NDArray[np.float64], truths: NDArray[np.float64], nc: int) -> NDArray[np.int64]:
    """One picture, box by box."""
    matrix = np.zeros((nc + 1, nc + 1), dtype=np.int64)
    sure = [row for row in detections if row[4] > 0.25]
    named: dict[int, list[tuple[float, int]]] = {}
    for number, row in enumerate(sure):
        overlaps = [(overlap(row[:4], box[1:]), index) for index, box in enumerate(truths)]
        if overlaps and max(overlaps)[0] > 0.45:
            named.setdefault(max(overlaps)[1], []).append((max(overlaps)[0], number))
    owners = {index: max(numbers)[1] for index, numbers in named.items()}
    for index, box in enumerate(truths):
        matrix[int(box[0]), int(sure[owners[index]][5]) if index in owners else nc] += 1
    for number, row in enumerate(sure):
        if number not in owners.values():
            matrix[nc, int(row[5])] += 1
    return matrix


def test_nothing_found_and_nothing_there_is_an_empty_matrix() -> None:
    assert count_confusions([found()], [true()], nc=2).tolist() == [[0] * 3] * 3
    assert count_confusions([], [], nc=1).tolist() == [[0] * 2] * 2


def test_each_picture_needs_both_lists() -> None:
    with pytest.raises(ValueError, match="2 pictures have detections, but 1 have true boxes"):
        score([found(), found()], [true()], nc=1)


def test_float32_as_it_comes_from_the_model_is_welcome() -> None:
    rows = found([*SQUARE, 0.9, 0]).astype(np.float32)
    assert score([rows], [true([0, *SQUARE]).astype(np.float32)], nc=1).map50_95 == pytest.approx(1)


@pytest.mark.parametrize("crowded", [False, True])
def test_scoring_128_pictures_of_300_detections_is_quick(crowded: bool) -> None:
    # About 0.03 s on one slow core; the limit allows for a machine that does ten other things.
    world = World(0, 10, 128, 10, 300, crowded=crowded, whole=False, levels=10**9)
    detections, truths = world.scenes()
    start = time.process_time()
    score(detections, truths, nc=10)
    assert time.process_time() - start < 1
