"""Several workers on one study: as many generations as were asked for, whoever dies, and nobody stays behind."""

import gc
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from small_world import World, children_of, interrupt, is_running, wait_for
from threadpoolctl import threadpool_info, threadpool_limits

from evolve.cli import INTERRUPTED
from evolve.worker import among_many
from search_spaces import load_hyp
from studies.trials import counts, generations

JOBS = ("--jobs", "2")


def descendants(pid):
    """The processes below one, however deep; those that have just ended are left out."""
    found = []
    for child in children_of(pid):
        found.append(child)
        try:
            found += descendants(child)
        except FileNotFoundError:
            continue
    return found


def trained(world, study="points"):
    """The trials that count, by generation."""
    trials = world.trials(study)
    found = dict(zip(range(len(trials)), generations(trials), strict=True))
    return {found[trial.number]: trial for trial in trials if counts(trial)}


def test_workers_share_the_generations_and_the_best_is_on_disk(faulty: World):
    world, nap = faulty, ("--set", "fault=nap", "--set", "fault_epoch=2")  # long enough for both to have some
    result = world.run(*JOBS, "--generations", "12", *nap)
    assert result.exit_code == 0, result.output
    done = trained(world)
    assert sorted(done) == list(range(12))
    assert len({trial.user_attrs["worker"]["pid"] for trial in done.values()}) == 2
    assert os.getpid() not in {trial.user_attrs["worker"]["pid"] for trial in done.values()}
    best = max((t for t in done.values() if t.value is not None), key=lambda t: t.value)
    assert "12 of 12 generations are done" in result.output
    assert load_hyp(world.run_folder / "best" / "hyp.yaml")
    assert f"best {best.value:.4f}" in result.output
    assert len((world.run_folder / "evolve.csv").read_text().splitlines()) == 13
    seeds = [done[generation].user_attrs["seed"] for generation in sorted(done)]
    assert seeds == list(range(12))


def test_a_single_worker_has_a_process_of_its_own_too(world: World):
    assert world.run("--jobs", "1", "--per-device", "1").exit_code == 0
    (worker,) = {trial.user_attrs["worker"]["pid"] for trial in trained(world).values()}
    assert worker != os.getpid()


def test_no_hyp_is_trained_twice_by_two_workers(world: World):
    assert world.run(*JOBS, "--generations", "16", "--base-seeds", "1").exit_code == 0
    hyps = Counter(tuple(sorted(trial.params.items())) for trial in trained(world).values())
    assert set(hyps.values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_costs_nothing_but_time(faulty: World, number):
    process = faulty.start(*JOBS, "--epochs", "5", "--generations", "8", "--set", "fault=nap", "--set", "fault_epoch=2")
    asleep = wait_for(lambda: list(faulty.run_folder.glob("trials/*/asleep")) or process.poll())
    assert asleep, process.communicate()
    running = [trial for trial in faulty.trials() if trial.state.name == "RUNNING" and "worker" in trial.user_attrs]
    os.kill(running[0].user_attrs["worker"]["pid"], number)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert "new ones go on" in output
    assert sorted(trained(faulty)) == list(range(8))
    assert any("retry_of" in trial.user_attrs for trial in faulty.trials())


def test_workers_and_their_trainings_end_with_a_parent_that_is_killed(faulty: World):
    process = faulty.start(*JOBS, "--epochs", "5", "--set", "fault=sleep", "--set", "fault_epoch=2")
    wait_for(lambda: len(list(faulty.run_folder.glob("trials/*/asleep"))) == 2 or process.poll())
    below = descendants(process.pid)
    assert len(below) >= 4, "two workers and their two trainings"
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_running, below)))


def test_workers_that_have_just_been_started_end_with_their_parent_too(world: World):
    process = world.start(*JOBS, "--generations", "50")

    def workers():
        commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(process.pid)}
        return [pid for pid, command in commands.items() if command.exists() and b"LokyProcess" in command.read_bytes()]

    below = wait_for(lambda: len(found := workers()) == 2 and found)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_running, below)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_finish_their_epochs_when_their_parent_is_asked_to_leave(faulty: World, number):
    process = faulty.start(*JOBS, "--epochs", "5", "--set", "fault=nap", "--set", "fault_epoch=3")
    wait_for(lambda: len(list(faulty.run_folder.glob("trials/*/asleep"))) == 2 or process.poll())
    below = descendants(process.pid)
    process.send_signal(number)
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (INTERRUPTED, "")
    assert "leaving after this epoch" in output
    lost = [trial for trial in faulty.trials() if "lost" in trial.user_attrs]
    assert {tuple(sorted(trial.intermediate_values)) for trial in lost} <= {(1, 2, 3), (1, 2, 3, 4)}
    wait_for(lambda: not any(map(is_running, below)))
    assert not [trial for trial in faulty.trials() if trial.state.name == "RUNNING"]


