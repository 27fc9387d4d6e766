"""How far something is that may take long, as reading pictures or a download: told to whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 0.5  # between two things that are told

Listener = Callable[[str, int, int | None], object]
"""What is being done, how much of it is done, and of how much (None: nobody knows)."""

_listeners: list[Listener] = []
_told_at = [0.0]


def progress(what: str, done: int, of: int | None) -> None:
    """Tell the one that listens; cheap enough to be called for every picture."""
    now = time.monotonic()
    if _listeners and now - _told_at[0] >= EVERY_S:
        _told_at[0] = now
        _listeners[-1](what, done, of)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside it this is who is told, in the thread that makes the progress."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
