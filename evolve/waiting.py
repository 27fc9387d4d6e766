"""A bar for whatever lasts longer than two seconds, where somebody watches a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

UNNOTICED_S = 2.0  # nobody asks what is going on before that


class Bar:
    """Shows how far something is, and leaves nothing behind. It draws when it is told something, in that thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what = ""
        self._began = 0.0
        self._shown: Progress | None = None

    def tell(self, what: str, done: int, of: int | None) -> None:
        """So much of it is done; None: of nobody knows how much."""
        now = time.monotonic()
        if what != self._what:
            self.close()
            self._what, self._began = what, now
        if not self._console.is_terminal or now - self._began < UNNOTICED_S:
            return
        if self._shown is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(complete_style="cyan"),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            self._shown = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
            self._shown.add_task(what, total=of, completed=done)
            self._shown.start()
        self._shown.update(self._shown.task_ids[0], completed=done, total=of, refresh=True)

    def close(self) -> None:
        """Take it away; what is told next may show another."""
        if self._shown is not None:
            self._shown.stop()
        self._shown, self._what = None, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
