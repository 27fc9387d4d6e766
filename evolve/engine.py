"""The loop: a configuration in, the best hyp out; each step is a function below or a file of its own."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evolve.budget import Budget, Stop
from evolve.config import EvolveConfig, dump_config
from evolve.fitness import Fitness
from evolve.interrupts import Interrupts
from evolve.lock import sole_use
from evolve.objective import Objective
from evolve.panel import Ended, Opened, Silence, Watcher, show_value
from evolve.paths import RunPaths
from evolve.plugins import resolve
from evolve.records import Records, train_command
from evolve.standing import NoResult, Outcome, Standing, State
from evolve.training import check_understood
from search_spaces import Hyp, Space, SpaceError, load_hyp, load_space
from studies import (
    BestHyp,
    StudyError,
    abandon,
    build_pruner,
    build_sampler,
    claim,
    finished,
    generation_of,
    open_study,
    sqlite_url,
    storage_errors,
    suggest,
    trials_of,
    write_atomically,
)
from studies.study import EPOCHS, FAILURE, METRICS, PARENTS, SEED, counts, hyp_of, is_base
from trainer import Prepared
from trainer.process import ProcessTrainer

logger = logging.getLogger(__name__)


def evolve(config: EvolveConfig, watcher: Watcher | None = None) -> BestHyp:
    """Run the study to the end of its generations, resuming it where there is one, and return the best hyp.

    Raises ConfigError, SpaceError, DataError or StudyError before the first trial where something was asked wrongly,
    StudyError and OSError later where storage or disk give out, NoResult where there is no result to be had. A
    KeyboardInterrupt (Ctrl-C, SIGTERM) passes through when the running trial is queued again and all is closed.
    """
    watcher = watcher or Silence()
    space = space_of(config)
    fitness = Fitness.parse(config.fitness)
    paths = RunPaths(Path(config.runs) / config.study)
    trainer_spec = resolve("trainer", config.trainer)
    with (
        sole_use(paths.lock),
        Interrupts() as interrupts,
        closing(ProcessTrainer(trainer_spec, threads=config.threads, log=paths.worker_log)) as trainer,
        storage_errors(config.storage or str(paths.database)),
    ):
        watcher.preparing(config.data)
        check_understood(space.order, trainer.hyps, config.trainer)
        prepared = trainer.prepare(config.train_options())
        study = open_resumable(config, paths, space, identity_of(config, space, fitness, prepared))
        write_atomically(paths.config, dump_config(config))
        records = Records(study, space, config, paths, watcher)
        objective = Objective(trainer.train, config.train_options(), fitness, paths, records, watcher, interrupts)
        standing = standing_of(study)
        loop = Loop(study, space, objective, records, Budget(config.generations, config.max_failures), standing)
        watcher.opened(Opened(config.study, paths.root, config.generations, config.epochs, prepared.summary, standing))
        for warning in prepared.warnings:
            watcher.warned(warning)
        reason = "ended by an error"
        try:
            records.catch_up()
            stop = loop.run()
            reason = stop.reason
        except KeyboardInterrupt:
            reason = "interrupted; the same command goes on from here"
            raise
        finally:
            watcher.ended(ended(config, paths, space, records, loop.standing, reason))
    return result(records.best, stop)


@dataclass
class Loop:
    """Trial after trial until the budget stops; `standing` is where the study stands then."""

    study: optuna.Study
    space: Space
    objective: Objective
    records: Records
    budget: Budget
    standing: Standing

    def run(self) -> Stop:
        while (stop := self.budget.stop(self.standing)) is None:
            self.run_trial()
        return stop

    def run_trial(self) -> None:
        """Ask, train, tell, write down. Whatever interrupts that, the hyp is queued again."""
        trial = None
        held, watcher = self.objective.interrupts.held, self.objective.watcher
        try:
            with held():
                trial = self.study.ask()
                claim(trial)
                hyp = suggest(trial, self.space)
                seed = self.objective.options.seed + generation_of(self.study, trial)
                watcher.started(trial.number)
            outcome = self.objective(trial, hyp, seed)
            with held():
                tell(self.study, trial, outcome, seed)
                self.records.add_trial(trial.number)
                self.standing = self.standing.after(outcome, is_base=is_base(trials_of(self.study)[trial.number]))
                watcher.finished(
                    replace(outcome, change=change_of(self.study, self.space, trial.number)), self.standing
                )
        except BaseException as error:
            if trial is not None:
                with suppress(StudyError), storage_errors():  # the error that came first is the one to tell
                    abandon(self.study, trial, f"{type(error).__name__} in the process that ran it")
            raise


def space_of(config: EvolveConfig) -> Space:
    """The space as asked for: the base's defaults, then --set, --freeze and --only. Raises SpaceError."""
    space = load_space(config.space)
    if config.hyp is not None:
        space = space.with_base(load_hyp(config.hyp))
    space = space.with_values(config.set).freeze(config.freeze)
    if config.only:
        space = space.only(config.only)
    if not space.evolving:
        raise SpaceError(f"nothing is left to evolve in space {space.name!r}: every hyp has a fixed value")
    return space


