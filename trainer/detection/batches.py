"""The batches of an epoch: shuffled, cut, and augmented by a thread that runs ahead of the training."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.api import DataError
from trainer.detection.augment import Pictures, render_plan
from trainer.detection.draw import Plan, draw
from trainer.detection.pictures import Float
from trainer.detection.recipe import Recipe

Made = TypeVar("Made")
Answer = TypeVar("Answer")
Answering = Callable[[Float, Sequence[int], tuple[int, int]], Sequence[Answer]]

AHEAD = 2  # batches that wait for the training at most
DRAWN_TOGETHER = 16  # batches; their labels are warped and matched in one go
RENDERED_TOGETHER_PX = 1 << 23  # on a GPU: pictures of 100 MB in all
SMALLEST, LARGEST = 0.5, 1.5  # of the pictures' size, where it is drawn (YOLOv5 v7.0, --multi-scale)


@dataclass(frozen=True)
class Sampling:
    """How an epoch becomes batches of `batch` pictures.

    `rect`: pictures of about one shape come together, in the smallest shape that holds them, and unmixed with others.
    `multi_scale`: each batch has a size of its own. Both keep sides that are multiples of `stride`. `image_weights`
    float [N]: pictures are drawn with replacement, in proportion; otherwise each comes once.
    """

    batch: int
    rect: bool = False
    multi_scale: bool = False
    stride: int = 32
    image_weights: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Cut:
    """One batch of an epoch: its pictures, the height and width they are augmented in, and those they are scaled to."""

    indices: NDArray[np.integer]
    shape: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Stretch:
    """Batches of one shape that are drawn at once: their plan, and where each begins and the last ends in it."""

    plan: Plan
    bounds: tuple[int, ...]


def split_targets(targets: Float, bounds: Sequence[int], _: tuple[int, int]) -> list[Tensor]:
    """The targets of each batch, their image counted from its first."""
    borders = np.searchsorted(targets[:, 0], bounds)
    parts = np.split(targets, borders[1:-1])
    return [
        torch.from_numpy(part - np.eye(1, 6, dtype=np.float32) * first)
        for part, first in zip(parts, bounds, strict=False)
    ]


def draw_batches(
    pictures: Pictures,
    recipe: Recipe,
    sampling: Sampling,
    rng: np.random.Generator,
    device: torch.device | None = None,
    rank: int = 0,
    world: int = 1,
    answer: Answering[Answer] = split_targets,  # type: ignore[assignment]
) -> Ahead[tuple[Tensor, Answer]]:
    """The batches of an epoch: images float [B, 3, H, W] in 0..1, on `device`, and what `answer` makes of the targets.

    The device is that of the pictures if none is named, and the images are laid out as convolutions like it (channels
    last). `answer` gets the targets [M, 6] of several batches, the bounds of these in their pictures, and height and
    width, and returns one answer a batch: their targets, if none is given. Of `world` processes with equal generators
    each gets its part of every batch (see `share_out`), and all parts together are the batch of a single process. All
    of it is made by a thread that runs ahead.
    """
    device = device or pictures.device
    recipe = replace(recipe, mosaic=0.0, mixup=0.0) if sampling.rect else recipe  # as in YOLOv5
    cuts = cut_epoch(pictures, sampling, rng)

    def make() -> Iterator[tuple[Tensor, Answer]]:
        for stretch in draw_stretches(pictures, recipe, cuts, rng, rank, world):
            plan = stretch.plan
            answers = answer(plan.targets, stretch.bounds, (plan.height, plan.width))
            yield from zip(render_stretch(pictures, stretch, device), answers, strict=True)

    return Ahead(make())


def draw_stretches(
    pictures: Pictures, recipe: Recipe, cuts: Sequence[Cut], rng: np.random.Generator, rank: int = 0, world: int = 1
) -> Iterator[Stretch]:
    """Draw an epoch's batches, those of one shape that follow one another at once: numpy's cost is by the call."""
    for (shape, size), alike in groupby(cuts, key=lambda cut: (cut.shape, cut.size)):
        same = list(alike)
        for some in (same[first : first + DRAWN_TOGETHER] for first in range(0, len(same), DRAWN_TOGETHER)):
            plan = draw(pictures, np.concatenate([cut.indices for cut in some]), recipe, rng, shape, size)
            ends = list(accumulate((len(cut.indices) for cut in some), initial=0))
            if world > 1:
                shares = [share_out(len(cut.indices), rank, world) for cut in some]
                parts = [(start + first, start + last) for start, (first, last) in zip(ends, shares, strict=False)]
                plan = plan.some(np.concatenate([np.arange(*part) for part in parts]))
                ends = list(accumulate((last - first for first, last in parts), initial=0))
            yield Stretch(plan, tuple(ends))


def render_stretch(pictures: Pictures, stretch: Stretch, device: torch.device) -> Iterator[Tensor]:
    """The images of each batch of a stretch; on a GPU of several at once, since what costs there is the launching."""
    plan = stretch.plan
    most = RENDERED_TOGETHER_PX // (plan.height * plan.width) if device.type != "cpu" else 0
    spans = list(zip(stretch.bounds, stretch.bounds[1:], strict=False))
    while spans:
        together = max(1, sum(last - spans[0][0] <= most for _, last in spans))
        some, spans = spans[:together], spans[together:]
        start = some[0][0]
        images = render_plan(pictures, plan.part(start, some[-1][1]), device)
        images = images.contiguous(memory_format=torch.channels_last)
        yield from (images[first - start : last - start] for first, last in some)


def count_batches(pictures: int, batch: int) -> int:
    """How many there are in one epoch."""
    return math.ceil(pictures / batch)


def share_out(count: int, rank: int, world: int) -> tuple[int, int]:
    """First and past picture of a process's part of a batch; parts differ by one picture at most, and none is empty."""
    if count < world:
        raise DataError(f"{world} processes cannot share a batch of {count}: make batches larger or processes fewer")
    return count * rank // world, count * (rank + 1) // world


