"""Workers of one run: joblib starts them, each in a slot; this process watches and starts them again if they break."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evolve.budget import Stop
from evolve.clusters import Cluster, say
from evolve.config import ConfigError, EvolveConfig
from evolve.following import Follower
from evolve.paths import RunPaths
from evolve.slots import Slot
from evolve.standing import NoResult
from evolve.watcher import Silence
from evolve.work import Work, open_work
from evolve.worker import Stopping, among_many, end_training, run_trials, until_over
from search_spaces import SpaceError
from studies import StudyError, sqlite_url, trials_of
from studies.calls import Call, call
from studies.lease import Listener, Pulse
from studies.study import requeue_lost
from studies.worker import Worker, is_alive, this_worker
from trainer import DataError

LOOK_S = 0.3  # between two looks at the storage
LEAVE_S = 15.0  # for workers to leave after they were called to; then they are killed
ASKED_WRONGLY = (ConfigError, StudyError, SpaceError, DataError)  # what another start would not mend

Task = Callable[[Work, str], Stop]
"""What a worker does, with its work and the name of the run; a function of a module, or a partial of one."""


def search(work: Work, run: str) -> Stop:
    """Train the trials of the study until there is nothing left to do."""
    return run_trials(work, until_over(work, run), told=lambda: None, run=run)


@dataclass(frozen=True)
class Orders:
    """What a worker needs to know. `run` names the run that it belongs to, `parent` the process that started it."""

    task: Task
    config: EvolveConfig
    slot: Slot
    run: str
    parent: Worker
    path: tuple[str, ...]
    folder: str


def run_pool(work: Work, cluster: Cluster, stop: Stopping, follower: Follower, task: Task = search) -> Stop:
    """Have workers train until `stop` gives a reason, and follow them. Without slots there is only to follow.

    Whoever dies may take its pool along, as joblib has it: the trials that were running are queued again, and a new
    pool goes on. Workers on other machines hear by a pulse that this process is there. Raises NoResult where pool after
    pool breaks and no trial ends.
    """
    if (reason := stop(trials_of(work.study))) is not None:
        return reason
    work.trainer.close()  # it has prepared; the workers have theirs
    interrupts, listener, run = work.objective.interrupts, Listener(), uuid.uuid4().hex
    pool, slots = Pool(work, cluster, run, task), cluster.slots
    pulse = nullcontext() if work.config.address is None else Pulse(work.study, run=run)
    broken, finished_before = 0, follower.standing.finished
    try:
        with pulse, interrupts.patient():
            pool.start()
            while (reason := stop(trials := trials_of(work.study))) is None:
                follower.look(trials, at_running=True)
                requeue_lost(work.study, trials, listener=listener, retries=work.config.retries)
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
                        raise NoResult(
                            f"the workers broke {broken} times in a row and no trial ended; see {work.paths.log}"
                        )
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

    def __init__(self, work: Work, cluster: Cluster, run: str, task: Task) -> None:
        config = replace(work.config, storage=work.config.storage or sqlite_url(work.paths.database))
        here = (this_worker(), tuple(map(os.path.abspath, sys.path)), os.getcwd())
        self._orders = [Orders(task, config, slot, run, *here) for slot in cluster.slots]
        self._cluster = cluster
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
        if not self.join(timeout_s):
            self._cluster.kill()
            self.join(timeout_s)

    def _run(self) -> None:
        from joblib import Parallel, delayed, parallel_config

        try:
            with parallel_config(**self._cluster.settings):
                Parallel(n_jobs=self._cluster.processes, batch_size=1, pre_dispatch="all")(
                    delayed(serve)(orders) for orders in self._orders
                )
        except Exception as error:
            self.error = error


def serve(orders: Orders) -> str:
    """The life of one worker: what it ended with, in words."""
    sys.path.extend(entry for entry in orders.path if entry not in sys.path)
    if owns_process(orders):
        with suppress(OSError):
            os.chdir(orders.folder)
    slot = orders.slot
    alone: dict[str, Any] = {"jobs": None, "per_device": None, "backend": "loky", "address": None}
    config = replace(orders.config, device=slot.device, threads=slot.threads, **alone)
    paths = RunPaths(Path(config.runs) / config.study)
    paths.root.mkdir(parents=True, exist_ok=True)  # on another machine, perhaps
    sparing = among_many() if owns_process(orders) else nullcontext()
    with open_work(config, paths, Silence(), joining=True) as work, die_with(orders, work), sparing:
        try:
            return orders.task(work, orders.run).reason
        except KeyboardInterrupt:
            return "interrupted"


def owns_process(orders: Orders) -> bool:
    """Whether the process that serves was started for this run, and is not that of a cluster that others use, too."""
    return orders.config.address is None


@contextmanager
def die_with(orders: Orders, work: Work) -> Iterator[None]:
    """Inside it, this process and its training end within a second or two of the process that started it.

    In a process that others use, too, only the training ends, and the worker leaves.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if (own and os.getppid() != parent) or (is_here(orders.parent) and not is_alive(orders.parent)):
                work.objective.interrupts.leave()
                end_training(work)
                if own:
                    os._exit(1)

    parent, own = os.getppid(), owns_process(orders)
    thread = threading.Thread(target=watch, name="parent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_here(worker: Worker) -> bool:
    return worker["host"] == this_worker()["host"]