def identity_of(config: EvolveConfig, space: Space, fitness: Fitness, prepared: Prepared) -> dict[str, Any]:
    """What must stay the same for the trials of a study to be comparable."""
    same = ("epochs", "imgsz", "batch", "optimizer", "schedule", "trainer", "seed")
    return {
        "space": space.to_dict(),
        "fitness": str(fitness),
        "data": prepared.digest,
        "model": _identify(config.model),
        **{name: getattr(config, name) for name in same},
    }


def open_resumable(config: EvolveConfig, paths: RunPaths, space: Space, identity: Mapping[str, Any]) -> optuna.Study:
    """Create the study or take it up where it stopped. Raises StudyError where it is not the same one."""
    base = space.defaults()
    sampler = build_sampler(config.sampler, space, seed=config.seed, n_finished=0)
    pruner = build_pruner(config.pruner, epochs=config.epochs, warmup_epochs=warmup_of(base, config.epochs))
    study = open_study(
        config.study,
        config.storage or sqlite_url(paths.database),
        sampler=sampler,
        pruner=pruner,
        identity=identity,
        base=base,
        exclusive=config.storage is None,
    )
    if done := finished(study):  # Optuna's samplers would repeat their first draws with the seed that they began with
        study.sampler = build_sampler(config.sampler, space, seed=config.seed, n_finished=done)
    return study


def warmup_of(base: Hyp, epochs: int) -> float:
    """The epochs in which nothing is learned yet: those of the hyp `warmup_epochs`, in proportion below 30 epochs."""
    warmup = base.get("warmup_epochs", 0.0)
    return float(warmup) * min(1.0, epochs / 30) if isinstance(warmup, int | float) else 0.0


def tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, seed: int) -> None:
    """Store how a trial ended. A failed one has no value, so that nothing can take it for a fitness."""
    attributes = {SEED: seed, EPOCHS: outcome.epochs, METRICS: dict(outcome.metrics), FAILURE: outcome.failure}
    for name, value in attributes.items():
        if value or name in (SEED, EPOCHS):
            trial.set_user_attr(name, value)
    if outcome.state == "complete":
        study.tell(trial, outcome.fitness)
    else:
        study.tell(trial, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)


def standing_of(study: optuna.Study) -> Standing:
    """Where a study stands when it is opened. Failures before do not count on: whoever resumes has mended something."""
    standing = Standing()
    for trial in trials_of(study):
        if counts(trial):
            standing = standing.after(outcome_of(trial), is_base=is_base(trial))
    return replace(standing, failures_in_a_row=0, last_failure="")


def outcome_of(trial: FrozenTrial) -> Outcome:
    """How a stored trial ended."""
    states: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    noted = trial.user_attrs
    return Outcome(
        trial.number,
        states.get(trial.state, "failed"),
        epochs=noted.get(EPOCHS, len(trial.intermediate_values)),
        fitness=trial.value,
        failure=noted.get(FAILURE, ""),
        metrics=noted.get(METRICS, {}),
    )


def change_of(study: optuna.Study, space: Space, number: int) -> str:
    """What a trial's hyp moved furthest from its parent (from the base where it has none): 'lr0 0.01 -> 0.013'."""
    trials = trials_of(study)
    hyp = hyp_of(trials[number])
    parents = trials[number].user_attrs.get(PARENTS) or [0]
    parent = {**space.defaults(), **hyp_of(trials[parents[0]])}
    moved = [p for p in space.evolving if hyp[p.name] != parent[p.name]]
    if not moved:
        return "the base" if is_base(trials[number]) else "nothing"
    most = max(moved, key=lambda p: abs(p.to_unit(hyp[p.name]) - p.to_unit(parent[p.name])))
    return f"{most.name} {show_value(parent[most.name])} -> {show_value(hyp[most.name])}"


def ended(
    config: EvolveConfig, paths: RunPaths, space: Space, records: Records, standing: Standing, reason: str
) -> Ended:
    return Ended(
        reason=reason,
        standing=standing,
        epochs=config.epochs,
        base=space.defaults(),
        hyp=records.best.hyp if records.best else None,
        hyp_file=paths.best_hyp,
        command=train_command(config, paths.best_hyp),
    )


def result(best: BestHyp | None, stop: Stop) -> BestHyp:
    """The best hyp of a study that reached its end; NoResult tells of any other end."""
    if best is None:
        raise NoResult(f"no trial completed: {stop.reason}")
    if not stop.reached:
        raise NoResult(stop.reason)
    return best


def _identify(name: str) -> str:
    """A name as it is; of a file, its name and content, so that it may lie elsewhere but not be another."""
    path = Path(name)
    if not path.is_file():
        return name
    return f"{path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
