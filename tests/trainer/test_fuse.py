"""A network with its batch norms folded computes what it did before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.detection.darknet import Darknet, load_model
from trainer.detection.fuse import fuse


@pytest.fixture(scope="module")
def model() -> Darknet:
    """Norms as training leaves them: statistics, scales and shifts of every size."""
    torch.manual_seed(0)
    model = load_model("pico", nc=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.3, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@torch.no_grad()
def test_outputs_are_those_of_the_network_as_it_was(model: Darknet) -> None:
    images = torch.rand(2, 3, 64, 48)
    for raw, expected in zip(fuse(model)(images), model(images), strict=True):
        torch.testing.assert_close(raw, expected, rtol=1e-3, atol=1e-4)


def test_no_norm_remains_and_every_weight_has_the_type_that_was_asked_for(model: Darknet) -> None:
    fused = fuse(model, torch.bfloat16)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_a_network_in_training_is_fused_as_for_evaluation_and_stays_as_it_is(model: Darknet) -> None:
    images = torch.rand(1, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(images)
    model.train()
    raw = fuse(model)(images)
    assert all(module.training for module in model.modules())
    model.eval()
    torch.testing.assert_close(raw[0], expected[0], rtol=1e-3, atol=1e-4)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
