"""How options, jobs, metrics and errors look as plain JSON values, for every place where they leave the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.api import DataError, EpochMetrics, TrainerError, TrainingDiverged, TrainJob, TrainOptions

# Python's json writes a float by its repr, so that it comes back bit for bit, and knows NaN and Infinity (a loss may be
# either): what one side writes, the other reads unchanged.


def metrics_to_dict(metrics: EpochMetrics) -> dict[str, Any]:
    """One epoch as plain numbers; NumPy's and torch's scalars become Python's."""
    return {
        "epoch": int(metrics.epoch),
        "precision": float(metrics.precision),
        "recall": float(metrics.recall),
        "map50": float(metrics.map50),
        "map50_95": float(metrics.map50_95),
        "losses": {name: float(loss) for name, loss in metrics.losses.items()},
        "seconds": float(metrics.seconds),
        **({"final": {name: float(score) for name, score in metrics.final.items()}} if metrics.final else {}),
        **({"costs": {name: float(cost) for name, cost in metrics.costs.items()}} if metrics.costs else {}),
    }


def metrics_from_dict(values: Mapping[str, Any]) -> EpochMetrics:
    return EpochMetrics(**values)


def job_to_dict(job: TrainJob) -> dict[str, Any]:
    return {
        "hyp": dict(job.hyp),
        "options": asdict(job.options),
        "workdir": str(job.workdir.absolute()),
        "resume": job.resume,
    }


def job_from_dict(values: Mapping[str, Any]) -> TrainJob:
    return TrainJob(
        hyp=values["hyp"],
        options=options_from_dict(values["options"]),
        workdir=Path(values["workdir"]),
        resume=values["resume"],
    )


def options_from_dict(values: Mapping[str, Any]) -> TrainOptions:
    """Options as `dataclasses.asdict` gives them, after JSON, which has lists for tuples."""
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return TrainOptions(**options)


def error_to_dict(error: TrainerError) -> dict[str, Any]:
    """A TrainerError by its kind; one of a subclass that the contract does not know goes as what it is a kind of."""
    if isinstance(error, TrainingDiverged):
        losses = {name: float(loss) for name, loss in error.losses.items()}
        return {"kind": "TrainingDiverged", "message": str(error), "epoch": error.epoch, "losses": losses}
    return {"kind": "DataError" if isinstance(error, DataError) else "TrainerError", "message": str(error)}


def error_from_dict(values: Mapping[str, Any]) -> TrainerError:
    match values["kind"]:
        case "TrainingDiverged":
            return TrainingDiverged(values["epoch"], values["losses"])
        case "DataError":
            return DataError(values["message"])
        case _:
            return TrainerError(values["message"])
