"""A worker of a study: it asks for a trial, trains it and tells how it ended, until there is nothing left to do."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile

from optuna import Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from evolve.budget import Budget, Stop
from evolve.outcomes import stale_of, tell
from evolve.standing import Standing
from evolve.work import Work
from studies import (
    StudyError,
    abandon,
    best_front_of,
    generation_of,
    make_durable,
    storage_errors,
    suggest,
    trials_of,
)
from studies.calls import heard
from studies.lease import Listener, Pulse
from studies.study import ask_within, requeue_lost
from studies.trials import FAILURE, SEED, WORKER, counts, notes_of
from studies.worker import this_worker

logger = logging.getLogger(__name__)

PAUSE_S = 0.5  # between two looks whether there is something to do


Ask = Callable[[Work, Sequence[FrozenTrial]], Trial | None]
"""Has the next trial; it is given all trials, just read."""

Stopping = Callable[[Sequence[FrozenTrial]], Stop | None]
"""Says whether to stop, of all trials, just read."""


def next_generation(work: Work, trials: Sequence[FrozenTrial]) -> Trial | None:
    return ask_within(work.study, work.config.generations, trials)


def run_trials(
    work: Work,
    stop: Stopping,
    *,
    told: Callable[[], object],
    run: str = "",
    ask: Ask = next_generation,
) -> Stop:
    """Ask, train and tell until `stop` gives a reason. A trial that has a seed is trained with that.

    `told` is called after every trial that was told, and from time to time while all that is left is under way
    elsewhere. `run` is whose worker this is: it leaves when that is called. Then, and at a signal, KeyboardInterrupt
    passes through, and the hyp of the trial that was running is queued again.
    """
    listener, of_run = Listener(), Listener()
    with Pulse(work.study, also=lambda: heed(work, run, of_run)) as pulse:
        while (reason := stop(trials := trials_of(work.study))) is None:
            if not run_trial(work, pulse, listener, trials, told, ask):
                work.objective.interrupts.check()
                time.sleep(PAUSE_S)
                told()
    return reason


@contextmanager
def among_many() -> Iterator[None]:
    """Within it, a process of our own takes little for asking, as it may be one of many workers of its machine.

    Whatever a sampler computes is computed on one core, not on all at once (ours sees to that itself: `studies.cores`);
    and no garbage is looked for in what is loaded by now, which took an eighth of a worker's time.
    """
    gc.collect()
    gc.freeze()
    try:
        with threadpool_limits(1):
            yield
    finally:
        gc.unfreeze()


def run_trial(
    work: Work,
    pulse: Pulse,
    listener: Listener,
    trials: Sequence[FrozenTrial],
    told: Callable[[], object],
    ask: Ask = next_generation,
) -> bool:
    """Ask, train, tell; False where there is nothing to be had. Whatever interrupts that, the hyp is queued again.

    `trials` are all of the study, just read.
    """
    trial: Trial | None = None
    study, objective, interrupts = work.study, work.objective, work.objective.interrupts
    try:
        with interrupts.patient():
            with interrupts.held():
                if requeue_lost(study, trials, listener=listener, retries=work.config.retries):
                    trials = trials_of(study)
                trial = ask(work, trials)
                if trial is None:
                    return False
                pulse.of(trial._trial_id)
                hyp = suggest(trial, work.space)
                seed = trial.user_attrs.get(SEED, objective.options.seed + generation_of(study, trial))
                work.watcher.started(trial.number)
            outcome = objective(trial, hyp, seed)
            if outcome.state == "failed":
                interrupts.check()  # it may have failed because we leave
            with interrupts.held():
                tell(study, trial, outcome, seed)
                make_durable(study)  # before any file tells of it
                told()
    except UpdateFinishedTrialError:
        which = "a trial" if trial is None else f"trial {trial.number}"
        logger.warning("%s was silent for so long that its hyp was given to another worker", which)
    except BaseException as error:
        if trial is not None:
            with suppress(StudyError), storage_errors():  # the error that came first is the one to tell
                abandon(study, trial, f"{type(error).__name__} in the process that ran it")
        raise
    finally:
        pulse.of(None)
    return True


def until_over(work: Work, run: str = "") -> Stopping:
    """When a worker has nothing more to do: as far as it can tell by itself, or because it was called to leave."""
    config, study, called = work.config, work.study, until_called(work, run)
    budget = Budget(config.generations, config.max_failures, None, config.patience, config.target)

    def stop(trials: Sequence[FrozenTrial]) -> Stop | None:
        if (said := called(trials)) is not None:
            return said
        best = next(iter(best_front_of(study, work.space)), None) if config.target is not None else None
        stale = stale_of(study) if config.patience is not None else 0
        in_a_row, why = failures_here(trials)
        standing = Standing(
            complete=sum(map(counts, trials)), best=best, stale=stale, failures_in_a_row=in_a_row, last_failure=why
        )
        return budget.stop(standing)

    return stop


def failures_here(trials: Sequence[FrozenTrial]) -> tuple[int, str]:
    """How many of the last trials of this process failed in a row, and what the last of them failed with."""
    me = this_worker()
    own = [trial for trial in trials if counts(trial) and trial.user_attrs.get(WORKER) == me]
    failed = list(takewhile(lambda trial: trial.state == TrialState.FAIL, reversed(own)))
    return len(failed), failed[0].user_attrs.get(FAILURE, "") if failed else ""


def until_called(work: Work, run: str = "") -> Stopping:
    """When a worker is called to leave."""

    def stop(_: Sequence[FrozenTrial]) -> Stop | None:
        said = heard(notes_of(work.study), run)
        return None if said is None else Stop(said.reason, said.reached)

    return stop


def heed(work: Work, run: str, listener: Listener) -> None:
    """Do what is called to the workers of this run, and leave if whoever runs it is gone; called every second."""
    with suppress(Exception):  # the database is away: whoever trains meets that, too
        noted = notes_of(work.study)
        said, gone = heard(noted, run), bool(run) and listener.misses(run, noted)
        if gone or (said is not None and said.how != "trial"):
            work.objective.interrupts.leave()
        if gone or (said is not None and said.how == "now"):
            end_training(work)


def end_training(work: Work) -> None:
    """Kill the training that is under way, from whatever thread: it will be told as interrupted."""
    if (pid := work.trainer.pid) is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
