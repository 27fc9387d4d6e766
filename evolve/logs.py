"""The log of a study: a line for every trial, and whatever our modules warn of, in a file of the run folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evolve.config import mask_secrets
from evolve.standing import Outcome, Standing
from evolve.tables import name_entrant, show_fitness
from evolve.watcher import Ended, Opened, Racing, Relay

if TYPE_CHECKING:
    from studies.decision import Decision
    from studies.race import Heat

ROOMS = ("evolve", "studies", "trainer", "search_spaces")
FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"

logger = logging.getLogger(__name__)


class LogFile(logging.FileHandler):
    """Appends a line to the log; where that cannot be done (the disk is full), the line is lost and nothing else."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """One line without passwords; a traceback has more."""
        return mask_secrets(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None: ...


class LastResort(logging.Handler):
    """What goes to stderr where nobody has set up anything, as Python has it; whoever watches tells the rest."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != __name__ and logging.lastResort is not None and record.levelno >= logging.WARNING:
            logging.lastResort.handle(record)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Inside it the loggers of our four rooms write into this file too, from INFO on.

    What they warn of goes where it went before: to stderr, if nobody has set up anything.
    """
    file, own = LogFile(path), [logging.getLogger(room) for room in ROOMS]
    before = [(one, one.level) for one in own]
    added = [(one, new) for one in own for new in ([file] if one.hasHandlers() else [file, LastResort()])]
    for one, new in added:
        one.addHandler(new)
    for one, level in before:
        one.setLevel(level or logging.INFO)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except Exception as error:
        logger.error("%s: %s", type(error).__name__, " ".join(str(error).split()))
        raise
    finally:
        for one, new in added:
            one.removeHandler(new)
        for one, level in before:
            one.setLevel(level)
        file.close()


class Logging(Relay):
    """Writes down what happens to a study, and tells another watcher, whom it spares the passwords in warnings."""

    def opened(self, opened: Opened) -> None:
        done = opened.standing.finished
        logger.info(
            "%s: %d of %d generations of %d epochs are done; %s",
            *(opened.study, done, opened.generations, opened.epochs, opened.data),
        )
        super().opened(opened)

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        best = standing.best
        logger.info(
            "trial %d %s: fitness %s, %d epochs, %s; %d generations are done, best %s",
            *(outcome.number, outcome.state, show_fitness(outcome.fitness), outcome.epochs),
            outcome.failure or outcome.change,
            *(standing.finished, f"{show_fitness(best.fitness)} (trial {best.number})" if best else "-"),
        )
        super().finished(outcome, standing)

    def racing(self, racing: Racing) -> None:
        logger.info("%s: %d of %d trainings are done", racing.name, racing.done, racing.trainings)
        super().racing(racing)

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        told = f": {outcome.failure}" if outcome.failure else ""
        logger.info(
            "race %d, %s, seed %d %s: fitness %s, %d epochs%s",
            *(done, name_entrant(heat.entrant), heat.seed, outcome.state, show_fitness(outcome.fitness)),
            *(outcome.epochs, told),
        )
        super().raced(heat, outcome, done)

    def decided(self, decision: Decision) -> None:
        logger.info("%s", decision.sentence())
        super().decided(decision)

    def warned(self, warning: str) -> None:
        logger.warning("%s", warning)
        super().warned(mask_secrets(warning))

    def ended(self, ended: Ended) -> None:
        standing = ended.standing
        counts = (standing.complete, standing.pruned, standing.failed)
        logger.info("ended: %s; %d complete, %d pruned, %d failed", ended.reason, *counts)
        super().ended(ended)
