"""What works on a study in its run folder, opened and closed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace

from optuna import Study

from evolve.config import EvolveConfig
from evolve.fitness import Fitness
from evolve.goals import Goals
from evolve.hyps import option_hyps, part, settle, variants
from evolve.interrupts import Interrupts
from evolve.keeping import Shelf
from evolve.lock import sole_use
from evolve.logs import Logging, log_file
from evolve.objective import Objective
from evolve.opening import (
    identity_of,
    open_resumable,
    pin,
    space_of,
    space_there,
    storage_of,
    without_effect,
)
from evolve.paths import RunPaths
from evolve.programs import check_needed, program_of
from evolve.records import Records, train_command
from evolve.slots import slots_of
from evolve.standing import Standing
from evolve.training import check_understood, process_trainer
from evolve.warm_start import Source, offer_of, take_over
from evolve.watcher import Ended, Watcher
from search_spaces import Space
from studies import open_storage, sqlite_url, storage_errors
from studies.trials import base_seeds_of
from trainer import Prepared
from trainer.command import CommandTrainer
from trainer.process import ProcessTrainer


@dataclass(frozen=True)
class Work:
    """A study that is open, with who trains for it, who writes down and who watches.

    `pinned` are the hyps that do not evolve since they can have no effect, each with the reason; `notes` are lines on
    what was taken over from earlier searches, and on the goals.
    """

    config: EvolveConfig
    paths: RunPaths
    space: Space
    study: Study
    objective: Objective
    records: Records
    shelf: Shelf
    watcher: Watcher
    trainer: ProcessTrainer | CommandTrainer
    prepared: Prepared
    pinned: Mapping[str, str]
    notes: Sequence[str]


@contextmanager
def open_work(
    config: EvolveConfig, paths: RunPaths, watcher: Watcher, sources: Sequence[Source] = (), *, joining: bool = False
) -> Iterator[Work]:
    """Open the study of a complete configuration, or create it, and take over what earlier `sources` have to offer.

    `joining` is a worker of a study that is there: it shares the run folder with whoever runs the study, and its own
    storage is not its alone. Raises what `evolve.engine.evolve` does.
    """
    goals = Goals.parse(config.objective)
    if slots := slots_of(config):
        config = replace(config, device=slots[0].device)  # what is prepared here, and raced
    there = open_storage(config.storage or sqlite_url(paths.database), patient=True) if joining else None
    space, pinned = (space_of(config), {}) if there is None else space_there(config, there)
    as_options = option_hyps(space, config.trainer)
    _, base = settle(space.defaults(), config.train_options(), as_options)
    config = replace(config, model=base.model, imgsz=base.imgsz)
    fitness = Fitness.parse(config.fitness)
    trainer = process_trainer(config, paths.worker_log, watcher.progress)
    watcher = Logging(watcher)
    with (
        nullcontext() if joining else sole_use(paths),
        Interrupts(watcher.leaving) as interrupts,
        closing(trainer),
        storage_errors(config.storage or str(paths.database)),
    ):
        watcher.preparing(subject_of(config))
        hyps = part(space.defaults(), as_options)[1]
        check_understood(hyps, trainer.hyps, config.trainer)
        check_needed(hyps, program_of(config), config.trainer)
        options = replace(config.train_options(), save=config.checkpoint, fitness_weights=fitness.in_order)
        for variant in variants(space, options, as_options):  # at last the base's
            prepared = trainer.prepare(variant)
        goals.check_told(prepared.costs, config.trainer)
        storage = there or storage_of(config, paths, space)
        if not joining:
            pinned = without_effect(config, storage, space, prepared)
            space = pin(space, pinned)
        offers = [offer_of(source, space, config.trainer) for source in sources]
        identity = identity_of(config, space, fitness, prepared, pinned)
        study = open_resumable(config, storage, space, identity, joining=joining)
        taken = [take_over(study, offer, space, config.trainer) for offer in offers]
        config = replace(config, base_seeds=base_seeds_of(study))
        records = Records(study, space, config, paths, watcher, pinned)
        objective = Objective(trainer.train, options, fitness, paths, records, watcher, interrupts, goals, as_options)
        notes = (*taken, *goals.tell(prepared.costs, config.sampler))
        shelf = Shelf(study, paths, config.keep)
        with log_file(paths.log):
            yield Work(
                config, paths, space, study, objective, records, shelf, watcher, trainer, prepared, pinned, notes
            )


def subject_of(config: EvolveConfig) -> str:
    """What a study is about: its data or, where none were named for a trainer of one's own, what it is called."""
    named = config.data != EvolveConfig.data or config.trainer == EvolveConfig.trainer
    return config.data if named and config.data else config.study


def ended(work: Work, standing: Standing, reason: str, no_race: str = "") -> Ended:
    """What is left to tell when the work ends."""
    chosen, config = work.records.chosen, work.config
    epochs = config.epochs if work.records.decision is None else work.records.decision.epochs
    return Ended(
        reason=reason,
        standing=standing,
        epochs=config.epochs,
        base=work.space.defaults(),
        hyp=chosen.hyp if chosen else None,
        hyp_file=work.paths.best_hyp,
        command=train_command(replace(config, epochs=epochs), work.paths.best_hyp, work.objective.as_options),
        no_race=no_race,
        raced=work.records.decision is not None,
        unconfirmed=work.records.unconfirmed,
    )
