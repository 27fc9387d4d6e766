"""ProcessTrainer against real deaths: what a training's end costs, what it says, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from toy import ToyTrainer

import trainer as trainer_package
from trainer import DataError, EpochMetrics, TrainerError, TrainingDiverged, TrainJob, TrainOptions
from trainer.__main__ import main as shell
from trainer.process import ProcessTrainer, thread_settings
from trainer.testing import descendants, timeless
from trainer.worker import load_trainer

OPTIONS = TrainOptions(data="points", epochs=3)
IMPORTABLE = os.pathsep.join([str(Path(trainer_package.__file__).parent.parent), str(Path(__file__).parent)])
NewJob = Callable[..., TrainJob]


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[ProcessTrainer]:
    """A toy in a process; afterwards none of this process' descendants is left."""
    before = descendants(os.getpid())
    with ProcessTrainer("toy:ToyTrainer", threads=1, log=tmp_path / "worker.log") as trainer:
        yield trainer
    assert descendants(os.getpid()) <= before


@pytest.fixture
def new_job(tmp_path: Path) -> NewJob:
    """A job of three epochs in a new folder: new_job("segmentation fault", fault_epoch=2)."""
    jobs = 0

    def new_job(fault: str = "", **hyp: float) -> TrainJob:
        nonlocal jobs
        jobs += 1
        workdir = tmp_path / f"{jobs:05d}"
        workdir.mkdir()
        return TrainJob({"lr0": 0.02, "fault": fault, **hyp}, OPTIONS, workdir)

    return new_job


def log_of(job: TrainJob) -> str:
    return (job.workdir / "train.log").read_text()


def wait_for(condition: Callable[[], bool], timeout_s: float = 240.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return met


def lives(pid: int) -> bool:
    """Whether any thread of a process runs; one that has ended and waits to be reaped has one thread, a zombie."""
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended while we looked
        return lives(pid)
    return any(state != "Z" for state in states)


# What goes through unchanged


def test_a_training_in_the_child_equals_one_here_bit_for_bit(trainer: ProcessTrainer, new_job: NewJob) -> None:
    job = new_job(momentum=0.9)
    here = [timeless(metrics) for metrics in ToyTrainer().train(job)]
    assert [timeless(metrics) for metrics in trainer.train(job)] == here


def test_hyps_and_prepare_are_the_inner_trainers(trainer: ProcessTrainer, tmp_path: Path) -> None:
    assert trainer.hyps == ToyTrainer.hyps
    assert trainer.prepare(OPTIONS) == ToyTrainer().prepare(OPTIONS)
    assert (tmp_path / "worker.log").read_text() == "toy: preparing\n"


def test_the_child_starts_late_and_stays_for_the_next_job(trainer: ProcessTrainer, new_job: NewJob) -> None:
    assert trainer.pid is None
    list(trainer.train(new_job()))
    first = trainer.pid
    list(trainer.train(new_job()))
    assert trainer.pid == first


def test_the_child_rests_until_an_epoch_is_asked_for(trainer: ProcessTrainer, new_job: NewJob) -> None:
    job = new_job("TrainerError", fault_epoch=2)
    epochs = trainer.train(job)
    next(epochs)
    time.sleep(0.1)
    assert not (job.workdir / "cleaned-up").exists()  # epoch 2 fails, so it has not begun
    with pytest.raises(TrainerError):
        next(epochs)


# What the trainer raises


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [("TrainerError", TrainerError, "the toy is out of order"), ("DataError", DataError, "the points are gone")],
)
def test_errors_keep_their_type_and_text(
    trainer: ProcessTrainer, new_job: NewJob, fault: str, kind: type[TrainerError], message: str
) -> None:
    with pytest.raises(TrainerError, match=f"^{message}$") as caught:
        list(trainer.train(new_job(fault)))
    assert type(caught.value) is kind


def test_a_real_divergence_arrives_with_its_epoch_and_losses(trainer: ProcessTrainer, new_job: NewJob) -> None:
    with pytest.raises(TrainingDiverged) as here:
        list(ToyTrainer().train(new_job(lr0=1e9)))
    with pytest.raises(TrainingDiverged) as there:
        list(trainer.train(new_job(lr0=1e9)))
    assert there.value.epoch == here.value.epoch
    assert str(there.value.losses) == str(here.value.losses)
    assert str(there.value) == str(here.value)


