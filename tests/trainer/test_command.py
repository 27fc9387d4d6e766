"""CommandTrainer against real programs: what they are told, what they tell, how they end, and that nothing is left."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_process import IMPORTABLE, lives, wait_for
from toy import DEFAULTS

from trainer import DataError, EpochMetrics, Hyp, TrainerError, TrainJob, TrainOptions
from trainer.command import CommandTrainer, Program, fill, literally
from trainer.results import Told
from trainer.testing import TrainerContract, descendants

OPTIONS = TrainOptions(data="cells.yaml", epochs=3)
HYP = {"lr0": 1e-05, "momentum": 0.9}
TELL = """
import json, os, signal, subprocess, sys, time
def tell(epoch, map50=0.5, **more):
    print(json.dumps({"epoch": epoch, "map50": map50, "map50_95": 0.25, **more}), flush=True)
"""

Run = Callable[..., list[EpochMetrics]]


class TestCommandTrainer(TrainerContract):
    """The toy, as a program that prints what `python -m trainer` does."""

    @pytest.fixture
    def trainer(self, monkeypatch: pytest.MonkeyPatch) -> CommandTrainer:
        monkeypatch.setenv("PYTHONPATH", IMPORTABLE)
        options = (f"--{name}={{{name}}}" for name in ("hyp", "data", "epochs", "batch", "seed"))
        command = (sys.executable, "-m", "trainer", "--trainer", "toy:ToyTrainer", *options)
        return CommandTrainer(Program(command, hyps=frozenset(DEFAULTS)), threads=1)

    @pytest.fixture
    def job(self, tmp_path: Path) -> TrainJob:
        return TrainJob({**DEFAULTS, "lr0": 0.02, "momentum": 0.9}, TrainOptions(data="points", epochs=3), tmp_path)


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    workdir = tmp_path / "00007"
    workdir.mkdir()
    return TrainJob(HYP, OPTIONS, workdir)


@pytest.fixture
def begin(tmp_path: Path, job: TrainJob) -> Iterator[Callable[..., Any]]:
    """Begin to train by a Python script, to which TELL is known: begin("tell(1)", "{hyp}", epochs=2)."""
    before = descendants(os.getpid())

    def begin(script: str, *arguments: str, told: Told | None = None, timeout_s: float | None = None, **options: Any):
        (tmp_path / "script.py").write_text(TELL + script)
        command = (sys.executable, str(tmp_path / "script.py"), *(arguments or ("{hyp}",)))
        trainer = CommandTrainer(Program(command, told or Told()), timeout_s=timeout_s)
        return trainer.train(replace(job, options=replace(job.options, **options)))

    yield begin
    assert wait_for(lambda: descendants(os.getpid()) <= before)


def log_of(job: TrainJob) -> str:
    return (job.workdir / "train.log").read_text()


def pid_in(path: Path) -> int:
    assert wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


# What it is told


def test_every_placeholder_is_filled_in_within_each_argument(begin: Callable[..., Any], job: TrainJob):
    asked = ["{data}", "-e{epochs}", "{imgsz}/{batch}", "{seed}", "{device}", "{model}:{weights}", "lr={hyp.lr0!s}"]
    with pytest.raises(DataError, match=r"holds \{hyp.lr0!s\}"):
        begin("", *asked)
    asked[-1] = "lr={hyp.lr0} m={hyp.momentum}"
    script = f"json.dump(sys.argv[2:], open({str(job.workdir / 'told.json')!r}, 'w')); tell(3)"
    list(begin(script, "{hyp}", *asked, "{workdir}", "{{hyp}}", "a  b", "", "$HOME;ls", seed=5, device="cuda:1"))
    told = yaml.safe_load((job.workdir / "told.json").read_text())
    workdir = str(job.workdir / "program")
    assert told == [
        *("cells.yaml", "-e3", "96/8", "5", "cuda:1", "pico:", "lr=1e-05 m=0.9"),
        *(workdir, "{hyp}", "a  b", "", "$HOME;ls"),
    ]


def test_the_hyp_file_holds_the_hyp_exactly(begin: Callable[..., Any], job: TrainJob):
    hyp: Hyp = {"lr0": 1e-05, "third": 1 / 3, "n": 3, "optimizer": "AdamW", "nesterov": True, "like": "1e-5", "ü": 1.0}
    job_of_these = replace(job, hyp=hyp)
    program = Program(("cp", "{hyp}", str(job.workdir / "copy.yaml")))
    with pytest.raises(TrainerError, match="told of no epoch"):
        list(CommandTrainer(program).train(job_of_these))
    read = yaml.safe_load((job.workdir / "copy.yaml").read_text())
    assert read == hyp
    assert list(map(type, read.values())) == list(map(type, hyp.values()))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "{hyp}", "{lr}"), "the command holds {lr}, which stands for nothing; there are {hyp}, {data}"),
        (("train", "{hyp}", "{}"), "the command holds {}, which stands for nothing"),
        (("train", "{hyp}", "{hyp.}"), "the command holds {hyp.}"),
        (("train", "{hyp}", "{epochs:03}"), "the command holds {epochs:03}"),
        (("train", "{hyp}", "{"), "the braces in '{' do not match; braces that are meant are doubled: {{ and }}"),
        (("train", "{hyp}", '{"a": 1'), "do not match"),
        (("train", "--epochs", "{epochs}"), "the command is told no hyp, so that all its trainings would be the same"),
        ((), "there is no program to run"),
    ],
)
def test_a_command_that_cannot_be_is_refused_in_one_sentence(command: tuple[str, ...], message: str):
    with pytest.raises(DataError) as caught:
        Program(command)
    assert message in str(caught.value)


def test_hyps_are_those_of_the_command_or_any_where_it_takes_the_file():
    assert CommandTrainer(Program(("train", "{hyp.lr0}", "{hyp.box}"))).hyps == {"lr0", "box"}
    assert CommandTrainer(Program(("train", "{hyp}", "{hyp.box}"))).hyps is None
    assert Program(("train", "{hyp}", "{hyp.box}")).needs == {"box"}


@pytest.mark.parametrize("text", ["", "a{b}c", "{{", "}{", "plain"])
def test_what_is_meant_literally_is_left_as_it_is(text: str):
    assert fill(literally(text), {}) == text


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        (Program(("no-such-program", "{hyp}")), {}, "there is no program 'no-such-program' that could be run"),
        (
            Program(("ls", "{hyp}", "{data}")),
            {"data": ""},
            "the program is told {data}, and there is none: give --data",
        ),
        (Program(("true", "{hyp}")), {"imgsz": 0}, "imgsz must be at least 1, got 0"),
        (
            Program(("true", "{hyp}"), Told("r.txt", {"map50": "3"})),
            {},
            "the fitness weighs map50_95: say with --map50-95 which column that is",
        ),
    ],
)
def test_what_no_hyp_could_mend_is_told_before_the_first_training(
    program: Program, options: dict[str, Any], message: str
):
    with pytest.raises(DataError) as caught:
        CommandTrainer(program).prepare(replace(OPTIONS, **options))
    assert str(caught.value) == message


def test_a_study_knows_its_data_by_name_and_content_wherever_it_lies(tmp_path: Path):
    digests = []
    for folder, text in (("a", "nc: 1"), ("b", "nc: 1"), ("c", "nc: 2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.yaml").write_text(text)
        data = replace(OPTIONS, data=str(tmp_path / folder / "data.yaml"))
        digests.append(CommandTrainer(Program(("true", "{hyp}"))).prepare(data).digest)
    assert digests[0] == digests[1] != digests[2]
    assert CommandTrainer(Program(("true", "{hyp}"))).prepare(replace(OPTIONS, data="")).digest == ""


def test_it_gets_the_users_environment_and_no_input(begin: Callable[..., Any], job: TrainJob, monkeypatch: Any):
    monkeypatch.setenv("MINE", "yes")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    list(begin("print(os.environ['MINE'], os.environ.get('OMP_NUM_THREADS'), repr(sys.stdin.read())); tell(3)"))
    assert "yes None ''\n" in log_of(job)
    program = Program(("sh", "-c", "echo $OMP_NUM_THREADS; cat {hyp}"))
    with pytest.raises(TrainerError):
        list(CommandTrainer(program, threads=2).train(job))
    assert "\n2\nlr0: 1.0e-05\n" in log_of(job)


# What it tells


def test_lines_that_tell_of_no_epoch_go_to_the_log_with_all_errors(begin: Callable[..., Any], job: TrainJob):
    epochs = list(
        begin(
            "print('starting'); print('a warning', file=sys.stderr, flush=True)\n"
            "os.write(1, b'\\xff bytes\\n')\n"
            "for epoch in (1, 2, 3): print('{\"step\":', epoch, '}'); tell(epoch, epoch / 10)\n"
            "print('no end', end='')"
        )
    )
    assert [(metrics.epoch, metrics.map50) for metrics in epochs] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    lines = (job.workdir / "train.log").read_bytes().split(b"\n")
    assert sorted(lines) == sorted(
        [b"starting", b"a warning", b"\xff bytes", b'{"step": 1 }', b'{"step": 2 }', b'{"step": 3 }', b"no end"]
    )


def test_epochs_come_while_it_trains(begin: Callable[..., Any], job: TrainJob):
    go = job.workdir / "go"
    epochs = begin(f"tell(1)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\ntell(2)\ntell(3)")
    assert next(epochs).epoch == 1
    go.touch()
    assert [metrics.epoch for metrics in epochs] == [2, 3]


def test_python_need_not_flush(begin: Callable[..., Any], job: TrainJob):
    epochs = begin("print(json.dumps({'epoch': 1, 'map50': 0.5, 'map50_95': 0.1})); time.sleep(600)")
    assert next(epochs).epoch == 1
    epochs.close()


def test_a_flood_of_output_neither_stops_it_nor_us(begin: Callable[..., Any], job: TrainJob):
    flood = "sys.stdout.write('x' * 3_000_000 + '\\n' + 'y\\n' * 500_000); tell(1)\n" * 2
    epochs = list(begin(flood.replace("tell(1)", "tell(2)", 1).replace("tell(1)", "tell(3)")))
    assert [metrics.epoch for metrics in epochs] == [2, 3]
    assert (job.workdir / "train.log").stat().st_size == 2 * 4_000_001


def test_it_may_close_its_output_and_go_on(begin: Callable[..., Any], job: TrainJob):
    epochs = list(begin("tell(1); tell(2); tell(3)\nos.close(1); time.sleep(0.3); open('/dev/null').read()"))
    assert len(epochs) == 3


def test_its_last_line_needs_no_end(begin: Callable[..., Any]):
    epochs = list(begin('tell(1)\nsys.stdout.write(\'{"epoch": 3, "map50": 0.5, "map50_95": 0.5}\')'))
    assert [metrics.epoch for metrics in epochs] == [1, 3]


def test_it_may_stop_before_the_last_epoch_and_the_log_says_so(begin: Callable[..., Any], job: TrainJob):
    assert [metrics.epoch for metrics in begin("tell(1); tell(2)")] == [1, 2]
    assert log_of(job) == "[the program ended by itself after epoch 2 of 3]\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("tell(1); print('why'); sys.exit(3)", "the program exited with code 3 in epoch 2; "),
        ("tell(3); print('why'); sys.exit(3)", "the program exited with code 3 after its last epoch; "),
        ("print('why'); raise SystemExit('oh')", "the program exited with code 1 in epoch 1; "),
        ("tell(1); print('why'); os.abort()", "the program was killed by SIGABRT in epoch 2; "),
        (
            "tell(1); print('why'); os.kill(os.getpid(), 9)",
            "was killed by SIGKILL in epoch 2 (did memory run out with batch 8 at imgsz 96?); ",
        ),
        ("print('why')", 'told of no epoch: there is no line {"epoch": 1, "map50_95": 0.5} or the like in what it'),
    ],
)
def test_an_end_that_is_none_is_told_with_the_end_of_its_log(
    begin: Callable[..., Any], job: TrainJob, script: str, message: str
):
    with pytest.raises(TrainerError) as caught:
        list(begin(script))
    first, *quoted = str(caught.value).splitlines()
    assert message in first
    assert first.endswith(f"{job.workdir / 'train.log'} ends with:")
    assert "    why" in quoted


def test_a_program_that_cannot_be_run_fails_and_says_so(job: TrainJob, tmp_path: Path):
    for name, code in (("gone", 127), ("text", 126)):
        (tmp_path / "text").write_text("no program")
        with pytest.raises(TrainerError, match=rf"exited with code {code} in epoch 1(?s:.*){name}: "):
            list(CommandTrainer(Program((str(tmp_path / name), "{hyp}"))).train(job))


def test_a_score_that_is_none_ends_it(begin: Callable[..., Any]):
    epochs = begin("tell(1); tell(2, float('nan')); time.sleep(600)")
    next(epochs)
    with pytest.raises(TrainerError, match="map50 is nan in epoch 2"):
        next(epochs)


def test_what_was_stopped_cannot_go_on(begin: Callable[..., Any], job: TrainJob):
    trainer = CommandTrainer(Program(("true", "{hyp}")))
    with pytest.raises(TrainerError, match="cannot go on"):
        next(trainer.train(replace(job, resume=True)))


# A file that grows

WAIT = "def wait(name):\n    while not os.path.exists(sys.argv[1] + name): time.sleep(0.01)\n"
CSV = Told("out/results.csv", {"map50": "AP50", "map50_95": "AP"})


def test_a_file_is_read_as_it_grows_and_its_last_line_when_it_is_whole(begin: Callable[..., Any], job: TrainJob):
    script = WAIT + (
        "os.makedirs(sys.argv[2] + '/out')\n"
        "file = open(sys.argv[2] + '/out/results.csv', 'w')\n"
        "def write(text): file.write(text); file.flush()\n"
        "print('to the log')\n"
        "write('epoch,  AP50, AP\\n  0, 0.5, 0.1\\n'); wait('1')\n"
        "write('  1, 0.5, 0.'); wait('2')\n"
        "write('25\\n'); wait('3')\n"
        "write('  2, 0.5, 0.5')\n"
    )
    epochs = begin(script, f"{job.workdir}/go-", "{workdir}", "{hyp}", told=CSV)
    assert next(epochs).map50_95 == 0.1
    (job.workdir / "go-1").touch()
    time.sleep(0.3)
    (job.workdir / "go-2").touch()
    assert next(epochs).map50_95 == 0.25
    (job.workdir / "go-3").touch()
    assert [(metrics.epoch, metrics.map50_95) for metrics in epochs] == [(3, 0.5)]
    assert log_of(job) == "to the log\n"


def test_a_file_may_be_written_anew_for_every_epoch(begin: Callable[..., Any], job: TrainJob):
    script = (
        "os.makedirs(sys.argv[1] + '/out')\n"
        "for epochs in (1, 2, 3):\n"
        "    with open(sys.argv[1] + '/out/results.csv', 'w') as file:\n"
        "        file.write('epoch,AP50,AP\\n'); file.flush(); time.sleep(0.15)\n"
        "        for epoch in range(epochs): file.write(f'{epoch},0.5,0.{epoch + 1}\\n')\n"
        "    time.sleep(0.25)\n"
    )
    epochs = list(begin(script, "{workdir}", "{hyp}", told=CSV))
    assert [(metrics.epoch, metrics.map50_95) for metrics in epochs] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_file_that_was_there_before_is_no_result_of_this_training(begin: Callable[..., Any], job: TrainJob):
    stale = job.workdir / "program" / "out" / "results.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("epoch,AP50,AP\n0,0.9,0.9\n1,0.9,0.9\n")
    with pytest.raises(TrainerError, match=r"told of no epoch: there is no row in out/results\.csv"):
        list(begin("time.sleep(0.2)", told=CSV))


# How it ends

PARENT_AND_CHILD = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2] + "/pid-of-child", "w").write(f"{child.pid}\\n")
open(sys.argv[2] + "/pid-of-program", "w").write(f"{os.getpid()}\\n")
tell(1)
"""


