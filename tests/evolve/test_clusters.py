"""Workers in Dask and Ray: as many generations as were asked for, whoever dies, and a cluster of others goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small_world import ELSEWHERE, IMPATIENT, ROOT, TOY, World, is_running, wait_for
from test_workers import descendants, trained

from evolve.cli import ASKED_WRONGLY, INTERRUPTED
from evolve.clusters import check_answers

BACKENDS = ("dask", "ray")
NAP = ("--epochs", "3", "--set", "fault=nap", "--set", "fault_epoch=2")
SLEEP = ("--epochs", "3", "--set", "fault=sleep", "--set", "fault_epoch=2")


def jobs(backend, *address):
    return ("--backend", backend, "--jobs", "2", *address)


def asleep(world, process, count=1):
    """Wait until so many trainings hang in their second epoch."""
    found = wait_for(lambda: len(list(world.run_folder.glob("trials/*/asleep"))) >= count or process.poll())
    assert found is True, process.communicate()


def workers(world):
    """The processes that serve trials that run."""
    running = [trial for trial in world.trials() if trial.state.name == "RUNNING"]
    return [trial.user_attrs["worker"]["pid"] for trial in running if "worker" in trial.user_attrs]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_worker_of_a_cluster_that_is_killed_costs_nothing_but_time(faulty: World, backend):
    process = faulty.start(*jobs(backend), "--generations", "8", *NAP)
    asleep(faulty, process)
    killed = workers(faulty)[0]
    assert killed != process.pid
    os.kill(killed, signal.SIGKILL)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    done = trained(faulty)
    assert sorted(done) == list(range(8))
    assert [done[generation].user_attrs["seed"] for generation in range(8)] == list(range(8))
    assert [trial for trial in faulty.trials() if "retry_of" in trial.user_attrs]
    assert "8 of 8 generations are done" in output


@pytest.mark.parametrize("backend", BACKENDS)
def test_workers_and_trainings_in_a_cluster_end_with_a_parent_that_is_killed(faulty: World, backend):
    process = faulty.start(*jobs(backend), *SLEEP)
    asleep(faulty, process, 2)
    serving = workers(faulty)
    assert set(serving) <= set(descendants(process.pid))
    below = [*serving, *(pid for worker in serving for pid in descendants(worker))]
    assert len(below) == 4  # of Ray's own processes two stay for a minute
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_running, below)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_in_a_terminal_lets_the_workers_of_a_cluster_finish_their_epochs(faulty: World, backend):
    process = faulty.start(*jobs(backend), *NAP, leader=True)
    asleep(faulty, process, 2)
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all of the group get it
    output, errors = process.communicate(timeout=240)
    assert process.returncode == INTERRUPTED, output + errors
    assert "leaving after this epoch" in output
    assert "the workers broke" not in output
    lost = [trial for trial in faulty.trials() if "lost" in trial.user_attrs]
    assert {tuple(sorted(trial.intermediate_values)) for trial in lost} <= {(1, 2)}
    assert not workers(faulty)
    wait_for(lambda: not any(map(is_running, below)))


# clusters that are there


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(folder: Path, *command, **env):
    """A program of a package of ours, in a group of its own."""
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, TOY))), **env}
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    with (folder / "cluster.log").open("ab") as log:
        return subprocess.Popen(
            program, cwd=folder, env={**os.environ, **paths}, stdout=log, stderr=log, start_new_session=True
        )


@pytest.fixture(params=BACKENDS)
def existing(request, tmp_path_factory, monkeypatch):
    """The backend, the address of a cluster of two workers, and its processes."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it depends on what lies in the home folder
    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    if request.param == "dask":
        address = f"tcp://127.0.0.1:{port}"
        lean = ("--no-dashboard",)
        processes = [start(folder, "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), *lean)]
        worker = ("dask", "worker", address, "--nthreads", "1", *lean)
        processes += [start(folder, *worker) for _ in range(2)]
    else:
        address = f"127.0.0.1:{port}"
        lean = ("--num-cpus=2", "--include-dashboard=false", f"--object-store-memory={80 << 20}", "--block")
        at = ("--node-ip-address=127.0.0.1", f"--port={port}")
        processes = [start(folder, "ray", "start", "--head", *at, *lean)]
    yield request.param, address, processes
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def answers(address):
    try:
        check_answers(address)
    except OSError:
        return False
    return True


def test_a_cluster_that_is_there_serves_and_goes_on(faulty: World, existing):
    backend, address, processes = existing
    wait_for(lambda: answers(address))
    run = (*jobs(backend, "--address", address), "--race", "0")
    first = faulty.start(*run, "--generations", "6", *NAP)
    output, errors = first.communicate(timeout=240)
    assert first.returncode == 0, output + errors
    assert sorted(trained(faulty)) == list(range(6))
    assert all(process.poll() is None for process in processes)

    second = faulty.start(*run, "--study", "other", *SLEEP)
    other = faulty.folder / "runs" / "other"
    wait_for(lambda: len(list(other.glob("trials/*/asleep"))) == 2 or second.poll())
    serving = {trial.user_attrs["worker"]["pid"] for trial in faulty.trials("other") if trial.state.name == "RUNNING"}
    trainings = [pid for worker in serving for pid in descendants(worker)]
    assert len(trainings) == 2
    second.kill()
    second.wait()
    wait_for(lambda: not any(map(is_running, trainings)))
    assert all(process.poll() is None for process in processes)
    if backend == "dask":  # Ray gives each run processes of its own
        assert all(map(is_running, serving))
        wait_for(lambda: not [t for t in faulty.trials("other") if t.state.name == "RUNNING"])


def test_workers_on_another_machine_leave_when_their_parent_falls_silent(faulty: World, tmp_path):
    """That the parent is on another machine is made up; its workers see no pid of it."""
    (hurry := tmp_path / "hurry.py").write_text(IMPATIENT)
    port = free_port()
    at = ("--host", "127.0.0.1", "--port", str(port))
    worker = ("worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--preload", str(hurry))
    processes = [start(tmp_path, "dask", *one, "--no-dashboard") for one in (("scheduler", *at), worker, worker)]
    try:
        wait_for(lambda: answers(f"127.0.0.1:{port}"))
        to = ("--address", f"tcp://127.0.0.1:{port}")
        parent = faulty.start(*jobs("dask", *to), *SLEEP, program=IMPATIENT + ELSEWHERE)
        asleep(faulty, parent, 2)
        serving = workers(faulty)
        trainings = [pid for pid in serving for pid in descendants(pid)]
        assert len(trainings) == 2
        parent.kill()
        parent.wait()
        wait_for(lambda: not any(map(is_running, trainings)))
        wait_for(lambda: not workers(faulty))
        assert all(map(is_running, serving)), "they are the cluster's"
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)


# what was asked wrongly


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_address_at_which_nobody_answers_is_one_sentence(world: World, backend):
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    result = world.run(*jobs(backend, "--address", address))
    assert result.exit_code == ASKED_WRONGLY, result.output
    assert result.stderr.startswith(f"evolve: error: no {backend.title()} cluster answers at --address {address} (")
    assert result.stderr.count("\n") == 1
    assert time.monotonic() - began < 60
    assert not world.run_folder.exists()


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_not_installed_is_one_sentence(world: World, monkeypatch, backend, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as Python's import system tells of what is not there
    result = world.run(*jobs(backend))
    assert result.exit_code == ASKED_WRONGLY
    told = f"--backend {backend} needs a package that is not installed: pip install 'evolve-hyp[{backend}]'"
    assert result.stderr == f"evolve: error: {told}\n"
    assert not world.run_folder.exists()
