"""What a study tells about itself while it runs, and to whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evolve.standing import Outcome, Standing
from search_spaces import Hyp

if TYPE_CHECKING:
    from studies.decision import Decision
    from studies.race import Heat


@dataclass(frozen=True)
class Opened:
    """What is known when a study opens: name, folder, how much it shall do, what the trainer said of the data.

    `pinned` are the hyps that do not evolve since they can have no effect, each with the reason. `earlier` says what
    may end the study before its generations do, `seconds` is how long this run may take. `notes` are lines on what was
    taken over from each source of --from, and on several goals. `fitnesses` are those of the complete trials so far.
    """

    study: str
    folder: Path
    generations: int
    epochs: int
    data: str
    standing: Standing
    pinned: Mapping[str, str] = field(default_factory=dict)
    earlier: str = ""
    seconds: float | None = None
    notes: Sequence[str] = ()
    fitnesses: Sequence[float] = ()


@dataclass(frozen=True)
class Ended:
    """What is left when a study ends. `hyp` is None when nothing completed; `command` trains with the best hyp.

    `hints` gives what the study tells beyond that, in a few lines, to those who show it: that takes a second or two.
    `no_race` is the reason that there was no race ('': there was, or the study did not come so far). `raced` tells that
    a race chose the hyp; `unconfirmed` is where the search's best one lies, if that left the base as best;
    `cut` tells that an interruption or an error ended it; `report` is the page that shows all of it, if there is one.
    """

    reason: str
    standing: Standing
    epochs: int
    base: Hyp
    hyp: Hyp | None
    hyp_file: Path
    command: Sequence[str]
    hints: Callable[[], Sequence[str]] = tuple
    no_race: str = ""
    raced: bool = False
    unconfirmed: Path | None = None
    cut: bool = False
    report: Path | None = None


@dataclass(frozen=True)
class Racing:
    """What is known when a race begins or goes on: its name, how many challenge the base, how much is to be done."""

    name: str
    challengers: int
    seeds: range
    epochs: int
    trainings: int
    done: int


class Watcher(Protocol):
    """Whoever wants to be told how a study goes. Nothing that it does changes the study."""

    def preparing(self, data: str) -> None: ...

    def progress(self, what: str, done: int, of: int | None) -> None: ...

    def opened(self, opened: Opened) -> None: ...

    def started(self, number: int) -> None: ...

    def epoch(self, number: int, epoch: int, fitness: float) -> None: ...

    def finished(self, outcome: Outcome, standing: Standing) -> None: ...

    def racing(self, racing: Racing) -> None: ...

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None: ...

    def decided(self, decision: Decision) -> None: ...

    def warned(self, warning: str) -> None: ...

    def leaving(self) -> None: ...

    def ended(self, ended: Ended) -> None: ...


class Silence:
    """Watches and says nothing."""

    def preparing(self, data: str) -> None: ...

    def progress(self, what: str, done: int, of: int | None) -> None: ...

    def opened(self, opened: Opened) -> None: ...

    def started(self, number: int) -> None: ...

    def epoch(self, number: int, epoch: int, fitness: float) -> None: ...

    def finished(self, outcome: Outcome, standing: Standing) -> None: ...

    def racing(self, racing: Racing) -> None: ...

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None: ...

    def decided(self, decision: Decision) -> None: ...

    def warned(self, warning: str) -> None: ...

    def leaving(self) -> None: ...

    def ended(self, ended: Ended) -> None: ...


class Relay:
    """Tells another watcher everything; whoever has more to do overrides what that is about."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def preparing(self, data: str) -> None:
        self._watcher.preparing(data)

    def progress(self, what: str, done: int, of: int | None) -> None:
        self._watcher.progress(what, done, of)

    def opened(self, opened: Opened) -> None:
        self._watcher.opened(opened)

    def started(self, number: int) -> None:
        self._watcher.started(number)

    def epoch(self, number: int, epoch: int, fitness: float) -> None:
        self._watcher.epoch(number, epoch, fitness)

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        self._watcher.finished(outcome, standing)

    def racing(self, racing: Racing) -> None:
        self._watcher.racing(racing)

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        self._watcher.raced(heat, outcome, done)

    def decided(self, decision: Decision) -> None:
        self._watcher.decided(decision)

    def warned(self, warning: str) -> None:
        self._watcher.warned(warning)

    def leaving(self) -> None:
        self._watcher.leaving()

    def ended(self, ended: Ended) -> None:
        self._watcher.ended(ended)


class Sender(Protocol):
    """Takes what a study leaves to somewhere else, in the background."""

    def soon(self) -> None:
        """Something changed; whoever says so does not wait."""

    def close(self) -> None:
        """Send what is not there yet."""


class Sending(Relay):
    """Tells another watcher everything, and senders that there is something to send after every trial.

    `warnings` are those of the senders' threads, for the one that tells.
    """

    def __init__(self, watcher: Watcher, senders: Sequence[Sender], warnings: deque[str]) -> None:
        super().__init__(watcher)
        self._senders = senders
        self._warnings = warnings

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        super().finished(outcome, standing)
        self._send()

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        super().raced(heat, outcome, done)
        self._send()

    def ended(self, ended: Ended) -> None:
        try:
            self._send()
            for sender in self._senders:
                sender.close()
            self._tell()
        finally:  # whoever has seen enough presses Ctrl-C again
            super().ended(ended)

    def _send(self) -> None:
        for sender in self._senders:
            sender.soon()
        self._tell()

    def _tell(self) -> None:
        while self._warnings:
            self._watcher.warned(self._warnings.popleft())