def test_losses_may_be_nan_and_infinite(trainer: ProcessTrainer, new_job: NewJob) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        list(trainer.train(new_job("NaN")))
    losses = caught.value.losses
    assert math.isnan(losses["box"])
    assert losses["obj"] == math.inf
    assert losses["cls"] == 1 / 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("ValueError", "toy:ToyTrainer: ValueError: a bug in the toy; see"),
        ("sys.exit", "toy:ToyTrainer: SystemExit: 1; see"),
        ("out of memory", "out of memory with batch 8 at imgsz 96"),
    ],
)
def test_other_exceptions_leave_a_traceback_in_the_log_and_the_child_alive(
    trainer: ProcessTrainer, new_job: NewJob, fault: str, message: str
) -> None:
    job = new_job(fault, fault_epoch=2)
    epochs = trainer.train(job)
    next(epochs)
    child = trainer.pid
    with pytest.raises(TrainerError) as caught:
        next(epochs)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"see {job.workdir / 'train.log'}")
    assert "Traceback" in log_of(job)
    assert "break_down" in log_of(job)
    assert len(list(trainer.train(new_job()))) == 3
    assert trainer.pid == child


def test_a_child_whose_cuda_context_is_lost_is_replaced(trainer: ProcessTrainer, new_job: NewJob) -> None:
    trainer.prepare(OPTIONS)
    child = trainer.pid
    with pytest.raises(TrainerError, match="device-side assert"):
        list(trainer.train(new_job("CUDA")))
    assert len(list(trainer.train(new_job()))) == 3
    assert trainer.pid != child


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("toy", "'toy' is not of the form module:attribute"),
        ("toy:Nobody", "has no attribute 'Nobody'"),
        ("no_such_module:Trainer", "No module named 'no_such_module'"),
    ],
)
def test_a_trainer_that_does_not_exist_is_refused(tmp_path: Path, spec: str, message: str) -> None:
    with ProcessTrainer(spec, log=tmp_path / "worker.log") as trainer, pytest.raises(DataError, match=message):
        trainer.prepare(OPTIONS)


# What the trainer prints and reads


