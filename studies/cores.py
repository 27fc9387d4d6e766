"""Small sums of numpy's on one core: several gain nothing there, and processes side by side wait for each other's.

Eight processes that shared two cores took some ten times as long for their asking as they do this way.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

try:
    from threadpoolctl import ThreadpoolController
except ImportError:  # among OptunaHub's packages, which may be used with Optuna and numpy alone
    ThreadpoolController = None


class OneCore:
    """Within it numpy's linear algebra keeps to one core, in all threads of the process.

    Any number of threads may be within at once: the first limits it, and the last takes the limit back. (Each by itself
    would take another's limit for what was there before, and leave it behind.) Where threadpoolctl is not installed,
    nothing changes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._limit = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._within == 0 and (algebra := _algebra()) is not None:
                self._limit.enter_context(algebra.limit(limits=1))
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                self._limit.close()


one_core = OneCore()
"""Of this process: what it limits is the process's, too."""


@lru_cache(maxsize=1)
def _algebra() -> Any:
    """The library that does numpy's linear algebra; to look for it takes a millisecond."""
    return None if ThreadpoolController is None else ThreadpoolController().select(user_api="blas")
