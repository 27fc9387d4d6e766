"""Who trains: the contract, the built-in core, and trainers in other processes. Importing it loads no torch."""

from trainer.api import (
    DataError,
    EpochMetrics,
    Hyp,
    Prepared,
    Trainer,
    TrainerError,
    TrainingDiverged,
    TrainJob,
    TrainOptions,
    Value,
)

__all__ = [
    "DataError",
    "EpochMetrics",
    "Hyp",
    "Prepared",
    "TrainJob",
    "TrainOptions",
    "Trainer",
    "TrainerError",
    "TrainingDiverged",
    "Value",
]
