"""Layers that stay as they are while the rest of a model trains."""

from __future__ import annotations

from torch import nn

from trainer.api import DataError
from trainer.detection.darknet import Darknet, Head, Shortcut

BACKBONE = "backbone"


def freeze_layers(model: Darknet, which: str) -> int:
    """Freeze the first layers of `model` and nothing else; returns how many. Raises DataError.

    `which` is "backbone" (see `count_backbone`), a number of layers, or "" for none. What is frozen gets no gradient
    and stays in evaluation mode, whatever `model.train()` is told: neither its weights nor its batch statistics move,
    and its dropout does not act.
    """
    count = _read_count(model, which)
    for number, layer in enumerate(model.layers):
        for parameter in layer.parameters():
            parameter.requires_grad_(number >= count)
            if number < count:
                parameter.grad = None  # one that is left over would still be stepped along
    model.frozen = count
    model.train(model.training)
    return count


def count_backbone(model: Darknet) -> int:
    """How many first layers are the backbone: those that lead down to the coarsest grid.

    It ends with the last [shortcut] before the first [upsample] or [yolo], that is with the last residual block; in a
    model without such blocks, right before that [upsample] or before the convolution of that [yolo]. So it is what
    darknet53.conv.74 holds of yolov3 and yolov3-spp, conv.15 of yolov3-tiny and conv.29 of yolov4-tiny. What follows a
    last block, as spatial pyramid pooling, belongs to the heads.
    """
    end = next(number for number, layer in enumerate(model.layers) if isinstance(layer, (nn.Upsample, Head)))
    if isinstance(model.layers[end], Head):
        end -= 1  # its convolution
    return max((n + 1 for n in range(end) if isinstance(model.layers[n], Shortcut)), default=end)


def _read_count(model: Darknet, which: str) -> int:
    if not which:
        return 0
    if which == BACKBONE:
        if count := count_backbone(model):
            return count
        raise DataError("freeze_layers is 'backbone', but this model has no layer before its first head")
    most = max(number for number, layer in enumerate(model.layers) if isinstance(layer, Head)) - 1
    count = int(which) if which.isdecimal() and which.isascii() else -1
    if not 0 <= count <= most:
        raise DataError(
            f"freeze_layers must be 'backbone' or a number of layers from 0 to {most} for this model, got '{which}'"
        )
    return count
