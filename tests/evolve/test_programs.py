"""Studies whose trainer is somebody else's program: the examples of the page on trainers, and what may go wrong."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from small_world import ROOT, World, interrupt, is_running, wait_for

from evolve.cli import INTERRUPTED
from search_spaces import load_hyp

PAGE = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
CHECK_OUTS = ROOT / "tests" / "trainer" / "check_outs"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def words_of(script: str) -> list[str]:
    """The arguments of `evolve` in a shell's words."""
    program, *arguments = shlex.split(script.replace("\\\n", " "))
    assert program == "evolve"
    return arguments


def train_command(world: World, study: str) -> list[str]:
    """What best/hyp.yaml says of how to train with it."""
    text = (world.folder / "runs" / study / "best" / "hyp.yaml").read_text()
    (command,) = re.findall(r"^# command +(.*)$", text, re.MULTILINE)
    return words_of(command)


@pytest.fixture
def page(world: World) -> World:
    """A folder with the files that the page shows."""
    (space,) = (text for text in blocks("yaml") if "momentum: {" in text)
    (python,) = blocks("python")
    (shell,) = (text for text in blocks("sh") if text.startswith("#!"))
    (world.folder / "space.yaml").write_text(space)
    (world.folder / "train.py").write_text(python)
    (world.folder / "train.sh").write_text(shell)
    return world


def shown(study: str, *more: str) -> list[str]:
    """The words that the page shows for a study, with more options; without a race."""
    (script,) = (text for text in blocks("sh") if f"--study {study}" in text)
    return with_options(words_of(script), "--race", "0", *more)


def with_options(words: list[str], *more: str) -> list[str]:
    at = words.index("--")
    return [*words[:at], *more, *words[at:]]


# The page


def test_the_python_example_runs_as_it_stands_and_is_as_short_as_it_says(page: World):
    result = page.evolve(*shown("parabola"))
    assert result.exit_code == 0, result.output
    base, *others = [trial for trial in page.trials("parabola") if trial.state.name == "COMPLETE"]
    assert max(trial.value for trial in others) > base.value + 0.05
    assert any(trial.state.name == "PRUNED" for trial in page.trials("parabola"))
    assert all("epoch 1 of 5: at " in log.read_text() for log in page.folder.glob("runs/parabola/trials/*/train.log"))
    assert len(blocks("python")[0].splitlines()) == 15


def test_the_best_hyp_says_how_to_train_with_it_and_that_works(page: World):
    assert page.evolve(*shown("parabola", "--generations", "3", "--set", "lr=0.03")).exit_code == 0
    command = train_command(page, "parabola")
    assert command[-4:] == ["--epochs", "{epochs}", "--seed", "{seed}"]
    result = page.evolve(*command)
    assert result.exit_code == 0, result.output
    folder = page.folder / "runs" / "train" / "exp"
    assert len((folder / "results.csv").read_text().splitlines()) == 6
    assert load_hyp(folder / "hyp.yaml")["lr"] == 0.03
    again = page.evolve("train", "--resume", str(folder))
    assert again.exit_code == 2
    assert "was trained by a program (command), which cannot go on" in again.stderr


def test_the_shell_example_runs_as_it_stands(page: World):
    result = page.evolve(*shown("shell"))
    assert result.exit_code == 0, result.output
    done = [trial for trial in page.trials("shell") if trial.state.name == "COMPLETE"]
    assert all(len(trial.intermediate_values) == 5 for trial in done)
    assert done[0].value == pytest.approx(0.55 * (1 - 2.718281828 ** (-10 * 0.01 * 5)), abs=1e-4)
    assert train_command(page, "shell")[-5:] == ["sh", str(page.folder / "train.sh"), "{hyp}", "{epochs}", "{workdir}"]
    assert page.evolve(*train_command(page, "shell")).exit_code == 0


def test_the_list_in_a_file_of_settings_is_the_same_program(page: World):
    (settings,) = (text for text in blocks("yaml") if text.startswith("trainer:"))
    (page.folder / "settings.yaml").write_text(settings)
    assert page.evolve(*shown("parabola", "--generations", "2")).exit_code == 0
    words = shown("parabola", "--generations", "3", "--config", "settings.yaml")
    without_program = words[: words.index("--")]
    at = without_program.index("--trainer")
    result = page.evolve(*without_program[:at], *without_program[at + 2 :])
    assert result.exit_code == 0, result.output
    assert len(page.trials("parabola")) == 3, "the study went on"


# What is asked wrongly


