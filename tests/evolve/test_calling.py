"""`evolve` called from Python: settings, functions as trainers, spaces, and what comes back."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import optuna
import pytest
from small_world import ROOT, World, is_running, wait_for

from evolve import EvolveConfig, evolve
from evolve.calling import importable
from evolve.cli import cli
from evolve.config import ConfigError, arguments, key_of, read_config
from evolve.standing import NoResult
from search_spaces import SpaceError, load_hyp, load_space
from studies import StudyError
from trainer import EpochMetrics, TrainJob

HYPS = {
    "lr0": {"low": 1e-4, "high": 0.5, "default": 0.0005, "log": True},
    "momentum": {"low": 0.0, "high": 0.95, "default": 0.5},
    "weight_decay": 0.0,
}
SHORT = {"epochs": 3, "generations": 4, "pruner": "none", "quiet": True}


@pytest.fixture
def toy(world: World) -> ModuleType:
    """A module that this process can import, and so can another one."""
    return importlib.import_module("toy")


def made_here(height: float, fails_above: float = 1.0):
    """A function that no other process could import: the smaller lr0, the better."""

    def train(job: TrainJob):
        try:
            for epoch in range(1, job.options.epochs + 1):
                if job.hyp["lr0"] > fails_above:
                    raise ValueError(f"lr0 is {job.hyp['lr0']}")
                score = height - float(job.hyp["lr0"]) + epoch / 100
                yield EpochMetrics(epoch, score, score, score, score)
        finally:
            (job.workdir.parents[1] / f"closed-{job.workdir.name}").touch()

    return train


def test_a_study_is_run_by_settings_that_are_named_as_flags(world: World):
    best = evolve(trainer="toy:ToyTrainer", data="points", space=world.folder / "space.yaml", runs="runs", **SHORT)
    noted = read_config(world.run_folder / "evolve.yaml")
    assert (noted["trainer"], noted["epochs"], noted["generations"]) == ("toy:ToyTrainer", 3, 4)
    assert len(world.trials()) == 4
    assert best.hyp == load_hyp(best.paths.best_hyp)
    assert best.paths.root == world.run_folder
    assert (best.study, best.fitness) == ("points", world.trials()[best.trial].value)
    assert best.base_fitness == world.trials()[0].value
    study = optuna.load_study(study_name=best.study, storage=best.storage)
    assert study.trials[best.trial].params == {name: best.hyp[name] for name in ("lr0", "momentum", "weight_decay")}
    assert repr(best).startswith(f"<Result of points: fitness {best.fitness:.4f} in trial {best.trial}, base ")
    assert repr(best).endswith("; runs/points/best/hyp.yaml>")


def test_settings_go_before_those_of_a_configuration(world: World):
    config = EvolveConfig(trainer="toy:ToyTrainer", data="points", space="space.yaml", epochs=3, generations=2)
    evolve(config, quiet=True)
    evolve(config, generations=3, quiet=True)
    assert len(world.trials()) == 3


@pytest.mark.parametrize("field", dataclasses.fields(EvolveConfig), ids=lambda field: field.name)
def test_every_setting_of_the_command_line_is_one_of_python(field):
    command = next(command for name, command in cli.commands.items() if name == "run")
    assert field.name in {option.name for option in command.params}
    usual = getattr(EvolveConfig(), field.name)
    assert arguments({field.name: usual}) == {field.name: usual}
    assert key_of(field.name) == field.name.rstrip("_")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"only": ["lr0", "momentum"]}, {"only": ("lr0", "momentum")}),
        ({"from_": (Path("first"), "hyp.yaml")}, {"from_": ("first", "hyp.yaml")}),
        ({"data": Path("cells/data.yaml")}, {"data": "cells/data.yaml"}),
        ({"device": 0, "target": 1}, {"device": "0", "target": 1.0}),
        ({"set": {"mosaic": 0}}, {"set": {"mosaic": 0}}),
    ],
)
def test_what_python_has_other_types_for_is_taken(given, expected):
    assert arguments(given) == expected


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"generation": 3}, ConfigError, r"unknown key 'generation' in the arguments of evolve\(\) \(did you mean"),
        ({"generations": "3"}, ConfigError, r"generations in the arguments of evolve\(\) is '3'; expected a whole num"),
        ({"generations": 0}, ConfigError, "--generations is 0"),
        ({"trainer": 7}, ConfigError, "the trainer is 7; expected a name, a function of a job, or what has hyps"),
        ({"trainer": "nobody"}, ConfigError, "unknown trainer 'nobody'"),
        ({"space": 7}, ConfigError, "the space is 7; expected a name, a file, a Space or a mapping"),
        ({"space": {"lr0": {"low": 1, "high": 0, "default": 0}}}, SpaceError, "low 1.0 is greater than high 0.0"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_sentence(world: World, settings, error, told):
    usual = {"trainer": "toy:ToyTrainer", "data": "points", "space": "space.yaml"}
    with pytest.raises(error, match=told):
        evolve(**{**usual, **SHORT, **settings})


def test_a_function_that_can_be_imported_is_named_and_not_copied(world: World, toy: ModuleType):
    evolve(trainer=toy.train, data="points", space=HYPS, **SHORT)
    assert read_config(world.run_folder / "evolve.yaml")["trainer"] == "toy:train"
    assert not list(world.run_folder.glob("*.pkl"))
    assert all(trial.state.name != "FAIL" for trial in world.trials())


def test_a_function_made_here_trains_with_all_that_it_refers_to(world: World):
    best = evolve(trainer=made_here(0.7), space=HYPS, **SHORT)
    assert best.study == "test_calling"
    assert best.fitness == pytest.approx(0.7 - best.hyp["lr0"] + 0.03)
    assert best.paths.trainer("train").exists()


def test_a_study_of_a_function_goes_on_here_and_on_the_command_line(world: World):
    first = evolve(trainer=made_here(0.7), space=HYPS, **SHORT)
    again = evolve(trainer=made_here(0.7), space=HYPS, **{**SHORT, "generations": 6})
    assert len(world.trials("test_calling")) == 6
    assert again.fitness >= first.fitness
    settings = str(first.paths.config)
    process = world.start_command("run", "--config", settings, "--generations", "8", "--race", "1")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert len(world.trials("test_calling")) == 8
    assert "trained by train()" in output
    hyp = ("--hyp", str(first.paths.best_hyp), "--data", "any")
    assert world.evolve("train", "--trainer", str(first.paths.trainer("train")), "--epochs", "2", *hyp).exit_code == 0


def test_another_function_or_another_space_is_another_study(world: World):
    evolve(trainer=made_here(0.7), space=HYPS, study="mine", **SHORT)
    with pytest.raises(StudyError, match="space: momentum is"):
        evolve(trainer=made_here(0.7), space={**HYPS, "momentum": 0.5}, study="mine", **SHORT)

    def other(job: TrainJob):
        yield from made_here(0.7)(job)

    with pytest.raises(StudyError, match=r'trainer is "train.pkl" there, "other.pkl" here'):
        evolve(trainer=other, space=HYPS, study="mine", **SHORT)


def test_several_workers_train_by_a_function_made_here(world: World):
    evolve(trainer=made_here(0.7), space=HYPS, jobs=2, **{**SHORT, "generations": 8})
    assert [trial.state.name for trial in world.trials("test_calling")] == ["COMPLETE"] * 8


def test_a_trainer_may_be_an_object_of_ones_own(world: World, toy: ModuleType):
    class Mine(toy.ToyTrainer):
        def __init__(self, scale: float) -> None:
            self.scale = scale

        def train(self, job: TrainJob):
            for metrics in super().train(job):
                yield dataclasses.replace(metrics, map50=self.scale, map50_95=self.scale)

    best = evolve(trainer=Mine(0.25), data="points", space=HYPS, **SHORT)
    assert best.fitness == pytest.approx(0.25)


def test_a_space_may_be_one_that_was_made_in_python(world: World, toy: ModuleType):
    space = load_space(world.folder / "space.yaml").freeze(["momentum"])
    evolve(trainer=toy.train, data="points", space=space, **SHORT)
    assert {name for trial in world.trials() for name in trial.params} == {"lr0", "weight_decay"}
    assert load_space(world.run_folder / "space.yaml").fixed == {"momentum": 0.5}


def test_a_function_that_raises_fails_its_trial_and_never_the_study(world: World):
    best = evolve(trainer=made_here(0.7, fails_above=0.002), space=HYPS, **{**SHORT, "generations": 20})
    trials = world.trials("test_calling")
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(trials) == 20
    assert failed, "the test is about these"
    assert {trial.params["lr0"] > 0.002 for trial in failed} == {True}
    assert failed[0].user_attrs["failure"].startswith(f"ValueError: lr0 is {failed[0].params['lr0']}; see ")
    assert "Traceback" in best.paths.train_log(failed[0].number).read_text()
    assert failed[0].value is None


def test_where_every_training_raises_the_study_stops_and_says_why(world: World):
    with pytest.raises(NoResult, match=r"ValueError: lr0 is 0\.0005"):
        evolve(trainer=made_here(0.7, fails_above=0.0), space=HYPS, max_failures=1, **SHORT)


def test_a_trial_that_is_pruned_closes_the_function(world: World):
    best = evolve(trainer=made_here(0.7), space=HYPS, quiet=True, epochs=10, generations=25, race=0)
    pruned = [trial for trial in world.trials("test_calling") if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert (best.paths.root / f"closed-{trial.number:05d}").exists()
        assert trial.last_step < 10


def test_what_cannot_be_given_to_another_process_is_told(world: World):
    lock = threading.Lock()

    def train(job: TrainJob):
        with lock:
            yield EpochMetrics(1, 0.5, 0.5, 0.5, 0.5)

    with pytest.raises(
        ConfigError, match=r"the trainer train refers to what cannot be given .*TypeError.*open it within"
    ):
        evolve(trainer=train, space=HYPS, **SHORT)


def test_only_what_another_process_finds_under_its_name_is_importable(toy: ModuleType):
    assert importable(toy.train) == "toy:train"
    assert importable(toy.ToyTrainer) == "toy:ToyTrainer"
    assert importable(toy.ToyTrainer.train) is None
    assert importable(made_here(0.7)) is None
    assert importable(toy.ToyTrainer()) is None


def test_lines_tell_how_it_goes_and_optuna_says_nothing(world: World, capfd, toy: ModuleType):
    before = optuna.logging.get_verbosity()
    evolve(trainer=toy.train, data="points", space=HYPS, epochs=3, generations=2)
    output, errors = capfd.readouterr()
    assert "generation    2/2" in output
    assert "2 of 2 generations are done" in output
    assert errors == ""
    assert optuna.logging.get_verbosity() == before


SCRIPT = """\
import os, time
from evolve import evolve
from trainer import EpochMetrics

