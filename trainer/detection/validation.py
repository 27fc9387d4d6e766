"""A model against the pictures of a split: detections, and what they score."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from trainer.api import EpochMetrics
from trainer.detection.boxes import non_max_suppression
from trainer.detection.darknet import Darknet
from trainer.detection.data import Split
from trainer.detection.evaluate import score

EVALUATION_BATCH = 32
MAX_CANDIDATES = 1000  # of a picture, that enter suppression: three times what may leave it


def labels_by_picture(split: Split) -> list[np.ndarray]:
    """Per picture float32 [n, 5]: class, x1, y1, x2, y2 in pixels."""
    rows = np.column_stack([split.classes, split.boxes]).astype(np.float32)
    return np.split(rows, np.searchsorted(split.image_index, np.arange(1, len(split.files))))


@torch.inference_mode()
def evaluate(
    model: Darknet,
    split: Split,
    nc: int,
    epoch: int,
    losses: Mapping[str, float],
    started: float,
    dtype: torch.dtype = torch.float32,
) -> EpochMetrics:
    """Score the model on every picture of a split; its convolutions compute in `dtype`."""
    device = next(model.parameters()).device
    detections: list[np.ndarray] = []
    for first in range(0, len(split.files), EVALUATION_BATCH):
        pictures = torch.from_numpy(np.array(split.images[first : first + EVALUATION_BATCH])).to(device)
        images = pictures.permute(0, 3, 1, 2).float() / 255.0
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            predictions = model.predict(images.contiguous(memory_format=torch.channels_last))
        found = non_max_suppression(predictions, max_candidates=MAX_CANDIDATES)
        detections += [part.float().cpu().numpy() for part in found]
    scores = score(detections, labels_by_picture(split), nc)
    return EpochMetrics(
        epoch=epoch,
        precision=scores.precision,
        recall=scores.recall,
        map50=scores.map50,
        map50_95=scores.map50_95,
        losses=losses,
        seconds=time.perf_counter() - started,
    )
