"""A small study: a deterministic training with curves, ways to run it, and ways to die in it."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import optuna
from optuna import Study
from optuna.trial import TrialState

from search_spaces import Hyp, Space
from studies import build_pruner, build_sampler, claim, finished, open_study, suggest, trials_of
from studies.trials import counts, generations, hyp_of

EPOCHS = 8

fork = multiprocessing.get_context("fork")  # starts at once, with all that is imported here


def identity_of(space: Space, **more: Any) -> dict[str, Any]:
    return {"space": space.to_dict(), "epochs": EPOCHS, "data": "digits", **more}


def open_small(
    url: Any,
    space: Space,
    *,
    sampler: str = "genetic",
    pruner: str = "evolve",
    seed: int = 7,
    base_seeds: int = 1,
    exclusive: bool = True,
) -> Study:
    """The small study at `url`, as the engine opens one."""
    return open_study(
        "small",
        url,
        sampler=build_sampler(sampler, space, seed=seed),
        pruner=build_pruner(pruner, epochs=EPOCHS, warmup_epochs=1),
        identity=identity_of(space),
        base=space.defaults(),
        base_seeds=base_seeds,
        exclusive=exclusive,
    )


def fitness(hyp: Hyp, epoch: int) -> float:
    """A curve that rises to a height and at a speed that depend on the hyp; NaN where the training diverges."""
    lr0, degrees, layers = float(hyp["lr0"]), float(hyp["degrees"]), int(hyp["layers"])
    if lr0 > 0.0115:
        return math.nan
    height = 1 - 0.1 * abs(math.log10(lr0 / 0.003)) - 0.01 * abs(degrees - 12) - 0.02 * abs(layers - 6)
    return (height + 0.05 * (hyp["optimizer"] == "adam")) * (1 - math.exp(-epoch * (0.2 + 0.05 * layers)))


def run(study: Study, space: Space, total: int, *, at: Callable[[str, int], None] = lambda point, number: None) -> None:
    """Work on the study until `total` trials have finished; `at` hears of every point at which a process may die."""
    while finished(study) < total:
        trial = study.ask()
        at("asked", trial.number)
        claim(trial)
        at("claimed", trial.number)
        trial.suggest_float("lr0", 1e-5, 0.1, log=True)
        at("half suggested", trial.number)
        hyp = suggest(trial, space)
        at("suggested", trial.number)
        study.tell(trial, **_trained(trial, hyp, at))
        at("told", trial.number)


def _trained(trial: optuna.Trial, hyp: Hyp, at: Callable[[str, int], None]) -> dict[str, Any]:
    value = math.nan
    for epoch in range(1, EPOCHS + 1):
        value = fitness(hyp, epoch)
        if math.isnan(value):
            return {"state": TrialState.FAIL}
        trial.report(value, epoch)
        at(f"epoch {epoch}", trial.number)
        if trial.should_prune():
            return {"state": TrialState.PRUNED}
    return {"values": value}


def history(study: Study) -> list[tuple[Any, ...]]:
    """What makes two studies equal: by generation, each counted trial's hyp, state, value and curve."""
    trials = trials_of(study)
    found = generations(trials)
    return sorted(
        (found[trial.number], hyp_of(trial), trial.state.name, trial.value, dict(trial.intermediate_values))
        for trial in trials
        if counts(trial)
    )


def in_process(work: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
    """Start `work` in a process of its own."""
    process = fork.Process(target=work, args=args)
    process.start()
    return process


def exit_code(process: multiprocessing.process.BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


def kill_me() -> None:
    """As the out-of-memory killer does it: no clean-up of any sort."""
    os.kill(os.getpid(), signal.SIGKILL)


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in trials_of(study)]


def backdate(url: str, column: str, age_s: float) -> None:
    """Have a time of all trials in an SQLite file lie further back, as if the clock had jumped on since."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute(f"UPDATE trials SET {column} = datetime({column}, '-{age_s} seconds')")


def attrs(study: Study, number: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = trials_of(study)[number].user_attrs
    return found
