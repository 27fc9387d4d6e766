"""Where workers come from: this machine, or a Dask or Ray cluster, which is a run's own or was there before."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from evolve.config import ConfigError, EvolveConfig
from evolve.slots import Slot, slots_of
from studies.worker import Worker, is_alive, this_worker

ANSWER_S = 30.0  # for a cluster to answer
LEAST = 2  # processes of a joblib pool: the task of a pool of one would run in the process that asks for it

Opened = tuple[Mapping[str, Any], Callable[[], None]]  # the settings of a backend, and what kills its workers
Backend = AbstractContextManager[Opened]


@dataclass(frozen=True)
class Cluster:
    """Where the workers of a run are to be: `slots`, through joblib, of whose parallel_config `settings` are.

    `kill` ends those that are there, whatever they do.
    """

    slots: Sequence[Slot]
    settings: Mapping[str, Any]
    kill: Callable[[], None]

    @property
    def processes(self) -> int:
        return max(LEAST, len(self.slots))


@contextmanager
def open_cluster(config: EvolveConfig) -> Iterator[Cluster | None]:
    """The cluster that was asked for; None where no workers were. One at an address goes on afterwards.

    Raises ConfigError where the backend's package is not installed, nobody answers at the address or there is no room.
    """
    slots = slots_of(config)
    if not slots:
        yield None if slots is None else Cluster((), {}, lambda: None)
        return
    backends: Mapping[str, Callable[[str | None, int], Backend]] = {
        "loky": open_loky,
        "dask": open_dask,
        "ray": open_ray,
    }
    address, name = config.address, config.backend
    with ExitStack() as stack:
        try:
            if address is not None:
                check_answers(address)  # Ray would take minutes to find that out, and then end the process
            with told_by_us():
                settings, kill = stack.enter_context(backends[name](address, len(slots)))
        except ModuleNotFoundError as error:
            needs = f"--backend {name} needs a package that is not installed: pip install 'evolve-hyp[{name}]'"
            raise ConfigError(needs) from error
        except (OSError, ValueError, RuntimeError) as error:
            if address is None:
                raise
            raise ConfigError(f"no {name.title()} cluster answers at --address {address} ({say(error)})") from error
        yield Cluster(slots, {"backend": name, **settings}, kill)


@contextmanager
def open_loky(_address: str | None, _jobs: int) -> Iterator[Opened]:
    from joblib.externals.loky import get_reusable_executor

    settings = {"initializer": end_without, "initargs": (this_worker(),)}
    yield settings, lambda: get_reusable_executor().shutdown(wait=False, kill_workers=True)


def end_without(parent: Worker) -> None:
    """Have this process end within a second of its parent, even if idle: joblib would let it wait for 5 minutes."""

    def watch() -> None:
        while is_alive(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="end without parent", daemon=True).start()


@contextmanager
def open_dask(address: str | None, jobs: int) -> Iterator[Opened]:
    from distributed import Client, LocalCluster

    def kill() -> None:
        ours = set(client.futures)
        busy = [worker for worker, tasks in client.processing().items() if ours & set(tasks)]
        with suppress(ValueError):  # they have left, or nobody would start them again
            client.restart_workers(busy, timeout=ANSWER_S)

    with ExitStack() as stack:
        own = {"n_workers": jobs, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        at = address or stack.enter_context(LocalCluster(**own))  # type: ignore[no-untyped-call]
        client = stack.enter_context(Client(at, timeout=ANSWER_S))  # type: ignore[no-untyped-call]
        yield {"client": client}, kill


@contextmanager
def open_ray(address: str | None, jobs: int) -> Iterator[Opened]:
    jobs = max(LEAST, jobs)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it would hide the GPUs that --device names
    import ray
    from ray.util.joblib import register_ray

    own: dict[str, Any] = {
        "address": "local",
        "num_cpus": jobs,
        "include_dashboard": False,
        "object_store_memory": 80 << 20,
    }
    if address is not None:
        own = {"address": address}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if (cpus := int(resources.get("CPU", 0))) < jobs:
            raise ConfigError(f"the Ray cluster at --address {address} has {cpus} CPUs, and {jobs} are needed")
        register_ray()  # type: ignore[no-untyped-call]
        yield {}, ray.shutdown
    finally:
        ray.shutdown()


@contextmanager
def told_by_us() -> Iterator[None]:
    """What is started in here hears no Ctrl-C and no hang-up of the terminal: who started it will tell it to leave."""
    resource_tracker.ensure_running()  # first, as its start lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_answers(address: str) -> None:
    """Raise OSError where the address names a port, and nobody listens at it."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


def say(error: BaseException) -> str:
    """The first line of an error, with its kind."""
    lines: Any = itertools.chain(str(error).splitlines(), [""])
    return f"{type(error).__name__}: {next(lines)}".strip(": ")[:200]
