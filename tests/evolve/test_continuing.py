"""Trials whose worker died go on from their last epoch, as if they had never stopped."""

import json
import os
import signal

import pytest
from small_world import World, wait_for

from evolve.cli import INTERRUPTED
from studies.trials import counts, generations

TRAINER = ("--trainer", "resumable:Repeating")
EPOCHS = ("--epochs", "6", "--pruner", "none", "--race", "0", "--generations", "1")
ASLEEP = ("--set", "fault=sleep", "--set", "fault_epoch=4")
CHECKPOINT = (*TRAINER, *EPOCHS, "--checkpoint")


def stop_in_the_fourth_epoch(world, *arguments, number=signal.SIGKILL):
    """A study of one generation, stopped while its training sleeps; what it said."""
    process = world.start(*arguments, *ASLEEP)
    wait_for(lambda: list(world.run_folder.glob("trials/*/asleep")) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    return process.communicate(timeout=240)


def metrics_of(world, number, study="points"):
    """The epochs in the trial's file as they stand there, without what a clock says."""
    path = world.folder / "runs" / study / "trials" / f"{number:05d}" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", "costs")} for row in rows]


def ends(world, study="points"):
    """Of each generation the trial that ended it."""
    trials = world.trials(study)
    found = zip(generations(trials), trials, strict=True)
    return {generation: trial for generation, trial in found if counts(trial)}


def assert_equal_to_a_whole_one(world, *arguments):
    """Every generation of the study equals that of one that was never stopped, and has no faults."""
    result = world.run(*arguments, "--freeze", "fault,fault_epoch", "--study", "whole")
    assert result.exit_code == 0, result.output
    wholes = ends(world, "whole")
    assert ends(world).keys() == wholes.keys()
    for generation, trial in ends(world).items():
        whole = wholes[generation]
        assert trial.intermediate_values == whole.intermediate_values
        assert (trial.state, trial.values) == (whole.state, whole.values)
        assert trial.user_attrs["metrics"] == whole.user_attrs["metrics"]
        assert metrics_of(world, trial.number) == metrics_of(world, whole.number, "whole")


def test_a_killed_trial_goes_on_after_its_last_epoch_and_nothing_shows_of_it(faulty: World, recwarn):
    stop_in_the_fourth_epoch(faulty, *CHECKPOINT)
    result = faulty.run(*CHECKPOINT, *ASLEEP)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert (ends(faulty)[0].user_attrs["retry_of"], ends(faulty)[0].user_attrs["resumed"]) == (0, 3)
    assert not [warning for warning in recwarn if "step" in str(warning.message)], "no step is reported twice"
    assert_equal_to_a_whole_one(faulty, *TRAINER, *EPOCHS)


def test_a_trial_goes_on_on_another_worker_of_the_same_run(faulty: World):
    jobs = ("--jobs", "2", "--generations", "2", "--base-seeds", "2")
    process = faulty.start(*CHECKPOINT, *ASLEEP, *jobs)
    wait_for(lambda: len(list(faulty.run_folder.glob("trials/*/asleep"))) == 2 or process.poll() is not None)
    running = [trial for trial in faulty.trials() if trial.state.name == "RUNNING"]
    for trial in running:
        os.kill(trial.user_attrs["worker"]["pid"], signal.SIGKILL)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    found = ends(faulty)
    assert [found[generation].user_attrs["resumed"] for generation in (0, 1)] == [3, 3]
    assert_equal_to_a_whole_one(faulty, *TRAINER, *EPOCHS, "--generations", "2", "--base-seeds", "2")


def test_a_trial_that_ctrl_c_has_stopped_goes_on_after_the_epoch_that_it_finished(faulty: World):
    nap = ("--set", "fault=nap", "--set", "fault_epoch=4")
    process = faulty.start(*CHECKPOINT, *nap)
    wait_for((faulty.run_folder / "trials" / "00000" / "asleep").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)
    assert process.returncode == INTERRUPTED
    assert faulty.run(*CHECKPOINT, *nap).exit_code == 0
    assert ends(faulty)[0].user_attrs["resumed"] == 4
    assert_equal_to_a_whole_one(faulty, *TRAINER, *EPOCHS)


def test_a_retry_that_is_lost_too_leaves_its_checkpoint_to_the_next(faulty: World):
    stop_in_the_fourth_epoch(faulty, *CHECKPOINT)
    lost = faulty.run_folder / "trials" / "00000"
    for _ in range(2):  # twice the hyp is queued again, and each time its worker dies before it has done anything
        storage_with_a_trial_that_died(faulty)
    assert (lost / "last.pt").exists()
    result = faulty.run(*CHECKPOINT, *ASLEEP, "--retries", "9")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert (ends(faulty)[0].number, ends(faulty)[0].user_attrs["resumed"]) == (3, 3)
    assert_equal_to_a_whole_one(faulty, *TRAINER, *EPOCHS)


def storage_with_a_trial_that_died(world):
    """Ask for the retry as a worker does that then dies, and find that it is lost."""
    import optuna

    from studies.study import requeue_lost

    study = optuna.load_study(study_name="points", storage=f"sqlite:///{world.run_folder}/study.db")
    requeue_lost(study, exclusive=True)
    study.ask()


def test_without_checkpoint_a_trial_begins_anew(faulty: World):
    arguments = (*TRAINER, *EPOCHS, "--set", "fault=nap", "--set", "fault_epoch=4")
    process = faulty.start(*arguments)
    wait_for((faulty.run_folder / "trials" / "00000" / "asleep").exists)
    process.kill()
    process.communicate()
    assert faulty.run(*arguments).exit_code == 0
    assert not list(faulty.run_folder.rglob("last.pt"))
    assert "resumed" not in ends(faulty)[0].user_attrs
    assert sorted(ends(faulty)[0].intermediate_values) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda last: last.write_text('{"epoch": 3, "hy'), "begins anew, as it cannot go on: JSONDecodeError"),
        (lambda last: last.write_text('{"epoch": 3, "hyp": {}, "seed": 0}'), "last.pt is another one"),
    ],
    ids=["torn", "of another hyp"],
)
def test_a_checkpoint_that_is_of_no_use_is_a_warning_and_the_trial_begins_anew(faulty: World, spoil, said, caplog):
    stop_in_the_fourth_epoch(faulty, *CHECKPOINT, number=signal.SIGKILL)
    spoil(faulty.run_folder / "trials" / "00000" / "last.pt")
    process = faulty.start(*CHECKPOINT, *ASLEEP)  # the fault comes again: it trains from the first epoch on
    wait_for(lambda: (faulty.run_folder / "trials" / "00001" / "asleep").exists() or process.poll() is not None)
    process.kill()
    _, errors = process.communicate()
    assert said in errors
    assert "resumed" not in faulty.trials()[1].user_attrs
    assert sorted(faulty.trials()[1].intermediate_values) == [1, 2, 3]


