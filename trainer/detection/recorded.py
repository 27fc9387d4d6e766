"""A computation on a GPU, recorded once and replayed: a small network's step is mostly launching its kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from trainer.detection.matching import Matches

WARM_UPS = 3  # passes before the recording, in which libraries choose their algorithms (PyTorch's notes on CUDA graphs)

Pass = Callable[[Tensor, Matches], Tensor]


class RecordedPass:
    """Forward, loss and backward of batches of one shape as one CUDA graph.

    `compute` takes images and matches, leaves gradients and returns the terms of the loss. Gradients of a replay lie
    where those of the recording did, and replace them.
    """

    def __init__(
        self,
        compute: Pass,
        network: nn.Module,
        parameters: Iterable[nn.Parameter],
        images: Tensor,
        matches: Matches,
    ) -> None:
        self._images = images.clone(memory_format=torch.channels_last)
        self._matches = Matches(matches.integers.clone(), matches.floats.clone())
        parameters = list(parameters)
        before = [buffer.clone() for buffer in network.buffers()]
        stream = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                _forget(parameters)
                compute(self._images, self._matches)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        _forget(parameters)
        self._graph = torch.cuda.CUDAGraph()
        # Only this thread records: another one may be preparing the next batch meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._terms = compute(self._images, self._matches)
        for buffer, was in zip(network.buffers(), before, strict=True):
            buffer.copy_(was)  # the warm-ups moved the running statistics

    def holds(self, images: Tensor, matches: Matches) -> bool:
        """Whether a batch has the shape of the recording."""
        return images.shape == self._images.shape and len(matches) == len(self._matches)

    def __call__(self, images: Tensor, matches: Matches) -> Tensor:
        """Replay with this batch; the terms are overwritten by the next call."""
        self._images.copy_(images)
        self._matches.integers.copy_(matches.integers)
        self._matches.floats.copy_(matches.floats)
        self._graph.replay()
        return self._terms


def _forget(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