def train(job):
    for epoch in range(1, 4):
        if os.path.exists("hang"):
            (job.workdir / "pid").write_text(str(os.getpid()))
            time.sleep(600)
        yield EpochMetrics(epoch, 0.5, 0.5, 0.5, 0.5)

best = evolve(trainer=train, space="space.yaml", epochs=3, generations=3)
print("found", best.trial)
"""


def run_script(world: World) -> subprocess.Popen[str]:
    (world.folder / "script.py").write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=world.folder, env=env, text=True, stdout=pipe, stderr=pipe
    )
    world.started.append(process)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_script_that_is_interrupted_leaves_nothing_behind_and_goes_on(world: World, number: signal.Signals):
    (world.folder / "hang").touch()
    process = run_script(world)
    pid = int(wait_for(lambda: next((file.read_text() for file in world.folder.rglob("pid")), "") or process.poll()))
    process.send_signal(number)
    if number == signal.SIGINT:
        assert process.stdout is not None
        while "leaving after this epoch" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(number)
    process.wait(timeout=240)
    errors = process.stderr.read() if process.stderr else ""
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    wait_for(lambda: not is_running(pid))
    (world.folder / "hang").unlink()
    output, errors = run_script(world).communicate(timeout=240)
    assert "found " in output, errors
    assert len([trial for trial in world.trials("script") if trial.state.name == "COMPLETE"]) == 3
