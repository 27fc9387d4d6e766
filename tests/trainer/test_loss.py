"""The losses: which cells answer, what a perfect answer costs, and what each gain does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.detection.darknet import Darknet, Head, load_model
from trainer.detection.loss import DetectionLoss
from trainer.detection.matching import Grid, Matcher, Matches, Pairs, grids_of, match, match_batch
from trainer.detection.recipe import Recipe


@pytest.fixture(scope="module")
def model() -> Darknet:
    torch.manual_seed(0)
    return load_model("pico", nc=3)


def square_grid() -> Grid:
    return Grid(stride=8, anchors=np.full((3, 2), 16.0, np.float32))


def matched(boxes: Tensor) -> Pairs:
    return match(boxes.numpy(), [square_grid()], (64, 64), anchor_t=4.0)


def cells_of(found: Pairs) -> set[tuple[int, int]]:
    return {(int(column), int(row)) for column, row in found.place}


def cost(loss: DetectionLoss, outputs: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What these outputs for pictures of 64 px cost."""
    return loss(outputs, matches_of(loss, boxes, len(outputs[0])))


def matches_of(loss: DetectionLoss, boxes: Tensor, pictures: int, length: int | None = None) -> Matches:
    return match_batch(boxes.numpy(), grids_of(loss.heads), pictures, (64, 64), loss.recipe.anchor_t, length)


def target(cx: float, cy: float, w: float, h: float, image: int = 0, cls: int = 0) -> Tensor:
    return torch.tensor([[image, cls, cx, cy, w, h]])


def test_a_box_is_answered_by_its_cell_and_the_two_nearest_neighbours() -> None:
    found = matched(target(26.0, 30.0, 16.0, 16.0))  # cell (3, 3); nearer: left, below
    assert cells_of(found) == {(3, 3), (2, 3), (3, 4)}


def test_neighbours_outside_the_grid_do_not_answer() -> None:
    assert cells_of(matched(target(1.0, 1.0, 16.0, 16.0))) == {(0, 0)}


@pytest.mark.parametrize(("width", "answers"), [(16.0, True), (63.0, True), (65.0, False), (4.1, True), (3.9, False)])
def test_an_anchor_answers_only_within_the_ratio(width: float, answers: bool) -> None:
    assert (len(matched(target(28.0, 28.0, width, 16.0)).image) > 0) == answers


def test_places_count_through_heads_pictures_anchors_rows_and_columns(model: Darknet) -> None:
    boxes = torch.cat([target(26.0, 30.0, 16.0, 16.0), target(50.0, 10.0, 16.0, 16.0, image=1, cls=2)])
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    found = matches_of(loss, boxes, 2)
    first = loss.heads[0].na * 2 * 8 * 8
    assert set(found.heads.tolist()) == {0, 1} and set(found.strides.flatten().tolist()) == {8.0, 16.0}
    for head, side, start in ((0, 8, 0), (1, 4, first)):
        own = found.heads == head
        places = found.places[own].numpy() - start
        image, anchor, row, column = np.unravel_index(places, (2, loss.heads[head].na, side, side))
        assert np.array_equal(np.stack([column, row], 1), found.cells[own].numpy())
        assert torch.equal(loss.heads[head].anchors[anchor], found.anchors[own])
        assert set(found.boxes_cxcywh[own][image == 1, 0].tolist()) == {50.0}
        assert set(found.classes[own][image == 1].tolist()) == {2}


def test_batches_that_are_matched_together_are_matched_as_alone(model: Darknet) -> None:
    boxes = torch.cat([target(20.0 + 3 * i, 30.0, 16.0, 20.0, image=i, cls=i % 3) for i in (0, 0, 1, 3, 4, 4, 5)])
    bounds = (0, 2, 3, 6)
    matcher = Matcher(model.heads, 4.0, torch.device("cpu"), fixed=False)
    together = matcher.match(boxes.numpy(), bounds, (64, 64))
    for found, first, last in zip(together, bounds, bounds[1:], strict=False):
        own = boxes[(boxes[:, 0] >= first) & (boxes[:, 0] < last)]
        own[:, 0] -= first
        alone = match_batch(own.numpy(), grids_of(model.heads), last - first, (64, 64), 4.0)
        assert torch.equal(found.integers, alone.integers) and torch.equal(found.floats, alone.floats)


def test_a_fixed_length_holds_all_batches_but_those_with_far_more_boxes(model: Darknet) -> None:
    few, many = (torch.cat([target(10 + i, 30, 16, 20, cls=i % 3) for i in range(n)]).numpy() for n in (2, 60))
    matcher = Matcher(model.heads, 4.0, torch.device("cpu"), fixed=True)
    (first,), (again,), (large,) = (matcher.match(boxes, (0, 1), (64, 64)) for boxes in (few, few[:1], many))
    assert len(first) == len(again) == Matcher.STEP
    assert len(large) > Matcher.STEP and bool((large.weights == 1).all())


