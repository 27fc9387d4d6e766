"""What a study tells about itself while it runs, and to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evolve.standing import Outcome, Standing
from search_spaces import Hyp


@dataclass(frozen=True)
class Opened:
    """What is known when a study opens: name, folder, how much it shall do, what the trainer said of the data."""

    study: str
    folder: Path
    generations: int
    epochs: int
    data: str
    standing: Standing


@dataclass(frozen=True)
class Ended:
    """What is left when a study ends. `hyp` is None when nothing completed; `command` trains with the best hyp."""

    reason: str
    standing: Standing
    epochs: int
    base: Hyp
    hyp: Hyp | None
    hyp_file: Path
    command: Sequence[str]


class Watcher(Protocol):
    """Whoever wants to be told how a study goes. Nothing that it does changes the study."""

    def preparing(self, data: str) -> None: ...

    def opened(self, opened: Opened) -> None: ...

    def started(self, number: int) -> None: ...

    def epoch(self, number: int, epoch: int, fitness: float) -> None: ...

    def finished(self, outcome: Outcome, standing: Standing) -> None: ...

    def warned(self, warning: str) -> None: ...

    def ended(self, ended: Ended) -> None: ...


class Silence:
    """Watches and says nothing."""

    def preparing(self, data: str) -> None: ...

    def opened(self, opened: Opened) -> None: ...

    def started(self, number: int) -> None: ...

    def epoch(self, number: int, epoch: int, fitness: float) -> None: ...

    def finished(self, outcome: Outcome, standing: Standing) -> None: ...

    def warned(self, warning: str) -> None: ...

    def ended(self, ended: Ended) -> None: ...
