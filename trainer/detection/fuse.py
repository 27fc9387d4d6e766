"""A network for inference only: batch norms folded into the convolutions before them, all weights of one type."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.detection.darknet import Convolution, Darknet


@torch.no_grad()
def fuse(model: Darknet, dtype: torch.dtype = torch.float32) -> Darknet:
    """The same network as in evaluation mode, with the weights of its convolutions as they are now, in `dtype`.

    Run it under autocast to `dtype`. The model stays as it is; what has no batch norm is shared with it.
    """
    fused = copy.copy(model)
    layers = [_fold(layer, dtype) if isinstance(layer, Convolution) else layer for layer in model.layers]
    fused._modules = {**model._modules, "layers": nn.ModuleList(layers)}
    return fused


def _fold(layer: Convolution, dtype: torch.dtype) -> Convolution:
    """norm(conv(x)) = conv(x) * scale + (bias - mean) * scale + shift, where scale = weight / sqrt(variance + eps)."""
    conv, norm = layer.conv, layer.norm
    weight, bias = conv.weight, conv.bias
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        mean = norm.running_mean if bias is None else norm.running_mean - bias
        weight, bias = nn.Parameter(weight * scale.view(-1, 1, 1, 1)), nn.Parameter(norm.bias - mean * scale)
    folded = copy.copy(conv)
    folded._parameters = {"weight": _constant(weight, dtype), "bias": None if bias is None else _constant(bias, dtype)}
    return Convolution(folded, nn.Identity(), layer.activation)


def _constant(values: Tensor, dtype: torch.dtype) -> nn.Parameter:
    values = values.detach().to(dtype)
    if values.dim() == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(values, requires_grad=False)
