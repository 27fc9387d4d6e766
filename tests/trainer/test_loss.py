"""The losses: which cells answer, what a perfect answer costs, and what each gain does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.detection.darknet import Darknet, load_model
from trainer.detection.loss import DetectionLoss
from trainer.detection.matching import Grid, Matches, grids_of, match, match_all
from trainer.detection.recipe import Recipe


@pytest.fixture(scope="module")
def model() -> Darknet:
    torch.manual_seed(0)
    return load_model("pico", nc=3)


def square_grid() -> Grid:
    return Grid(stride=8, anchors=torch.full((3, 2), 16.0))


def cells_of(found: Matches) -> set[tuple[int, int]]:
    return {(int(column), int(row)) for column, row in found.cells}


def cost(loss: DetectionLoss, outputs: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What these outputs for pictures of 64 px cost."""
    return loss(outputs, match_all(boxes, grids_of(loss.heads), (len(outputs[0]), 3, 64, 64), loss.recipe.anchor_t))


def target(cx: float, cy: float, w: float, h: float, image: int = 0, cls: int = 0) -> Tensor:
    return torch.tensor([[image, cls, cx, cy, w, h]])


def test_a_box_is_answered_by_its_cell_and_the_two_nearest_neighbours() -> None:
    found = match(
        target(26.0, 30.0, 16.0, 16.0), square_grid(), (1, 8, 8), anchor_t=4.0
    )  # cell (3, 3); near: left, below
    assert cells_of(found) == {(3, 3), (2, 3), (3, 4)}


def test_neighbours_outside_the_grid_do_not_answer() -> None:
    assert cells_of(match(target(1.0, 1.0, 16.0, 16.0), square_grid(), (1, 8, 8), anchor_t=4.0)) == {(0, 0)}


@pytest.mark.parametrize(("width", "answers"), [(16.0, True), (63.0, True), (65.0, False), (4.1, True), (3.9, False)])
def test_an_anchor_answers_only_within_the_ratio(width: float, answers: bool) -> None:
    found = match(target(28.0, 28.0, width, 16.0), square_grid(), (1, 8, 8), anchor_t=4.0)
    assert (len(found.places) > 0) == answers


def test_places_count_through_pictures_anchors_rows_and_columns() -> None:
    boxes = torch.cat([target(26.0, 30.0, 16.0, 16.0), target(50.0, 10.0, 16.0, 16.0, image=1)])
    found = match(boxes, square_grid(), (2, 8, 8), anchor_t=4.0)
    image, anchor, row, column = np.unravel_index(found.places.numpy(), (2, 3, 8, 8))
    assert np.array_equal(np.stack([column, row], 1), found.cells.numpy())
    assert set(zip(image.tolist(), anchor.tolist(), strict=True)) == {(i, a) for i in (0, 1) for a in (0, 1, 2)}
    assert set(found.boxes_cxcywh[image == 1, 0].tolist()) == {50.0}


def test_matches_that_only_fill_up_cost_nothing(model: Darknet) -> None:
    outputs = [raw.detach().requires_grad_() for raw in model.train()(torch.rand(2, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    found = match_all(boxes, grids_of(model.heads), (2, 3, 64, 64), 4.0)
    expected, _ = loss(outputs, found)
    filled, _ = loss(outputs, [part.padded(len(part.places) + 7) for part in found])
    torch.testing.assert_close(filled, expected)
    for mine, theirs in zip(torch.autograd.grad(filled, outputs), torch.autograd.grad(expected, outputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_parts_of_a_batch_cost_together_what_the_whole_costs(model: Darknet) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(4, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20, image=i, cls=i % 3) for i in (0, 1, 1, 3)])
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    grids = grids_of(model.heads)
    whole = match_all(boxes, grids, (4, 3, 64, 64), 4.0)
    counts = torch.stack([found.weights.sum() for found in whole])
    terms = torch.zeros(3)
    for first in (0, 2):
        own = boxes[(boxes[:, 0] >= first) & (boxes[:, 0] < first + 2)] - torch.tensor([first, 0, 0, 0, 0, 0])
        part = [raw[first : first + 2] for raw in outputs]
        terms += loss.share(part, match_all(own, grids, (2, 3, 64, 64), 4.0), counts, 0.5)[1]
    torch.testing.assert_close(terms, loss(outputs, whole)[1])


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
