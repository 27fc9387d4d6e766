"""The batches of an epoch, and the thread that makes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.api import DataError
from trainer.detection.augment import Pictures
from trainer.detection.batches import (
    AHEAD,
    Ahead,
    Sampling,
    count_batches,
    cut_epoch,
    draw_batches,
    draw_sides,
    share_out,
)
from trainer.detection.recipe import Recipe

SIDE = 96
STILL = Recipe(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, mosaic=0)
RESTLESS = Recipe(mosaic=0.7, mixup=0.5, degrees=20, perspective=0.0005, flipud=0.5)
SHAPES = [(96, 96), (96, 64), (96, 50), (60, 96), (40, 96)]  # widths and heights


def pictures(count: int, shapes: list[tuple[int, int]] | None = None, side: int = SIDE) -> Pictures:
    """Noise with one box in each, whose class is the picture's index: targets tell which pictures were shown."""
    rng = np.random.default_rng(0)
    shapes = shapes or [(side, side)]
    sizes = np.array([shapes[index % len(shapes)] for index in range(count)], np.int32)
    labels = tuple(np.array([[index, 4, 4, 36, 32]], np.float32) for index in range(count))
    return Pictures(rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8), sizes, labels)


@given(count=st.integers(1, 60), batch=st.integers(1, 20), rect=st.booleans())
def test_an_epoch_shows_every_picture_once_in_batches_of_nearly_one_size(count: int, batch: int, rect: bool) -> None:
    cuts = cut_epoch(pictures(count, SHAPES, 32), Sampling(batch, rect), np.random.default_rng(0))
    lengths = {len(cut.indices) for cut in cuts}
    assert sorted(np.concatenate([cut.indices for cut in cuts]).tolist()) == list(range(count))
    assert len(cuts) == count_batches(count, batch)
    assert max(lengths) <= batch and max(lengths) - min(lengths) <= 1


def test_a_rect_batch_is_the_smallest_that_holds_its_pictures_and_batches_of_many_shapes_stay_few() -> None:
    world = pictures(50, SHAPES)
    cuts = cut_epoch(world, Sampling(5, rect=True, stride=32), np.random.default_rng(0))
    for cut in cuts:
        largest = world.sizes[cut.indices].max(0)
        assert cut.shape == tuple((np.ceil(largest / 32) * 32).astype(int)[::-1])
        assert cut.size == cut.shape
    assert {cut.shape for cut in cuts} == {(96, 96), (64, 96), (96, 64)}
    assert all(len({tuple(np.ceil(world.sizes[i] / 32)) for i in cut.indices}) == 1 for cut in cuts)


def test_rect_batches_come_in_random_order_with_other_neighbours_every_epoch() -> None:
    world, rng = pictures(60, SHAPES), np.random.default_rng(0)
    first, second = (cut_epoch(world, Sampling(6, rect=True), rng) for _ in range(2))
    assert [cut.shape for cut in first] != [cut.shape for cut in second]
    assert {frozenset(cut.indices.tolist()) for cut in first} != {frozenset(cut.indices.tolist()) for cut in second}


def test_a_rect_batch_shows_the_whole_of_its_pictures_and_no_mosaic() -> None:
    world = pictures(6, [(96, 50), (96, 64)])
    [(images, targets)] = draw_batches(
        world, Recipe(**vars(STILL) | {"mosaic": 1.0}), Sampling(6, rect=True), np.random.default_rng(0)
    )
    assert images.shape == (6, 3, 64, 96)
    assert sorted(targets[:, 1].tolist()) == list(range(6))
    for image, index, _, cy, _, _ in targets.tolist():
        height = int(world.sizes[int(index)][1])
        margin = (64 - height) // 2
        expected = torch.from_numpy(world.images[int(index), :height]).permute(2, 0, 1) / 255
        torch.testing.assert_close(images[int(image), :, margin : margin + height], expected, atol=1e-4, rtol=0)
        assert cy == pytest.approx(18 + margin, abs=1e-3)


def test_multi_scale_draws_every_multiple_of_the_stride_from_half_to_one_and_a_half() -> None:
    sides = draw_sides(128, 32, 500, np.random.default_rng(0))
    assert set(sides.tolist()) == {64, 96, 128, 160, 192}
    assert set(draw_sides(32, 32, 50, np.random.default_rng(0)).tolist()) == {32}


