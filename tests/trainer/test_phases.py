"""A training's stretches of epochs."""

from __future__ import annotations

from dataclasses import replace

from trainer.api import TrainOptions
from trainer.detection.phases import Phase, phase_at, phases_of

OPTIONS = TrainOptions(epochs=10, batch=8)


def test_a_training_has_one_phase_as_a_rule() -> None:
    assert phases_of(OPTIONS) == (Phase(1, 10, 8, ""),)
    assert phases_of(replace(OPTIONS, freeze_layers="3")) == (Phase(1, 10, 8, "3"),)


def test_freeze_epochs_train_the_rest_of_the_model_first_and_then_all_of_it() -> None:
    options = replace(OPTIONS, freeze_epochs=4, freeze_batch=16)
    assert phases_of(options) == (Phase(1, 4, 16, "backbone"), Phase(5, 10, 8, ""))
    assert phases_of(replace(options, freeze_layers="5", freeze_batch=0))[0] == Phase(1, 4, 8, "5")
    assert [phase_at(options, epoch).first for epoch in (1, 4, 5, 10)] == [1, 1, 5, 5]


def test_freezing_longer_than_the_run_freezes_all_of_it() -> None:
    assert phases_of(replace(OPTIONS, freeze_epochs=99)) == (Phase(1, 10, 8, "backbone"),)