def test_a_second_ctrl_c_ends_all_workers_at_once(faulty: World):
    process = faulty.start(*JOBS, "--epochs", "5", "--set", "fault=sleep", "--set", "fault_epoch=2")
    wait_for(lambda: len(list(faulty.run_folder.glob("trials/*/asleep"))) == 2 or process.poll())
    below = descendants(process.pid)
    interrupt(process)
    process.communicate(timeout=240)
    assert process.returncode == INTERRUPTED
    wait_for(lambda: not any(map(is_running, below)))
    states = Counter(trial.state.name for trial in faulty.trials() if "retry_of" in trial.user_attrs)
    assert states == {"WAITING": 2}


# workers that join


def storage_of(world):
    return f"sqlite:///{world.folder}/shared.db"


def join(world, *arguments):
    return world.start_command("worker", "--storage", storage_of(world), "--study", "points", *arguments)


def test_workers_join_a_study_that_nobody_else_trains_for(faulty: World):
    world, nap = faulty, ("--set", "fault=nap", "--set", "fault_epoch=2")  # long enough for both to come
    parent = world.start("--storage", storage_of(world), "--jobs", "0", "--epochs", "3", "--generations", "8", *nap)
    first, second = join(world, "--wait", "30s"), join(world, "--wait", "30s", "--runs", "elsewhere")
    output, errors = parent.communicate(timeout=240)
    assert parent.returncode == 0, output + errors
    for worker in (first, second):
        said, errors = worker.communicate(timeout=240)
        assert (worker.returncode, errors) == (0, ""), said
    import optuna

    trials = optuna.load_study(study_name="points", storage=storage_of(world)).get_trials(deepcopy=False)
    done = {trial.user_attrs["worker"]["pid"] for trial in trials if counts(trial)}
    assert done == {first.pid, second.pid}
    assert [generations(trials)[trial.number] for trial in trials if counts(trial)] == list(range(8))
    assert output.count("generation ") == 8
    assert load_hyp(world.run_folder / "best" / "hyp.yaml")
    assert list((world.folder / "elsewhere" / "points" / "trials").iterdir())


def test_a_study_that_is_not_there_is_one_sentence(world: World):
    result = world.evolve("worker", "--storage", storage_of(world), "--study", "nothing")
    assert result.exit_code == 2
    assert result.stderr == (
        "evolve: error: there is no study 'nothing' in this storage: `evolve run` makes it, --wait waits for it\n"
    )


def test_a_worker_with_other_data_is_refused(world: World):
    assert world.run("--storage", storage_of(world)).exit_code == 0
    result = world.evolve("worker", "--storage", storage_of(world), "--study", "points", "--data", "lines")
    assert result.exit_code == 2
    assert "the only data here is 'points', got 'lines'" in result.stderr


def test_a_worker_whose_trials_all_fail_leaves_with_the_reason_of_the_last(faulty: World):
    broken = ("--set", "fault=TrainerError", "--epochs", "3", "--generations", "20", "--max-failures", "3")
    parent = faulty.start("--storage", storage_of(faulty), "--jobs", "0", *broken)
    wait_for((faulty.run_folder / "evolve.yaml").exists)
    wait_for(lambda: "generations of up to" in parent.stdout.readline())
    parent.kill()  # so that nobody calls the worker to leave
    worker = join(faulty)
    _, errors = worker.communicate(timeout=240)
    assert worker.returncode == 1
    assert "3 trials in a row failed, the last one with: the toy is out of order" in errors


def test_one_among_many_takes_one_core_and_gives_the_others_back():
    cores = lambda: {pool["num_threads"] for pool in threadpool_info()}  # noqa: E731
    with threadpool_limits(2):
        with among_many():
            assert (cores(), gc.get_freeze_count() > 0) == ({1}, True)
        assert (cores(), gc.get_freeze_count()) == ({2}, 0)