COMMAND = ("--trainer", "command", "--space", "space.yaml", "--epochs", "2", "--generations", "2")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--", "true", "{hyp}", "{lr}"), "the command holds {lr}, which stands for nothing"),
        (("--", "true", "{hyp"), "the braces in '{hyp' do not match"),
        (
            ("--", "true", "{hyp}", "{hyp.lr0}"),
            "the trainer command needs the hyp 'lr0', which is not given",
        ),
        (("--", "true", "{hyp.lr}"), "the trainer command does not understand 'momentum'"),
        (("--", "true"), "the command is told no hyp"),
        (("--", "no-such-program", "{hyp}"), "there is no program 'no-such-program' that could be run"),
        ((), "--trainer command needs a program: evolve run --trainer command ... -- PROGRAM ARGUMENTS"),
        (("--", "true", "{hyp}", "{data}"), "the program is told {data}, and there is none: give --data"),
        (("--optimizer", "sgd", "--", "true", "{hyp}"), "--optimizer means nothing to --trainer command"),
        (("--rect", "--", "true", "{hyp}"), "--rect means nothing to --trainer command"),
        (("--imgsz", "320", "--", "true", "{hyp}"), "--imgsz means nothing to this command: it holds no {imgsz}"),
        (("--repo", ".", "--", "true", "{hyp}"), "--repo is for --trainer yolov5, yolov7, yolov3"),
        (("--metrics", "/tmp/r.csv", "--", "true", "{hyp}"), "--metrics is /tmp/r.csv; it has to be a file below"),
        (("--metrics", "../r.csv", "--", "true", "{hyp}"), "--metrics is ../r.csv; it has to be a file below"),
        (("--map50", "3", "--", "true", "{hyp}"), "columns that are counted are those of a file: give --metrics FILE"),
        (
            ("--metrics", "r.txt", "--map50", "3", "--map50-95", "AP", "--", "true", "{hyp}"),
            "the column of map50_95 is AP; columns are all named, or all counted from 1",
        ),
        (
            ("--metrics", "r.txt", "--map50", "0", "--", "true", "{hyp}"),
            "the column of map50 is 0; columns are",
        ),
        (
            ("--metrics", "r.txt", "--map50", "3", "--", "true", "{hyp}"),
            "the fitness weighs map50_95: say with --map50-95 which column that is",
        ),
        (("--trainer", "yolov5"), "--trainer yolov5 needs --repo PATH, the folder of its train.py"),
        (("--trainer", "yolov5", "--repo", "runs"), "is no check-out of yolov5: it has no train.py"),
        (("--trainer", "yolov5", "--repo", ".", "--metrics", "r"), "--metrics is for --trainer command"),
        (("--trainer", "comand"), "unknown trainer 'comand' (did you mean 'command'?)"),
        (("--trainer", "toy:ToyTrainer", "--map50", "AP"), "--map50 is for programs: --trainer command, yolov5"),
        (("--trainer", "toy:ToyTrainer", "true"), "unexpected argument 'true': a program goes with --trainer command"),
    ],
)
def test_one_sentence_and_exit_code_2_before_the_first_trial(page: World, arguments, sentence):
    result = page.evolve("run", *COMMAND, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("evolve: error: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert not list(page.folder.glob("runs/*/study.db"))


def test_a_program_needs_a_space_of_its_own(page: World):
    result = page.evolve("run", "--trainer", "command", "--", "true", "{hyp}")
    assert result.exit_code == 2
    assert "--trainer command needs --space FILE: the hyps of the program, and their bounds" in result.stderr


# A study


TELLS = """
import json, os, signal, subprocess, sys, time
def tell(epoch, score):
    print(json.dumps({"epoch": epoch, "map50": score, "map50_95": score}), flush=True)
lr = float(sys.argv[1])
"""


def program(world: World, script: str, *arguments: str) -> list[str]:
    (world.folder / "space.yaml").write_text("lr: {low: 0.001, high: 1.0, default: 0.5}\n")
    (world.folder / "script.py").write_text(TELLS + script)
    command = (sys.executable, "script.py", "{hyp.lr}")
    return ["run", *COMMAND, "--study", "mine", "--race", "0", *arguments, "--", *command]


def test_a_study_is_its_command_and_goes_on_with_that_alone(world: World):
    script = "for epoch in (1, 2): tell(epoch, lr * epoch / 4)"
    assert world.evolve(*program(world, script)).exit_code == 0
    other = world.evolve(*program(world, script, "--generations", "3"), "--fast")
    assert other.exit_code == 2
    assert "command" in other.stderr
    (world.folder / "elsewhere").mkdir()
    shutil.copy(world.folder / "script.py", world.folder / "elsewhere")
    words = program(world, script, "--generations", "3")
    words[words.index("script.py")] = "elsewhere/script.py"
    assert world.evolve(*words).exit_code == 0, "it may lie elsewhere"
    assert len(world.trials("mine")) == 3


def test_a_worker_that_joins_knows_the_program(world: World):
    script = "for epoch in (1, 2): tell(epoch, lr * epoch / 4)"
    url = f"sqlite:///{world.folder}/shared.db"
    first = world.evolve(*program(world, script, "--storage", url))
    assert first.exit_code == 0, first.output
    joined = world.evolve("worker", "--storage", url, "--study", "mine")
    assert joined.exit_code == 0, joined.output
    assert "trained by" in joined.output


def test_trials_that_fail_say_why_and_have_no_fitness(world: World):
    script = "tell(1, 0.5); print('the reason', file=sys.stderr); sys.exit(7) if lr != 0.5 else tell(2, 0.6)"
    result = world.evolve(*program(world, script, "--generations", "3", "--base-seeds", "1"))
    assert result.exit_code == 0, result.output
    base, *others = world.trials("mine")
    assert base.state.name == "COMPLETE"
    for trial in others:
        assert (trial.state.name, trial.values) == ("FAIL", None)
        assert "the program exited with code 7 in epoch 2" in trial.user_attrs["failure"]
    assert "the reason" in (world.folder / "runs/mine/trials/00001/train.log").read_text()


def test_a_program_that_falls_silent_is_ended_with_its_children(world: World):
    script = (
        "child = subprocess.Popen(['sleep', '600'])\n"
        "with open('pids', 'a') as file: print(os.getpid(), child.pid, file=file)\n"
        "tell(1, 0.5); time.sleep(600)"
    )
    limits = ("--trial-timeout", "1", "--max-failures", "1", "--generations", "1")
    result = world.evolve(*program(world, script, *limits))
    assert result.exit_code == 1
    assert "the program was ended because it told no epoch for 1 s, in epoch 2" in result.output
    assert not any(map(is_running, pids_of(world)))


def test_pruned_trials_end_their_programs_at_once(world: World):
    script = (
        "def goodbye(*_):\n    open('goodbyes', 'a').write('x'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, goodbye)\n"
        "for epoch in range(1, 11): tell(epoch, epoch * lr / 10); time.sleep(0.1)\n"
    )
    words = program(world, script, "--epochs", "10", "--generations", "15", "--sampler", "random")
    assert world.evolve(*words).exit_code == 0
    pruned = [trial for trial in world.trials("mine") if trial.state.name == "PRUNED"]
    assert pruned
    assert (world.folder / "goodbyes").read_text() == "x" * len(pruned)


def pids_of(world: World) -> list[int]:
    return [int(pid) for pid in (world.folder / "pids").read_text().split()]


@pytest.fixture
def under_way(world: World) -> Iterator[tuple[World, list[str]]]:
    """Words that start a study whose program, with a child of its own, hangs in its second epoch."""
    script = (
        "child = subprocess.Popen(['sleep', '600'])\n"
        "tell(1, 0.5)\n"
        "with open('pids', 'a') as file: print(os.getpid(), child.pid, file=file)\n"
        "time.sleep(600)"
    )
    yield world, program(world, script, "--generations", "9")
    assert wait_for(lambda: not any(map(is_running, pids_of(world))))


def test_the_second_ctrl_c_ends_the_program_and_its_children(under_way):
    world, words = under_way
    process = world.start_command(*words)
    wait_for(lambda: (world.folder / "pids").exists() and len(pids_of(world)) == 2)
    interrupt(process)
    _, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (INTERRUPTED, "")
    assert not any(map(is_running, pids_of(world)))


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
def test_when_evolve_is_killed_no_program_trains_on(under_way, jobs):
    world, words = under_way
    process = world.start_command(*with_options(words, *jobs))
    wait_for(lambda: (world.folder / "pids").exists() and len(pids_of(world)) == (4 if jobs else 2))
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_running, pids_of(world))))


def test_when_the_worker_of_a_program_is_killed_it_ends_and_its_hyp_is_queued_again(under_way):
    world, words = under_way
    process = world.start_command(*with_options(words, "--jobs", "2"))
    wait_for(lambda: (world.folder / "pids").exists() and len(pids_of(world)) == 4)
    first = pids_of(world)
    leader = os.getpgid(first[0])
    worker = int(Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, first[:2])))
    wait_for(lambda: any("retry_of" in trial.user_attrs for trial in world.trials("mine")))
    process.kill()
    process.wait()


# A check-out


def test_a_check_out_is_tuned_with_the_space_of_its_name_and_trained_with_what_was_found(world: World):
    repo = world.folder / "yolov5"
    shutil.copytree(CHECK_OUTS / "yolov5", repo)
    (repo / "venv" / "bin").mkdir(parents=True)
    (repo / "venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (repo / "venv" / "bin" / "python").chmod(0o755)
    (world.folder / "cells.yaml").write_text("nc: 3\n")
    told = ("--trainer", "yolov5", "--repo", "yolov5", "--data", "cells.yaml", "--epochs", "3", "--generations", "4")
    result = world.evolve("run", *told, "--race", "0", "--", "--cos-lr")
    assert result.exit_code == 0, result.output
    settings = yaml.safe_load((world.folder / "runs/cells/evolve.yaml").read_text())
    known = {name: settings[name] for name in ("space", "imgsz", "batch", "command", "threads")}
    assert known == {"space": "yolov5", "imgsz": 640, "batch": 16, "command": ["--cos-lr"], "threads": 0}
    best = world.folder / "runs/cells/best/hyp.yaml"
    assert len(load_hyp(best)) == 28
    assert "# optimizer" not in best.read_text(), "theirs is not ours to tell"
    log = (world.folder / "runs/cells/trials/00000/train.log").read_text()
    assert "'cos_lr': True" in log
    trained = world.evolve(*train_command(world, "cells"))
    assert trained.exit_code == 0, trained.output
    assert (world.folder / "runs/train/exp/program/train/weights/last.pt").exists()
