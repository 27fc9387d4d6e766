"""A small Darknet cfg with weights and a picture, and what OpenCV predicts of them, in opencv_golden.json.

`python tests/trainer/opencv_golden.py`, where opencv-python is installed, writes that file anew.
"""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_suffix(".json")
SIDE = 32  # of the picture, in pixels


def section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key.rstrip('_')}={value}" for key, value in options.items()), ""])


def conv(filters: int, size: int, stride: int, activation: str) -> str:
    steered = {"batch_normalize": 1, "filters": filters, "size": size, "stride": stride, "pad": 1}
    return section("convolutional", **steered, activation=activation)


def head(activation: str, **options: object) -> str:
    before = section("convolutional", filters=21, size=1, stride=1, pad=1, activation=activation)
    return before + section("yolo", mask="0,1,2", anchors="4,6, 8,8, 14,10", classes=2, num=3, **options)


CFG = "".join(
    [
        section("net", width=SIDE, height=SIDE, channels=3),
        conv(8, 3, 2, "mish"),
        section("route", layers=-1, groups=2, group_id=1),
        conv(4, 3, 1, "swish"),
        section("shortcut", from_=-2, activation="linear"),
        section("maxpool", size=2, stride=1),
        section("route", layers="-1, 0"),
        conv(8, 3, 2, "leaky"),
        section("maxpool", size=2, stride=2),
        conv(8, 1, 1, "relu"),
        head("linear", scale_x_y=1.2),
        section("route", layers=8),
        conv(4, 1, 1, "leaky"),
        section("upsample", stride=2),
        section("route", layers="-1, 6"),
        head("logistic", scale_x_y=2.0, new_coords=1),
    ]
)
# Of each convolution: filters, numbers of a filter's kernel, whether it has batch norm.
CONVOLUTIONS = [(8, 27, 1), (4, 36, 1), (8, 108, 1), (8, 8, 1), (21, 8, 0), (4, 8, 1), (21, 12, 0)]


def wave(count: int, phase: float) -> np.ndarray:
    """Numbers between -1 and 1 that look like none in particular, the same on every machine."""
    return np.sin(np.arange(count) * 12.9898 + phase).astype(np.float32)


def write_weights(path: Path) -> None:
    """The .weights of `CFG`, as Darknet lays them out."""
    parts = []
    for phase, (filters, kernel, normalised) in enumerate(CONVOLUTIONS):
        parts.append(wave(filters, phase))  # biases, or beta
        if normalised:
            parts += [1 + wave(filters, phase + 0.1) / 2, wave(filters, phase + 0.2) / 4]  # gamma, means
            parts.append(1 + wave(filters, phase + 0.3) / 2)  # variances
        parts.append(wave(filters * kernel, phase + 0.4) / kernel**0.5 * 2)
    path.write_bytes(struct.pack("<3iQ", 0, 2, 5, 64) + np.concatenate(parts).astype("<f4").tobytes())


def picture() -> np.ndarray:
    """[1, 3, SIDE, SIDE] in 0..1."""
    return (wave(3 * SIDE * SIDE, 0.5).reshape(1, 3, SIDE, SIDE) + 1) / 2


def predict_with_opencv() -> dict[str, Any]:
    """Per head rows of cx, cy, w, h (parts of the picture), objectness and classes times objectness.

    They go row by row of the grid, in a row cell by cell, in a cell anchor by anchor. Classes below OpenCV's threshold
    of 0.2 are 0.
    """
    import cv2  # only here: the tests do without

    with tempfile.TemporaryDirectory() as folder:
        cfg, weights = Path(folder) / "a.cfg", Path(folder) / "a.weights"
        cfg.write_text(CFG)
        write_weights(weights)
        network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    network.setInput(picture())
    heads = network.forward(network.getUnconnectedOutLayersNames())
    return {"opencv": cv2.__version__, "heads": [np.round(rows.astype(float), 6).tolist() for rows in heads]}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(predict_with_opencv()) + "\n", encoding="utf-8")
