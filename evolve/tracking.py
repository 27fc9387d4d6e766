"""Sends every trial that has ended to where a team keeps its runs: in the background, never in the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Protocol

from optuna import Study
from optuna.trial import FrozenTrial

from evolve.bucket import without_secrets
from evolve.config import ConfigError, EvolveConfig, did_you_mean, mask_url
from evolve.journal import Row, read_rows
from evolve.outcomes import change_of, outcome_of, state_of
from evolve.paths import RunPaths
from evolve.standing import Outcome
from search_spaces import Hyp, Space
from studies import trials_of
from studies.persistence import whole_hyp
from studies.trials import OPERATOR, PARENTS, SEED, counts, generations, hyp_of

LAST_WAIT_S = 30.0  # for what is under way at the end
PLACES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}  # and the package and extra that each needs


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, as a tracker is told of it: `rows` are its epochs, `change` what its hyp moved most."""

    study: str
    number: int
    generation: int
    state: str
    outcome: Outcome
    change: str
    seed: int | None
    operator: str
    parents: tuple[int, ...]
    hyp: Hyp
    rows: Sequence[Row]
    started: datetime | None
    ended: datetime | None


class Refused(Exception):
    """A tracker does not take a trial as it is."""


class Tracker(Protocol):
    """Where runs are kept. What its methods raise is told once, and they are asked again later."""

    @property
    def place(self) -> str:
        """In words."""

    def sent(self, study: Study) -> set[int]:
        """The trials of the study that are there, whole."""

    def send(self, study: Study, trial: Ended) -> None:
        """Raises Refused where this trial is at fault, and others may well be taken."""


def trackers_of(config: EvolveConfig, paths: RunPaths) -> list[Tracker]:
    """Those that --log-to names. Raises ConfigError for what is none, or needs a package that is not installed."""
    return [_tracker(where, paths) for where in config.log_to]


def _tracker(where: str, paths: RunPaths) -> Tracker:
    kind, _, uri = where.partition(":")
    if kind not in PLACES or (uri and kind != "mlflow"):
        known = did_you_mean(kind, ("tensorboard", "mlflow", "mlflow:URI"))
        raise ConfigError(f"--log-to {mask_url(where)} is no place for runs{known}")
    if find_spec(PLACES[kind]) is None:
        wanted = f"pip install 'evolve-hyp[{PLACES[kind]}]'"
        raise ConfigError(f"--log-to {kind} needs a package that is not installed: {wanted}")
    if kind == "tensorboard":
        from evolve.tensorboard_runs import TensorBoardRuns

        return TensorBoardRuns(paths)
    from evolve.mlflow_runs import MlflowRuns

    return MlflowRuns(uri or None)


class Tracking:
    """Sends what a tracker lacks of a study, whenever it is told that a trial has ended.

    What is missing follows from the study and the tracker alone: a run that is resumed sends what an earlier one could
    not. One thread sends; whoever says `soon` never waits. What fails is one warning, and tried again at the next trial
    and at the end; a trial that is refused holds up no other, and is tried again by the next run.
    """

    def __init__(
        self, tracker: Tracker, study: Study, space: Space, paths: RunPaths, warn: Callable[[str], object]
    ) -> None:
        self._tracker = tracker
        self._study = study
        self._space = space
        self._paths = paths
        self._warn = warn
        self._warned = False
        self._sent: set[int] | None = None  # None: the tracker has not been asked yet
        self._state = threading.Condition()
        self._due = self._closing = False
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        """A trial has ended: send it when the line is free."""
        with self._state:
            self._due = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()
            self._state.notify()

    def close(self, wait_s: float = LAST_WAIT_S) -> None:
        """Send what is missing, and warn where that could not be done."""
        with self._state:
            self._closing = self._due = True
            self._state.notify()
        if self._thread is not None:
            self._thread.join(wait_s)
            if self._thread.is_alive():
                self._tell(f"no answer for {wait_s:g} s")

    def _work(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._due)
                self._due, last = False, self._closing
            try:
                self._send_missing()
            except Exception as error:  # of any tracker: nothing that goes wrong there may end a study
                self._sent = None  # whatever is there now
                self._tell(" ".join(f"{type(error).__name__}: {error}".split()))
            if last:
                return

    def _send_missing(self) -> None:
        if self._sent is None:
            self._sent = self._tracker.sent(self._study)
        for trial in ended_trials(self._study, self._space, self._paths, self._sent):
            self._sent.add(trial.number)
            try:
                self._tracker.send(self._study, trial)
            except Refused as error:
                self._tell(" ".join(str(error).split()))

    def _tell(self, why: str) -> None:
        if not self._warned:
            again = "the study goes on; what is missing is sent after the next trial, or by the next `evolve run`"
            self._warn(f"cannot send trials to {self._tracker.place} ({without_secrets(why)[:300]}): {again}")
        self._warned = True


def ended_trials(study: Study, space: Space, paths: RunPaths, but: set[int]) -> Iterator[Ended]:
    """The trials of a study that count and have ended, in order, but for those."""
    trials = trials_of(study)
    found = generations(trials)
    for trial in trials:
        if counts(trial) and trial.number not in but:
            yield _ended(study, trials, trial, space, paths, found[trial.number])


def _ended(
    study: Study, trials: Sequence[FrozenTrial], trial: FrozenTrial, space: Space, paths: RunPaths, generation: int
) -> Ended:
    noted = trial.user_attrs
    curve = [{"epoch": epoch, "fitness": one, "losses": {}} for epoch, one in sorted(trial.intermediate_values.items())]
    return Ended(
        study=study.study_name,
        number=trial.number,
        generation=generation,
        state=state_of(trial),
        outcome=outcome_of(trial),
        change=change_of(trials, space, trial.number),
        seed=noted.get(SEED),
        operator=noted.get(OPERATOR, ""),
        parents=tuple(noted.get(PARENTS, ())),
        hyp=whole_hyp(hyp_of(trial), space),
        rows=read_rows(paths.metrics(trial.number)) or curve,
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )
