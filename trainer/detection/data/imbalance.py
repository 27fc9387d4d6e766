"""How much a class, and a picture that shows it, weighs where some classes are rare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_weights(classes: np.ndarray, nc: int) -> np.ndarray:
    """Inverse frequency of each class, float64 [nc], their sum 1; a class that never occurs counts as if it did once.

    YOLOv5 v7.0, utils/general.py, labels_to_class_weights, whose caller multiplies by nc.
    """
    counts = np.bincount(np.asarray(classes, np.int64), minlength=nc).astype(np.float64)
    inverse = 1.0 / np.maximum(counts, 1.0)
    return np.asarray(inverse / inverse.sum())


def image_weights(labels: Sequence[np.ndarray], weights_per_class: np.ndarray) -> np.ndarray:
    """The weight of each picture, float64 [N]: the sum of its boxes' class weights; 0 without a box.

    `labels` holds an array [n, 5] for each picture, class first. YOLOv5 v7.0, utils/general.py,
    labels_to_image_weights.
    """
    return np.array([weights_per_class[of_image[:, 0].astype(np.int64)].sum() for of_image in labels], np.float64)
