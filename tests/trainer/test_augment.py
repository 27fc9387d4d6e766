"""Augmentation: pictures and boxes move together, and each hyp does what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.detection.augment import Pictures, make_batch, render_plan
from trainer.detection.data import DecodedOnDemand
from trainer.detection.data.cache import hash_files
from trainer.detection.draw import draw, warp_boxes
from trainer.detection.recipe import Recipe
from trainer.detection.render import GREY, TILE_PX, shift_colours

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


def noise(count: int, size: int) -> Pictures:
    """Pictures of which no two pixels are alike, each with a box of its own."""
    images = np.random.default_rng(1).integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    labels = tuple(np.array([[index, 4, 8, 20 + index, 30]], np.float32) for index in range(count))
    return Pictures(images, np.full((count, 2), size, np.int32), labels)


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


def test_a_mosaic_is_four_pictures_that_meet_in_a_point() -> None:
    pictures = noise(7, SIZE)
    pictures = replace(pictures, sizes=np.array([[64, 64], [64, 40], [30, 64]] * 3, np.int32)[:7])
    plan = draw(pictures, np.arange(7), replace(STILL, mosaic=1.0), np.random.default_rng(0))
    images = render_plan(pictures, plan, torch.device("cpu"))
    for layer in range(7):
        canvas = np.full((2 * SIZE, 2 * SIZE, 3), GREY, np.uint8)
        x, y = plan.meet[layer].astype(int)
        for part, source in enumerate(plan.sources[layer]):
            width, height = pictures.sizes[source]
            left, top = (x - width, x)[part % 2], (y - height, y)[part // 2]
            x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, 2 * SIZE), min(top + height, 2 * SIZE)
            canvas[y1:y2, x1:x2] = pictures.images[source][y1 - top : y2 - top, x1 - left : x2 - left]
        middle = torch.from_numpy(canvas[SIZE // 2 : -SIZE // 2, SIZE // 2 : -SIZE // 2]).permute(2, 0, 1) / 255
        torch.testing.assert_close(images[layer], middle, atol=1e-4, rtol=0)


def test_between_pixels_is_interpolated_as_grid_sample_does() -> None:
    pictures = noise(4, SIZE)
    plan = draw(
        pictures, np.arange(4), replace(STILL, degrees=30, scale=0.2, perspective=0.001), np.random.default_rng(0)
    )
    grid = torch.cartesian_prod(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5).flip(1).double()
    places = torch.cat([grid, torch.ones(len(grid), 1)], 1) @ torch.from_numpy(plan.back).transpose(1, 2)
    places = places[..., :2] / places[..., 2:]
    whole = torch.from_numpy(pictures.images).permute(0, 3, 1, 2).double() / 255
    looked_up = torch.nn.functional.grid_sample(
        whole, (places * 2 / SIZE - 1).view(4, SIZE, SIZE, 2), padding_mode="border", align_corners=False
    )
    is_inside = ((places > 0) & (places < SIZE)).all(2).view(4, 1, SIZE, SIZE)
    expected = torch.where(is_inside, looked_up, GREY / 255).float()
    torch.testing.assert_close(render_plan(pictures, plan, torch.device("cpu")), expected, atol=1e-3, rtol=0)


def test_pictures_are_the_same_however_many_are_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(Recipe(), mosaic=0.5, mixup=0.5, degrees=10.0)
    images, _ = batch(recipe)
    for pixels in (10, 1000, 3 * SIZE * SIZE):
        monkeypatch.setitem(TILE_PX, "cpu", pixels)
        torch.testing.assert_close(batch(recipe)[0], images, atol=1e-6, rtol=0)


def test_pictures_that_are_decoded_on_demand_make_the_same_batch(tmp_path: Path) -> None:
    pictures = noise(6, SIZE)
    files = [tmp_path / f"{index}.png" for index in range(6)]
    for file, pixels in zip(files, pictures.images, strict=True):
        Image.fromarray(pixels).save(file)
    digests = [str(digest) for digest in hash_files(files, tmp_path / "cache")]
    on_demand = replace(pictures, images=DecodedOnDemand(files, digests, SIZE))
    recipe = replace(Recipe(), mosaic=0.5, mixup=0.5)
    for held, decoded in zip(batch(recipe, pictures=pictures), batch(recipe, pictures=on_demand), strict=True):
        assert torch.equal(held, decoded)


def outlined(boxes: list[tuple[float, float, float, float]], polygons: list[np.ndarray | None]) -> Pictures:
    """One black picture with white boxes (xyxy)."""
    image = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[0, int(y1) : int(y2), int(x1) : int(x2)] = 255
    labels = np.array([[index, *box] for index, box in enumerate(boxes)], np.float32)
    return Pictures(image, np.array([[SIZE, SIZE]]), (labels,), tuple(polygons))


def around(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def test_an_object_is_pasted_mirrored_into_its_own_picture() -> None:
    pictures = outlined([(4, 10, 20, 30)], [around(4, 10, 20, 30)])
    images, targets = batch(replace(STILL, copy_paste=1.0), pictures=pictures)
    still, _ = batch(STILL, pictures=pictures)
    torch.testing.assert_close(images, torch.maximum(still, still.flip(3)), atol=1e-4, rtol=0)
    np.testing.assert_allclose(targets.numpy(), [[0, 0, 12, 20, 16, 20], [0, 0, 52, 20, 16, 20]], atol=1e-3)


def test_of_an_object_only_what_its_polygon_encloses_is_pasted() -> None:
    pictures = outlined([(0, 0, 20, 20)], [np.array([[0, 0], [20, 0], [0, 20]], np.float32)])
    images, _ = batch(replace(STILL, copy_paste=1.0), pictures=pictures)
    pasted = images[0, 0, :20, 44:]
    assert pasted[0, 1:].mean() == 1 and pasted[10, -9:].mean() == 1
    assert pasted[10, :8].max() == 0 and pasted[-1, :-2].max() == 0


def test_nothing_is_pasted_over_a_third_of_another_object_nor_without_a_polygon() -> None:
    crossing = [(4.0, 10.0, 20.0, 30.0), (40.0, 10.0, 60.0, 30.0)]  # each is mirrored onto the other
    for boxes, polygons in ((crossing, [around(*box) for box in crossing]), (crossing[:1], [None])):
        pictures = outlined(boxes, polygons)
        images, targets = batch(replace(STILL, copy_paste=1.0), pictures=pictures)
        still, still_targets = batch(STILL, pictures=pictures)
        assert torch.equal(images, still) and torch.equal(targets, still_targets)


def test_a_share_of_the_objects_is_pasted() -> None:
    corner = (2.0, 2.0, 12.0, 12.0)
    pictures = outlined([corner], [around(*corner)])
    many = np.zeros(400, np.int64)
    plan = draw(pictures, many, replace(STILL, copy_paste=0.3), np.random.default_rng(0))
    assert len(plan.targets) / 400 == pytest.approx(1.3, abs=0.08)
    assert len(plan.masks) == len(plan.targets) - 400 + 1


def test_pasted_objects_move_with_their_boxes_through_mosaic_and_warp() -> None:
    pictures = scenes(12)
    polygons = tuple(around(*part[0, 1:]) for part in pictures.labels)
    recipe = replace(STILL, mosaic=0.7, mixup=0.3, degrees=5, fliplr=0.5, scale=0.3, copy_paste=1.0)
    plain_images, plain_targets = batch(recipe, pictures=pictures)
    images, targets = batch(recipe, pictures=replace(pictures, polygons=polygons))
    assert len(targets) > 1.2 * len(plain_targets)
    assert (images[:, 1] > 0.75).sum() > 1.2 * (plain_images[:, 1] > 0.75).sum()
    assert mass_inside(images, targets) > 0.95


def test_pictures_know_whether_any_of_them_has_a_colour() -> None:
    grey = scenes(130)
    assert not grey.has_colour
    coloured = grey.images.copy()
    coloured[129, 3, 5, 1] ^= 1
    assert replace(grey, images=coloured).has_colour
