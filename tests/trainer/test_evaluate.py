"""AP against pycocotools on random scenes, precision and recall against what they mean, and the speed of it."""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.detection.evaluate import IOU_THRESHOLDS, score

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


def random_scene(
    rng: np.random.Generator, nc: int, pictures: int, most_truths: int, most_detections: int, grid: bool, levels: int
) -> tuple[Arrays, Arrays]:
    """True boxes, and detections that are half near one of them, half anywhere.

    `grid`: whole coordinates, so that IoUs tie and hit thresholds; `levels`: so many different confidences.
    """
    truths: Arrays = []
    detections: Arrays = []
    for _ in range(pictures):
        m, n = rng.integers(0, most_truths + 1), rng.integers(0, most_detections + 1)
        low = rng.uniform(0, 40, (m, 2))
        truth = np.hstack([rng.integers(0, max(1, nc - 1), (m, 1)), low, low + rng.uniform(1, 30, (m, 2))])
        anywhere = rng.uniform(0, 40, (n, 2))
        boxes = np.hstack([anywhere, anywhere + rng.uniform(1, 30, (n, 2))])
        labels = rng.integers(0, nc, n)
        if m:
            near = rng.random(n) < 0.5
            source = rng.integers(0, m, n)
            boxes[near] = truth[source[near], 1:] + rng.normal(0, 1.5, (int(near.sum()), 4))
            labels[near] = truth[source[near], 0]
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        if grid:
            boxes, truth[:, 1:] = boxes.round(), truth[:, 1:].round()
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        confidences = rng.integers(1, levels + 1, n) / levels
        detections.append(np.hstack([boxes, confidences[:, None], labels[:, None]]))
        truths.append(truth)
    return detections, truths


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    nc=st.integers(1, 5),
    pictures=st.integers(1, 6),
    most_truths=st.sampled_from([0, 1, 5, 25]),
    most_detections=st.sampled_from([0, 1, 10, 130]),
    max_det=st.sampled_from([1, 5, 100, 300]),
    grid=st.booleans(),
    levels=st.sampled_from([1, 3, 20, 10**9]),
)
def test_ap_equals_pycocotools(
    seed: int,
    nc: int,
    pictures: int,
    most_truths: int,
    most_detections: int,
    max_det: int,
    grid: bool,
    levels: int,
) -> None:
    detections, truths = random_scene(
        np.random.default_rng(seed), nc, pictures, most_truths, most_detections, grid, levels
    )
    scores = score(detections, truths, nc, max_det)
    expected = coco_ap(detections, truths, nc, max_det)
    np.testing.assert_allclose(scores.ap, expected, rtol=0, atol=1e-6)
    if np.isfinite(expected).any():
        assert scores.map50 == pytest.approx(np.nanmean(expected[:, 0]), abs=1e-6)
        assert scores.map50_95 == pytest.approx(np.nanmean(expected), abs=1e-6)
