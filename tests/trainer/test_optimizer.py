"""Parameter groups, schedules, warm-up and the moving average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from trainer.api import DataError
from trainer.detection.optimizer import (
    Average,
    Schedule,
    build_optimizer,
    check_names,
    cosine,
    linear,
    trapezoid,
    warmup_epochs,
)
from trainer.detection.recipe import Recipe


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_biases_weights_and_norms_are_three_groups_and_only_weights_decay(name: str) -> None:
    biases, weights, norms = build_optimizer(network(), Recipe(), name, batch=32).param_groups
    assert [tuple(p.shape) for p in biases["params"]] == [(4,), (2,)]
    assert [p.ndim for p in weights["params"]] == [4, 4]
    assert [tuple(p.shape) for p in norms["params"]] == [(4,)]
    assert (biases["weight_decay"], norms["weight_decay"]) == (0, 0)
    assert weights["weight_decay"] == pytest.approx(0.0005 * 32 / 64)


def test_schedules_run_from_one_to_lrf() -> None:
    for shape in (linear, cosine):
        assert shape(0.0, 0.1) == pytest.approx(1.0)
        assert shape(1.0, 0.1) == pytest.approx(0.1)
        assert shape(0.5, 0.1) == pytest.approx(0.55)
    assert cosine(0.25, 0.0) > linear(0.25, 0.0)


def test_a_trapezoid_keeps_the_full_rate_for_most_of_the_run_and_then_falls_straight_to_lrf() -> None:
    rates = [trapezoid(progress, 0.2) for progress in (0.0, 0.35, 0.7, 0.85, 1.0)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.2])


@pytest.mark.parametrize(("epochs", "expected"), [(300, 3.0), (30, 3.0), (10, 1.0), (1, 0.1)])
def test_warm_up_is_a_share_of_a_short_run(epochs: int, expected: float) -> None:
    assert warmup_epochs(Recipe(), epochs) == pytest.approx(expected)


def test_rates_and_momentum_warm_up_and_then_follow_the_schedule() -> None:
    recipe = Recipe()
    optimizer = build_optimizer(network(), recipe, "sgd", 64)
    schedule = Schedule(optimizer, recipe, "linear", epochs=10, steps=20)
    rates, momenta = [], []
    for _ in range(200):
        schedule.advance()
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append(optimizer.param_groups[0]["momentum"])
    assert rates[0] == [0.1, 0.0, 0.0]
    assert momenta[0] == pytest.approx(0.8) and momenta[20] == pytest.approx(0.937)
    assert rates[20][0] == rates[20][1] == pytest.approx(0.01 * linear(20 / 199, 0.01))
    assert rates[-1] == pytest.approx([0.0001] * 3)
    weights = [rate[1] for rate in rates]
    assert weights[:20] == sorted(weights[:20]) and weights[20:] == sorted(weights[20:], reverse=True)


def test_without_warm_up_the_first_update_has_the_full_rate() -> None:
    recipe = replace(Recipe(), warmup_epochs=0.0)
    optimizer = build_optimizer(network(), recipe, "adamw", 64)
    Schedule(optimizer, recipe, "cosine", 10, 20).advance()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01] * 3
    assert optimizer.param_groups[0]["betas"] == (0.937, 0.999)


def test_the_average_follows_the_weights_with_the_memory_of_a_tenth_of_the_run() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, updates=1000)
    nn.init.ones_(model.weight)
    for _ in range(1000):
        average.update(model)
    assert float(average.model.weight) == pytest.approx(1.0, abs=1e-3)
    nn.init.zeros_(model.weight)
    for _ in range(100):
        average.update(model)
    assert float(average.model.weight) == pytest.approx((1 - 1 / 100) ** 100, abs=0.01)


def test_the_average_shares_no_memory_with_the_model_and_needs_no_gradient() -> None:
    model = network()
    average = Average(model, 100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert any(bool(value.any()) for value in average.model.parameters())
    assert not any(value.requires_grad for value in average.model.parameters())


@pytest.mark.parametrize(("kind", "name"), [("optimizer", "sdg"), ("schedule", "cosin")])
def test_an_unknown_name_is_named(kind: str, name: str) -> None:
    known = {"optimizer": "sgd", "schedule": "cosine"}
    with pytest.raises(DataError, match=f"unknown {kind} '{name}'"):
        check_names(**{**known, kind: name})
