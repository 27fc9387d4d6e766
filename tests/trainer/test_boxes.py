"""Overlaps against their definitions, and suppression against a plain loop."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from trainer.detection.boxes import (
    ciou,
    cxcywh_to_xyxy,
    iou,
    keep_by_lists,
    keep_by_pairs,
    non_max_suppression,
    xyxy_to_cxcywh,
)


def random_boxes(seed: int, n: int, low: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = low + 50 * torch.rand(n, 2, generator=generator)
    return torch.cat([corner, corner + 1 + 40 * torch.rand(n, 2, generator=generator)], dim=1)


# forms and overlaps -------------------------------------------------------------------------------------------------


def test_the_two_forms_of_a_box() -> None:
    assert cxcywh_to_xyxy(torch.tensor([[10.0, 20.0, 4.0, 6.0]])).tolist() == [[8, 17, 12, 23]]
    assert xyxy_to_cxcywh(torch.tensor([[8.0, 17.0, 12.0, 23.0]])).tolist() == [[10, 20, 4, 6]]


@given(seed=st.integers(0, 2**32 - 1))
def test_there_and_back_is_the_same_box(seed: int) -> None:
    boxes = random_boxes(seed, 7)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 4, 4], 1.0),
        ([0, 0, 4, 2], 0.5),
        ([2, 2, 6, 6], 4 / 28),
        ([4, 0, 8, 4], 0.0),
        ([9, 9, 10, 10], 0.0),
        ([1, 1, 1, 3], 0.0),
    ],
)
def test_iou_of_a_square_with_another(other: list[float], expected: float) -> None:
    square = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert iou(square, torch.tensor([other], dtype=torch.float32)).item() == pytest.approx(expected)


def test_iou_is_pairwise_and_takes_empty_sides() -> None:
    first, second = random_boxes(0, 3), random_boxes(1, 5)
    table = iou(first, second)
    assert table.shape == (3, 5)
    torch.testing.assert_close(table, iou(second, first).T)
    assert iou(first[:0], second).shape == (0, 5)
    assert iou(first, second[:0]).shape == (3, 0)


def test_boxes_without_area_do_not_overlap_even_themselves() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert iou(point, point).item() == 0


@given(seed=st.integers(0, 2**32 - 1))
def test_ciou_equals_torchvision(seed: int) -> None:
    first, second = random_boxes(seed, 9), random_boxes(seed + 1, 9)
    torch.testing.assert_close(ciou(first, second), 1 - complete_box_iou_loss(first, second), rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1))
def test_ciou_is_at_most_iou_and_1_for_the_same_box(seed: int) -> None:
    first, second = random_boxes(seed, 9), random_boxes(seed + 1, 9)
    assert (ciou(first, second) <= iou(first, second).diagonal() + 1e-6).all()
    torch.testing.assert_close(ciou(first, first), torch.ones(9))


def test_ciou_by_hand() -> None:
    first, second = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    expected = 0.5 - 1 / 32 - v / (1 - 0.5 + v) * v
    assert ciou(first, second).item() == pytest.approx(expected, abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_gradient_of_ciou_equals_torchvision_where_alpha_takes_none(seed: int) -> None:
    ours = random_boxes(seed, 9).double().requires_grad_(True)
    theirs = ours.detach().clone().requires_grad_(True)
    other = random_boxes(seed + 1, 9).double()
    ciou(ours, other).sum().backward()
    (-complete_box_iou_loss(theirs, other)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("other", [[3, 3, 3, 3], [0, 0, 4, 4], [3, 3, 9, 3], [90, 90, 91, 91]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_of_ciou_are_finite_for_boxes_without_area(other: list[float], dtype: torch.dtype) -> None:
    first = torch.tensor([[3.0, 3.0, 3.0, 3.0]], dtype=dtype, requires_grad=True)
    value = ciou(first, torch.tensor([other], dtype=dtype))
    value.sum().backward()
    assert value.isfinite().all()
    assert value.dtype == torch.float32
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_climbing_ciou_finds_the_box() -> None:
    box = torch.tensor([[0.0, 0.0, 5.0, 5.0]], requires_grad=True)
    goal = torch.tensor([[30.0, 10.0, 60.0, 25.0]])
    optimizer = torch.optim.Adam([box], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        (1 - ciou(box, goal)).sum().backward()
        optimizer.step()
    assert iou(box, goal).item() > 0.9


# suppression --------------------------------------------------------------------------------------------------------


def plain_suppression(prediction: Tensor, conf: float, limit: float, max_det: int) -> list[list[float]]:
    """One picture [A, 5 + nc], the slow and obvious way."""
    nc = prediction.shape[1] - 5
    boxes = cxcywh_to_xyxy(prediction[:, :4])
    candidates = []
    for row in range(len(prediction)):
        for label in range(nc):
            confidence = prediction[row, 4] if nc == 1 else prediction[row, 4] * prediction[row, 5 + label]
            if confidence > conf:
                candidates.append((confidence.item(), row, label))
    candidates.sort(key=lambda candidate: -candidate[0])
    kept: list[tuple[float, int, int]] = []
    for candidate in candidates:
        rivals = [boxes[row] for _, row, label in kept if label == candidate[2]]
        if not rivals or iou(boxes[candidate[1]][None], torch.stack(rivals)).max() <= limit:
            kept.append(candidate)
    return [[*boxes[row].tolist(), confidence, float(label)] for confidence, row, label in kept[:max_det]]


def random_predictions(seed: int, pictures: int, n: int, nc: int, low: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    boxes = xyxy_to_cxcywh(random_boxes(seed, pictures * n, low)).view(pictures, n, 4)
    return torch.cat([boxes, torch.rand(pictures, n, 1 + nc, generator=generator)], dim=2)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    nc=st.integers(1, 4),
    conf=st.sampled_from([0.001, 0.3]),
    limit=st.sampled_from([0.2, 0.6]),
    max_det=st.sampled_from([2, 5, 300]),
    low=st.sampled_from([0.0, -40.0]),
)
def test_suppression_equals_the_plain_loop(
    seed: int, nc: int, conf: float, limit: float, max_det: int, low: float
) -> None:
    predictions = random_predictions(seed, pictures=2, n=25, nc=nc, low=low).double()  # no overlap is near the limit
    found = non_max_suppression(predictions, conf, limit, max_det)
    for picture, detections in enumerate(found):
        expected = plain_suppression(predictions[picture], conf, limit, max_det)
        rows = torch.tensor(expected, dtype=torch.float64).view(-1, 6)
        torch.testing.assert_close(detections, rows, rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([0, 1, 40, 150]),
    limit=st.sampled_from([0.2, 0.6]),
    max_det=st.sampled_from([3, 300]),
)
def test_all_pairs_at_once_keep_what_the_lists_keep(seed: int, n: int, limit: float, max_det: int) -> None:
    """The way of the GPU, run here on the CPU; the lists leave out only what comes behind max_det."""
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(seed, 3 * n, low=-20.0).view(3, n, 4).double()  # no overlap is near the limit
    labels = torch.randint(0, 3, (3, n), generator=generator)
    confidences = torch.rand(3, n, generator=generator).double().sort(dim=1, descending=True).values
    usable = confidences > 0.1
    by_pairs = keep_by_pairs(boxes, labels, usable, limit)
    by_lists = keep_by_lists(boxes, confidences, labels, usable, limit, max_det)
    within = by_pairs.cumsum(1) <= max_det
    assert (by_pairs & within).equal(by_lists & within)


def test_one_class_means_its_probability_is_not_asked() -> None:
    prediction = torch.tensor([[[5.0, 5.0, 2.0, 2.0, 0.8, 0.1]]])
    (found,) = non_max_suppression(prediction)
    assert found.tolist() == [pytest.approx([4, 4, 6, 6, 0.8, 0])]


def test_a_box_may_answer_for_two_classes() -> None:
    prediction = torch.tensor([[[5.0, 5.0, 2.0, 2.0, 1.0, 0.6, 0.7]]])
    (found,) = non_max_suppression(prediction)
    assert found[:, 4:].tolist() == [pytest.approx([0.7, 1]), pytest.approx([0.6, 0])]


def test_only_the_most_confident_candidates_enter() -> None:
    predictions = random_predictions(0, pictures=1, n=50, nc=3)
    (found,) = non_max_suppression(predictions, iou=1.0, max_candidates=20)
    best = (predictions[0, :, 4:5] * predictions[0, :, 5:]).flatten().sort(descending=True).values[:20]
    torch.testing.assert_close(found[:, 4], best)


def test_what_is_not_finite_is_dropped_and_the_rest_stays() -> None:
    good = [5.0, 5.0, 2.0, 2.0, 0.9, 0.9, 0.0]
    prediction = torch.tensor(
        [[good, [math.nan, *good[1:]], [*good[:2], math.inf, *good[3:]], [*good[:4], math.nan, 1, 1]]]
    )
    (found,) = non_max_suppression(prediction, max_candidates=1)
    assert found.tolist() == [pytest.approx([4, 4, 6, 6, 0.81, 0])]


@pytest.mark.parametrize("shape", [(0, 10, 7), (2, 0, 7), (2, 10, 7)])
def test_nothing_found_is_an_empty_table_for_each_picture(shape: tuple[int, int, int]) -> None:
    found = non_max_suppression(torch.zeros(shape))
    assert [detections.shape for detections in found] == [(0, 6)] * shape[0]


def test_an_untrained_model_is_suppressed_quickly() -> None:
    # Everything passes: 128 pictures of 500 boxes and 10 classes. 0.16 s on one thread of a slow machine; a limit of
    # twenty times that only trips when the cost is another one altogether.
    predictions = random_predictions(0, pictures=128, n=500, nc=10)
    start = time.process_time()
    found = non_max_suppression(predictions)
    assert time.process_time() - start < 3
    assert [len(detections) for detections in found] == [300] * 128
