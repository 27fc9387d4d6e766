"""Rare classes weigh more, and so do the pictures that show them."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.detection.data import class_weights, image_weights


def test_a_class_weighs_the_inverse_of_its_boxes() -> None:
    weights = class_weights(np.array([0, 0, 0, 0, 1, 2, 2]), 3)
    assert weights == pytest.approx(np.array([1 / 4, 1, 1 / 2]) / (7 / 4))
    assert weights.sum() == pytest.approx(1)


def test_a_class_that_never_occurs_counts_as_if_it_did_once() -> None:
    assert class_weights(np.array([0, 0]), 3) == pytest.approx([0.2, 0.4, 0.4])
    assert class_weights(np.empty(0, np.int64), 4) == pytest.approx([0.25] * 4)


def test_a_picture_weighs_the_sum_of_its_boxes() -> None:
    pictures = [np.array([[0, 1, 1, 9, 9], [2, 1, 1, 9, 9], [2, 2, 2, 9, 9]], np.float32), np.empty((0, 5), np.float32)]
    assert image_weights(pictures, np.array([0.5, 0.3, 0.2])).tolist() == pytest.approx([0.9, 0.0])
