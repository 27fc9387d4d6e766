"""`evolve worker`: one more worker for a study that is run somewhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from evolve.budget import Stop
from evolve.config import EvolveConfig, check_weights, complete, parse_config
from evolve.following import Follower
from evolve.outcomes import standing_of
from evolve.paths import RunPaths
from evolve.standing import NoResult
from evolve.watcher import Opened, Watcher
from evolve.work import Work, ended, open_work
from evolve.worker import among_many, run_trials, until_over
from studies import StudyError, open_storage, storage_errors
from studies.study import CONFIG, IDENTITY

ASK_AGAIN_S = 2.0


def join_study(storage: str, study: str, watcher: Watcher, *, wait_s: float = 0.0, **own: Any) -> Stop:
    """Work on a study until there is nothing left to do in it. `own` are the settings that are this machine's.

    A study that is not there yet is waited for `wait_s` seconds. Raises what `evolve.engine.evolve` does: StudyError
    where this machine's data, say, are not those of the study; NoResult where too many trials failed in a row.
    """
    config = config_there(storage, study, wait_s, own)
    paths = RunPaths(Path(config.runs) / config.study)
    paths.root.mkdir(parents=True, exist_ok=True)
    with open_work(config, paths, watcher, joining=True) as work:
        standing = standing_of(work.study, work.space)
        follower = Follower(work, standing, own=True)
        watcher = work.watcher
        watcher.opened(
            Opened(config.study, paths.root, config.generations, config.epochs, work.prepared.summary, standing)
        )
        for warning in work.prepared.warnings:
            watcher.warned(warning)
        reason, over = "ended by an error", until_over(work)

        def look_whether_over(trials: Sequence[FrozenTrial]) -> Stop | None:
            with work.objective.interrupts.held():
                follower.look(trials)
            return over(trials)

        try:
            with among_many():
                stop = run_trials(work, look_whether_over, told=lambda: None)
            reason = stop.reason
        except KeyboardInterrupt:
            reason = "interrupted; others may go on"
            with suppress(StudyError), storage_errors():
                follower.look()
            raise
        finally:
            watcher.ended(replace(ended(work, follower.standing, reason), hyp_file=paths.best_hyp))
    if not stop.reached:
        raise NoResult(stop.reason)
    return stop


def note_config(work: Work, text: str) -> None:
    """Leave for those who join what the study was asked for."""
    work.study.set_user_attr(CONFIG, text)


def config_there(storage: str, study: str, wait_s: float, own: Mapping[str, Any]) -> EvolveConfig:
    """What the study was asked for, with what is this machine's. Raises StudyError, ConfigError."""
    deadline = time.monotonic() + wait_s
    with storage_errors(storage):
        opened = open_storage(storage)
        while (text := _noted(opened, study)) is None:
            if time.monotonic() >= deadline:
                raise StudyError(
                    f"there is no study {study!r} in this storage: `evolve run` makes it, --wait waits for it"
                )
            time.sleep(min(ASK_AGAIN_S, wait_s))
    alone = {"jobs": None, "per_device": None, "backend": "loky", "address": None, "bucket": None, "from_": ()}
    there = {
        **parse_config(text, f"the study {study}"),
        **alone,
        "runs": EvolveConfig.runs,
        "device": EvolveConfig.device,
    }
    given = {name: value for name, value in own.items() if value is not None}
    config = EvolveConfig(**{**there, "storage": storage, "study": study, **given})
    check_weights(config, f"the study {study}")
    return complete(config)


def _noted(storage: optuna.storages.BaseStorage, study: str) -> str | None:
    try:
        noted = optuna.load_study(study_name=study, storage=storage).user_attrs
    except KeyError:
        return None
    found: str | None = noted.get(CONFIG) if IDENTITY in noted else None
    return found
