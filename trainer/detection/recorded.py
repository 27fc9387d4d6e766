"""A computation on a GPU, recorded once and replayed: a small network's step is mostly launching its kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from trainer.detection.matching import Matches

WARM_UPS = 3  # passes before the recording, in which libraries choose their algorithms (PyTorch's notes on CUDA graphs)
MOST_SHAPES = 2  # the batches of an epoch differ by one picture at most; a batch of another shape is not recorded

Pass = Callable[[Tensor, Matches], Tensor]


class RecordedPasses:
    """Forward, loss and backward of batches, a recording for each shape that comes.

    `compute` takes images and matches, adds to the gradients and returns the terms of the loss. Here the gradients of
    every pass replace those before, whether it was recorded or not.
    """

    def __init__(self, compute: Pass, network: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._compute = compute
        self._network = network
        self._parameters = list(parameters)
        self._recordings: dict[tuple[object, ...], _Recording] = {}

    def __call__(self, images: Tensor, matches: Matches) -> Tensor:
        """Compute a batch; its terms are overwritten by the next call."""
        shape = (*images.shape, len(matches))
        if shape not in self._recordings:
            forget_gradients(self._parameters)
            if len(self._recordings) >= MOST_SHAPES:
                return self._compute(images, matches)
            self._recordings[shape] = _Recording(self._compute, self._network, self._parameters, images, matches)
        return self._recordings[shape].replay(images, matches)


class _Recording:
    """One CUDA graph, and the memory that it reads and writes."""

    def __init__(
        self, compute: Pass, network: nn.Module, parameters: list[nn.Parameter], images: Tensor, matches: Matches
    ) -> None:
        self._images = images.clone(memory_format=torch.channels_last)
        self._matches = Matches(matches.integers.clone(), matches.floats.clone())
        self._parameters = parameters
        before = [buffer.clone() for buffer in network.buffers()]
        # A stream of this device: the one that torch would take belongs to whichever device was the first.
        stream = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                forget_gradients(parameters)
                compute(self._images, self._matches)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        forget_gradients(parameters)
        self._graph = torch.cuda.CUDAGraph()
        # Only this thread records: another one may be preparing the next batch meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._terms = compute(self._images, self._matches)
        self._gradients = [parameter.grad for parameter in parameters]
        for buffer, was in zip(network.buffers(), before, strict=True):
            buffer.copy_(was)  # the warm-ups moved the running statistics

    def replay(self, images: Tensor, matches: Matches) -> Tensor:
        self._images.copy_(images)
        self._matches.integers.copy_(matches.integers)
        self._matches.floats.copy_(matches.floats)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self._graph.replay()
        return self._terms


def forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """As `optimizer.zero_grad(set_to_none=True)`, of any parameters."""
    for parameter in parameters:
        parameter.grad = None
