"""Who works on a trial says so again and again; whoever hears nothing for a while may take the trial over.

A claim is renewed by counting up a *beat* in the storage. Others judge by their own clock for how long a beat has
stayed as it is: no clock of another machine is believed, and one that jumps takes no trial away from anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from optuna import Study
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, TrialState

BEAT = "beat"  # user attribute of a trial: [count, when in seconds since 1970 (for people)]
RUN_BEAT = "run_beat"  # user attribute of a study: [name of the run, count], for workers that see no pid of it
BEAT_S = 10.0
SILENCE_S = 60.0  # so long without a new beat, and a trial's process is taken for gone
DEAF_S = 10.0  # what lies longer between two looks was no silence: the storage was away, or nobody looked


class Pulse:
    """Renews the claim on one trial after the other, from a thread of its own, inside `with pulse:`.

    With a `run`, it says that whoever runs that is there. `also` is called every second, too. What the storage answers
    with an error is left to the next beat: whoever works on the trial will meet the same error where it can be told.
    """

    def __init__(
        self,
        study: Study,
        *,
        run: str | None = None,
        also: Callable[[], None] = lambda: None,
        every_s: float | None = None,
    ) -> None:
        self._study = study
        self._run_name = run
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
        due = time.monotonic() + (self._every_s if self._run_name is None else 0)
        while not self._over.wait(min(1.0, self._every_s)):
            self._also()
            if time.monotonic() >= due:
                due = time.monotonic() + self._every_s
                with suppress(Exception):
                    self._beat()

    def _beat(self) -> None:
        self._beats += 1
        storage = self._study._storage
        if self._run_name is not None:
            self._study.set_user_attr(RUN_BEAT, [self._run_name, self._beats])
        if (trial_id := self._trial_id) is not None:
            storage.set_trial_user_attr(trial_id, BEAT, [self._beats, round(time.time())])
            if isinstance(storage, BaseHeartbeat) and storage.get_heartbeat_interval() is not None:
                storage.record_heartbeat(trial_id)  # for Optuna's own tools


@dataclass
class Silence:
    """For how long each of several signs has stayed as it is, by the clock of this process.

    A storage that was away has kept everybody from giving signs: between two looks no more than DEAF_S count.
    """

    clock: Callable[[], float] = time.monotonic
    _seen: dict[Hashable, tuple[Any, float]] = field(default_factory=dict)  # whose -> the sign, silent for so long
    _looked: float | None = None

    def of(self, signs: Mapping[Hashable, Any]) -> Mapping[Hashable, float]:
        """Seconds since each sign was first seen as it is now; whose is not among them is forgotten."""
        now = self.clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, DEAF_S)
        self._looked = now
        before = self._seen
        self._seen = {}
        for whose, sign in signs.items():
            known, silent_s = before.get(whose, (None, 0.0))
            self._seen[whose] = sign, silent_s + passed if known == sign else 0.0
        return {whose: silent_s for whose, (_, silent_s) in self._seen.items()}


@dataclass
class Listener:
    """Hears the beats of running trials, or that of a run, and knows which have fallen silent."""

    silence_s: float = field(default_factory=lambda: SILENCE_S)  # as it is when a listener is made
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._silence = Silence(self.clock)
        self._has_met = False

    def silent(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Of these trials those that run and have given no new sign for `silence_s` since this listener was asked."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        silent_s = self._silence.of({trial.number: _sign(trial) for trial in running})
        return [trial for trial in running if silent_s[trial.number] >= self.silence_s]

    def misses(self, run: str, noted: Mapping[str, Any]) -> bool:
        """Whether that run has given signs, and no new one for `silence_s`; `noted` are the study's user attributes."""
        name, beats = noted.get(RUN_BEAT, ("", 0))
        beats = beats if name == run else None
        self._has_met = self._has_met or beats is not None
        return self._silence.of({run: beats})[run] >= self.silence_s and self._has_met


def _sign(trial: FrozenTrial) -> Any:
    return trial.user_attrs.get(BEAT), len(trial.intermediate_values), len(trial.user_attrs)
