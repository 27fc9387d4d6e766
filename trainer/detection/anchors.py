"""Anchors from the training boxes: k-means once for a data set and a size, the same for every trial of a study."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MINIMUM_PX = 2.0  # smaller boxes say nothing about a useful anchor; they are what resizing left of a sliver


def fit_anchors(sizes_px: NDArray[np.floating], count: int) -> NDArray[np.float32]:
    """Cluster box sizes [M, 2] (width, height in pixels) into `count` anchors [count, 2], by area ascending.

    The k-means runs on logarithms, since boxes are matched to anchors by the ratio of their sides (loss.py), and is
    seeded, so that the same boxes give the same anchors. With fewer different sizes than anchors the missing ones are
    the known ones at half and double the size; without any box they are powers of two.
    """
    sizes = np.asarray(sizes_px, dtype=np.float64).reshape(-1, 2)
    sizes = sizes[(sizes >= MINIMUM_PX).all(1)]
    known = np.unique(sizes.round(3), axis=0)
    if len(known) > count:
        anchors = _cluster(sizes, count)
    else:
        start = known if len(known) else np.full((1, 2), 16.0)
        scales = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 16.0, 32.0, 64.0, 128.0)
        spread = np.concatenate([start * scale for scale in scales])
        anchors = spread[np.arange(count) % len(spread)]
    return anchors[np.argsort(anchors.prod(1), kind="stable")].astype(np.float32)


def _cluster(sizes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans  # slow to import, and only needed when anchors are fitted

    fitted = KMeans(n_clusters=count, n_init=5, random_state=0).fit(np.log(sizes))
    return np.asarray(np.exp(fitted.cluster_centers_))
