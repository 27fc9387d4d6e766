"""Frozen layers: which ones they are, and that they stay as they are while the others train."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from trainer.api import DataError
from trainer.detection.darknet import Darknet, Shortcut, load_model, parse_cfg
from trainer.detection.freeze import count_backbone, freeze_layers

SMALL = """
[net]
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[dropout]
probability=0.5
[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
activation=leaky
[convolutional]
filters=24
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
"""


def build(nc: int = 3) -> Darknet:
    torch.manual_seed(0)
    return Darknet(parse_cfg(SMALL), nc)


def train_a_step(model: Darknet, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    loss = sum(raw.square().mean() for raw in model(torch.rand(2, 3, 16, 16) + 1))
    assert isinstance(loss, torch.Tensor)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def moved_layers(model: Darknet, before: dict[str, torch.Tensor]) -> set[int]:
    return {
        int(name.split(".")[1]) for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }


def state_of(model: Darknet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "count"), [("yolov3", 75), ("yolov3-spp", 75), ("yolov3-tiny", 15), ("yolov4-tiny", 29), ("nano", 20)]
)
def test_the_backbone_is_what_is_published_as_one(name: str, count: int) -> None:
    # darknet53.conv.74 (its layer 74 is a shortcut, without weights), yolov3-tiny.conv.15, yolov4-tiny.conv.29
    with torch.device("meta"):
        model = load_model(name, nc=2, anchors=np.ones((9, 2)))
    assert count_backbone(model) == count
    assert freeze_layers(model, "backbone") == count
    frozen = {int(key.split(".")[1]) for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert max(frozen) < count
    assert min(int(key.split(".")[1]) for key, value in model.named_parameters() if value.requires_grad) >= count


def test_the_backbone_of_our_own_ends_with_a_block_and_before_every_head() -> None:
    for name in ("pico", "nano"):
        model = load_model(name, nc=2)
        last = count_backbone(model) - 1
        assert isinstance(model.layers[last], Shortcut)
        assert not any(isinstance(layer, (Shortcut, nn.Upsample)) for layer in model.layers[last + 1 : last + 4])


@pytest.mark.parametrize(("which", "moved"), [("", {0, 2, 3}), ("0", {0, 2, 3}), ("1", {2, 3}), ("backbone", {3})])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_layers_do_not_move_in_training_and_the_others_do(which: str, moved: set[int], optimizer: str) -> None:
    model = build()
    freeze_layers(model, which)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    moving = kinds[optimizer](model.parameters(), lr=0.1, weight_decay=0.1)
    before = state_of(model)
    for _ in range(3):
        train_a_step(model, moving)
    assert moved_layers(model, before) == moved


def test_batch_statistics_move_only_where_layers_train() -> None:
    model = build()
    freeze_layers(model, "2")
    before = state_of(model)
    model.train()
    model(torch.rand(2, 3, 16, 16))
    assert moved_layers(model, before) == {2}
    assert [layer.training for layer in model.layers] == [False, False, True, True, True]
    assert not any(layer.training for layer in model.eval().layers)


def test_what_is_frozen_computes_the_same_in_training_and_in_evaluation() -> None:
    model = build()
    freeze_layers(model, "2")
    picture = torch.rand(1, 3, 16, 16)
    trained = model.train().layers[1](model.layers[0](picture))
    assert torch.equal(trained, model.eval().layers[1](model.layers[0](picture)))


def test_a_gradient_from_before_freezing_is_not_stepped_along() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_a_step(model, optimizer)
    model.train()
    torch.autograd.backward(sum(raw.square().mean() for raw in model(torch.rand(2, 3, 16, 16))))  # type: ignore[arg-type]
    freeze_layers(model, "backbone")
    before = state_of(model)
    optimizer.step()
    assert moved_layers(model, before) == {3}


def test_unfreezing_lets_everything_train_again() -> None:
    model = build()
    freeze_layers(model, "backbone")
    model.train()
    freeze_layers(model, "")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    before = state_of(model)
    train_a_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert moved_layers(model, before) == {0, 2, 3}


def test_freezing_fewer_layers_lets_the_rest_go() -> None:
    model = build()
    assert [freeze_layers(model, which) for which in ("3", "1")] == [3, 1]
    before = state_of(model)
    train_a_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert moved_layers(model, before) == {2, 3}


def test_a_copy_is_frozen_as_its_model_is() -> None:
    model = build()
    freeze_layers(model, "backbone")
    other = copy.deepcopy(model).train()
    assert [layer.training for layer in other.layers] == [False, False, False, True, True]


def test_synchronised_statistics_are_frozen_too() -> None:
    model = build()
    freeze_layers(model, "backbone")
    other = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    synchronised = [module for module in other.train().modules() if isinstance(module, nn.SyncBatchNorm)]
    assert [module.training for module in synchronised] == [False, False]


@pytest.mark.parametrize("which", ["all", "-1", "4", "1.5", "Backbone", " ", "١"])
def test_other_words_and_numbers_are_refused_and_change_nothing(which: str) -> None:
    model = build()
    freeze_layers(model, "1")
    sentence = f"freeze_layers must be 'backbone' or a number of layers from 0 to 3 for this model, got '{which}'"
    with pytest.raises(DataError) as caught:
        freeze_layers(model, which)
    assert str(caught.value) == sentence
    assert model.frozen == 1


def test_a_model_that_is_all_head_has_no_backbone() -> None:
    head = SMALL[SMALL.index("[convolutional]\nfilters=24") :]
    model = Darknet(parse_cfg("[net]\n" + head), nc=3)
    with pytest.raises(DataError, match="this model has no layer before its first head"):
        freeze_layers(model, "backbone")
