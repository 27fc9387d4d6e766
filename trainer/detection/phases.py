"""Phases: a training as one or two stretches of epochs, each with its own batch and its own frozen layers."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.api import TrainOptions


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `last` (from 1, both included) in batches of `batch`; `frozen` as in TrainOptions."""

    first: int
    last: int
    batch: int
    frozen: str

    @property
    def epochs(self) -> int:
        return self.last - self.first + 1


def phases_of(options: TrainOptions) -> tuple[Phase, ...]:
    """One phase; with `freeze_epochs` two: that many epochs with frozen layers, the rest with none.

    The first then freezes `freeze_layers`, or the backbone where nothing is named, and has a batch of `freeze_batch`.
    Each phase has its own warm-up and schedule. `freeze_epochs` beyond the run leave no second phase.
    """
    if not options.freeze_epochs:
        return (Phase(1, options.epochs, options.batch, options.freeze_layers),)
    split = min(options.freeze_epochs, options.epochs)
    frozen = Phase(1, split, options.freeze_batch or options.batch, options.freeze_layers or "backbone")
    if split == options.epochs:
        return (frozen,)
    return frozen, Phase(split + 1, options.epochs, options.batch, "")


def phase_at(options: TrainOptions, epoch: int) -> Phase:
    """The phase that an epoch (from 1) belongs to."""
    return next(phase for phase in phases_of(options) if phase.first <= epoch <= phase.last)
