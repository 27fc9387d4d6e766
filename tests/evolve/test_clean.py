"""What a study keeps on the disk: all that its best trials left, of the others the metrics; and what clean removes."""

import fcntl
import os

import pytest
from small_world import World, wait_for

from evolve.cleaning import show_bytes
from evolve.cli import ASKED_WRONGLY
from studies.trials import counts

RESUMABLE = ("--trainer", "resumable:Repeating", "--checkpoint", "--pruner", "none")
METRICS, LOG = "metrics.jsonl", "train.log"


def files(world, *, race=None):
    """What lies in the folder of each trial, by number."""
    folder = world.run_folder / "races" / race if race else world.run_folder
    return {int(path.name): {file.name for file in path.iterdir()} for path in sorted(folder.glob("trials/*"))}


def best_numbers(world, most):
    trials = [trial for trial in world.trials() if counts(trial) and trial.value is not None]
    return {trial.number for trial in sorted(trials, key=lambda trial: (-trial.value, trial.number))[:most]}


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
def test_the_best_three_trials_keep_what_they_left_and_the_others_their_metrics(world: World, jobs):
    assert world.run(*RESUMABLE, *jobs, "--generations", "8", "--base-seeds", "1").exit_code == 0
    found = files(world)
    assert len(found) == 8
    kept = {number for number, names in found.items() if names != {METRICS}}
    assert kept == best_numbers(world, 3)
    assert all(found[number] >= {METRICS, LOG, "last.pt"} for number in kept)


def test_of_a_trial_that_failed_the_log_stays_too(faulty: World):
    fault = ("--set", "fault=TrainerError", "--set", "fault_epoch=2")
    assert faulty.run(*RESUMABLE, *fault, "--max-failures", "2").exit_code == 1
    assert files(faulty) == {0: {METRICS, LOG}, 1: {METRICS, LOG}}


def test_keep_0_keeps_nothing_but_metrics_and_a_run_that_goes_on_catches_up(world: World):
    assert world.run(*RESUMABLE, "--keep", "9").exit_code == 0
    assert all("last.pt" in names for names in files(world).values())
    assert world.run(*RESUMABLE, "--keep", "0").exit_code == 0
    assert files(world) == {number: {METRICS} for number in range(3)}


def test_the_hyps_of_a_front_are_the_best_ones(world: World):
    goals = ("--objective", "map50_95,recall", "--sampler", "random", "--generations", "8")
    assert world.run("--trainer", "resumable:Repeating", "--checkpoint", *goals, "--keep", "1").exit_code == 0
    front = {int(path.stem) for path in world.run_folder.glob("best/front/*.yaml")}
    kept = {number for number, names in files(world).items() if names != {METRICS}}
    assert kept == front


def test_a_race_keeps_as_a_study_does(world: World):
    assert world.run(*RESUMABLE, "--generations", "4", "--race", "1").exit_code == 0
    found = files(world, race="points.race")
    assert len(found) > 3
    assert sum(names != {METRICS} for names in found.values()) == 3


NAP = ("--set", "fault=nap", "--set", "fault_epoch=3", "--epochs", "5")


def stop(world):
    """A study that is killed in the third epoch of its first trial."""
    process = world.start(*RESUMABLE, *NAP, "--generations", "1")
    wait_for(lambda: list(world.run_folder.glob("trials/*/asleep")) or process.poll() is not None)
    process.kill()
    process.communicate()


def test_what_a_lost_trial_left_goes_when_its_retry_has_ended(faulty: World):
    stop(faulty)
    assert files(faulty)[0] == {METRICS, LOG, "asleep", "last.pt"}
    assert faulty.run(*RESUMABLE, *NAP, "--generations", "1").exit_code == 0
    assert files(faulty)[0] == {METRICS}


# evolve clean


def test_clean_leaves_the_best_and_tells_what_went(world: World):
    assert world.run(*RESUMABLE, "--keep", "9", "--generations", "5", "--base-seeds", "1").exit_code == 0
    before = files(world)
    size = sum(path.stat().st_size for path in world.run_folder.glob("trials/*/*"))
    told = world.evolve("clean", "points", "--keep", "2", "--dry-run")
    assert files(world) == before
    result = world.evolve("clean", "points", "--keep", "2")
    assert (result.exit_code, told.exit_code) == (0, 0), result.output
    assert {number for number, names in files(world).items() if names != {METRICS}} == best_numbers(world, 2)
    gone = size - sum(path.stat().st_size for path in world.run_folder.glob("trials/*/*"))
    kind = "trials that are not among the best 2, of which the metrics stay: 3"
    assert result.output == f"{kind}, {show_bytes(gone)}\n{show_bytes(gone)} were removed\n"
    assert told.output == result.output.replace("were", "would be")
    assert world.evolve("clean", "points", "--keep", "2").output == "nothing to remove\n"


def test_clean_takes_the_studys_own_keep(world: World):
    assert world.run(*RESUMABLE, "--keep", "1", "--base-seeds", "1").exit_code == 0
    assert world.evolve("clean").output == "nothing to remove\n"
    assert world.evolve("clean", "--keep", "0").exit_code == 0
    assert files(world) == {number: {METRICS} for number in range(3)}


def test_clean_removes_lost_trials_folders_of_no_trial_and_old_races(faulty: World):
    stop(faulty)
    settings = (*RESUMABLE, *NAP)
    assert faulty.run(*settings, "--generations", "3", "--race", "1").exit_code == 0
    assert faulty.run(*settings, "--generations", "4", "--race", "1").exit_code == 0
    (faulty.run_folder / "trials" / "00099").mkdir()
    (faulty.run_folder / "trials" / "mine").mkdir()
    races = faulty.run_folder / "races"
    assert sorted(os.listdir(races)) == ["points.race", "points.race2"]
    result = faulty.evolve("clean", "points")
    assert result.exit_code == 0, result.output
    assert "lost trials that were done again: 1, " in result.output
    assert "folders of no trial: 1, 0 B" in result.output
    assert "races of the study as it was before: 1, " in result.output
    folders = {path.name for path in (faulty.run_folder / "trials").iterdir()}
    assert "mine" in folders and not folders & {"00000", "00099"}
    assert os.listdir(races) == ["points.race2"]
    assert faulty.evolve("best", "points").exit_code == 0


def test_clean_leaves_what_a_trial_can_go_on_from(faulty: World):
    stop(faulty)
    assert faulty.evolve("clean", "points", "--keep", "0").output == "nothing to remove\n"
    assert faulty.run(*RESUMABLE, *NAP, "--generations", "1").exit_code == 0
    assert faulty.trials()[1].user_attrs["resumed"] == 2


def test_clean_is_refused_while_the_study_runs(world: World):
    assert world.run(*RESUMABLE).exit_code == 0
    with open(world.run_folder / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = world.evolve("clean", "points", "--keep", "0")
    assert result.exit_code == ASKED_WRONGLY
    assert len(result.stderr.splitlines()) == 1
    assert "another `evolve run` works in " in result.stderr
    assert "last.pt" in files(world)[0]


def test_clean_of_a_study_that_is_not_there_is_one_sentence(world: World):
    result = world.evolve("clean", "nothing")
    assert result.exit_code == ASKED_WRONGLY
    assert result.stderr.startswith("evolve: error: there is no study 'nothing' in runs")


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (34_120_000, "34.1 MB"), (5 * 10**12, "5000.0 GB")],
)
def test_bytes_are_shown_in_the_unit_that_suits(size, shown):
    assert show_bytes(size) == shown
