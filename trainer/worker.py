"""What a ProcessTrainer's child runs: it loads one trainer and answers one question a line until its input ends.

The questions come as JSON lines on file descriptor 0 and the answers leave on file descriptor 1:

    {"do": "hyps"}                      {"hyps": ["lr0", ...]}   or null: any
    {"do": "prepare", "options": {..}}  {"prepared": {"digest": .., "summary": .., "warnings": [..]}}
    {"do": "train", "job": {..}}        {"ready": true}          a training that is still open is closed first
    {"do": "next"}                      {"metrics": {..}}        or {"done": true}
    {"do": "close"}                     {"closed": true}
    {"do": "exit"}                      none

Before any answer may come lines {"progress": [what, done, of]} (see `trainer.progress`), which answer nothing.

Any of them may be answered by {"error": {"kind": .., "message": ..}} (see `trainer.messages`), which also ends an open
training. Two more keys may stand in an error: "unexpected", where the trainer raised something that is no TrainerError,
so that the traceback in the log is worth reading; and "spoiled", where this process can train no more and should go.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import pickle
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from trainer.api import DataError, EpochMetrics, Trainer, TrainerError, TrainJob
from trainer.function import PICKLED, FunctionTrainer, takes_a_job
from trainer.lifeline import die_with_parent
from trainer.messages import error_to_dict, job_from_dict, metrics_to_dict, options_from_dict
from trainer.progress import listening

CALLERS_PYTHONPATH = "TRAINER_CALLERS_PYTHONPATH"


def load_trainer(spec: str) -> Trainer:
    """The trainer that "module:attr" names, or that a .pkl file holds. Raises DataError.

    It may be a function of a job (see `trainer.function`); another function, or a class, is called without arguments.
    """
    found = _unpickle(spec) if spec.endswith(PICKLED) else _import(spec)
    if takes_a_job(found):
        return FunctionTrainer(found)
    trainer: Trainer = found() if callable(found) else found
    for name in ("hyps", "prepare", "train"):
        if not hasattr(trainer, name):
            raise DataError(f"{spec!r} is no trainer: it has no {name} (see trainer/api.py)")
    return trainer


def _import(spec: str) -> Any:
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise DataError(f"trainer {spec!r} is not of the form module:attribute")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(f"trainer {spec!r} cannot be loaded: {type(error).__name__}: {error}") from error


def _unpickle(spec: str) -> Any:
    """Whoever names a file runs what is in it, as whoever names a module does."""
    try:
        return pickle.loads(Path(spec).read_bytes())
    except Exception as error:  # whatever the modules raise that it needs
        raise DataError(f"trainer {spec!r} cannot be loaded: {type(error).__name__}: {error}") from error


def main() -> None:
    """Serve one parent: `python -m trainer.worker SPEC LIFELINE`; LIFELINE is a descriptor, see `die_with_parent`."""
    spec, lifeline = sys.argv[1:]
    die_with_parent(int(lifeline))
    restore_pythonpath()
    faulthandler.enable()  # a segmentation fault leaves its Python traceback in the log, ...
    faulthandler.register(signal.SIGUSR1)  # ... and so does a training that is about to be killed for its silence
    questions, answers = claim_pipes()

    def answer(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    worker = Worker(spec)
    with listening(lambda *told: answer({"progress": told})):
        for line in questions:
            question = json.loads(line)
            if question["do"] == "exit":
                break
            answer(worker.reply(question))
    worker.leave()


def restore_pythonpath() -> None:
    """Give back the PYTHONPATH that the user had: ours is for this interpreter, not for the programs it starts."""
    os.environ.pop("PYTHONPATH", None)
    if (theirs := os.environ.pop(CALLERS_PYTHONPATH, None)) is not None:
        os.environ["PYTHONPATH"] = theirs


def claim_pipes() -> tuple[TextIO, TextIO]:
    """Move the protocol to private descriptors: what a library prints goes to the log, what it reads is empty."""
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return questions, answers


class Output:
    """Where this process and the C code in it print: the log it was started with, or a training's own."""

    def __init__(self) -> None:
        self._home = os.dup(2)

    def to(self, path: Path) -> None:
        with open(path, "ab") as log:
            self._point_at(log.fileno())

    def home(self) -> None:
        self._point_at(self._home)

    def _point_at(self, descriptor: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)


class Worker:
    """One trainer and at most one training of it."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._trainer: Trainer | None = None
        self._job: TrainJob | None = None
        self._epochs: Iterator[EpochMetrics] | None = None
        self._output = Output()

    def reply(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer, or the error that came instead of it; whatever the trainer raises, this process lives on."""
        try:
            return self._answer(question)
        except TrainerError as error:
            reply = error_to_dict(error)
        except BaseException as error:  # a trainer that calls sys.exit loses its training, not the process
            traceback.print_exc()
            reply = self._explain(error)
        with contextlib.suppress(BaseException):  # the first error is the one to tell
            self.leave()
        return {"error": reply}

    def leave(self) -> None:
        """Close an open training, so that its `finally` runs, and print to the common log again."""
        epochs, self._epochs = self._epochs, None
        try:
            if epochs is not None and hasattr(epochs, "close"):
                epochs.close()
        finally:
            self._job = None
            self._output.home()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["do"]:
            case "hyps":
                hyps = self._load().hyps
                return {"hyps": None if hyps is None else sorted(hyps)}
            case "prepare":
                return {"prepared": asdict(self._load().prepare(options_from_dict(question["options"])))}
            case "train":
                self.leave()
                self._job = job_from_dict(question["job"])
                self._output.to(self._job.workdir / "train.log")
                self._epochs = iter(self._load().train(self._job))
                return {"ready": True}
            case "next":
                assert self._epochs is not None
                if (metrics := next(self._epochs, None)) is not None:
                    return {"metrics": metrics_to_dict(metrics)}
                self.leave()
                return {"done": True}
            case "close":
                self.leave()
                return {"closed": True}
            case unknown:
                raise AssertionError(f"no such question: {unknown!r}")

    def _load(self) -> Trainer:
        if self._trainer is None:
            self._trainer = load_trainer(self._spec)
        return self._trainer

    def _explain(self, error: BaseException) -> dict[str, Any]:
        text = textwrap.shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
        if self._job is not None and is_out_of_memory(error):
            options = self._job.options
            text = f"out of memory with batch {options.batch} at imgsz {options.imgsz} ({text})"
        # After a failed kernel every later call of this process fails too: CUDA gives the context up.
        spoiled = "CUDA error" in text or "HIP error" in text
        return {"kind": "TrainerError", "message": f"{self._spec}: {text}", "unexpected": True, "spoiled": spoiled}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's and NumPy's MemoryError, torch's OutOfMemoryError and its CPU allocator's
    RuntimeError, the system's ENOMEM. By name and text, since this must not load torch."""
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and ("out of memory" in said or "allocate memory" in said)


if __name__ == "__main__":
    main()
