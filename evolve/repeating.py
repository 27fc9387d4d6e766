"""`evolve replay`: a trial trained again as it was, and whether the same comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna import Study

from evolve.config import ConfigError, EvolveConfig, check_weights, mask_secrets
from evolve.fitness import METRICS, Fitness
from evolve.hyps import option_hyps, settle
from evolve.interrupts import Interrupts
from evolve.journal import Row, epoch_row, read_rows
from evolve.lookup import find_with_folder
from evolve.objective import reason_of
from evolve.outcomes import state_of
from evolve.paths import RunPaths, from_here
from evolve.showing import number_of, space_of
from evolve.slots import slots_of
from evolve.status import asked_of
from evolve.tables import show_fitness
from evolve.training import process_trainer
from studies import storage_errors, trials_of
from studies.persistence import whole_hyp
from studies.study import IDENTITY
from studies.trials import EPOCHS, FAILURE, SEED, hyp_of
from trainer import DataError, TrainerError, TrainJob

ENDED = ("complete", "pruned", "failed")
SHOWN = 5  # differences that are named


@dataclass(frozen=True)
class Difference:
    """What an epoch measured then and now; None: nothing."""

    epoch: int
    name: str
    before: float | None
    now: float | None


@dataclass(frozen=True)
class Replayed:
    """A trial, `epochs` of which were trained again, under the same seed, into `folder`.

    `equal`: whether every fitness, metric and loss is the same to the last digit, or it failed as it did before.
    """

    study: str
    trial: int
    state: str
    seed: int
    epochs: int
    equal: bool
    differences: tuple[Difference, ...]
    failure_before: str
    failure: str
    folder: Path

    def sentence(self) -> str:
        """The answer, on one line."""
        trial, found = f"trial {self.trial} of {self.study}", self.differences
        if self.equal:
            as_before = f"all {self.epochs} epochs are as they were, to the last digit"
            return f"{trial} under seed {self.seed}: {'it failed again' if self.failure else as_before}"
        told = [f"{one.name} of epoch {one.epoch} {_shown(one.before)} -> {_shown(one.now)}" for one in found]
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        failed = [f"it fails now: {self.failure}"] if self.failure else []
        mended = ["it does not fail now"] if self.failure_before and not self.failure else []
        return f"{trial} came out otherwise: {', '.join([*failed, *mended, *told[:SHOWN], *more])}"


def replay_trial(
    which: str,
    name: str | None,
    runs: Path,
    storage: str | None = None,
    *,
    device: str | None = None,
    tell: Callable[[str], object],
) -> Replayed:
    """Train the trial again with its hyp, its seed and the study's options, for as many epochs as it had.

    `device` is another one than the study's; `tell` is told of every epoch. Raises ConfigError, StudyError, DataError
    where the data are no longer the same, and TrainerError where it fails and did not before epoch 1.
    """
    with storage_errors(storage or ""):
        study, folder = find_with_folder(name, runs, storage)
        number = number_of(study, which)
        asked = asked_of(study)
    trial = trials_of(study)[number]
    noted, state = trial.user_attrs, state_of(trial)
    if state not in ENDED or SEED not in noted:
        can = "only what was trained here, and has ended, can be trained again"
        raise ConfigError(f"trial {number} of {study.study_name} is {state}: {can}")
    if asked is None:
        raise ConfigError(f"{study.study_name} was made by a version that did not note how it trained")
    check_weights(asked, f"the study {study.study_name}", "it cannot be trained again")
    paths = folder or RunPaths(runs / study.study_name)
    config = on_one_device(asked) if device is None else replace(on_one_device(asked), device=device)
    fitness = Fitness.parse(config.fitness)
    job = job_of(study, config, number, paths, fitness)
    epochs = noted.get(EPOCHS, len(trial.intermediate_values))
    before = read_rows(paths.metrics(number)) or _reported(trial.intermediate_values)
    rows, failure = train_again(config, study, job, epochs, fitness, noted.get(FAILURE, ""), tell)
    differences = tuple(differences_of(before[:epochs], rows))
    return Replayed(
        study=study.study_name,
        trial=number,
        state=state,
        seed=noted[SEED],
        epochs=len(rows),
        equal=not differences and bool(failure) == bool(noted.get(FAILURE)),
        differences=differences,
        failure_before=mask_secrets(noted.get(FAILURE, "")),
        failure=failure,
        folder=job.workdir,
    )


def on_one_device(config: EvolveConfig) -> EvolveConfig:
    """As the first worker had it, where there were several."""
    slots = slots_of(config)
    return replace(config, device=slots[0].device, threads=slots[0].threads) if slots else config


def job_of(study: Study, config: EvolveConfig, number: int, paths: RunPaths, fitness: Fitness) -> TrainJob:
    """The trial's training as `evolve.objective` made it, but for its folder, which is emptied of metrics."""
    space, trial = space_of(study), trials_of(study)[number]
    options = replace(config.train_options(), save=config.checkpoint, fitness_weights=fitness.in_order)
    hyp = whole_hyp(hyp_of(trial), space)
    rest, options = settle(hyp, options, option_hyps(space, config.trainer))
    workdir = paths.replay(number)
    workdir.mkdir(parents=True, exist_ok=True)
    for path in workdir.iterdir():
        if path.is_file():
            path.unlink()  # of an earlier replay
    return TrainJob(rest, replace(options, seed=trial.user_attrs[SEED]), workdir)