def test_matches_that_only_fill_up_cost_nothing(model: Darknet) -> None:
    outputs = [raw.detach().requires_grad_() for raw in model.train()(torch.rand(2, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    expected, _ = loss(outputs, matches_of(loss, boxes, 2))
    filled, _ = loss(outputs, matches_of(loss, boxes, 2, length=500))
    torch.testing.assert_close(filled, expected)
    for mine, theirs in zip(torch.autograd.grad(filled, outputs), torch.autograd.grad(expected, outputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_parts_of_a_batch_cost_together_what_the_whole_costs(model: Darknet) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(4, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20, image=i, cls=i % 3) for i in (0, 1, 1, 3)])
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    whole = matches_of(loss, boxes, 4)
    terms = torch.zeros(3)
    for first in (0, 2):
        own = boxes[(boxes[:, 0] >= first) & (boxes[:, 0] < first + 2)] - torch.tensor([first, 0, 0, 0, 0, 0])
        part = [raw[first : first + 2] for raw in outputs]
        terms += loss.share(part, matches_of(loss, own, 2), loss.count(whole), 0.5)[1]
    torch.testing.assert_close(terms, loss(outputs, whole)[1])


def test_heads_may_decode_in_different_ways() -> None:
    """What is computed for all heads at once equals the heads one by one."""
    torch.manual_seed(0)
    heads = [
        Head(8, torch.tensor([[16.0, 16.0], [24.0, 12.0]]), 3, scale_x_y=1.2, new_coords=False),
        Head(16, torch.tensor([[20.0, 28.0]]), 3, scale_x_y=2.0, new_coords=True),
    ]
    outputs = [torch.randn(2, head.na, 64 // head.stride, 64 // head.stride, 8) for head in heads]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    both = DetectionLoss(Recipe(), heads, 3, 640)
    alone = [DetectionLoss(Recipe(), [head], 3, 640) for head in heads]
    _, terms = cost(both, outputs, boxes)
    box, _, cls = torch.stack([cost(loss, [raw], boxes)[1] for loss, raw in zip(alone, outputs, strict=True)]).sum(0)
    torch.testing.assert_close(terms[[0, 2]] * 2, torch.stack([box, cls]))  # the gains are x 3 / heads


def test_small_pictures_weigh_objectness_by_the_square_of_their_side_and_nothing_else(model: Darknet) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(2, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    (_, large), (_, small) = (cost(DetectionLoss(Recipe(), model.heads, 3, s), outputs, boxes) for s in (640, 160))
    torch.testing.assert_close(small, large * torch.tensor([1.0, 1 / 16, 1.0]))


def test_no_box_costs_only_objectness(model: Darknet) -> None:
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    outputs = model.train()(torch.rand(2, 3, 64, 64))
    total, terms = cost(loss, outputs, torch.zeros(0, 6))
    assert terms[0] == 0 and terms[2] == 0 and terms[1] > 0
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("name", "term"), [("box", 0), ("obj", 1), ("cls", 2)])
def test_a_gain_scales_its_term_alone(model: Darknet, name: str, term: int) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(2, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    recipe = Recipe()
    _, before = cost(DetectionLoss(recipe, model.heads, 3, 640), outputs, boxes)
    _, after = cost(
        DetectionLoss(replace(recipe, **{name: 2 * getattr(recipe, name)}), model.heads, 3, 640), outputs, boxes
    )
    expected = before.clone()
    expected[term] *= 2
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cls_pw", 2.0), ("obj_pw", 2.0), ("fl_gamma", 1.5), ("label_smoothing", 0.1), ("anchor_t", 1.2)],
)
def test_every_loss_hyp_has_an_effect(model: Darknet, name: str, value: float) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(2, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    _, before = cost(DetectionLoss(Recipe(), model.heads, 3, 640), outputs, boxes)
    _, after = cost(DetectionLoss(replace(Recipe(), **{name: value}), model.heads, 3, 640), outputs, boxes)
    assert not torch.allclose(before, after)


def test_one_class_has_no_class_loss() -> None:
    model = load_model("pico", nc=1)
    outputs = model.train()(torch.rand(1, 3, 64, 64))
    _, terms = cost(DetectionLoss(Recipe(), model.heads, 1, 640), outputs, target(30, 30, 20, 20))
    assert terms[2] == 0


@pytest.mark.parametrize("repeats", [1, 2, 3, 4])
def test_any_number_of_heads_can_be_weighed(model: Darknet, repeats: int) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(1, 3, 64, 64))]
    total, _ = cost(DetectionLoss(Recipe(), model.heads * repeats, 3, 640), outputs * repeats, target(30, 30, 20, 20))
    assert torch.isfinite(total)


def test_the_loss_is_a_mean_so_a_batch_twice_over_costs_the_same(model: Darknet) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(1, 3, 64, 64))]
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    once = target(30, 30, 20, 20)
    _, single = cost(loss, outputs, once)
    _, double = cost(
        loss, [torch.cat([raw, raw]) for raw in outputs], torch.cat([once, target(30, 30, 20, 20, image=1)])
    )
    torch.testing.assert_close(single, double)


def test_training_on_one_picture_drives_the_loss_down() -> None:
    torch.manual_seed(0)
    model = load_model("pico", nc=3).train()
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    images, boxes = torch.rand(2, 3, 64, 64), torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, 1, 2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    costs = []
    for _ in range(30):
        total, _ = cost(loss, model(images), boxes)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        costs.append(float(total.detach()))
    assert costs[-1] < 0.5 * costs[0]
