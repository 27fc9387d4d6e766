"""What is remembered and proposed: studies, their storage, samplers, pruners, and the best hyp on disk."""

from studies.errors import StudyError
from studies.noise import NoiseFloor, noise_floor
from studies.persistence import (
    BestHyp,
    Score,
    append_rows,
    best_front_of,
    best_of,
    rewrite_csv,
    save_best,
    save_front,
    write_atomically,
)
from studies.pruner import AshaPruner, EvolvePruner
from studies.sampler import GeneticSampler, distribution, suggest
from studies.stock import PRUNERS, SAMPLERS, build_pruner, build_sampler
from studies.storage import make_durable, open_storage, sqlite_url, storage_errors
from studies.study import abandon, claim, open_study, requeue_lost
from studies.trials import finished, generation_of, trials_of

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "AshaPruner",
    "BestHyp",
    "EvolvePruner",
    "GeneticSampler",
    "NoiseFloor",
    "Score",
    "StudyError",
    "abandon",
    "append_rows",
    "best_front_of",
    "best_of",
    "build_pruner",
    "build_sampler",
    "claim",
    "distribution",
    "finished",
    "generation_of",
    "make_durable",
    "noise_floor",
    "open_storage",
    "open_study",
    "requeue_lost",
    "rewrite_csv",
    "save_best",
    "save_front",
    "sqlite_url",
    "storage_errors",
    "suggest",
    "trials_of",
    "write_atomically",
]