def train_again(
    config: EvolveConfig,
    study: Study,
    job: TrainJob,
    epochs: int,
    fitness: Fitness,
    failed_before: str,
    tell: Callable[[str], object],
) -> tuple[list[Row], str]:
    """What each epoch measured, and what the training failed with, if it did."""
    rows: list[Row] = []
    with Interrupts(), closing(process_trainer(config, job.workdir / "worker.log")) as trainer:
        prepared = trainer.prepare(job.options)
        if prepared.digest != study.user_attrs[IDENTITY]["data"]:
            changed = "its pictures or labels changed"
            raise DataError(f"{config.data} is no longer what {study.study_name} was made with: {changed}")
        tell(f"training it again in {from_here(job.workdir)}: {prepared.summary}")
        try:
            with closing(trainer.train(job)) as training:
                for metrics in training:
                    rows.append(epoch_row(metrics, fitness(metrics)))
                    tell(f"epoch {metrics.epoch}/{epochs}  fitness {show_fitness(fitness(metrics))}")
                    if metrics.epoch >= epochs and not failed_before:
                        break
        except DataError:
            raise
        except TrainerError as error:
            return rows, reason_of(error)
    return rows, ""


def differences_of(before: Iterable[Row], now: Iterable[Row]) -> list[Difference]:
    """What differs, by epoch; what took how long is not compared."""
    ours = {row["epoch"]: measured(row) for row in now}
    found = []
    for row in before:
        known, mine = measured(row), ours.pop(row["epoch"], {})
        differing = (name for name, value in known.items() if value != mine.get(name))
        found += [Difference(row["epoch"], name, known[name], mine.get(name)) for name in differing]
    return [*found, *(Difference(epoch, "fitness", None, row["fitness"]) for epoch, row in ours.items())]


def measured(row: Row) -> Mapping[str, float | None]:
    """The numbers of an epoch that follow from hyp and seed."""
    losses = {f"loss {name}": loss for name, loss in row.get("losses", {}).items()}
    return {name: row[name] for name in ("fitness", *METRICS) if name in row} | losses


def _reported(curve: Mapping[int, float]) -> list[Row]:
    """All that the storage knows of the epochs, where their file is gone."""
    return [{"epoch": epoch, "fitness": fitness} for epoch, fitness in sorted(curve.items())]


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}"
