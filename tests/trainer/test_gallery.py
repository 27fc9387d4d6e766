"""Pictures show their boxes where they are, in the colour of their class, and legibly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.detection.data import Split
from trainer.detection.gallery import GAP_PX, SIDE_PX, arrange, colour_of, draw_batch, draw_findings

GREY = 100


def is_colour(image: Image.Image, x: float, y: float, label: int) -> bool:
    """Whether there is the colour of a class within 2 pixels of a place."""
    around = np.asarray(image)[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].reshape(-1, 3)
    return bool((around == np.array(colour_of(label))).all(axis=1).any())


def make_split(pictures: int, width: int = 64, height: int = 48) -> Split:
    return Split(
        images=np.full((pictures, 64, 64, 3), GREY, np.uint8),
        sizes=np.tile(np.array([[width, height]], np.int32), (pictures, 1)),
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int64),
        image_index=np.zeros(0, np.int64),
        files=tuple(Path(f"picture-{number}.png") for number in range(pictures)),
        problems=(),
        digest="",
    )


def test_a_box_is_drawn_where_it_is_in_its_own_picture() -> None:
    images = torch.full((2, 3, 64, 64), GREY / 255)
    targets = torch.tensor([[1.0, 4.0, 32.0, 40.0, 20.0, 30.0]])  # picture 1, class 4, centre, sides
    sheet = draw_batch(images, targets, ["a", "b", "c", "d", "e"])
    scale, left = SIDE_PX / 64, SIDE_PX + GAP_PX
    assert sheet.size == (2 * SIDE_PX + GAP_PX, SIDE_PX)
    for x, y in ((22, 40), (42, 40), (32, 25), (32, 55)):  # the middles of its sides
        assert is_colour(sheet, left + x * scale, y * scale, 4)
    assert not is_colour(sheet, left + 32 * scale, 40 * scale, 4)
    assert np.unique(np.asarray(sheet)[:, :SIDE_PX]).tolist() == [GREY], "the other picture has no box"


def test_a_grid_shows_16_pictures_at_most() -> None:
    sheet = draw_batch(torch.zeros(20, 3, 64, 64), torch.zeros(0, 6), ["a"])
    assert sheet.size == (4 * SIDE_PX + 3 * GAP_PX,) * 2


@pytest.mark.parametrize(("height", "width", "size"), [(64, 32, (160, 320)), (640, 480, (480, 640))])
def test_small_pictures_are_enlarged_and_none_is_distorted(height: int, width: int, size: tuple[int, int]) -> None:
    assert draw_batch(torch.zeros(1, 3, height, width), torch.zeros(0, 6), ["a"]).size == size


def test_names_stay_inside_the_picture() -> None:
    images = torch.full((1, 3, 64, 64), GREY / 255)
    corner = torch.tensor([[0.0, 0.0, 61.0, 1.5, 6.0, 3.0], [0.0, 0.0, 61.0, 62.5, 6.0, 3.0]])
    named = np.asarray(draw_batch(images, corner, ["a long name of a class"]))
    # Room for the name is to the left of the box, which begins at 58 of 64 pixels.
    assert (named[:14, 150:280] != GREY).any()
    assert (named[-20:, 150:280] != GREY).any()


def test_a_class_without_a_name_a_box_without_area_and_values_beyond_white_do_no_harm() -> None:
    targets = torch.tensor([[0.0, 7.0, 32.0, 32.0, 0.0, 0.0], [0.0, 7.0, 32.0, 32.0, 9.0, 9.0]])
    sheet = draw_batch(torch.full((1, 3, 64, 64), 1.2), targets, ["a"])
    assert np.asarray(sheet)[0, 0].tolist() == [255, 255, 255]


def test_what_was_found_stands_beside_the_truth_and_the_unsure_is_left_out() -> None:
    truth = [np.array([[0, 8.0, 30, 24, 44]]), np.zeros((0, 5))]
    found = [np.array([[30, 30, 46, 44, 0.9, 1], [50, 30, 60, 44, 0.1, 1]]), np.zeros((0, 6))]
    sheet = draw_findings(make_split(2), truth, found, ["a", "b"])
    scale, caption, second = SIDE_PX / 64, 20, SIDE_PX + 2
    assert sheet.size == (2 * (2 * SIDE_PX + 2) + GAP_PX, caption + round(48 * scale))
    assert is_colour(sheet, 8 * scale, caption + 38 * scale, 0)
    assert is_colour(sheet, second + 30 * scale, caption + 38 * scale, 1)
    assert not is_colour(sheet, second + 50 * scale, caption + 38 * scale, 1)
    assert not is_colour(sheet, second + 8 * scale, caption + 38 * scale, 0)


def test_pictures_are_drawn_evenly_from_the_split() -> None:
    empty = [np.zeros((0, 5))] * 100
    sheet = draw_findings(make_split(100), empty, [np.zeros((0, 6))] * 100, ["a"], pictures=6)
    assert sheet.height == 3 * (20 + 240) + 2 * GAP_PX


def test_no_picture_is_an_empty_sheet() -> None:
    assert draw_findings(make_split(0), [], [], ["a"]).size == (1, 1)
    assert draw_batch(torch.zeros(0, 3, 64, 64), torch.zeros(0, 6), ["a"]).size == (1, 1)


def test_a_row_is_as_high_as_its_highest_picture() -> None:
    sheet = arrange([Image.new("RGB", size) for size in ((10, 20), (30, 5), (7, 7))], 2, gap=1)
    assert sheet.size == (10 + 1 + 30, 20 + 1 + 7)


def test_the_first_classes_have_colours_of_their_own() -> None:
    colours = np.array([colour_of(label) for label in range(20)], dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 25
