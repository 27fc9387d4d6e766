"""Whatever breaks while several workers share a study: what is inside the hyp fails its trial, the rest costs nothing.

What is told of each kind, and which other tests hold it, stands in docs/failures.md.
"""

import re
import signal
import sqlite3
from contextlib import closing

import optuna
import pytest
from small_world import ELSEWHERE, IMPATIENT, RUN, SPACE, World, wait_for

from evolve.cli import ASKED_WRONGLY
from search_spaces import load_hyp
from studies.trials import counts, generations, is_lost

INSIDE = {  # the toy's fault, and what is told of it
    "NaN": "the loss was no longer finite",
    "TrainerError": "the toy is out of order",
    "ValueError": "a bug in the toy",
    "out of memory": "out of memory with batch 8",
    "CUDA out of memory": "out of memory with batch 8",
    "CUDA": "device-side assert triggered",
    "SIGKILL": "was killed by SIGKILL in epoch 1 (did memory run out with batch 8",
    "segmentation fault": "was killed by SIGSEGV in epoch 1",
    "os._exit": "exited with code 3 in epoch 1",
    "sleep": "nothing came from it for 4 s in epoch 1",
}


def with_faults(world, *faults):
    choices = ", ".join(f'"{fault}"' for fault in ("", *faults))
    (world.folder / "space.yaml").write_text(SPACE + f'fault: {{choices: [{choices}], default: ""}}\n')
    return world


def done(trials):
    found = zip(generations(trials), trials, strict=True)
    return sorted(generation for generation, trial in found if counts(trial))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_each_failure_within_a_training_fails_its_trial_with_the_reason_and_nothing_else(world: World, jobs):
    with_faults(world, *INSIDE)
    asked = ("--generations", "24", "--jobs", jobs, "--sampler", "random", "--trial-timeout", "4", "--seed", "4")
    result = world.run(*asked, "--max-failures", "30", "--pruner", "none", "--base-seeds", "1")
    assert result.exit_code == 0, result.output
    trials = world.trials()
    assert done(trials) == list(range(24))
    assert {trial.params["fault"] for trial in trials} >= {*INSIDE}, "the seed draws every fault"
    for trial in trials:
        fault = trial.params["fault"]
        if fault:
            assert (trial.state.name, trial.value) == ("FAIL", None)
            assert INSIDE[fault] in trial.user_attrs["failure"]
        else:
            assert trial.state.name == "COMPLETE"


def test_a_limit_of_memory_fails_the_trial_that_wants_more(world: World):
    with_faults(world, "hog")
    asked = ("--epochs", "3", "--generations", "6", "--sampler", "random", "--seed", "1", "--pruner", "none")
    process = world.start(*asked, limit="RLIMIT_AS", limit_bytes=6 << 30)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    trials = world.trials()
    hogs = [trial for trial in trials if trial.params["fault"]]
    assert 0 < len(hogs) < 6
    for trial in trials:
        assert (trial.state.name, trial in hogs) in (("FAIL", True), ("COMPLETE", False))
    assert all("out of memory with batch 8" in trial.user_attrs["failure"] for trial in hogs)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_where_everything_fails_the_study_stops_with_the_end_of_the_log(faulty: World, jobs):
    asked = ("--set", "fault=SIGKILL", "--max-failures", "4", "--generations", "30", "--jobs", jobs)
    result = faulty.run(*asked)
    assert result.exit_code == 1
    reason = r"(\d+) trials in a row failed, the last one with: the training process was killed by SIGKILL"
    found = re.search(reason, result.stderr)
    assert found, result.stderr
    assert 4 <= int(found[1]) <= (4 if jobs == "1" else 12), "the parent looks from time to time"
    assert len(result.stderr.splitlines()) == 1
    assert 4 <= len(faulty.trials()) <= (4 if jobs == "1" else 12), "what is under way ends, too"
    assert "train.log" in result.output
    assert not (faulty.run_folder / "best").exists()


def test_a_log_that_says_something_is_quoted_when_everything_fails(faulty: World):
    faulty = with_faults(faulty, "ValueError")
    result = faulty.run("--set", "fault=ValueError", "--max-failures", "2")
    assert result.exit_code == 1
    assert "warning: trial 1 failed; " in result.output
    assert 'raise ValueError("a bug in the toy")' in result.output


