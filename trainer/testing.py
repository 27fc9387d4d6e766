"""TrainerContract: what every trainer owes its engine, as tests to inherit (needs pytest, as in the `test` extra).

class TestMyTrainer(TrainerContract):
    @pytest.fixture
    def trainer(self):
        return MyTrainer()

    @pytest.fixture
    def job(self, tmp_path):
        return TrainJob({"lr0": 0.01}, TrainOptions(data="tiny.yaml", epochs=3), tmp_path)
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainer.api import EpochMetrics, Hyp, Prepared, Trainer, TrainerError, TrainJob

Begin = Callable[..., Iterator[EpochMetrics]]
Run = Callable[..., list[EpochMetrics]]

TIMED = {"latency_ms"}  # costs that no seed determines
SETTLE_TIMEOUT_S = 5.0  # a process that was told to end needs a moment to be gone


class TrainerContract:
    """Inherit it, give the two fixtures, and pytest holds your trainer to the contract of `trainer.Trainer`.

    The job should be the smallest that learns anything, of three epochs or so: it is trained about fifteen times.
    """

    bad_options: ClassVar[Sequence[Mapping[str, Any]]] = ({"epochs": 0}, {"batch": 0}, {"data": "no-such-data-set"})
    """Changes to the job's options, each of which no training can run with."""

    @pytest.fixture
    @abstractmethod
    def trainer(self) -> Trainer | Iterator[Trainer]:
        """The trainer under test; a fixture may yield it, and close it afterwards."""

    @pytest.fixture
    @abstractmethod
    def job(self) -> TrainJob:
        """A job of at least two epochs that the trainer can do."""

    @pytest.fixture
    def begin(self, trainer: Trainer, job: TrainJob) -> Begin:
        """Begin the job, with other hyps or options if told so, in a new folder: begin(hyp={...}, seed=1)."""
        trainings = 0

        def begin(hyp: Hyp | None = None, **options: Any) -> Iterator[EpochMetrics]:
            nonlocal trainings
            trainings += 1
            workdir = job.workdir / f"training-{trainings}"
            workdir.mkdir()
            hyp = job.hyp if hyp is None else hyp
            return trainer.train(TrainJob(hyp, replace(job.options, **options), workdir))

        trainer.prepare(job.options)
        return begin

    @pytest.fixture
    def run(self, begin: Begin) -> Run:
        """Train the job to its end, begun by `begin`: the metrics without what a clock measured."""

        def run(hyp: Hyp | None = None, **options: Any) -> list[EpochMetrics]:
            return [timeless(metrics) for metrics in begin(hyp, **options)]

        return run

    def test_epochs_rise_from_1_to_the_last(self, run: Run, job: TrainJob) -> None:
        assert [metrics.epoch for metrics in run()] == list(range(1, job.options.epochs + 1))

    def test_metrics_lie_between_0_and_1(self, run: Run) -> None:
        for metrics in run():
            for name in ("precision", "recall", "map50", "map50_95"):
                assert 0.0 <= getattr(metrics, name) <= 1.0, f"{name} in {metrics}"

    def test_every_epoch_tells_the_costs_that_were_promised(self, trainer: Trainer, job: TrainJob, run: Run) -> None:
        promised = trainer.prepare(job.options).costs
        for metrics in run():
            assert metrics.costs.keys() == promised.keys()
            for name, cost in metrics.costs.items():
                assert math.isfinite(cost), f"{name} in {metrics}"
                assert cost >= 0, f"{name} in {metrics}"

    def test_the_same_seed_gives_the_same_metrics_bit_for_bit(self, run: Run) -> None:
        assert run(seed=3) == run(seed=3)

    def test_another_seed_gives_other_metrics(self, run: Run) -> None:
        assert run(seed=3) != run(seed=4)

    def test_closing_after_the_first_epoch_leaves_no_process_and_no_thread(self, run: Run, begin: Begin) -> None:
        run()  # what a trainer keeps between trainings, such as a pool of threads, is there from now on
        before = running()
        epochs = begin()
        next(epochs)
        close(epochs)
        left = left_behind(before)
        assert not left, f"still running after close(): {', '.join(sorted(left))}"

    def test_a_training_after_a_closed_one_is_as_good_as_the_first(self, run: Run, begin: Begin) -> None:
        undisturbed = run()
        epochs = begin()
        assert timeless(next(epochs)) == undisturbed[0]
        close(epochs)
        assert run() == undisturbed

    def test_a_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(
        self, trainer: Trainer, job: TrainJob, run: Run
    ) -> None:
        """Of a trainer that leaves one: that is how it says that it can."""
        saved = replace(job, options=replace(job.options, save=True))
        trainer.prepare(saved.options)
        epochs = iter(trainer.train(saved))
        first = timeless(next(epochs))
        close(epochs)
        if (job.workdir / "last.pt").exists():
            again = [timeless(metrics) for metrics in trainer.train(replace(saved, resume=True))]
            assert again == [first, *run()[1:]]

    def test_an_unknown_hyp_fails_before_epoch_1(self, trainer: Trainer, begin: Begin, job: TrainJob) -> None:
        if trainer.hyps is None:
            pytest.skip("this trainer takes any hyp")
        assert "no_such_hyp" not in trainer.hyps
        with pytest.raises(TrainerError, match="no_such_hyp"):
            next(begin({**job.hyp, "no_such_hyp": 1.0}))

    def test_the_jobs_hyps_are_known(self, trainer: Trainer, job: TrainJob) -> None:
        assert trainer.hyps is None or trainer.hyps >= set(job.hyp)

    def test_bad_options_fail_before_epoch_1(self, begin: Begin) -> None:
        for options in self.bad_options:
            with pytest.raises(TrainerError):
                next(begin(**options))

    def test_a_training_after_a_failed_one_is_as_good_as_the_first(self, run: Run) -> None:
        undisturbed = run()
        with pytest.raises(TrainerError):
            run(**self.bad_options[0])
        assert run() == undisturbed

    def test_training_does_not_change_the_hyp_it_was_given(self, run: Run, job: TrainJob) -> None:
        hyp = dict(job.hyp)
        run(hyp)
        assert hyp == dict(job.hyp)

    def test_preparing_twice_finds_the_same(self, trainer: Trainer, job: TrainJob) -> None:
        first, second = trainer.prepare(job.options), trainer.prepare(job.options)
        assert isinstance(first, Prepared)
        assert first.digest == second.digest


def timeless(metrics: EpochMetrics) -> EpochMetrics:
    """The metrics without what a clock measured."""
    return replace(metrics, seconds=0.0, costs={**metrics.costs, **dict.fromkeys(TIMED & metrics.costs.keys(), 0.0)})


def close(epochs: Iterator[EpochMetrics]) -> None:
    """Stop pulling, as an engine does that prunes."""
    assert hasattr(epochs, "close"), "train() must return an iterator that can be closed: a generator, as a rule"
    epochs.close()


def running() -> set[str]:
    """This process' threads, and all processes that descend from it."""
    threads = {f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()}
    return threads | {f"process {pid}" for pid in descendants(os.getpid())}


def descendants(ancestor: int) -> set[int]:
    """The living processes that `ancestor` started, and those that these started; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended just now
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]  # the name before it may hold anything
            if state != "Z":  # a zombie has ended
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: set[int] = set()
    unseen = [ancestor]
    while unseen:
        below = children.get(unseen.pop(), [])
        found.update(below)
        unseen.extend(below)
    return found


def left_behind(before: set[str]) -> set[str]:
    """What runs now and did not run before, after a moment to end in."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while (left := running() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
