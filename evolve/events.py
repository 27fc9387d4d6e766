"""What happens to a study as JSON, an object a line: for programs that follow it. docs/watching.md names all events."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from evolve.plain import line
from evolve.standing import Outcome, Standing
from evolve.watcher import Ended, Opened, Racing

if TYPE_CHECKING:
    from studies import BestHyp
    from studies.decision import Decision
    from studies.race import Heat


class Events:
    """Writes an event a line, each at once. All have `event` and `time`, in UTC."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._guard = threading.Lock()  # `leaving` comes from another thread

    def preparing(self, data: str) -> None:
        self._write("preparing", data=data)

    def progress(self, what: str, done: int, of: int | None) -> None:
        self._write("progress", what=what, done=done, of=of)

    def opened(self, opened: Opened) -> None:
        self._write(
            "opened",
            study=opened.study,
            folder=opened.folder,
            generations=opened.generations,
            epochs=opened.epochs,
            data=opened.data,
            ends_earlier=opened.earlier,
            not_evolved=opened.pinned,
            notes=opened.notes,
            **_standing(opened.standing),
        )

    def started(self, number: int) -> None:
        self._write("started", trial=number)

    def epoch(self, number: int, epoch: int, fitness: float) -> None:
        self._write("epoch", trial=number, epoch=epoch, fitness=fitness)

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        self._write("finished", **_outcome(outcome), change=outcome.change, **_standing(standing))

    def racing(self, racing: Racing) -> None:
        seeds = [racing.seeds[0], racing.seeds[-1]]
        told = {"challengers": racing.challengers, "epochs": racing.epochs, "trainings": racing.trainings}
        self._write("racing", race=racing.name, **told, done=racing.done, seeds=seeds)

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        self._write("raced", entrant=heat.entrant, seed=heat.seed, round=heat.round, **_outcome(outcome), done=done)

    def decided(self, decision: Decision) -> None:
        winner = decision.verdict.winner
        self._write("decided", verdict=decision.sentence(), confirmed=winner is not None, winner=winner)

    def warned(self, warning: str) -> None:
        self._write("warned", warning=warning)

    def leaving(self) -> None:
        self._write("leaving")

    def ended(self, ended: Ended) -> None:
        found = {
            "hyp": ended.hyp,
            "hyp_file": ended.hyp_file if ended.hyp else None,
            "base": ended.base,
            "report": ended.report,
        }
        told = {"command": ended.command, "raced": ended.raced, "no_race": ended.no_race}
        self._write("ended", reason=ended.reason, **_standing(ended.standing), **found, **told)

    def _write(self, event: str, **fields: Any) -> None:
        told = line({"event": event, "time": datetime.now(UTC), **fields})
        with self._guard:
            self._file.write(f"{told}\n")
            self._file.flush()


def _outcome(outcome: Outcome) -> dict[str, Any]:
    names = ("state", "epochs", "fitness", "metrics", "goals", "costs", "final", "failure")
    return {"trial": outcome.number, **{name: getattr(outcome, name) for name in names}}


def _standing(standing: Standing) -> dict[str, Any]:
    told = {name: getattr(standing, name) for name in ("complete", "pruned", "failed", "epochs_run")}
    return {"done": standing.finished, **told, "best": _best(standing.best)}


def _best(best: BestHyp | None) -> dict[str, Any] | None:
    if best is None:
        return None
    told = {"trial": best.number, "fitness": best.fitness, "seeds": best.seeds, "goals": best.goals}
    return {**told, "base": None if best.base is None else vars(best.base)}