def test_a_disk_that_is_full_ends_all_workers_with_one_sentence_and_loses_no_finished_trial(world: World):
    """Its database wants 1.6 MB at the end, however often the log in front of it is emptied."""
    process = world.start("--epochs", "3", "--generations", "1000", "--jobs", "2", limit_bytes=1_000_000)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == ASKED_WRONGLY, output + errors
    assert errors.startswith("evolve: error: ")
    assert len(errors.splitlines()) == 1
    finished = [line for line in output.splitlines() if line.startswith("generation")]
    assert finished
    result = world.run("--generations", str(len(finished) + 3), "--jobs", "2")
    assert result.exit_code == 0, result.output
    assert done(world.trials()) == list(range(len(finished) + 3))


def test_a_clock_that_jumps_takes_no_trial_from_anybody(faulty: World):
    """The moments that are stored lie a year back, as they do once the clock has jumped on by one."""
    nap = ("--set", "fault=nap", "--set", "fault_epoch=2")
    process = faulty.start("--jobs", "2", "--epochs", "3", "--generations", "6", *nap)
    for asleep in (1, 3):
        wait_for(lambda least=asleep: len(list(faulty.run_folder.glob("trials/*/asleep"))) >= least)
        with closing(sqlite3.connect(faulty.run_folder / "study.db", timeout=60)) as database, database:
            for column in ("datetime_start", "datetime_complete"):
                database.execute(f"UPDATE trials SET {column} = datetime({column}, '-1 year')")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    trials = faulty.trials()
    assert not [trial for trial in trials if is_lost(trial)]
    assert done(trials) == list(range(6)) == [trial.number for trial in trials]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_database_that_is_restarted_costs_its_workers_nothing_but_time(faulty: World, postgres, how, monkeypatch):
    monkeypatch.setenv("EVOLVE_STORAGE", postgres.url)
    nap = ("--set", "fault=nap", "--set", "fault_epoch=2")
    process = faulty.start("--jobs", "2", "--epochs", "3", "--generations", "6", *nap)
    wait_for(lambda: list(faulty.run_folder.glob("trials/*/asleep")) or process.poll())
    getattr(postgres, how)()
    postgres.start()
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    trials = optuna.load_study(study_name="points", storage=postgres.url).get_trials(deepcopy=False)
    assert done(trials) == list(range(6))
    assert {trial.state.name for trial in trials if counts(trial)} <= {"COMPLETE", "PRUNED"}
    assert load_hyp(faulty.run_folder / "best" / "hyp.yaml")


def test_a_worker_elsewhere_that_falls_silent_loses_its_trial_and_goes_on_with_the_next(faulty: World):
    """It is held up, as on a frozen machine, and its late report is refused. Only its host's name is made up."""
    url = f"sqlite:///{faulty.folder}/shared.db"
    nap = ("--set", "fault=nap", "--set", "fault_epoch=2")
    asked = ("--storage", url, "--jobs", "0", "--epochs", "3", "--generations", "8", *nap)
    join = ("worker", "--storage", url, "--study", "points", "--wait", "60s")
    parent = faulty.start(*asked, program=IMPATIENT + RUN)
    remote = faulty.start_command(*join, "--runs", "elsewhere", program=IMPATIENT + ELSEWHERE)
    folder = faulty.folder / "elsewhere" / "points" / "trials"
    wait_for(lambda: list(folder.glob("*/asleep")) or remote.poll())
    remote.send_signal(signal.SIGSTOP)

    def lost():
        trials = optuna.load_study(study_name="points", storage=url).get_trials(deepcopy=False)
        return [trial.number for trial in trials if is_lost(trial)]

    (number,) = wait_for(lost)
    remote.send_signal(signal.SIGCONT)
    output, errors = parent.communicate(timeout=240)
    assert parent.returncode == 0, output + errors
    said, errors = remote.communicate(timeout=240)
    assert remote.returncode == 0, said + errors
    assert f"trial {number} was silent for so long that its hyp was given to another worker" in said + errors
    trials = optuna.load_study(study_name="points", storage=url).get_trials(deepcopy=False)
    assert done(trials) == list(range(8))
    assert lost() == [number]
    assert trials[number].value is None
    (retry,) = [trial for trial in trials if trial.user_attrs.get("retry_of") == number]
    assert retry.params == trials[number].params
    assert retry.state.name in ("COMPLETE", "PRUNED")
    assert {trial.user_attrs["worker"]["host"] for trial in trials} == {"elsewhere"}