def cut_epoch(pictures: Pictures, sampling: Sampling, rng: np.random.Generator) -> list[Cut]:
    """The batches of an epoch, in random order."""
    side = pictures.imgsz
    order = draw_order(len(pictures), sampling.image_weights, rng)
    if sampling.rect:
        cells = np.ceil(pictures.sizes / sampling.stride).astype(np.int64)
        # The long side is the same for all, so this sorts by shape and leaves those of one shape in random order.
        order = order[np.argsort((cells[:, 0] - cells[:, 1])[order], kind="stable")]
    batches = np.array_split(order, count_batches(len(order), sampling.batch))
    shapes = [(side, side)] * len(batches)
    if sampling.rect:
        batches = [batches[place] for place in rng.permutation(len(batches))]
        largest = [cells[batch].max(0) * sampling.stride for batch in batches]
        shapes = [(int(height), int(width)) for width, height in largest]
    if not sampling.multi_scale:
        return [Cut(batch, shape, shape) for batch, shape in zip(batches, shapes, strict=True)]
    sides = draw_sides(side, sampling.stride, len(batches), rng)
    scaled = [scale_shape(shape, wanted / side, sampling.stride) for shape, wanted in zip(shapes, sides, strict=True)]
    return [Cut(*cut) for cut in zip(batches, shapes, scaled, strict=True)]


def draw_order(pictures: int, weights: NDArray[np.floating] | None, rng: np.random.Generator) -> NDArray[np.integer]:
    """Indices of the pictures of an epoch: each once, shuffled, or as many drawn in proportion to the weights."""
    if weights is None or not weights.any():
        return rng.permutation(pictures)
    return rng.choice(pictures, pictures, p=np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64))


def draw_sides(side: int, stride: int, count: int, rng: np.random.Generator) -> NDArray[np.integer]:
    """`count` sizes between half and one and a half of `side`, all multiples of the stride equally likely."""
    fewest, most = math.ceil(SMALLEST * side / stride), math.floor(LARGEST * side / stride)
    return rng.integers(fewest, most + 1, count) * stride


def scale_shape(shape: tuple[int, int], scale: float, stride: int) -> tuple[int, int]:
    """A height and width scaled, and made up to multiples of the stride."""
    height, width = (math.ceil(round(side * scale / stride, 6)) * stride for side in shape)
    return height, width


class Ahead(Iterator[Made]):
    """Makes the next few of `items` in a thread while the last is being used. It begins at once; close it in any case.

    One thread makes them, in order, so that what it draws from a generator does not depend on timing.
    """

    def __init__(self, items: Iterator[Made]) -> None:
        threads = torch.get_num_threads()  # a new thread would take all cores: OpenMP keeps the number by thread
        self._pool = ThreadPoolExecutor(1, "ahead", initializer=lambda: torch.set_num_threads(threads))
        self._items = items
        self._waiting = deque(self._pool.submit(next, items, None) for _ in range(AHEAD + 1))

    def __next__(self) -> Made:
        made = self._waiting.popleft().result() if self._waiting else None
        if made is None:
            self.close()
            raise StopIteration
        self._waiting.append(self._pool.submit(next, self._items, None))
        return made

    def close(self) -> None:
        """End the thread; what is being made is still made."""
        self._waiting.clear()
        self._pool.shutdown(cancel_futures=True)
