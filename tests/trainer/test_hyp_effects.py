"""Every hyp changes what a training computes, or is said to be dead: both in worlds where it can and where it cannot.

A training is three things here: the batches of an epoch, what fixed answers to fixed boxes cost, and the weights after
a few updates of a small network. A hyp that is new needs no line here, and fails if it reaches none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.api import TrainOptions
from trainer.detection.augment import Pictures
from trainer.detection.batches import Sampling, draw_batches
from trainer.detection.darknet import Darknet, load_model
from trainer.detection.dead import dead_hyps
from trainer.detection.loss import DetectionLoss
from trainer.detection.matching import grids_of, match_batch
from trainer.detection.optimizer import Schedule, build_optimizer
from trainer.detection.recipe import HYPS, Recipe

SIDE = 32

# Where 0.7 times the default would change nothing, because that is 0, or little.
MOVED = {
    "giou": 5.0,
    "iou_t": 0.6,
    "anchor_t": 1.5,
    "fl_gamma": 1.0,
    "label_smoothing": 0.1,
    "hsv_h": 0.5,
    "degrees": 20.0,
    "shear": 8.0,
    "perspective": 0.005,
    "fliplr": 1.0,
    "flipud": 1.0,
    "mosaic": 0.2,
    "mixup": 1.0,
    "copy_paste": 1.0,
}
BASE = vars(Recipe()) | {"giou": 3.5, "iou_t": 0.2}


@dataclass(frozen=True)
class World:
    """Data and options: each hyp is dead or alive in it."""

    name: str
    nc: int = 3
    has_polygons: bool = True
    has_colour: bool = True
    options: TrainOptions = field(default_factory=TrainOptions)
    fixed: tuple[tuple[str, float], ...] = ()

    @property
    def dead(self) -> dict[str, str]:
        return dead_hyps(
            self.options,
            nc=self.nc,
            has_polygons=self.has_polygons,
            has_colour=self.has_colour,
            fixed=dict(self.fixed),
        )


WORLDS = [
    World("usual"),
    World("sgd", options=TrainOptions(optimizer="sgd", schedule="linear")),
    World("adam", options=TrainOptions(optimizer="adam")),
    World("one class", nc=1),
    World("no polygons", has_polygons=False),
    World("grey", has_colour=False),
    World("rect", options=TrainOptions(rect=True)),
    World("multi scale", options=TrainOptions(multi_scale=True)),
    World("no mosaic", fixed=(("mosaic", 0.0),)),
    World("no warm-up", fixed=(("warmup_epochs", 0.0),)),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """What is as small as this waits longer for a second thread than it computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
@pytest.mark.parametrize("name", sorted(HYPS))
def test_a_hyp_changes_the_training_if_and_only_if_it_is_not_dead(name: str, world: World) -> None:
    if name in dict(world.fixed):
        return
    moved = MOVED.get(name, 0.7 * BASE[name])
    assert moved != BASE[name]
    before, after = (tuple(sorted((dict(world.fixed) | {name: value}).items())) for value in (BASE[name], moved))
    changed = [
        part for part, old, new in zip(PARTS, train(world, before), train(world, after), strict=True) if old != new
    ]
    assert (changed == []) == (name in world.dead), changed or "nothing changed"


PARTS = ("pictures", "boxes", "loss", "weights")


@cache
def train(world: World, hyp: tuple[tuple[str, float], ...]) -> tuple[bytes, ...]:
    """What a training computes, by PARTS, as bytes: equal only if it is the same to the bit."""
    recipe = Recipe.from_hyp(dict(hyp))
    options = world.options
    sampling = Sampling(4, options.rect, options.multi_scale, stride=16)
    batches = list(draw_batches(draw_pictures(world), recipe, sampling, np.random.default_rng(0)))
    pictures = [images for images, _ in batches]
    boxes = [targets for _, targets in batches]
    loss = cost(recipe, world.nc)
    weights = update(recipe, options)
    return tuple(b"".join(tensor.numpy().tobytes() for tensor in part) for part in (pictures, boxes, [loss], weights))


@cache
def draw_pictures(world: World) -> Pictures:
    """Sixteen pictures of noise in two shapes, with a small box each, outlined or not."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (16, SIDE, SIDE, 3), dtype=np.uint8)
    if not world.has_colour:
        images[:] = images[..., :1]
    labels, polygons = [], []
    for index in range(16):
        x, y, width, height = rng.integers([1, 1, 8, 8], [8, 8, 14, 14]).tolist()
        labels.append(np.array([[index % world.nc, x, y, x + width, y + height]], np.float32))
        polygons.append(np.array([[x, y], [x + width, y], [x, y + height]], np.float32))
    sizes = np.array([[SIDE, SIDE], [SIDE, 24]] * 8, np.int32)
    return Pictures(images, sizes, tuple(labels), tuple(polygons) if world.has_polygons else ())


@cache
def model(nc: int) -> Darknet:
    torch.manual_seed(0)
    return load_model("pico", nc)


def cost(recipe: Recipe, nc: int) -> Tensor:
    """The terms of the loss of answers that are drawn, for boxes of many shapes."""
    drawn = torch.Generator().manual_seed(0)
    loss = DetectionLoss(recipe, model(nc).heads, nc, 64)
    outputs = [
        torch.randn(2, head.na, 64 // head.stride, 64 // head.stride, 5 + nc, generator=drawn) for head in loss.heads
    ]
    boxes = torch.rand(20, 6, generator=drawn) * torch.tensor([0.0, 0, 40, 40, 40, 40]) + torch.tensor(
        [0, 0, 12, 12, 4, 4]
    )
    boxes[:, 0], boxes[:, 1] = torch.arange(20) // 10, torch.arange(20) % nc
    return loss(outputs, match_batch(boxes.numpy(), grids_of(loss.heads), 2, (64, 64), recipe.anchor_t))[1]


def update(recipe: Recipe, options: TrainOptions) -> list[Tensor]:
    """The weights of a small network after 3 epochs of 10 updates."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = build_optimizer(network, recipe, options.optimizer, 8)
    schedule = Schedule(optimizer, recipe, options.schedule, epochs=3, steps=10)
    for _ in range(30):
        schedule.advance()
        optimizer.zero_grad()
        torch.autograd.backward(network(torch.randn(5, 3)).square().sum())
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]