def test_a_scaled_batch_is_the_batch_seen_from_nearer_or_farther() -> None:
    world = pictures(8)
    plain = list(draw_batches(world, STILL, Sampling(4), np.random.default_rng(3)))
    scaled = list(draw_batches(world, STILL, Sampling(4, multi_scale=True), np.random.default_rng(3)))
    assert {images.shape[2] for images, _ in scaled} != {SIDE}
    for (_, targets), (images, larger) in zip(plain, scaled, strict=True):
        side = images.shape[2]
        assert images.shape == (4, 3, side, side) and side % 32 == 0
        torch.testing.assert_close(larger[:, 2:], targets[:, 2:] * side / SIDE, atol=1e-3, rtol=0)
        assert torch.equal(larger[:, :2], targets[:, :2])


def test_image_weights_show_pictures_in_proportion_and_none_of_no_weight() -> None:
    weights = np.array([0.0, 1.0, 3.0] * 200)
    cuts = cut_epoch(pictures(600, side=2), Sampling(8, image_weights=weights), np.random.default_rng(0))
    shown = np.concatenate([cut.indices for cut in cuts])
    counts = np.bincount(shown % 3, minlength=3)
    assert len(shown) == 600 and counts[0] == 0
    assert counts[2] / counts[1] == pytest.approx(3.0, rel=0.3)


def test_weights_that_are_all_zero_choose_nobody_and_so_everybody() -> None:
    sampling = Sampling(3, image_weights=np.zeros(7))
    cuts = cut_epoch(pictures(7, side=2), sampling, np.random.default_rng(0))
    assert sorted(np.concatenate([cut.indices for cut in cuts]).tolist()) == list(range(7))


@pytest.mark.parametrize("sampling", [Sampling(5), Sampling(5, multi_scale=True), Sampling(5, rect=True)])
def test_the_parts_of_all_processes_are_the_batches_of_one(sampling: Sampling) -> None:
    world = pictures(14, SHAPES)
    whole = list(draw_batches(world, RESTLESS, sampling, np.random.default_rng(7)))
    parts = [list(draw_batches(world, RESTLESS, sampling, np.random.default_rng(7), rank=r, world=2)) for r in (0, 1)]
    for (images, targets), (left, left_targets), (right, right_targets) in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([left, right]), images)
        assert set(left_targets[:, 0].tolist()) <= set(range(len(left)))
        moved = right_targets + torch.tensor([len(left), 0.0, 0, 0, 0, 0])
        assert torch.equal(torch.cat([left_targets, moved]), targets)


@given(count=st.integers(1, 40), world=st.integers(1, 8))
def test_parts_follow_one_another_and_differ_by_one_at_most(count: int, world: int) -> None:
    if count < world:
        with pytest.raises(DataError, match=f"{world} processes cannot share a batch of {count}"):
            share_out(count, 0, world)
        return
    parts = [share_out(count, rank, world) for rank in range(world)]
    assert [first for first, _ in parts] == [0, *(past for _, past in parts[:-1])] and parts[-1][1] == count
    lengths = {past - first for first, past in parts}
    assert max(lengths) - min(lengths) <= 1


def test_the_same_generator_draws_the_same_epoch() -> None:
    world = pictures(9)
    for first, second in zip(
        draw_batches(world, RESTLESS, Sampling(4), np.random.default_rng([1, 2])),
        draw_batches(world, RESTLESS, Sampling(4), np.random.default_rng([1, 2])),
        strict=True,
    ):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_images_are_laid_out_as_convolutions_like_them() -> None:
    for images, _ in draw_batches(pictures(4), RESTLESS, Sampling(2), np.random.default_rng(0)):
        assert images.is_contiguous(memory_format=torch.channels_last)


def wait_until(came_true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if came_true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


def test_what_is_made_ahead_comes_in_order_and_only_a_little_ahead() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            asked.append(item)
            yield item

    made = Ahead(items())
    assert next(made) == 0
    wait_until(lambda: len(asked) == AHEAD + 2)
    assert list(made) == list(range(1, 10))


def test_an_error_while_making_reaches_the_one_who_asks() -> None:
    with pytest.raises(ZeroDivisionError):
        list(Ahead(1 // item for item in (1, 0, 1)))


def test_leaving_early_leaves_no_thread() -> None:
    made = Ahead(iter(range(100)))
    next(made)
    assert any(thread.name.startswith("ahead") for thread in threading.enumerate())
    made.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