@pytest.fixture
def family(begin: Callable[..., Any], job: TrainJob) -> Callable[..., Any]:
    """Begin a program that has a child of its own, and tells of epoch 1: its epochs, and both numbers."""

    def family(then: str = "time.sleep(600)", **how: Any) -> tuple[Any, list[int]]:
        epochs = begin(PARENT_AND_CHILD + then, "{hyp}", str(job.workdir), **how)
        next(epochs)
        return epochs, [pid_in(job.workdir / f"pid-of-{name}") for name in ("program", "child")]

    return family


def test_closing_ends_the_program_and_its_children(family: Callable[..., Any]):
    epochs, pids = family()
    assert all(map(lives, pids))
    epochs.close()
    assert wait_for(lambda: not any(map(lives, pids)))


def test_a_program_can_say_goodbye(begin: Callable[..., Any], job: TrainJob):
    script = (
        "def goodbye(*_): print('x' * 100_000); print('goodbye'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, goodbye)\ntell(1)\ntime.sleep(600)"
    )
    epochs = begin(script)
    next(epochs)
    epochs.close()
    assert log_of(job).endswith("goodbye\n")


def test_a_program_that_heeds_no_sigterm_is_killed(family: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainer.command.GRACE_S", 0.3)
    epochs, pids = family("signal.signal(signal.SIGTERM, signal.SIG_IGN); tell(2); time.sleep(600)")
    next(epochs)
    epochs.close()
    assert wait_for(lambda: not any(map(lives, pids)))


def test_silence_beyond_the_timeout_ends_it_with_the_end_of_its_log(family: Callable[..., Any]):
    epochs, pids = family("print('hanging'); time.sleep(600)", timeout_s=0.5)
    with pytest.raises(TrainerError, match=r"told no epoch for 0\.5 s, in epoch 2(?s:.*)    hanging"):
        next(epochs)
    assert wait_for(lambda: not any(map(lives, pids)))


def test_what_a_program_leaves_running_ends_with_it(family: Callable[..., Any]):
    epochs, (_, child) = family("tell(3)")
    assert [metrics.epoch for metrics in epochs] == [3]
    assert wait_for(lambda: not lives(child))


def test_sigkill_of_the_program_costs_its_training_and_its_children_end_too(family: Callable[..., Any]):
    epochs, pids = family()
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(TrainerError, match="killed by SIGKILL in epoch 2"):
        next(epochs)
    assert wait_for(lambda: not any(map(lives, pids)))


def test_sigkill_of_what_leads_the_group_costs_the_training_and_all_of_it_ends(family: Callable[..., Any]):
    epochs, pids = family()
    os.kill(os.getpgid(pids[0]), signal.SIGKILL)
    with pytest.raises(TrainerError, match="killed by SIGKILL in epoch 2"):
        next(epochs)
    assert wait_for(lambda: not any(map(lives, pids)))


def test_a_new_training_ends_one_that_is_open(tmp_path: Path, job: TrainJob):
    line = '{{"epoch": 1, "map50_95": 0.5, "map50": 1}}'
    trainer = CommandTrainer(Program(("sh", "-c", f"echo '{line}'; cat {{hyp}}; sleep 600")))
    forgotten = trainer.train(job)
    next(forgotten)
    first = trainer.pid
    current = trainer.train(job)
    next(current)
    assert not lives(first)
    with pytest.raises(TrainerError, match="another began"):
        next(forgotten)
    trainer.close()
    trainer.close()
    assert trainer.pid is None
    with pytest.raises(TrainerError, match="the trainer was closed"):
        next(current)


@pytest.mark.filterwarnings("error")
def test_nothing_is_left_unclosed(begin: Callable[..., Any]):
    descriptors = len(os.listdir("/proc/self/fd"))
    list(begin("tell(3)"))
    epochs = begin("tell(1); time.sleep(600)")
    next(epochs)
    epochs.close()
    with pytest.raises(TrainerError):
        list(begin("sys.exit(1)"))
    assert len(os.listdir("/proc/self/fd")) == descriptors


# How we end: a process that trains by such a program, and is killed

TRAINS = """
import sys
from pathlib import Path
from trainer import TrainJob, TrainOptions
from trainer.command import CommandTrainer, Program

workdir, command = Path(sys.argv[1]), sys.argv[2:]
trainer = CommandTrainer(Program(tuple(command)))
epochs = trainer.train(TrainJob({"lr0": 0.1}, TrainOptions(epochs=3), workdir))
next(epochs)
print(trainer.pid, flush=True)
next(epochs)
"""


@pytest.mark.parametrize("killed", ["us", "the leader, then us", "us, then the leader"])
def test_when_we_are_killed_no_orphan_trains_on(tmp_path: Path, killed: str):
    (tmp_path / "script.py").write_text(TELL + PARENT_AND_CHILD + "time.sleep(600)")
    program = [sys.executable, str(tmp_path / "script.py"), "{hyp.lr0}", str(tmp_path)]
    we = subprocess.Popen(
        [sys.executable, "-c", TRAINS, str(tmp_path), *program],
        env={**os.environ, "PYTHONPATH": IMPORTABLE},
        stdout=subprocess.PIPE,
        text=True,
    )
    with we:
        leader = int(we.stdout.readline())
        pids = [leader, *(pid_in(tmp_path / f"pid-of-{name}") for name in ("program", "child"))]
        assert all(map(lives, pids)), shlex.join(program)
        order = {"us": [we.pid], "us, then the leader": [we.pid, leader], "the leader, then us": [leader, we.pid]}
        os.kill(we.pid, signal.SIGSTOP)  # so that it cannot see the leader's death first
        for pid in order[killed]:
            os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not any(map(lives, pids)))
