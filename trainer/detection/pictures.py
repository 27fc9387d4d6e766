"""A training split in memory: what batches are drawn from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.data import Images

Float = NDArray[np.float32]

CHECKED_TOGETHER = 64  # pictures whose colours are looked at at once


@dataclass(frozen=True)
class Pictures:
    """Pictures and their boxes.

    images uint8 [N, S, S, 3] with the picture at the top left: an array (of a mapped file, or decoded on demand), or a
    tensor on the device where batches are to be made. sizes int [N, 2]: each one's width and height. labels: per
    picture float32 [n, 5]: class, x1, y1, x2, y2 in pixels. polygons: for every box, all pictures' in a row, its
    outline float [k, 2] in pixels or None; empty where no box has one.
    """

    images: Images | Tensor
    sizes: NDArray[np.integer]
    labels: tuple[Float, ...]
    polygons: tuple[Float | None, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def imgsz(self) -> int:
        return int(self.images.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.images.device if isinstance(self.images, Tensor) else torch.device("cpu")

    @cached_property
    def rows(self) -> Float:
        """All labels in a row: float32 [M, 5]."""
        return np.concatenate([np.zeros((0, 5), np.float32), *self.labels])

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """int64 [N + 1]: picture i has `rows` first[i] to first[i + 1]."""
        return np.concatenate([[0], np.cumsum([len(part) for part in self.labels])]).astype(np.int64)

    @cached_property
    def has_polygons(self) -> bool:
        return any(polygon is not None for polygon in self.polygons)

    @cached_property
    def has_colour(self) -> bool:
        """Whether any pixel is not grey; taken for granted of pictures that would have to be decoded for it."""
        if self.pixels is None:
            return True
        return any(bool((some != some[..., :1]).any()) for some in torch.split(self.pixels, CHECKED_TOGETHER))

    @cached_property
    def pixels(self) -> Tensor | None:
        """All images as a tensor that shares their memory; None where they are decoded on demand."""
        if isinstance(self.images, np.ndarray):
            return as_tensor(self.images)
        return self.images if isinstance(self.images, Tensor) else None

    def to(self, device: torch.device) -> Pictures:
        """The same with all images on a device."""
        return replace(self, images=self.some(slice(None)).to(device))

    def some(self, which: NDArray[np.integer] | slice) -> Tensor:
        """Some of the images, in the order of their indices."""
        if isinstance(self.images, Tensor):
            return self.images[which if isinstance(which, slice) else torch.from_numpy(which).to(self.device)]
        return as_tensor(np.asarray(self.images[which]))


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file mapped for reading cannot be written to, and nobody here does
        return torch.from_numpy(images)
