"""Augmentation: pictures and boxes move together, and each hyp does what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.detection.augment import Pictures, make_batch
from trainer.detection.draw import warp_boxes
from trainer.detection.render import GREY, shift_colours
from trainer.detection.recipe import Recipe

STILL = Recipe(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, mosaic=0)
SIZE = 64


def scenes(count: int = 6, size: int = SIZE) -> Pictures:
    """Black pictures, each with one white rectangle that fills its box exactly."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, size, size, 3), np.uint8)
    labels = []
    for index in range(count):
        x1, y1 = rng.integers(8, 24, 2)
        width, height = rng.integers(12, 28, 2)
        images[index, y1 : y1 + height, x1 : x1 + width] = 255
        labels.append(np.array([[index % 3, x1, y1, x1 + width, y1 + height]], np.float32))
    return Pictures(images, np.full((count, 2), size, np.int32), tuple(labels))


def batch(recipe: Recipe, seed: int = 0, pictures: Pictures | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = pictures or scenes()
    return make_batch(pictures, np.arange(len(pictures.images)), recipe, np.random.default_rng(seed))


def mass_inside(images: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of the white pixels that lies inside the boxes, grown by a pixel."""
    inside = torch.zeros_like(images[:, 0])
    for image, _, cx, cy, w, h in targets.tolist():
        x1, y1 = max(int(cx - w / 2) - 1, 0), max(int(cy - h / 2) - 1, 0)
        inside[int(image), y1 : int(cy + h / 2) + 2, x1 : int(cx + w / 2) + 2] = 1
    white = (images[:, 1] > 0.75).float()
    return float((white * inside).sum() / white.sum())


def test_a_recipe_without_augmentation_returns_the_pictures_as_they_are() -> None:
    pictures = scenes()
    images, targets = batch(STILL, pictures=pictures)
    expected = torch.from_numpy(pictures.images).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)
    corners = np.concatenate([part[:, 1:] for part in pictures.labels])
    np.testing.assert_allclose(targets[:, 2].numpy(), (corners[:, 0] + corners[:, 2]) / 2, atol=1e-3)
    np.testing.assert_allclose(targets[:, 5].numpy(), corners[:, 3] - corners[:, 1], atol=1e-3)


def test_a_picture_smaller_than_its_square_comes_out_centred_on_grey() -> None:
    pictures = scenes(1)
    narrow = replace(pictures, sizes=np.array([[SIZE, SIZE // 2]], np.int32))
    images, _ = batch(STILL, pictures=narrow)
    canvas = torch.from_numpy(pictures.images[0]).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(images[0, :, SIZE // 4 :], canvas[:, : SIZE * 3 // 4], atol=1e-4, rtol=0)
    torch.testing.assert_close(images[0, :, : SIZE // 4], torch.full((3, SIZE // 4, SIZE), GREY / 255))


MOVES = {
    "translate": 0.2,
    "scale": 0.4,
    "shear": 8.0,
    "perspective": 0.001,
    "flipud": 1.0,
    "fliplr": 1.0,
    "mosaic": 1.0,
}


@pytest.mark.parametrize("name", MOVES)
def test_boxes_move_with_what_they_enclose(name: str) -> None:
    images, targets = batch(replace(STILL, **{name: MOVES[name]}))
    still, _ = batch(STILL)
    assert not torch.allclose(images, still, atol=0.05)
    assert mass_inside(images, targets) > 0.95  # of a mosaic, slivers may show whose box was dropped


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    degrees=st.floats(0, 45),
    shear=st.floats(0, 10),
    perspective=st.floats(0, 0.001),
    scale=st.floats(0, 0.9),
    translate=st.floats(0, 0.3),
    mosaic=st.floats(0, 1),
)
def test_targets_stay_inside_the_picture(seed: int, **hyps: float) -> None:
    _, targets = batch(replace(STILL, mixup=0.5, fliplr=0.5, flipud=0.5, **hyps), seed)
    low, high = targets[:, 2:4] - targets[:, 4:6] / 2, targets[:, 2:4] + targets[:, 4:6] / 2
    assert torch.isfinite(targets).all()
    assert (low >= -1e-3).all() and (high <= SIZE + 1e-3).all() and (targets[:, 4:6] > 2).all()
    assert (targets[:, 0].diff() >= 0).all() and set(targets[:, 1].tolist()) <= {0, 1, 2}


def test_a_turned_square_gets_the_upright_box_around_it() -> None:
    half = 0.5**0.5
    eighth = np.array([[half, half, 0], [-half, half, 0], [0, 0, 1]])
    centre, back = np.eye(3), np.eye(3)
    centre[:2, 2], back[:2, 2] = -32, 32
    [box], [is_kept] = warp_boxes(np.array([[22.0, 22, 42, 42]]), (back @ eighth @ centre)[None], (64, 64))
    np.testing.assert_allclose(box, [32 - 200**0.5, 32 - 200**0.5, 32 + 200**0.5, 32 + 200**0.5], atol=1e-3)
    assert is_kept


def test_mixup_shows_two_mosaics_at_once() -> None:
    pictures = scenes()
    _, single = batch(replace(STILL, mosaic=1.0), pictures=pictures)
    _, mixed = batch(replace(STILL, mosaic=1.0, mixup=1.0), pictures=pictures)
    _, without_mosaic = batch(replace(STILL, mixup=1.0), pictures=pictures)
    assert len(mixed) > 1.5 * len(single)
    assert len(without_mosaic) == len(pictures.images)


def test_colours_of_factor_one_change_nothing_and_value_darkens() -> None:
    images = torch.rand(2, 3, 8, 8)
    nearly_one = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0 + 1e-7]])
    torch.testing.assert_close(shift_colours(images, nearly_one), images, atol=1e-5, rtol=0)
    darker = shift_colours(images, torch.tensor([[1.0, 1.0, 0.5]] * 2))
    torch.testing.assert_close(darker, images / 2, atol=1e-5, rtol=0)
    grey = shift_colours(images, torch.tensor([[1.0, 0.0, 1.0]] * 2))
    torch.testing.assert_close(grey, images.amax(1, keepdim=True).expand_as(images), atol=1e-5, rtol=0)


def test_hue_turns_as_colorsys_says() -> None:
    import colorsys

    rng = np.random.default_rng(0)
    pixels = rng.random((20, 3)).astype(np.float32)
    images = torch.from_numpy(pixels.T.reshape(1, 3, 20, 1).copy())
    turned = shift_colours(images, torch.tensor([[0.9, 0.8, 0.7]]))[0, :, :, 0].T.numpy()
    for before, after in zip(pixels.tolist(), turned, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(0.9 * hue, 0.8 * saturation, 0.7 * value), atol=1e-5)


def test_the_same_generator_makes_the_same_batch() -> None:
    recipe = replace(STILL, mosaic=0.5, mixup=0.5, degrees=10, fliplr=0.5, hsv_h=0.1)
    for first, second in zip(batch(recipe, 3), batch(recipe, 3), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(batch(recipe, 3)[0], batch(recipe, 4)[0])
