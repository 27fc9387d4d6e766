"""Who works on a trial says so again and again; whoever hears nothing for a while may take the trial over.

A claim is renewed by counting up a *beat* in the storage. Others judge by their own clock for how long a beat has
stayed as it is: no clock of another machine is believed, and one that jumps takes no trial away from anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from optuna import Study
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, TrialState

BEAT = "beat"  # user attribute of a trial: [count, when in seconds since 1970 (for people)]
BEAT_S = 10.0
SILENCE_S = 60.0  # so long without a new beat, and a trial's process is taken for gone
DEAF_S = 10.0  # what lies longer between two looks was no silence: the storage was away, or nobody looked


class Pulse:
    """Renews the claim on one trial after the other, from a thread of its own, inside `with pulse:`.

    `also` is called every second, too. What the storage answers with an error is left to the next beat: whoever works
    on the trial will meet the same error where it can be told.
    """

    def __init__(self, study: Study, *, also: Callable[[], None] = lambda: None, every_s: float | None = None) -> None:
        self._study = study
        self._also = also
        self._every_s = BEAT_S if every_s is None else every_s
        self._trial_id: int | None = None
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def of(self, trial_id: int | None) -> None:
        """Renew the claim on that trial from now on; None: on no trial."""
        self._trial_id = trial_id

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._every_s
        while not self._over.wait(min(1.0, self._every_s)):
            self._also()
            if (trial_id := self._trial_id) is not None and time.monotonic() >= due:
                due = time.monotonic() + self._every_s
                self._beat(trial_id)

    def _beat(self, trial_id: int) -> None:
        self._beats += 1
        storage = self._study._storage
        try:
            storage.set_trial_user_attr(trial_id, BEAT, [self._beats, round(time.time())])
            if isinstance(storage, BaseHeartbeat) and storage.get_heartbeat_interval() is not None:
                storage.record_heartbeat(trial_id)  # for Optuna's own tools
        except Exception:
            return


@dataclass
class Listener:
    """Hears the beats of running trials and knows which have fallen silent, by the clock of this process.

    A storage that was away has kept everybody from beating: between two looks no more than DEAF_S counts as silence.
    """

    silence_s: float = field(default_factory=lambda: SILENCE_S)  # as it is when a listener is made
    clock: Callable[[], float] = time.monotonic
    _heard: dict[int, tuple[Any, float]] = field(default_factory=dict)  # trial number -> its sign, silent for how long
    _looked: float | None = None

    def silent(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Of these trials those that run and have given no new sign for `silence_s` since this listener was asked."""
        now = self.clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, DEAF_S)
        self._looked = now
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        heard = {}
        for trial in running:
            sign = _sign(trial)
            before, silent_s = self._heard.get(trial.number, (None, 0.0))
            heard[trial.number] = (sign, silent_s + passed if before == sign else 0.0)
        self._heard = heard
        return [trial for trial in running if heard[trial.number][1] >= self.silence_s]


def _sign(trial: FrozenTrial) -> Any:
    return trial.user_attrs.get(BEAT), len(trial.intermediate_values), len(trial.user_attrs)
