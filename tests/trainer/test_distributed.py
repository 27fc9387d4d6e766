"""Several processes as one trainer: they compute what one computes, speak with one voice, and end together."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_trainer import job_of, write_data

from trainer.__main__ import main as shell
from trainer.api import DataError, EpochMetrics, TrainerError, TrainingDiverged, TrainJob, TrainOptions
from trainer.detection.checkpoint import read_checkpoint
from trainer.detection.darknet import read_cfg
from trainer.detection.distributed import Place, Team, check_shares, check_team, choose_device, devices_of
from trainer.detection.trainer import DetectionTrainer
from trainer.process import ProcessTrainer
from trainer.testing import descendants, left_behind, running, timeless

ROOT = Path(__file__).parents[2]
NewJob = Callable[..., TrainJob]


@pytest.fixture(scope="module", autouse=True)
def _own_cache_and_one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def new_job(data: Path, tmp_path: Path) -> NewJob:
    """A job of two processes in a new folder: new_job({"lr0": 0.1}, epochs=3)."""
    jobs = 0

    def new_job(hyp: dict[str, float] | None = None, **options: object) -> TrainJob:
        nonlocal jobs
        jobs += 1
        workdir = tmp_path / f"{jobs:05d}"
        workdir.mkdir()
        return job_of(data, workdir, hyp, **{"imgsz": 32, "device": "cpu,cpu", "amp": "off", **options})

    return new_job


def torchrun(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`python -m trainer` in two processes, as a user would start them."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, "-m", "trainer", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


# They compute what one computes


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without batch norms, which would normalise each share of a batch by itself."""
    cfg = tmp_path_factory.mktemp("cfg") / "plain.cfg"
    cfg.write_text(read_cfg("pico").replace("batch_normalize=1\n", ""))
    return cfg


