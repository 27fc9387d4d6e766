"""Several processes as one trainer: who is who, and what they tell one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """The processes of one training, seen from one of them: `rank` of `world`, which computes on `device`."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes files, scores and reports."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same for each."""
        return tensor

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over all processes in each backward pass."""
        return model
