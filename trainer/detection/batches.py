"""The batches of an epoch: shuffled, cut, and augmented by a thread that runs ahead of the training."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.augment import Pictures, make_batch
from trainer.detection.recipe import Recipe

Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD = 2  # batches that wait for the training at most


def draw_batches(
    pictures: Pictures, recipe: Recipe, batch: int, rng: np.random.Generator
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Every picture once, in random order: images [B, 3, S, S] and targets [M, 6] as augment.make_batch gives them."""
    chosen = split_epoch(len(pictures.images), batch, rng)
    return make_ahead(lambda indices: make_batch(pictures, indices, recipe, rng), chosen)


def count_batches(pictures: int, batch: int) -> int:
    """Updates in one epoch."""
    return math.ceil(pictures / batch)


def split_epoch(pictures: int, batch: int, rng: np.random.Generator) -> list[NDArray[np.integer]]:
    """Shuffle and cut into batches that differ by one picture at most: a last batch of one would spoil batch norm."""
    return list(np.array_split(rng.permutation(pictures), count_batches(pictures, batch)))


def make_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """Make the next ones in a thread while the last is being used.

    One thread makes them, in order, so that what it draws from a generator does not depend on timing.
    """
    threads = torch.get_num_threads()  # a new thread would take all cores: OpenMP keeps the number by thread
    with ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(threads)) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