def test_a_trainer_that_leaves_no_checkpoint_is_not_asked_to_go_on(faulty: World):
    nap = (*EPOCHS, "--checkpoint", "--set", "fault=nap", "--set", "fault_epoch=4")
    process = faulty.start(*nap)
    wait_for((faulty.run_folder / "trials" / "00000" / "asleep").exists)
    process.kill()
    process.communicate()
    result = faulty.run(*nap)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert "resumed" not in ends(faulty)[0].user_attrs
    assert_equal_to_a_whole_one(faulty, *EPOCHS)


def test_a_heat_of_the_race_goes_on_too(world: World):
    settings = (*TRAINER, "--epochs", "60", "--generations", "2", "--pruner", "none", "--race", "1", "--keep", "0")
    process = world.start(*settings, "--checkpoint")
    file = world.run_folder / "races" / "points.race" / "trials" / "00000" / "metrics.jsonl"
    wait_for(lambda: file.exists() or process.poll() is not None)
    process.kill()
    output, errors = process.communicate()
    result = world.run(*settings, "--checkpoint")
    assert (result.exit_code, result.stderr) == (0, ""), output + errors + result.output
    heats = [trial for trial in race_of(world, "points") if counts(trial)]
    assert sum("resumed" in trial.user_attrs for trial in heats) == 1
    assert world.run(*settings, "--study", "whole").exit_code == 0
    assert sorted(map(told, heats)) == sorted(map(told, race_of(world, "whole")))  # a retry comes later


def race_of(world, study):
    """The trainings of a study's race."""
    import optuna

    url = f"sqlite:///{world.folder}/runs/{study}/study.db"
    return optuna.load_study(study_name=f"{study}.race", storage=url).get_trials(deepcopy=False)


def told(trial):
    attrs = trial.user_attrs
    return attrs["seed"], str(attrs["entrant"]), sorted(trial.intermediate_values.items()), trial.values


# the built-in trainer

DIGITS = ("--data", "digits", "--imgsz", "48", "--epochs", "8", "--pruner", "none", "--race", "0", "--base-seeds", "1")


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["alone", "of two workers"])
def test_the_detection_trainer_goes_on_bit_for_bit(world: World, jobs):
    settings = ("run", *DIGITS, "--generations", "1", "--checkpoint", *jobs)
    process = world.start_command(*settings, "--study", "points")
    file = world.run_folder / "trials" / "00000" / "metrics.jsonl"
    wait_for(lambda: file.parent.exists() or process.poll() is not None, 300)
    worker = world.trials()[0].user_attrs["worker"]["pid"]  # takes so long that the last epoch may end meanwhile
    wait_for(lambda: (file.exists() and len(file.read_text().splitlines()) >= 2) or process.poll() is not None, 300)
    os.kill(worker, signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    if not jobs:
        process = world.start_command(*settings, "--study", "points")
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert ends(world)[0].user_attrs["resumed"] in range(2, 8)
    whole = world.start_command("run", *DIGITS, "--generations", "1", "--study", "whole")
    output, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, output + errors
    goes_on = ends(world)[0].number  # not always the second trial: loky ends all workers where one has died
    assert metrics_of(world, goes_on) == metrics_of(world, 0, "whole")
    assert ends(world)[0].intermediate_values == ends(world, "whole")[0].intermediate_values
    assert ends(world)[0].values == ends(world, "whole")[0].values
