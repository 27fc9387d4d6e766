"""Ctrl-C and its relatives end a study cleanly: the first waits for what is going on, the second does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Inside `with interrupts:` a signal raises KeyboardInterrupt, and never inside `with interrupts.held():`.

    Inside `with interrupts.patient():` the first one only sets `leaving`, for whoever works there to end when it suits,
    and the second one raises. `on_leave` is called at the first, from a thread of its own: it may print. SIGTERM counts
    as Ctrl-C does, since that is how a scheduler asks a job to go.

    Once KeyboardInterrupt is due, signals have their old effect again: the next Ctrl-C interrupts the cleaning up too.
    Signals that are ignored (nohup) stay ignored. Outside the main thread, where Python delivers no signal, nothing but
    `leave` has an effect.
    """

    def __init__(self, on_leave: Callable[[], None] = lambda: None) -> None:
        self.leaving = False
        self._on_leave = on_leave
        self._held = 0
        self._patient = 0
        self._pending = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that comes in here takes effect at the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pending and not self._held:
            self._pending = False
            raise KeyboardInterrupt

    @contextmanager
    def patient(self) -> Iterator[None]:
        """The first signal that comes in here sets `leaving`, and KeyboardInterrupt is raised at the end."""
        self._patient += 1
        try:
            yield
        finally:
            self._patient -= 1
        if self.leaving:
            raise KeyboardInterrupt

    def leave(self) -> None:
        """As a first signal does where it is waited for."""
        if not self.leaving:
            self.leaving = True
            threading.Thread(target=self._on_leave, name="leaving").start()

    def check(self) -> None:
        """Raise KeyboardInterrupt if it is time to leave: for whoever has come to an end that suits."""
        if self.leaving:
            raise KeyboardInterrupt

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self._patient and not self.leaving:
            return self.leave()
        self._restore()
        if self._held:
            self._pending = True
            return None
        raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself gave
        self._before = {}
