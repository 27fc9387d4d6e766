"""Augmentation of whole batches: first everything is drawn (draw.py), then the pixels are looked up (render.py)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.draw import draw
from trainer.detection.pictures import Pictures
from trainer.detection.recipe import Recipe
from trainer.detection.render import render

__all__ = ["Pictures", "make_batch"]


def make_batch(
    pictures: Pictures, indices: NDArray[np.integer], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Augment the pictures of these indices: images float [B, 3, S, S] in 0..1, where the pictures lie, and targets.

    Targets float [M, 6], on the CPU: image, class, cx, cy, w, h in pixels, by ascending image.
    """
    plan = draw(pictures, indices, recipe, rng)
    return render(pictures.pixels, plan), torch.from_numpy(plan.targets)
