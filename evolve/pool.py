"""Workers of one run: joblib starts them, each in a slot; this process watches and starts them again if they break."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evolve.budget import Stop
from evolve.config import ConfigError, EvolveConfig
from evolve.following import Follower
from evolve.paths import RunPaths
from evolve.slots import Slot
from evolve.standing import NoResult
from evolve.watcher import Silence
from evolve.work import Work, open_work
from evolve.worker import end_training, run_trials, until_over
from search_spaces import SpaceError
from studies import StudyError, sqlite_url
from studies.calls import Call, call
from studies.lease import Listener
from studies.study import requeue_lost
from studies.worker import Worker, is_alive, this_worker
from trainer import DataError

LOOK_S = 0.3  # between two looks at the storage
LEAVE_S = 15.0  # for workers to leave after they were called to; then they are killed
ASKED_WRONGLY = (ConfigError, StudyError, SpaceError, DataError)  # what another start would not mend


@dataclass(frozen=True)
class Orders:
    """What a worker needs to know. `run` names the run that it belongs to, `parent` the process that started it."""

    config: EvolveConfig
    slot: Slot
    run: str
    parent: Worker
    path: tuple[str, ...]
    folder: str


def run_pool(work: Work, slots: Sequence[Slot], stop: Callable[[], Stop | None], follower: Follower) -> Stop:
    """Have workers train until `stop` gives a reason, and follow them. Without slots there is only to follow.

    Whoever dies takes its pool along, as joblib has it: the trials that were running are queued again, and a new pool
    goes on. Raises NoResult where pool after pool breaks and no trial ends.
    """
    work.trainer.close()  # it has prepared; the workers have theirs
    interrupts, listener, run = work.objective.interrupts, Listener(), uuid.uuid4().hex
    pool = Pool(work, slots, run)
    broken, finished_before = 0, follower.standing.finished
    try:
        with interrupts.patient():
            pool.start()
            while (reason := stop()) is None:
                follower.look(at_running=True)
                requeue_lost(work.study, listener=listener, retries=work.config.retries)
                if interrupts.leaving:
                    call(work.study, Call("epoch", "interrupted", run))
                    while slots and not pool.join(LOOK_S):
                        follower.look(at_running=True)
                    break
                if slots and pool.has_ended():
                    broken = broken + 1 if follower.standing.finished == finished_before else 1
                    finished_before = follower.standing.finished
                    if (error := pool.error) is not None:
                        if isinstance(error, ASKED_WRONGLY):
                            raise error
                        work.watcher.warned(f"the workers broke ({say(error)}); new ones go on")
                    if broken > work.config.max_failures:
                        raise NoResult(f"the workers broke {broken} times in a row and no trial ended")
                    pool.start()
                time.sleep(LOOK_S)
            if reason is not None:
                call(work.study, Call("trial", reason.reason, run, reason.reached))
                while not (pool.join(LOOK_S) or interrupts.leaving):
                    follower.look(at_running=True)
    except BaseException:
        with suppress(StudyError):
            call(work.study, Call("now", "interrupted", run))
        raise
    finally:
        pool.end(LEAVE_S)
        with suppress(StudyError):
            requeue_lost(work.study, retries=work.config.retries)
            follower.look(at_running=True)
    assert reason is not None, "whoever leaves raises KeyboardInterrupt"
    return reason


class Pool:
    """The workers of one run, in a joblib pool that a thread waits for."""

    def __init__(self, work: Work, slots: Sequence[Slot], run: str) -> None:
        config = replace(work.config, storage=work.config.storage or sqlite_url(work.paths.database))
        here = (this_worker(), tuple(sys.path), os.getcwd())
        self._orders = [Orders(config, slot, run, *here) for slot in slots]
        self._config = config
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None

    def start(self) -> None:
        if self._orders:
            self.error = None
            self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
            self._thread.start()

    def has_ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the workers to leave; a signal gets through."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.has_ended() and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.05)
        return self.has_ended()

    def end(self, timeout_s: float) -> None:
        """Let the workers leave, and kill those that do not."""
        if not self.join(timeout_s) and self._config.backend == "loky":
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=False, kill_workers=True)
            self.join(timeout_s)

    def _run(self) -> None:
        from joblib import Parallel, delayed

        try:
            with backend_of(self._config, len(self._orders)):
                Parallel(n_jobs=len(self._orders), batch_size=1, pre_dispatch="all")(
                    delayed(serve)(orders) for orders in self._orders
                )
        except Exception as error:
            self.error = error


@contextmanager
def backend_of(config: EvolveConfig, jobs: int) -> Iterator[None]:
    """joblib's backend of that name, with a cluster of this machine's own unless there is an address.

    Raises ConfigError where its package is not installed.
    """
    from joblib import parallel_config

    try:
        with ExitStack() as stack:
            if config.backend == "dask":
                stack.enter_context(dask_cluster(config.address, jobs))
            elif config.backend == "ray":
                stack.enter_context(ray_cluster(config.address, jobs))
            stack.enter_context(parallel_config(backend=config.backend))
            yield
    except ModuleNotFoundError as error:
        package = {"dask": "'dask[distributed]'"}.get(config.backend, config.backend)
        told = f"--backend {config.backend} needs a package that is not installed: pip install {package}"
        raise ConfigError(told) from error


@contextmanager
def dask_cluster(address: str | None, jobs: int) -> Iterator[None]:
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        own = {"n_workers": jobs, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        at = address or stack.enter_context(LocalCluster(**own))  # type: ignore[no-untyped-call]
        stack.enter_context(Client(at))  # type: ignore[no-untyped-call]
        yield


@contextmanager
def ray_cluster(address: str | None, jobs: int) -> Iterator[None]:
    import ray
    from ray.util.joblib import register_ray

    own: dict[str, Any] = {"address": address} if address else {"num_cpus": jobs, "include_dashboard": False}
    ray.init(log_to_driver=False, **own)
    register_ray()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        ray.shutdown()


def serve(orders: Orders) -> str:
    """The life of one worker: what it ended with, in words."""
    sys.path.extend(entry for entry in orders.path if entry not in sys.path)
    if is_here(orders.parent):
        with suppress(OSError):
            os.chdir(orders.folder)
    slot = orders.slot
    config = replace(
        orders.config, device=slot.device, threads=slot.threads, jobs=None, per_device=None, backend="loky"
    )
    paths = RunPaths(Path(config.runs) / config.study)
    with open_work(config, paths, Silence(), joining=True) as work, die_with(orders, work):
        try:
            return run_trials(work, until_over(work, orders.run), told=lambda: None, run=orders.run).reason
        except KeyboardInterrupt:
            return "interrupted"


@contextmanager
def die_with(orders: Orders, work: Work) -> Iterator[None]:
    """Inside it, this process and its training end within a second or two of the process that started it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if os.getppid() != parent or (is_here(orders.parent) and not is_alive(orders.parent)):
                end_training(work)
                os._exit(1)

    parent = os.getppid()
    thread = threading.Thread(target=watch, name="parent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_here(worker: Worker) -> bool:
    return worker["host"] == this_worker()["host"]


def say(error: BaseException) -> str:
    """The first line of an error, with its kind."""
    lines: Any = itertools.chain(str(error).splitlines(), [""])
    return f"{type(error).__name__}: {next(lines)}".strip(": ")[:200]
