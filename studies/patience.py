"""Patience with a storage that is away: a call waits until it answers again, instead of ending a study of days."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

RETRY_S = 120  # how long one call waits at most
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
TELL_AFTER_S = 2  # what is over sooner is not worth a line

Result = TypeVar("Result")
_dice = random.SystemRandom()  # workers shall not all come back in the same moment, nor disturb a seeded generator


class Patience:
    """What all calls to one storage share: how its being away is told from other errors, and whether it is away.

    A call that finds the storage away is made again, after pauses that grow, for RETRY_S at most; then its last error
    passes through. While a storage has not answered once (`waits` False) or has been given up, calls are made just
    once: a wrong address is told at once, and who cleans up after the end does not wait again.
    """

    def __init__(self, storage: str, is_away: Callable[[BaseException], bool], *, waits: bool = False) -> None:
        self._storage = storage  # as it may be shown: without its password
        self._is_away = is_away
        self._waits = waits
        self._away = False

    def __call__(self, call: Callable[[], Result]) -> Result:
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                result = call()
            except Exception as error:
                if not self._is_away(error):
                    raise
                if not self._waits or time.monotonic() + pause > began + RETRY_S:
                    self._waits = False
                    raise
                if time.monotonic() > began + TELL_AFTER_S:
                    self._tell_away()
            else:
                self._tell_back(time.monotonic() - began)
                return result
            time.sleep(pause * _dice.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _tell_away(self) -> None:
        if not self._away:
            logger.warning("storage %s does not answer; waiting up to %d seconds for it", self._storage, RETRY_S)
        self._away = True

    def _tell_back(self, seconds: float) -> None:
        if self._away:
            logger.warning("storage %s answers again, after %.0f seconds", self._storage, seconds)
        self._waits, self._away = True, False
