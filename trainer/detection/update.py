"""One update of the weights: the gradients of one batch or several, clipped, applied, and averaged into the EMA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.detection.darknet import Darknet
from trainer.detection.distributed import Team
from trainer.detection.loss import DetectionLoss
from trainer.detection.matching import Matches
from trainer.detection.optimizer import Average
from trainer.detection.precision import Precision
from trainer.detection.recorded import RecordedPasses, forget_gradients

LOSS_SCALE = 64.0  # the losses are means: this makes an update as large as YOLOv5's nominal batch of 64 does
MAX_GRADIENT_NORM = 10.0  # YOLOv5 v6.2+


class Updater:
    """Gathers gradients and applies them.

    On a GPU nothing here waits for the device. With `record` forward and backward passes are recorded once and replayed
    (see RecordedPasses): on one GPU, where every batch is an update and none is scaled against underflow.
    """

    def __init__(
        self,
        model: Darknet,
        loss: DetectionLoss,
        optimizer: torch.optim.Optimizer,
        average: Average[Darknet],
        precision: Precision,
        team: Team,
        *,
        record: bool,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.average = average
        self.precision = precision
        self.team = team
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=precision.scaled)
        self._network = team.wrap(model)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._recorded = RecordedPasses(self._compute, model, self._parameters) if record else None
        self._gathered = 0

    def gather(self, images: Tensor, matches: Matches) -> Tensor:
        """Add a batch's gradients; returns the terms of its loss [3], as means over the batches of all processes."""
        compute = self._recorded or self._compute
        terms = compute(images, matches)
        self._gathered += 1
        return self.team.total(terms)

    def step(self) -> None:
        """Move the weights by what was gathered."""
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self._gathered > 1:
            torch._foreach_div_(gradients, float(self._gathered))
        nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self._recorded is None:  # whose gradients stay where they are
            forget_gradients(self._parameters)
        self._gathered = 0
        self.average.update(self.model)

    def _compute(self, images: Tensor, matches: Matches) -> Tensor:
        with self.precision.autocast(images.device):
            outputs = self._network(images)
        counts = self.loss.count(matches)
        part: float | Tensor = 1.0
        if self.team.world > 1:  # parts of a batch may differ by a picture
            whole = self.team.total(torch.cat([counts, counts.new_full((1,), len(images))]))
            counts, part = whole[:-1], len(images) / whole[-1]
        objective, terms = self.loss.share(outputs, matches, counts, part)
        # A wrapped network averages the gradients of the processes, and theirs are to be summed.
        torch.autograd.backward(self.scaler.scale(objective * (LOSS_SCALE * self.team.world)))
        return terms
