"""Studies that are stopped by Ctrl-C, killed, or run out of disk: nothing finished is lost, nothing is left behind."""

import re
import signal

import pytest
from small_world import World, children_of, interrupt, is_running, wait_for

from evolve.cli import ASKED_WRONGLY, INTERRUPTED
from search_spaces import load_hyp
from studies.trials import generations


def start_and_fall_asleep(world):
    """A study whose first trial hangs in its third epoch: its process, and that of the training."""
    process = world.start("--set", "fault=sleep", "--set", "fault_epoch=3", "--epochs", "5")
    wait_for((world.run_folder / "trials" / "00000" / "asleep").exists)
    (child,) = children_of(process.pid)
    return process, child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_epoch_be_finished_and_told(faulty, number):
    process = faulty.start("--set", "fault=nap", "--set", "fault_epoch=3", "--epochs", "5")
    wait_for((faulty.run_folder / "trials" / "00000" / "asleep").exists)
    process.send_signal(number)
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (INTERRUPTED, "")
    assert "leaving after this epoch; Ctrl-C again leaves at once" in output
    assert "interrupted; the same command goes on from here" in output
    lost = faulty.trials()[0]
    assert (lost.state.name, sorted(lost.intermediate_values)) == ("FAIL", [1, 2, 3])
    assert "KeyboardInterrupt" in lost.user_attrs["lost"]


def test_a_signal_in_the_last_epoch_lets_the_trial_end(faulty):
    process = faulty.start("--set", "fault=nap", "--set", "fault_epoch=5", "--epochs", "5")
    wait_for((faulty.run_folder / "trials" / "00000" / "asleep").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)
    assert process.returncode == INTERRUPTED
    assert faulty.trials()[0].state.name == "COMPLETE"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_study_at_once_and_its_hyp_is_queued_again(faulty, number):
    process, child = start_and_fall_asleep(faulty)
    interrupt(process, number)
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (INTERRUPTED, "")
    assert "interrupted; the same command goes on from here" in output
    assert not is_running(child)
    lost, *others, retry = faulty.trials()
    assert (lost.state.name, retry.state.name) == ("FAIL", "WAITING")
    assert [(trial.state.name, trial.user_attrs["base"]) for trial in others] == [("WAITING", True)] * 2
    assert "KeyboardInterrupt" in lost.user_attrs["lost"]
    assert retry.user_attrs["retry_of"] == 0


def test_a_killed_study_takes_its_training_with_it(faulty):
    process, child = start_and_fall_asleep(faulty)
    process.kill()
    process.wait()
    wait_for(lambda: not is_running(child))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_stopped_and_resumed_equals_one_that_never_was(world: World, number):
    settings = ("--epochs", "25", "--generations", "8", "--seed", "3")
    stopped = world.start(*settings)
    wait_for(lambda: (world.run_folder / "trials" / "00004" / "metrics.jsonl").exists() or stopped.poll())
    stopped.send_signal(number)
    stopped.communicate()
    assert world.run(*settings).exit_code == 0
    assert world.run(*settings, "--study", "whole").exit_code == 0
    assert by_generation(world.trials()) == by_generation(world.trials("whole"))
    assert load_hyp(world.run_folder / "best" / "hyp.yaml") == load_hyp("runs/whole/best/hyp.yaml")


def by_generation(trials):
    """Hyp, seed, state and every epoch's fitness of each generation, whichever trial it was that ended."""
    found = zip(generations(trials), trials, strict=True)
    return {
        generation: (trial.params, trial.user_attrs["seed"], trial.state, trial.intermediate_values)
        for generation, trial in found
        if "lost" not in trial.user_attrs
    }


def test_a_disk_that_is_full_ends_the_run_with_one_sentence_and_loses_no_finished_trial(world: World):
    process = world.start("--epochs", "3", "--generations", "500", limit_bytes=300_000)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == ASKED_WRONGLY, output
    assert len(errors.splitlines()) == 1
    assert errors.startswith("evolve: error: storage ")
    finished = [line for line in output.splitlines() if line.startswith("generation")]
    assert len(finished) > 3
    result = world.run("--generations", str(len(finished) + 2))
    assert result.exit_code == 0
    kept = int(re.findall(r"resumed: (\d+) of", result.output)[0])
    assert kept in (len(finished), len(finished) + 1), "the last one may have been stored, but could not be told"


def test_a_run_folder_serves_one_study_process_at_a_time(faulty):
    start_and_fall_asleep(faulty)
    second = faulty.run("--set", "fault=sleep")
    assert second.exit_code == ASKED_WRONGLY
    assert second.stderr.startswith("evolve: error: another `evolve run` works in ")
