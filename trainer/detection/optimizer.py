"""What moves the weights: parameter groups, the schedule with its warm-up, and the moving average that is evaluated."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from trainer.api import DataError
from trainer.detection.recipe import Recipe

Module = TypeVar("Module", bound=nn.Module)
Pairs = tuple[list[Tensor], list[Tensor]]

NOMINAL_BATCH = 64  # the batch for which YOLOv5's weight_decay is meant
MEMORY_SHARE = 0.1  # of all updates, that the moving average remembers
FLAT_SHARE = 0.7  # of a run, that a trapezoid stays at the full rate
FULL_WARMUP_FROM_EPOCHS = 30  # shorter runs warm up for a proportionally shorter time

Norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(model: nn.Module, recipe: Recipe, name: str, batch: int) -> torch.optim.Optimizer:
    """Three groups as in YOLOv5 v6.2+: biases first, then decayed weights, then the weights of norms.

    SGD has Nesterov momentum; Adam and AdamW take `momentum` as beta1. The decay grows with the pictures of an update
    (`batch` / 64). What is frozen stands in no group.
    """
    biases: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            group = biases if key == "bias" else norms if isinstance(module, Norms) else weights
            if parameter.requires_grad:
                group.append(parameter)
    decay = recipe.weight_decay * batch / NOMINAL_BATCH
    groups = [
        {"params": biases, "weight_decay": 0.0},
        {"params": weights, "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name](groups, recipe)


def _sgd(groups: list[dict[str, object]], recipe: Recipe) -> torch.optim.Optimizer:
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr0, momentum=recipe.momentum, nesterov=nesterov, fused=True)


def _adam(groups: list[dict[str, object]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=recipe.lr0, betas=(recipe.momentum, 0.999), fused=True)


def _adamw(groups: list[dict[str, object]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=recipe.lr0, betas=(recipe.momentum, 0.999), fused=True)


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, object]], Recipe], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def linear(progress: float, lrf: float) -> float:
    """From 1 at progress 0 to lrf at progress 1, straight."""
    return 1.0 - progress * (1.0 - lrf)


def cosine(progress: float, lrf: float) -> float:
    """From 1 at progress 0 to lrf at progress 1, along half a cosine."""
    return lrf + (1.0 - lrf) * (1.0 + math.cos(math.pi * progress)) / 2.0


def trapezoid(progress: float, lrf: float) -> float:
    """1 for the first 70 %, then straight to lrf: with the warm-up before it, a trapezoid.

    Constant and cooldown, as in Zhai et al. 2022 (Scaling Vision Transformers) and Haegele et al. 2024 (Scaling Laws
    and Compute-Optimal Training Beyond Fixed Training Durations), who find it equal to a cosine in long runs. In one
    of a few hundred updates the time at the full rate is worth more than the long fade: docs/levers.md.
    """
    return 1.0 - max(0.0, progress - FLAT_SHARE) / (1.0 - FLAT_SHARE) * (1.0 - lrf)


SCHEDULES: Mapping[str, Callable[[float, float], float]] = {"linear": linear, "cosine": cosine, "trapezoid": trapezoid}


def check_names(optimizer: str, schedule: str) -> None:
    """DataError for an optimizer or a schedule that is not ours."""
    for kind, name, known in (("optimizer", optimizer, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
        if name not in known:
            raise DataError(f"unknown {kind} '{name}'; it is one of {', '.join(known)}")


def warmup_epochs(recipe: Recipe, epochs: int) -> float:
    """How many epochs the warm-up takes: `warmup_epochs` in a run of 30 or more, in proportion in a shorter one.

    The trainers' floor of 100 or 1000 updates swallows a short run whole; a share of the run keeps the hyp alive in it.
    """
    return recipe.warmup_epochs * min(1.0, epochs / FULL_WARMUP_FROM_EPOCHS)


class Schedule:
    """Sets rates and momentum before every batch: in a short run an epoch would be too coarse a step.

    `nominal_batch` says how many pictures make an update: gradients of that many batches are gathered, of fewer while
    it warms up, as in YOLOv5 (0: every batch is an update, since a short run has too few of them to give away).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        name: str,
        epochs: int,
        steps: int,
        accumulate: int = 1,
    ) -> None:
        """`steps` is the number of batches in one epoch, `accumulate` how many make an update after the warm-up."""
        self.optimizer = optimizer
        self.recipe = recipe
        self.shape = SCHEDULES[name]
        self.total = max(1, epochs * steps - 1)
        self.warmup = warmup_epochs(recipe, epochs) * steps
        self.accumulate = accumulate
        self.batches = 0

    def advance(self) -> int:
        """Prepare the optimizer for the next batch; returns how many batches the update is to gather now."""
        recipe, batch = self.recipe, self.batches
        self.batches += 1
        rate = recipe.lr0 * self.shape(min(1.0, batch / self.total), recipe.lrf)
        warm = min(1.0, batch / self.warmup) if self.warmup > 0 else 1.0
        momentum = _between(recipe.warmup_momentum, recipe.momentum, warm)
        for index, group in enumerate(self.optimizer.param_groups):
            start = recipe.warmup_bias_lr if index == 0 else 0.0  # group 0 holds the biases
            group["lr"] = _between(start, rate, warm)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
        return max(1, round(_between(1.0, self.accumulate, warm)))


def accumulation(nominal_batch: int, batch: int) -> int:
    """How many batches make an update of about `nominal_batch` pictures; 0 pictures: one batch."""
    return max(1, round(nominal_batch / batch))


def _between(start: float, end: float, share: float) -> float:
    return start * (1.0 - share) + end * share


class Average(Generic[Module]):
    """An exponential moving average of weights and running statistics: what is evaluated and saved.

    Its memory is a tenth of the run, at most 10,000 updates (the decay of 0.9999 that YOLOv5 uses), and it ramps up
    from the first update on, so that it also serves a run of a few hundred updates.
    """

    def __init__(self, model: Module, updates: int) -> None:
        """`updates` is the length of the whole run."""
        self.model = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)
        self.decay = 1.0 - 1.0 / min(10_000.0, max(2.0, updates * MEMORY_SHARE))
        self.updates = 0
        self._paired: tuple[Module, Pairs, Pairs] | None = None

    @torch.no_grad()
    def update(self, model: Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1.0 + self.updates) / (10.0 + self.updates))
        averaged, copied = self._pair(model)
        # One call for all: a small network spends a tenth of its update in calls for each of them.
        torch._foreach_lerp_(*averaged, 1.0 - decay)
        if copied[0]:  # the counters of batch norms, where there are any
            torch._foreach_copy_(*copied)

    def _pair(self, model: Module) -> tuple[Pairs, Pairs]:
        """What is averaged and what is copied, ours and theirs; found once, since walking a module takes its time."""
        if self._paired is None or self._paired[0] is not model:
            pairs = list(zip(_state(self.model), _state(model), strict=True))
            floats = [pair for pair in pairs if pair[0].dtype.is_floating_point]
            others = [pair for pair in pairs if not pair[0].dtype.is_floating_point]
            self._paired = (model, _unzip(floats), _unzip(others))
        return self._paired[1:]


def _unzip(pairs: list[tuple[Tensor, Tensor]]) -> Pairs:
    return [mine for mine, _ in pairs], [its for _, its in pairs]


def _state(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