def test_prints_of_any_kind_go_to_the_log_and_never_into_the_protocol(
    trainer: ProcessTrainer, new_job: NewJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = new_job("chatter", fault_epoch=2)
    assert [metrics.epoch for metrics in trainer.train(job)] == [1, 2, 3]
    assert log_of(job).splitlines() == [
        "Python prints",
        "and complains",
        "C prints",
        '{"metrics": "a descriptor is written to"}',
        "a program prints",
        "input: b''",
    ]
    trainer.prepare(OPTIONS)
    assert (tmp_path / "worker.log").read_text() == "toy: preparing\n"
    assert capfd.readouterr() == ("", "")


def test_each_training_has_its_own_log(trainer: ProcessTrainer, new_job: NewJob) -> None:
    pruned, whole = new_job("chatter"), new_job("chatter")
    epochs = trainer.train(pruned)
    next(epochs)
    epochs.close()
    list(trainer.train(whole))
    assert log_of(pruned) == log_of(whole) != ""


def test_without_a_log_the_child_prints_to_our_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with ProcessTrainer("toy:ToyTrainer") as trainer:
        trainer.prepare(OPTIONS)
    assert capfd.readouterr() == ("", "toy: preparing\n")


# How it dies


@pytest.mark.parametrize(
    ("fault", "end", "log"),
    [
        ("segmentation fault", "was killed by SIGSEGV in epoch 2", "in break_down"),
        ("os._exit", "exited with code 3 in epoch 2", "going now"),
        ("SIGKILL", "was killed by SIGKILL in epoch 2 (did memory run out with batch 8 at imgsz 96?)", "is empty"),
    ],
)
def test_a_death_costs_its_training_only_and_is_told_with_the_end_of_the_log(
    trainer: ProcessTrainer, new_job: NewJob, fault: str, end: str, log: str
) -> None:
    epochs = trainer.train(new_job(fault, fault_epoch=2))
    next(epochs)
    with pytest.raises(TrainerError) as caught:
        next(epochs)
    assert f"toy:ToyTrainer: the training process {end}" in str(caught.value).splitlines()[0]
    assert log in str(caught.value)
    assert len(list(trainer.train(new_job()))) == 3


def test_a_death_between_epochs_is_noticed_at_the_next(trainer: ProcessTrainer, new_job: NewJob) -> None:
    epochs = trainer.train(new_job())
    next(epochs)
    os.kill(trainer.pid, signal.SIGKILL)
    with pytest.raises(TrainerError, match="killed by SIGKILL in epoch 2"):
        next(epochs)


def test_a_death_between_jobs_costs_nothing(trainer: ProcessTrainer, new_job: NewJob) -> None:
    list(trainer.train(new_job()))
    os.kill(trainer.pid, signal.SIGKILL)
    child = trainer.pid
    assert wait_for(lambda: not lives(child))
    assert len(list(trainer.train(new_job()))) == 3


def test_closing_a_training_whose_child_has_died_is_no_error(trainer: ProcessTrainer, new_job: NewJob) -> None:
    epochs = trainer.train(new_job())
    next(epochs)
    os.kill(trainer.pid, signal.SIGKILL)
    epochs.close()
    assert len(list(trainer.train(new_job()))) == 3


@pytest.mark.parametrize("fault", ["program, then segmentation fault", "fork, then exit"])
def test_the_childs_own_children_die_with_it(trainer: ProcessTrainer, new_job: NewJob, fault: str) -> None:
    job = new_job(fault)
    with pytest.raises(TrainerError, match="in epoch 1"):
        list(trainer.train(job))
    program = int((job.workdir / "program").read_text())
    assert wait_for(lambda: not lives(program))


@pytest.mark.parametrize("fault", ["sleep", "sleep with the lock held", "program"])
def test_silence_beyond_the_timeout_ends_the_training_and_all_its_processes(
    tmp_path: Path, new_job: NewJob, fault: str
) -> None:
    before = descendants(os.getpid())
    with ProcessTrainer("toy:ToyTrainer", log=tmp_path / "worker.log", timeout_s=0.5) as trainer:
        trainer.prepare(OPTIONS)
        job = new_job(fault, fault_epoch=2)
        epochs = trainer.train(job)
        next(epochs)
        with pytest.raises(TrainerError, match=r"ended because nothing came from it for 0\.5 s in epoch 2"):
            next(epochs)
        assert 'toy.py", line' in log_of(job)  # where it was
        assert wait_for(lambda: descendants(os.getpid()) <= before)


# How it is stopped


def test_closing_the_iterator_runs_the_trainers_finally_at_once(trainer: ProcessTrainer, new_job: NewJob) -> None:
    job = new_job()
    epochs = trainer.train(job)
    next(epochs)
    assert not (job.workdir / "cleaned-up").exists()
    epochs.close()
    assert (job.workdir / "cleaned-up").exists()


def test_a_new_training_closes_one_that_was_left_open(trainer: ProcessTrainer, new_job: NewJob) -> None:
    job = new_job()
    forgotten = trainer.train(job)
    next(forgotten)
    assert len(list(trainer.train(new_job()))) == 3
    assert (job.workdir / "cleaned-up").exists()
    with pytest.raises(TrainerError, match="another began"):
        next(forgotten)


def test_closing_a_training_that_another_has_replaced_does_not_touch_the_other(
    trainer: ProcessTrainer, new_job: NewJob
) -> None:
    job = new_job()
    forgotten, current = trainer.train(job), trainer.train(job)
    next(forgotten)
    next(current)
    forgotten.close()
    assert [metrics.epoch for metrics in current] == [2, 3]


def test_close_lets_an_open_training_clean_up_and_may_be_repeated(trainer: ProcessTrainer, new_job: NewJob) -> None:
    job = new_job()
    epochs = trainer.train(job)
    next(epochs)
    child = trainer.pid
    trainer.close()
    trainer.close()
    assert trainer.pid is None
    assert not lives(child)
    assert (job.workdir / "cleaned-up").exists()
    with pytest.raises(TrainerError, match="the trainer was closed"):
        next(epochs)


def test_close_does_not_wait_for_what_we_forked_meanwhile(trainer: ProcessTrainer) -> None:
    trainer.prepare(OPTIONS)
    if (fork := os.fork()) == 0:  # it holds our ends of the child's pipes open
        time.sleep(240)
        os._exit(0)
    try:
        started = time.monotonic()
        trainer.close()
        assert time.monotonic() - started < 60
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)


