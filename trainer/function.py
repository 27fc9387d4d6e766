"""FunctionTrainer: a trainer that is one function of a job, which yields an EpochMetrics after every epoch."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from trainer.api import EpochMetrics, Prepared, TrainerError, TrainJob, TrainOptions

PICKLED = ".pkl"  # how the name of a file ends that holds a trainer


class FunctionTrainer:
    """Trains by calling `function(job)`. It takes any hyp, and what its data are is its own affair.

    The digest of data that are a file is that of the file's content, of all else that of the name.
    """

    hyps: frozenset[str] | None = None

    def __init__(self, function: Callable[[TrainJob], Any]) -> None:
        self._function = function
        self._name = name_of(function)

    def prepare(self, options: TrainOptions) -> Prepared:
        data = "" if options.data == TrainOptions.data else f"{options.data} "  # the built-in ones: none were named
        return Prepared(_digest(options.data), f"{data}trained by {self._name}()")

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        epochs = self._function(job)
        if not isinstance(epochs, Iterable):
            raise TrainerError(
                f"{self._name}() returned {epochs!r:.80}; a trainer yields an EpochMetrics after every epoch"
            )
        try:
            for metrics in epochs:
                if not isinstance(metrics, EpochMetrics):
                    raise TrainerError(f"{self._name}() yielded {metrics!r:.80}; expected an EpochMetrics")
                yield metrics
        finally:
            if isinstance(epochs, Generator):
                epochs.close()


def takes_a_job(found: object) -> bool:
    """Whether it is such a function; one that can be called without arguments makes a trainer, as a class does."""
    if not callable(found) or isinstance(found, type) or hasattr(found, "train"):
        return False
    try:
        inspect.signature(found).bind()
    except TypeError:
        return True
    except ValueError:  # of builtins nothing is known
        pass
    return False


def name_of(trainer: object) -> str:
    """What to call a function, a class or an instance of one: of letters, digits and underscores."""
    name = getattr(trainer, "__name__", None) or getattr(getattr(trainer, "func", None), "__name__", None)
    name = "".join(character for character in name or type(trainer).__name__ if character.isalnum() or character == "_")
    return name or "trainer"


def _digest(data: str) -> str:
    path = Path(data)
    content = path.read_bytes() if path.is_file() else data.encode()
    return hashlib.sha256(content).hexdigest()
