"""The losses: which cells answer, what a perfect answer costs, and what each gain does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trainer.detection.darknet import Darknet, Head, load_model
from trainer.detection.loss import DetectionLoss, match
from trainer.detection.recipe import Recipe


@pytest.fixture(scope="module")
def model() -> Darknet:
    torch.manual_seed(0)
    return load_model("pico", nc=3)


def square_head() -> Head:
    return Head(stride=8, anchors=torch.full((3, 2), 16.0), nc=3, scale_x_y=2.0, new_coords=True)


def target(cx: float, cy: float, w: float, h: float, image: int = 0, cls: int = 0) -> Tensor:
    return torch.tensor([[image, cls, cx, cy, w, h]])


def test_a_box_is_answered_by_its_cell_and_the_two_nearest_neighbours() -> None:
    head = square_head()
    found = match(target(26.0, 30.0, 16.0, 16.0), head, (8, 8), anchor_t=4.0)  # cell (3, 3); nearer: left, below
    cells = {(int(c), int(r)) for c, r in zip(found.column, found.row, strict=True)}
    assert cells == {(3, 3), (2, 3), (3, 4)}


def test_neighbours_outside_the_grid_do_not_answer() -> None:
    head = square_head()
    found = match(target(1.0, 1.0, 16.0, 16.0), head, (8, 8), anchor_t=4.0)
    assert {(int(c), int(r)) for c, r in zip(found.column, found.row, strict=True)} == {(0, 0)}


@pytest.mark.parametrize(("width", "answers"), [(16.0, True), (63.0, True), (65.0, False), (4.1, True), (3.9, False)])
def test_an_anchor_answers_only_within_the_ratio(width: float, answers: bool) -> None:
    head = square_head()
    assert (len(match(target(28.0, 28.0, width, 16.0), head, (8, 8), anchor_t=4.0).image) > 0) == answers


def test_no_box_costs_only_objectness(model: Darknet) -> None:
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    outputs = model.train()(torch.rand(2, 3, 64, 64))
    total, terms = loss(outputs, torch.zeros(0, 6))
    assert terms[0] == 0 and terms[2] == 0 and terms[1] > 0
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("name", "term"), [("box", 0), ("obj", 1), ("cls", 2)])
def test_a_gain_scales_its_term_alone(model: Darknet, name: str, term: int) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(2, 3, 64, 64))]
    boxes = torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, image=1, cls=2)])
    recipe = Recipe()
    _, before = DetectionLoss(recipe, model.heads, 3, 640)(outputs, boxes)
    _, after = DetectionLoss(replace(recipe, **{name: 2 * getattr(recipe, name)}), model.heads, 3, 640)(outputs, boxes)
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
    _, before = DetectionLoss(Recipe(), model.heads, 3, 640)(outputs, boxes)
    _, after = DetectionLoss(replace(Recipe(), **{name: value}), model.heads, 3, 640)(outputs, boxes)
    assert not torch.allclose(before, after)


def test_one_class_has_no_class_loss() -> None:
    model = load_model("pico", nc=1)
    outputs = model.train()(torch.rand(1, 3, 64, 64))
    _, terms = DetectionLoss(Recipe(), model.heads, 1, 640)(outputs, target(30, 30, 20, 20))
    assert terms[2] == 0


@pytest.mark.parametrize("repeats", [1, 2, 3, 4])
def test_any_number_of_heads_can_be_weighed(model: Darknet, repeats: int) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(1, 3, 64, 64))]
    total, _ = DetectionLoss(Recipe(), model.heads * repeats, 3, 640)(outputs * repeats, target(30, 30, 20, 20))
    assert torch.isfinite(total)


def test_the_loss_is_a_mean_so_a_batch_twice_over_costs_the_same(model: Darknet) -> None:
    outputs = [raw.detach() for raw in model.train()(torch.rand(1, 3, 64, 64))]
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    once = target(30, 30, 20, 20)
    _, single = loss(outputs, once)
    _, double = loss([torch.cat([raw, raw]) for raw in outputs], torch.cat([once, target(30, 30, 20, 20, image=1)]))
    torch.testing.assert_close(single, double)


def test_training_on_one_picture_drives_the_loss_down() -> None:
    torch.manual_seed(0)
    model = load_model("pico", nc=3).train()
    loss = DetectionLoss(Recipe(), model.heads, 3, 640)
    images, boxes = torch.rand(2, 3, 64, 64), torch.cat([target(30, 30, 20, 20), target(40, 20, 12, 16, 1, 2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    costs = []
    for _ in range(30):
        total, _ = loss(model(images), boxes)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        costs.append(float(total.detach()))
    assert costs[-1] < 0.5 * costs[0]
