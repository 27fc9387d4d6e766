"""The commands beside `run`: what they print, and what they say where there is nothing."""

import ctypes
import multiprocessing
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import optuna
import pytest
import yaml
from small_world import ROOT, World

import evolve
from search_spaces import available_spaces, load_hyp, load_space


def test_best_shows_the_hyp_its_file_and_how_far_it_is_from_the_base(world: World):
    world.run("--generations", "6")
    shown = world.evolve("best", "points").output
    for part in ("points: best 0.", "map50_95", "momentum", "hyp file: runs/points/best/hyp.yaml"):
        assert part in shown


def test_best_as_yaml_is_a_hyp_file(world: World):
    world.run("--generations", "6")
    assert yaml.safe_load(world.evolve("best", "--yaml").output) == load_hyp("runs/points/best/hyp.yaml")


def test_best_takes_the_study_that_improved_last_or_a_run_folder(world: World):
    world.run("--generations", "1", "--set", "momentum=0.1", "--study", "older")
    world.run("--generations", "1", "--set", "momentum=0.2", "--study", "newer")
    world.run("--generations", "1", "--set", "momentum=0.1", "--study", "older", "--sampler", "yolo")  # nothing to do
    assert yaml.safe_load(world.evolve("best", "--yaml").output)["momentum"] == 0.2
    assert yaml.safe_load(world.evolve("best", "--yaml", "runs/older/").output)["momentum"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["pionts"], 2, "there is no study 'pionts' in runs (did you mean 'points'?)"),
        (["--runs", "nowhere"], 2, "there is no study in nowhere"),
        (["points", "--storage", "sqlite:///none.db"], 2, "none.db: No such file or directory"),
        (
            ["points", "--storage", "sqlite:///empty.db"],
            2,
            "empty.db cannot be used: no study has been stored",
        ),
        (["points", "--storage", "sqlite:///runs/failed/study.db"], 2, "there is no study points in its storage"),
        (["points", "--storage", "sqlite:///theirs.db"], 2, "the study points was not made by evolve"),
        (["failed"], 1, "no trial of failed has completed yet"),
    ],
)
def test_best_says_what_is_not_there(faulty: World, arguments, code, sentence):
    faulty.run("--generations", "1")
    faulty.run("--generations", "1", "--study", "failed", "--set", "fault=NaN")
    (faulty.folder / "empty.db").touch()
    optuna.create_study(study_name="points", storage="sqlite:///theirs.db")
    there = sorted(faulty.folder.iterdir())
    result = faulty.evolve("best", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(faulty.folder.iterdir()) == there, "who only looks makes nothing"


def test_best_waits_for_nobody_who_writes(world: World):
    world.run("--generations", "1")
    with closing(sqlite3.connect(world.run_folder / "study.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert world.evolve("best").exit_code == 0


def show_best_without_the_right_to_write(world: World) -> None:
    """In a process of its own. Root may write anywhere, unless it gives up what lets it."""
    version_3, this_process = 0x20080522, 0
    header, none = (ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
    with pytest.raises(PermissionError):
        (world.run_folder / "file").touch()
    result = world.evolve("best")
    assert result.exit_code == 0, result.output
    assert "points: best 0." in result.output


@pytest.mark.parametrize("log", [True, False], ids=["a killed study", "an ended study"])
def test_best_shows_what_lies_where_it_may_not_write(world: World, log):
    """SQLite's log stays where a study was killed, and is cleared away where it ended."""
    world.start("--generations", "1").wait()
    if log:
        with closing(sqlite3.connect(world.run_folder / "study.db")) as one:
            one.execute("SELECT * FROM trials").fetchall()
            shutil.copytree(world.run_folder, world.folder / "copy")
        shutil.rmtree(world.run_folder)
        (world.folder / "copy").rename(world.run_folder)
    assert (world.run_folder / "study.db-wal").exists() == log
    world.run_folder.chmod(0o555)
    reader = multiprocessing.get_context("fork").Process(target=show_best_without_the_right_to_write, args=[world])
    reader.start()
    reader.join(30)
    world.run_folder.chmod(0o755)
    assert reader.exitcode == 0


def test_best_makes_no_database_where_one_was_deleted(world: World):
    world.run("--generations", "1")
    (world.run_folder / "study.db").unlink()
    result = world.evolve("best")
    assert result.exit_code == 2
    assert "study.db is gone" in result.stderr
    assert not (world.run_folder / "study.db").exists()


def test_a_study_in_another_storage_is_found_by_its_configuration(world: World):
    world.run("--generations", "2", "--storage", f"sqlite:///{world.folder}/elsewhere.db")
    assert not (world.run_folder / "study.db").exists()
    assert world.evolve("best").exit_code == 0


def test_spaces_lists_every_built_in_space(world: World):
    assert world.evolve("spaces").output.split() == list(available_spaces())


def test_spaces_shows_every_hyp_with_its_bounds(world: World):
    shown = world.evolve("spaces", "detection").output
    assert [line.split()[0] for line in shown.splitlines()[1:]] == list(load_space("detection").order)
    assert ["lr0", "1e-05", "0.1", "0.01", "1", "log"] in [line.split() for line in shown.splitlines()]
    assert re.search(r"^mixup +0 +1 +0 +1 +linear, needs mosaic *$", shown, re.MULTILINE)


def test_spaces_shows_choices_steps_and_fixed_values_of_a_file(world: World):
    (world.folder / "own.yaml").write_text(
        "optimizer: {choices: [sgd, adamw], default: sgd}\nsize: {low: 1, high: 9, step: 2, default: 3}\nlr0: 0.1\n"
    )
    lines = [line.split(maxsplit=1) for line in world.evolve("spaces", "own.yaml").output.splitlines()[1:]]
    shown = {name: " ".join(rest.split()) for name, rest in lines}
    assert shown == {"optimizer": "sgd 1 one of sgd, adamw", "size": "1 9 3 1 linear, steps of 2", "lr0": "0.1 fixed"}


def train(world: World, *arguments: str):
    return world.evolve("train", "--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "2", *arguments)


def test_train_tells_every_epoch_and_the_last_scores(world: World):
    result = train(world, "--seed", "4")
    assert result.exit_code == 0, result.output
    epochs = [line for line in result.output.splitlines() if line.startswith("seed 4  epoch ")]
    assert len(epochs) == 2
    assert "on val:" in result.output


def test_train_with_several_seeds_gives_mean_and_standard_error(world: World):
    lines = train(world, "--seeds", "3").output.splitlines()
    last = [line.split() for line in lines if " epoch 2/2 " in line]
    values = [float(words[words.index("map50") + 1]) for words in last]
    mean = sum(values) / 3
    error = (sum((value - mean) ** 2 for value in values) / 2 / 3) ** 0.5
    (shown,) = [line.split() for line in lines if line.split()[0] == "map50"]
    assert float(shown[1]) == pytest.approx(mean, abs=2e-4)
    assert float(shown[3]) == pytest.approx(error, abs=2e-4)


@pytest.mark.parametrize(
    ("hyp", "code", "sentence"),
    [
        ("lr: 0.1\n", 2, "does not understand 'lr' (did you mean 'lr0'?)"),
        ("fault: NaN\n", 1, "the loss was no longer finite"),
        ("fault: SIGKILL\n", 1, "was killed by SIGKILL"),
    ],
)
def test_train_tells_what_went_wrong(world: World, hyp, code, sentence):
    (world.folder / "hyp.yaml").write_text(hyp)
    result = train(world, "--hyp", "hyp.yaml")
    assert result.exit_code == code
    assert result.stderr.startswith("evolve: error: ")
    assert sentence in result.stderr


SILENT = """\
from toy import ToyTrainer

class Silent(ToyTrainer):
    def train(self, job):
        if job.options.seed != {silent_seed}:
            yield from super().train(job)
"""


@pytest.mark.parametrize("silent_seed", [0, 1])
def test_train_tells_of_a_training_without_an_epoch_whatever_the_others_did(world: World, monkeypatch, silent_seed):
    (world.folder / "silent.py").write_text(SILENT.format(silent_seed=silent_seed))
    monkeypatch.syspath_prepend(world.folder)
    result = train(world, "--trainer", "silent:Silent", "--seeds", "2")
    assert (result.exit_code, result.stderr) == (1, "evolve: error: the trainer ended without an epoch\n")
    assert result.stdout.count(" epoch 2/2 ") == silent_seed


def test_train_ends_a_training_that_falls_silent(world: World):
    (world.folder / "hyp.yaml").write_text("fault: sleep\nfault_epoch: 2\n")
    result = train(world, "--hyp", "hyp.yaml", "--trial-timeout", "1")
    assert result.exit_code == 1
    assert "was ended because nothing came from it for 1 s in epoch 2" in result.stderr


def test_python_m_evolve_is_evolve():
    shown = subprocess.check_output([sys.executable, "-m", "evolve", "--version"], cwd=ROOT, text=True)
    assert shown == f"evolve {evolve.__version__}\n"