@pytest.mark.parametrize("what", ["the training", "the trainer"])
def test_a_trainer_that_hangs_in_its_finally_is_killed(
    trainer: ProcessTrainer, new_job: NewJob, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.process.CLOSE_TIMEOUT_S", 0.3)
    epochs = trainer.train(new_job("hang in close"))
    next(epochs)
    child = trainer.pid
    (epochs if what == "the training" else trainer).close()
    assert not lives(child)


@pytest.mark.filterwarnings("error")
def test_nothing_is_left_unclosed(tmp_path: Path, new_job: NewJob) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with ProcessTrainer("toy:ToyTrainer", log=tmp_path / "worker.log") as trainer:
        list(trainer.train(new_job()))
        with pytest.raises(TrainerError):
            list(trainer.train(new_job("os._exit")))
        next(trainer.train(new_job()))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_child_outlives_the_thread_that_started_it(trainer: ProcessTrainer, new_job: NewJob) -> None:
    starter = threading.Thread(target=trainer.prepare, args=(OPTIONS,))
    starter.start()
    starter.join()
    child = trainer.pid
    assert len(list(trainer.train(new_job()))) == 3
    assert trainer.pid == child


# How the parent ends: a process that trains the toy, and is ended from outside

PARENT = """
import sys
from pathlib import Path
from trainer import TrainJob, TrainOptions
from trainer.__main__ import main as shell
from trainer.process import ProcessTrainer

workdir = Path(sys.argv[1])
trainer = ProcessTrainer("toy:ToyTrainer", log=workdir / "worker.log")
epochs = trainer.train(TrainJob({"fault": sys.argv[2], "fault_epoch": 2}, TrainOptions(data="points"), workdir))
next(epochs)
print(trainer.pid, flush=True)
try:
    next(epochs)
except KeyboardInterrupt:
    print("interrupted; child", trainer.pid, flush=True)
    raise
"""


@contextlib.contextmanager
def parent_in_epoch_2(workdir: Path, fault: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A parent that waits for epoch 2, which never ends, and the number of its child."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(workdir), fault],
        env={**os.environ, "PYTHONPATH": IMPORTABLE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with parent:
        try:
            child = int(parent.stdout.readline())
            assert wait_for((workdir / "asleep").exists)
            assert lives(child)
            yield parent, child
        finally:
            parent.kill()


@pytest.mark.parametrize("fault", ["sleep", "sleep with the lock held", "program"])
def test_sigkill_of_the_parent_in_mid_epoch_leaves_no_process(tmp_path: Path, fault: str) -> None:
    with parent_in_epoch_2(tmp_path, fault) as (parent, child):
        processes = {child} | descendants(child)
        assert len(processes) == (2 if fault == "program" else 1)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_for(lambda: not any(lives(pid) for pid in processes))


def test_where_the_kernel_cannot_help_a_thread_of_the_child_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import fcntl, os, pathlib\n"
        "del fcntl.F_SETSIG\n"
        "pathlib.Path(__file__).with_name(f'without-{os.getpid()}').touch()\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PARENT", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PARENT}")
    with parent_in_epoch_2(tmp_path, "program") as (parent, child):
        assert (tmp_path / f"without-{child}").exists()
        processes = {child} | descendants(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_for(lambda: not any(lives(pid) for pid in processes))


def test_an_interrupt_kills_and_reaps_the_child_and_passes_on(tmp_path: Path) -> None:
    with parent_in_epoch_2(tmp_path, "program") as (parent, child):
        processes = {child} | descendants(child)
        parent.send_signal(signal.SIGINT)
        told, complaint = parent.communicate(timeout=240)
        assert told == "interrupted; child None\n"
        assert complaint.splitlines()[-1] == "KeyboardInterrupt"
        assert not Path(f"/proc/{child}").exists()  # not even a zombie
        assert wait_for(lambda: not any(lives(pid) for pid in processes))


# What the child runs in


def test_threads_are_capped_and_sleep_while_they_wait(trainer: ProcessTrainer, new_job: NewJob) -> None:
    job = new_job("environment")
    list(trainer.train(job))
    assert "'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'" in log_of(job)


def test_no_thread_count_means_every_core_that_we_may_use_unless_the_user_said_otherwise(
    new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1 <= int(thread_settings(0)["OMP_NUM_THREADS"]) <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for threads, expected in ((0, "7"), (2, "2")):
        job = new_job("environment")
        with ProcessTrainer("toy:ToyTrainer", threads=threads) as trainer:
            list(trainer.train(job))
        assert f"'OMP_NUM_THREADS': '{expected}'" in log_of(job)


@pytest.mark.parametrize("theirs", [None, "/opt/theirs"])
def test_programs_that_the_trainer_starts_see_the_users_pythonpath(
    trainer: ProcessTrainer, new_job: NewJob, monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if theirs is not None:
        monkeypatch.setenv("PYTHONPATH", theirs)
    job = new_job("environment")
    list(trainer.train(job))
    assert f"'PYTHONPATH': {theirs!r}" in log_of(job)


def test_a_trainer_may_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lies_here.py").write_text("from toy import train\n")
    monkeypatch.chdir(tmp_path)
    with ProcessTrainer("lies_here:train", log=tmp_path / "worker.log") as trainer:
        assert trainer.prepare(OPTIONS).summary == "points trained by train()"


def test_a_file_in_the_working_directory_does_not_pass_for_a_standard_module(
    trainer: ProcessTrainer, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    monkeypatch.chdir(tmp_path)
    assert len(list(trainer.train(new_job()))) == 3


# python -m trainer


def test_the_shell_prints_one_json_line_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "hyp.yaml").write_text("lr0: 2e-2  # text to PyYAML\nmomentum: 0.9\n")
    words = f"--trainer toy:ToyTrainer --data points --hyp {tmp_path / 'hyp.yaml'} --epochs 2 --seed 5".split()
    environment = {**os.environ, "PYTHONPATH": IMPORTABLE}
    ran = subprocess.run(
        [sys.executable, "-m", "trainer", *words], env=environment, capture_output=True, text=True, check=True
    )
    options = TrainOptions(data="points", epochs=2, seed=5)
    here = ToyTrainer().train(TrainJob({"lr0": 0.02, "momentum": 0.9}, options, tmp_path))
    printed = [EpochMetrics(**json.loads(line)) for line in ran.stdout.splitlines()[1:]]  # below the toy's own print
    assert [timeless(metrics) for metrics in printed] == [timeless(metrics) for metrics in here]
    assert ran.stderr == "256 points\nwarning: a toy\n"


def test_the_shell_saves_only_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    words = ["--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "1"]
    assert shell(words) == 0
    assert os.listdir() == []
    assert shell([*words, "--save", "--workdir", "new/folder"]) == 0
    assert os.listdir("new/folder") == ["cleaned-up"]


def test_the_shell_goes_on_in_the_workdir_if_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "telling.py").write_text(
        "import toy\n"
        "class Telling(toy.ToyTrainer):\n"
        "    def train(self, job):\n"
        "        (job.workdir / 'told').write_text(str(job.resume))\n"
        "        yield from super().train(job)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    words = ["--trainer", "telling:Telling", "--data", "points", "--epochs", "1", "--workdir", str(tmp_path)]
    for more, told in (["--resume"], "True"), ([], "False"):
        assert shell([*words, *more]) == 0
        assert (tmp_path / "told").read_text() == told


@pytest.mark.parametrize(
    ("hyp", "more", "code", "message"),
    [
        ("lr0: 1e9", [], 1, "error: the loss was no longer finite in epoch "),
        ("lr: 0.01", [], 1, "error: unknown hyps: lr"),
        ("lr0: {low: 0, high: 1}", [], 2, "lr0 must be one value, got {'low': 0, 'high': 1}"),
        ("- lr0", [], 2, "must hold lines of name: value, got list"),
        ("lr0: [", [], 2, "is not YAML: "),
        ("lr0: " + "[" * 10_000, [], 2, "is not YAML: it is nested too deeply"),
        ("lr0: &a [*a]", [], 2, "is not YAML: found aliases that lead into themselves in line 1"),
        (None, [], 2, "hyp.yaml: No such file or directory"),
        ("{}", ["--epochs", "0"], 2, "error: epochs must be at least 1, got 0"),
        ("{}", ["--save"], 2, "error: --save needs --workdir DIR"),
        ("{}", ["--resume"], 2, "error: --resume needs --workdir DIR"),
        ("{}", ["--trainer", "toy:Nobody"], 2, "has no attribute 'Nobody'"),
    ],
)
def test_the_shell_tells_an_error_in_one_line_and_its_kind_by_the_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hyp: str | None,
    more: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    if hyp is not None:
        (tmp_path / "hyp.yaml").write_text(hyp)
    words = ["--trainer", "toy:ToyTrainer", "--data", "points", "--hyp", str(tmp_path / "hyp.yaml"), *more]
    assert shell(words) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_shell_has_an_option_for_everything_that_a_training_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shell(["--help"])
    told = capsys.readouterr().out
    assert [field.name for field in fields(TrainOptions) if "--" + field.name.replace("_", "-") not in told] == []


def test_what_cannot_train_is_told_to_be_no_trainer() -> None:
    with pytest.raises(DataError, match="'os:sep' is no trainer: it has no hyps"):
        load_trainer("os:sep")
