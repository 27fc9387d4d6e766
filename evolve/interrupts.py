"""Ctrl-C and its relatives end a study cleanly: they wait while something is being written down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Inside `with interrupts:` the first signal raises KeyboardInterrupt, and never inside `with interrupts.held():`.

    From then on the signals have their old effect again: a second Ctrl-C interrupts the cleaning up too. Signals that
    are ignored (nohup) stay ignored. Outside the main thread, where Python delivers no signal, it does nothing.
    """

    def __init__(self) -> None:
        self._held = 0
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

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._restore()
        if self._held:
            self._pending = True
        else:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself gave
        self._before = {}
