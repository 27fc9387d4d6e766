"""A function as a trainer: it keeps the contract, and what is none is told in one sentence."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from toy import ToyTrainer, train

from trainer import DataError, EpochMetrics, TrainerError, TrainJob, TrainOptions
from trainer.function import FunctionTrainer, name_of, takes_a_job
from trainer.process import ProcessTrainer
from trainer.testing import TrainerContract
from trainer.worker import load_trainer

OPTIONS = TrainOptions(data="points", epochs=3)


@pytest.fixture(scope="module")
def process_trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessTrainer]:
    with ProcessTrainer("toy:train", log=tmp_path_factory.mktemp("run") / "worker.log") as trainer:
        yield trainer


class TestFunctionTrainer(TrainerContract):
    test_an_unknown_hyp_fails_before_epoch_1 = None  # it takes any

    @pytest.fixture
    def trainer(self) -> FunctionTrainer:
        return FunctionTrainer(train)

    @pytest.fixture
    def job(self, tmp_path: Path) -> TrainJob:
        return TrainJob({"lr0": 0.02, "momentum": 0.9}, OPTIONS, tmp_path)


class TestFunctionInAProcess(TestFunctionTrainer):
    @pytest.fixture
    def trainer(self, process_trainer: ProcessTrainer) -> ProcessTrainer:
        return process_trainer


def job(folder: Path) -> TrainJob:
    return TrainJob({}, OPTIONS, folder)


def test_whoever_stops_pulling_closes_the_function(tmp_path: Path) -> None:
    epochs = FunctionTrainer(train).train(job(tmp_path))
    next(epochs)
    assert not (tmp_path / "cleaned-up").exists()
    epochs.close()
    assert (tmp_path / "cleaned-up").exists()


def test_what_a_function_gives_instead_of_metrics_is_told(tmp_path: Path) -> None:
    def forgets(job: TrainJob) -> None: ...

    def yields_a_number(job: TrainJob) -> Iterator[float]:
        yield 0.5

    with pytest.raises(TrainerError, match=r"^forgets\(\) returned None; a trainer yields an EpochMetrics after every"):
        next(FunctionTrainer(forgets).train(job(tmp_path)))
    with pytest.raises(TrainerError, match=r"^yields_a_number\(\) yielded 0.5; expected an EpochMetrics$"):
        next(FunctionTrainer(yields_a_number).train(job(tmp_path)))


def test_a_list_of_metrics_will_do(tmp_path: Path) -> None:
    metrics = EpochMetrics(1, 0.5, 0.5, 0.5, 0.5)
    assert list(FunctionTrainer(lambda job: [metrics]).train(job(tmp_path))) == [metrics]


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    def digest(data: str) -> str:
        return FunctionTrainer(train).prepare(TrainOptions(data=data)).digest

    for name, text in (("a.yaml", "cells"), ("b.yaml", "cells"), ("c.yaml", "tissue")):
        (tmp_path / name).write_text(text)
    assert digest(str(tmp_path / "a.yaml")) == digest(str(tmp_path / "b.yaml")) != digest(str(tmp_path / "c.yaml"))
    assert digest("points") != digest("digits")


def make() -> ToyTrainer:
    return ToyTrainer()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (train, True),
        (ToyTrainer().train, True),
        (partial(lambda factor, job: [], 2.0), True),
        (lambda job, verbose=False: [], True),
        (make, False),
        (ToyTrainer, False),
        (ToyTrainer(), False),
        (7, False),
    ],
)
def test_a_function_of_a_job_is_told_from_what_makes_a_trainer(found: object, expected: bool) -> None:
    assert takes_a_job(found) is expected


@pytest.mark.parametrize(
    ("trainer", "name"),
    [(train, "train"), (lambda job: [], "lambda"), (partial(train), "train"), (ToyTrainer(), "ToyTrainer")],
)
def test_a_trainer_has_a_name(trainer: object, name: str) -> None:
    assert name_of(trainer) == name


def test_a_trainer_is_loaded_from_a_file_too(tmp_path: Path) -> None:
    for held, kind in ((train, FunctionTrainer), (ToyTrainer, ToyTrainer), (ToyTrainer(), ToyTrainer)):
        (tmp_path / "mine.pkl").write_bytes(pickle.dumps(held))
        assert isinstance(load_trainer(str(tmp_path / "mine.pkl")), kind)


@pytest.mark.parametrize("content", [None, b"", b"no pickle", pickle.dumps(7)])
def test_a_file_that_holds_no_trainer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "mine.pkl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"mine.pkl' (cannot be loaded: \w+|is no trainer: it has no hyps)"):
        load_trainer(str(file))
