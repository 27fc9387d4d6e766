"""Augmentation of whole batches: first everything is drawn (draw.py), then the pixels are looked up (render.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.draw import Plan, draw
from trainer.detection.pictures import Pictures
from trainer.detection.recipe import Recipe
from trainer.detection.render import render

__all__ = ["Pictures", "make_batch", "render_plan"]


def make_batch(
    pictures: Pictures, indices: NDArray[np.integer], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Augment the pictures of these indices: images float [B, 3, S, S] in 0..1, where the pictures lie, and targets.

    Targets float [M, 6], on the CPU: image, class, cx, cy, w, h in pixels, by ascending image.
    """
    plan = draw(pictures, indices, recipe, rng)
    return render_plan(pictures, plan, pictures.device), torch.from_numpy(plan.targets)


def render_plan(pictures: Pictures, plan: Plan, device: torch.device) -> Tensor:
    """`render` on a device: of pictures that lie elsewhere or are decoded on demand, the planned ones are brought."""
    lies_there = device.type == pictures.device.type and device.index in (None, pictures.device.index)
    if pictures.pixels is not None and lies_there:
        return render(pictures.pixels, plan)
    needed, sources = np.unique(plan.sources, return_inverse=True)
    images = pictures.some(needed).to(device, non_blocking=True)
    return render(images, replace(plan, sources=sources.reshape(plan.sources.shape)))