def test_two_processes_have_the_losses_of_one_in_every_step(plain: Path, tmp_path: Path) -> None:
    """One batch an epoch, so that each epoch's losses are those of a step, after the updates of the steps before.

    Of its 15 pictures one process has 8 and the other 7.
    """
    mine = write_data(tmp_path / "data", train=15)
    options = {"model": str(plain), "batch": 16, "epochs": 8, "imgsz": 32, "amp": "off", "save": True}
    steps: list[list[EpochMetrics]] = []
    weights: list[dict[str, torch.Tensor]] = []
    for device in ("cpu", "cpu,cpu"):
        (workdir := tmp_path / f"on {device}").mkdir()
        steps.append(list(DetectionTrainer().train(job_of(mine, workdir, {"mixup": 0.3}, device=device, **options))))
        weights.append(read_checkpoint(workdir / "last.pt")["weights"])
    for one, two in zip(*steps, strict=True):
        assert two.losses == pytest.approx(one.losses, rel=1e-5, abs=0)
    assert steps[0][0].losses != pytest.approx(steps[0][-1].losses, rel=1e-3)  # the updates moved something
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_of_two_processes_equals_one_that_never_stopped(new_job: NewJob) -> None:
    """In two phases, of which the second gathers the gradients of two batches."""
    options = {"epochs": 3, "freeze_epochs": 1, "freeze_batch": 4, "nominal_batch": 16, "save": True}
    straight, stopped = new_job({"mixup": 0.5}, **options), new_job({"mixup": 0.5}, **options)
    whole = [timeless(metrics) for metrics in DetectionTrainer().train(straight)]
    with closing(DetectionTrainer().train(stopped)) as epochs:
        before = timeless(next(epochs))
    again, *after = (timeless(metrics) for metrics in DetectionTrainer().train(replace(stopped, resume=True)))
    assert [metrics.epoch for metrics in whole] == [1, 2, 3]
    assert again == before
    assert [before, *after] == whole
    one, other = (read_checkpoint(job.workdir / "last.pt")["weights"] for job in (straight, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sorted(path.name for path in stopped.workdir.iterdir()) == ["best.pt", "last.pt"]


# They end together


def test_closing_after_the_first_epoch_ends_all_processes(new_job: NewJob) -> None:
    before = running()  # whatever other tests have left to run, and what may end at any time
    with closing(DetectionTrainer().train(new_job(epochs=50))) as epochs:
        next(epochs)
        assert any(name.startswith("process") for name in running() - before)
    assert not left_behind(before)
    assert not torch.distributed.is_initialized()


def test_a_process_that_is_killed_ends_the_training_with_one_error(new_job: NewJob) -> None:
    before, there = running(), descendants(os.getpid())
    with closing(DetectionTrainer().train(new_job(epochs=50))) as epochs:
        next(epochs)
        (other,) = descendants(os.getpid()) - there
        os.kill(other, signal.SIGKILL)
        with pytest.raises(TrainerError, match=r"^process 1 of 2 of this training was killed by SIGKILL"):
            list(epochs)
    assert not left_behind(before)
    assert not torch.distributed.is_initialized()


def test_a_divergence_is_the_same_error_in_several_processes(new_job: NewJob) -> None:
    with pytest.raises(TrainingDiverged, match=r"no longer finite in epoch \d"):
        list(DetectionTrainer().train(new_job({"lr0": 1e30, "warmup_epochs": 0.0}, optimizer="sgd")))


def test_what_one_process_fails_with_is_what_the_first_raises(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other finds a sitecustomize that takes the memory from it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import resource\n"
        "    import trainer.detection.run as run\n"
        "    def fail(*arguments): raise MemoryError('no more of it')\n"
        "    run.build_model = fail\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainerError, match=r"^out of memory with batch 8 at imgsz 32 \(process 1 of 2: MemoryError"):
        list(DetectionTrainer().train(new_job()))


def test_processes_that_cannot_connect_say_so_and_hinder_no_later_training(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-net")
    with pytest.raises(TrainerError, match="no-such-net"):
        list(DetectionTrainer().train(new_job()))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    assert len(list(DetectionTrainer().train(new_job()))) == 2


def test_whatever_kills_the_first_process_leaves_none(new_job: NewJob, tmp_path: Path) -> None:
    before = descendants(os.getpid())
    job = new_job(epochs=500)
    with ProcessTrainer("trainer.detection.trainer:DetectionTrainer", threads=1, log=tmp_path / "log") as trainer:
        epochs = trainer.train(job)
        next(epochs)
        assert trainer.pid is not None
        (other,) = descendants(trainer.pid)
        assert os.getpgid(other) == trainer.pid
        os.kill(trainer.pid, signal.SIGKILL)
        deadline = time.monotonic() + 240
        while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not Path(f"/proc/{other}").exists()  # though nobody killed the group yet
        with pytest.raises(TrainerError, match="killed by SIGKILL"):
            next(epochs)
    assert descendants(os.getpid()) <= before


# They are started by torchrun


def test_under_torchrun_one_process_speaks_and_writes_and_the_losses_are_those_of_one(
    plain: Path, data: Path, new_job: NewJob, tmp_path: Path
) -> None:
    alone = new_job(device="cpu", model=str(plain))
    arguments = ["--data", str(data), "--model", str(plain), "--imgsz", "32", "--epochs", "2", "--amp", "off"]
    done = torchrun([*arguments, "--workdir", str(tmp_path / "run"), "--save"])
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [epoch["epoch"] for epoch in told] == [1, 2]
    for epoch, metrics in zip(told, DetectionTrainer().train(alone), strict=True):
        assert epoch["losses"] == pytest.approx(metrics.losses, rel=1e-5, abs=0)
    assert done.stderr.count("train 16 pictures") == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.pt", "last.pt"]


def test_under_torchrun_a_wrong_batch_is_refused_and_nothing_is_printed(data: Path) -> None:
    done = torchrun(["--data", str(data), "--batch", "7"])
    assert done.returncode != 0
    assert done.stdout == ""
    assert "error: batch 7 does not divide among 2 processes; 6 or 8 would" in done.stderr


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 8, "device": "cpu,cpu,cpu"}, "batch 8 does not divide among 3 processes; 6 or 9 would"),
        ({"batch": 1, "device": "cpu,cpu"}, "batch 1 does not divide among 2 processes; 2 would"),
        (
            {"freeze_epochs": 1, "freeze_batch": 5, "device": "cpu,cpu"},
            "freeze_batch 5 does not divide among 2 processes; 4 or 6 would",
        ),
        ({"sync_bn": True}, "sync_bn needs GPUs"),
        ({"sync_bn": True, "device": "cpu,cpu"}, "sync_bn needs GPUs"),
        ({"device": "cpu,gpu"}, "device 'cpu,gpu' cannot be used"),
        ({"device": "cpu,"}, "device 'cpu,' cannot be used"),
        ({"device": "cuda,cuda"}, "of several GPUs each needs its number, like 0,1"),
        ({"device": "meta,meta"}, "several processes work all on GPUs or all on the CPU"),
    ],
)
def test_what_cannot_be_shared_is_said_before_anything_starts(options: dict[str, object], said: str) -> None:
    with pytest.raises(DataError) as caught:
        DetectionTrainer().prepare(replace(TrainOptions(), **options))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_pictures_for_all_processes_are_refused(data: Path, new_job: NewJob) -> None:
    options = TrainOptions(device="cpu,cpu,cpu,cpu", batch=4)
    check_shares(options, 4)
    with pytest.raises(DataError, match="5 training pictures in batches of 4 leave some of 2, less than one for each"):
        check_shares(options, 5)
    with pytest.raises(DataError, match="16 training pictures in batches of 32"):
        DetectionTrainer().prepare(new_job(batch=32, device=",".join(["cpu"] * 32)).options)


def test_the_shell_says_what_cannot_be_shared_in_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell(["--data", str(data), "--device", "cpu,cpu", "--batch", "3"]) == 2
    assert capsys.readouterr().err == "error: batch 3 does not divide among 2 processes; 2 or 4 would\n"


# Who is who


def test_devices_are_named_one_by_one_or_in_a_list() -> None:
    assert devices_of("cpu") == (torch.device("cpu"),)
    assert devices_of("cpu, cpu") == (torch.device("cpu"),) * 2


def test_a_process_of_torchrun_takes_the_device_of_its_local_rank() -> None:
    third = Place(rank=2, world=3, local=2)
    assert choose_device("cpu", third) == choose_device("cpu,cpu,cpu", third) == torch.device("cpu")
    with pytest.raises(DataError, match="not enough for 3 processes"):
        choose_device("cpu,cpu", third)


def test_a_process_that_stands_alone_is_its_own_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some platforms set torchrun's variables for a single process too."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    check_team(TrainOptions(batch=3))
    alone = Team(torch.device("cpu"))
    tensor = torch.tensor([1.0, math.pi])
    assert alone.leads
    assert alone.meet("anywhere", 3) == 3
    assert alone.in_turn("anywhere", lambda: 4) == 4
    assert torch.equal(alone.total(tensor), tensor)
