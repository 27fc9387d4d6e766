"""What is asked wrongly is told in one sentence with exit code 2, before anything is trained."""

import pytest
from small_world import World

SPACES = {
    "unknown": "lr0: {low: 0.1, high: 1, default: 0.5}\nlearning: {low: 0, high: 1, default: 0}\n",
    "upside-down": "lr0: {low: 2, high: 1, default: 1}\n",
    "outside": "lr0: {low: 0.1, high: 1, default: 3}\n",
    "text": "lr0: {low: small, high: 1, default: 1}\n",
    "fixed": "lr0: 0.1\n",
}
HYPS = {"unknown": "lr: 0.1\n", "outside": "lr0: 7\n", "text": "lr0: fast\n"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--generations", "0"], "--generations is 0; it has to be at least 1"),
        (["--generations", "-3"], "--generations is -3; it has to be at least 1"),
        (["--base-seeds", "0"], "--base-seeds is 0; it has to be at least 1"),
        (["--patience", "0"], "--patience is 0; it has to be at least 1"),
        (["--budget", "8"], "--budget is 8; it has to be a time with its unit: 8h, 90m, 1h30m or 45s"),
        (["--budget", "tomorrow"], "--budget is tomorrow; it has to be a time with its unit: 8h, 90m, 1h30m or 45s"),
        (["--target", "nan"], "--target is nan; it has to be a fitness, such as 0.5"),
        (["--data", "pints"], "the only data here is 'points', got 'pints'"),
        (["--space", "detectoin"], "no space 'detectoin' (did you mean 'detection'?)"),
        (["--space", "none.yaml"], "none.yaml does not exist"),
        (["--space", "unknown.space.yaml"], "the trainer toy:ToyTrainer does not understand 'learning'"),
        (["--space", "upside-down.space.yaml"], "lr0: low 2.0 is greater than high 1.0"),
        (["--space", "outside.space.yaml"], "lr0: default 3 lies outside [0.1, 1.0]"),
        (["--space", "text.space.yaml"], "lr0: low must be a number, got 'small'"),
        (["--space", "fixed.space.yaml"], "nothing is left to evolve"),
        (["--hyp", "unknown.hyp.yaml"], "unknown hyp 'lr' in space 'space' (did you mean 'lr0'?)"),
        (["--hyp", "outside.hyp.yaml"], "lr0: 7 lies outside [0.0001, 0.5]"),
        (["--hyp", "text.hyp.yaml"], "lr0 must be a number, got 'fast'"),
        (["--hyp", "none.yaml"], "none.yaml does not exist"),
        (["--set", "lr0"], "--set lr0 is not name=value"),
        (["--set", "lr0=7"], "lr0: 7 lies outside [0.0001, 0.5]"),
        (["--set", "lro=1"], "unknown hyp 'lro' in space 'space' (did you mean 'lr0'?)"),
        (["--freeze", "lr0,momentun"], "unknown hyp 'momentun' in space 'space' (did you mean 'momentum'?)"),
        (["--only", "lr"], "unknown hyp 'lr' in space 'space' (did you mean 'lr0'?)"),
        (["--freeze", "lr0,momentum,weight_decay"], "nothing is left to evolve"),
        (["--sampler", "genetik"], "unknown sampler 'genetik' (did you mean 'genetic'?)"),
        (["--pruner", "ash"], "unknown pruner 'ash' (did you mean 'asha'?)"),
        (["--fitness", "map5O=1"], "unknown metric 'map5O' (did you mean 'map50'?)"),
        (["--trainer", "detectoin"], "unknown trainer 'detectoin' (did you mean 'detection'?)"),
        (["--trainer", "toy:Toy"], "trainer 'toy:Toy' cannot be loaded: AttributeError"),
        (["--trainer", "nowhere:Toy"], "trainer 'nowhere:Toy' cannot be loaded: ModuleNotFoundError"),
        (["--storage", "sqlite:///space.yaml/study.db"], "storage sqlite:///space.yaml/study.db cannot be used"),
        (["--storage", "nonsense"], "'nonsense' is no storage"),
        (["--storage", "nonsql://ann:s3cret@db/evolve"], "nonsql://ann:***@db/evolve"),
        (["--config", "none.yaml"], "cannot read the configuration none.yaml: No such file or directory"),
        (["--config", "epoch.yaml"], "unknown key 'epoch' in epoch.yaml (did you mean 'epochs'?)"),
        (["--runs", "space.yaml"], "space.yaml/points: Not a directory"),
        (["--runs", "/proc/x"], "/proc/x: No such file or directory"),  # a folder where nobody may make one
    ],
)
def test_one_sentence_and_exit_code_2(world: World, arguments, sentence):
    for folder, kind in ((SPACES, "space"), (HYPS, "hyp")):
        for name, text in folder.items():
            (world.folder / f"{name}.{kind}.yaml").write_text(text)
    (world.folder / "epoch.yaml").write_text("epoch: 3\n")
    result = world.run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("evolve: error: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert "s3cret" not in result.output
    assert not (world.run_folder / "study.db").exists() or not world.trials()[0].state.is_finished()


def test_what_was_mistyped_leaves_no_run_folder_but_a_log_that_says_something_stays(world: World):
    for arguments in (["--set", "lr0=99"], ["--trainer", "detectoin"]):
        world.run(*arguments)
        assert not (world.folder / "runs").exists()
    world.run("--trainer", "nowhere:Toy")
    assert list((world.folder / "runs").iterdir()) == []
    world.run("--data", "pints")
    assert (world.folder / "runs" / "pints" / "worker.log").read_text() == "toy: preparing\n"


def test_a_study_of_another_space_is_not_mixed_with_this_one(world: World):
    world.run("--generations", "2")
    result = world.run("--generations", "4", "--set", "momentum=0.1", "--fitness", "map50=1", "--epochs", "4")
    assert result.exit_code == 2
    for difference in ("space: momentum is ", 'fitness is "map50=0.1,map50_95=0.9" there', "epochs is 3 there, 4 here"):
        assert difference in result.stderr
    assert world.run("--generations", "2").exit_code == 0, "its own configuration is as it was"


def test_numbers_may_be_written_with_an_exponent(world: World):
    (world.folder / "hyp.yaml").write_text("lr0: 1e-3\n")
    (world.folder / "space.yaml").write_text("lr0: {low: 1e-5, high: 1e-1, default: 1e-2, log: true}\n")
    assert world.run("--hyp", "hyp.yaml", "--generations", "1").exit_code == 0
    assert world.trials()[0].params == {"lr0": 0.001}


def test_an_option_that_does_not_exist_is_told_with_what_does(world: World):
    result = world.evolve("run", "--generation", "3")
    assert result.exit_code == 2
    assert "--generations" in result.stderr


def test_a_bug_keeps_its_traceback(world: World, monkeypatch):
    monkeypatch.setattr("evolve.work.space_of", lambda config: 1 / 0)
    assert isinstance(world.run().exception, ZeroDivisionError)
