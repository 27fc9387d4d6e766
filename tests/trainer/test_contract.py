"""The trainer contract, held by the toy in this process and through a ProcessTrainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import ToyTrainer

from trainer import TrainJob, TrainOptions
from trainer.process import ProcessTrainer
from trainer.testing import TrainerContract


@pytest.fixture(scope="module")
def process_trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessTrainer]:
    with ProcessTrainer("toy:ToyTrainer", log=tmp_path_factory.mktemp("run") / "worker.log") as trainer:
        yield trainer


class TestToyTrainer(TrainerContract):
    @pytest.fixture
    def trainer(self) -> ToyTrainer:
        return ToyTrainer()

    @pytest.fixture
    def job(self, tmp_path: Path) -> TrainJob:
        return TrainJob({"lr0": 0.02, "momentum": 0.9}, TrainOptions(data="points", epochs=3), tmp_path)


class TestToyTrainerInAProcess(TestToyTrainer):
    @pytest.fixture
    def trainer(self, process_trainer: ProcessTrainer) -> ProcessTrainer:
        return process_trainer
