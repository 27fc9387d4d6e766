"""What a study is opened with: its space, what makes it the same study, who proposes and who prunes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna import Study, load_study
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from evolve.config import COLUMNS, ConfigError, EvolveConfig, mask_url
from evolve.fitness import Fitness
from evolve.goals import Goals
from evolve.hyps import beyond_space, read_hyp
from evolve.paths import RunPaths
from search_spaces import Space, SpaceError, Value, load_space
from studies import StudyError, build_pruner, build_sampler, open_storage, open_study, sqlite_url
from studies.study import IDENTITY
from studies.trials import base_seeds_of
from trainer import Prepared


def space_of(config: EvolveConfig) -> Space:
    """The space as asked for: the base's defaults, then --set, --freeze and --only. Raises SpaceError, ConfigError."""
    if not config.space:
        raise ConfigError(f"--trainer {config.trainer} needs --space FILE: the hyps of the program, and their bounds")
    space = load_space(config.space)
    if config.hyp is not None:
        base = read_hyp(config.hyp, config.trainer, "translate")
        space = _with_fixed(space, {name: base[name] for name in beyond_space(config.trainer) if name in base})
        space = space.with_base(base)
    layers = [name for name in config.freeze if name == "backbone" or name.isdecimal()]
    if layers:
        raise SpaceError(f"--freeze {layers[0]} names no hyp: layers are frozen by --freeze-layers")
    space = fit_to_length(space, config).with_values(config.set).freeze(config.freeze)
    if config.only:
        space = space.only(config.only)
    return _evolving(space, "every hyp has a fixed value")


def _with_fixed(space: Space, values: Mapping[str, Value]) -> Space:
    """The space with these values too, where it has no such hyps."""
    more = {name: value for name, value in values.items() if name not in space.order}
    return replace(space, fixed={**space.fixed, **more}, order=(*space.order, *more)) if more else space


def fit_to_length(space: Space, config: EvolveConfig) -> Space:
    """The space as it suits trainings of so many epochs: under Ultralytics close_mosaic spans a fifth of them at most.

    Its default there, 10, would leave a training of 10 epochs without any mosaic. What --set says goes.
    """
    name = "close_mosaic"
    if config.trainer != "ultralytics" or name in config.set or name not in space.names or space[name].choices:
        return space
    low, high = (int(bound) for bound in space[name].bounds)
    most = min(high, config.epochs // 5)
    if most <= low:
        return space.with_values({name: low})
    fitted = replace(space[name], high=most, default=min(int(space[name].default), most))
    return replace(space, params=tuple(fitted if param.name == name else param for param in space.params))


def without_effect(config: EvolveConfig, storage: BaseStorage, space: Space, prepared: Prepared) -> dict[str, str]:
    """The hyps that could vary but not change anything, each with the reason: they are to keep the base's value.

    A study that is there keeps those that it was made with, whatever is known to be dead by now; the first studies had
    none. Raises StudyError.
    """
    try:
        noted = load_study(study_name=config.study, storage=storage).user_attrs.get(IDENTITY)
    except KeyError:
        noted = None
    idle = {name: f"{other} is 0" for name, other in prepared.needs.items() if space.fixed.get(other) == 0}
    known = {**idle, **prepared.dead} if noted is None else noted.get(NOT_EVOLVED, {})
    return {param.name: known[param.name] for param in space.params if param.name in known}


def space_there(config: EvolveConfig, storage: BaseStorage) -> tuple[Space, dict[str, str]]:
    """The space of a study that is there, and what it does not evolve. Raises StudyError."""
    try:
        noted = load_study(study_name=config.study, storage=storage).user_attrs.get(IDENTITY)
    except KeyError:
        noted = None
    if noted is None:
        raise StudyError(f"there is no study {config.study!r} in this storage yet: `evolve run` makes it")
    return Space.from_dict(noted["space"]), noted.get(NOT_EVOLVED, {})


def pin(space: Space, names: Iterable[str]) -> Space:
    """The space in which these keep the base's value. Raises SpaceError where nothing else evolves."""
    return _evolving(space.freeze(names), "every hyp has a fixed value or can have no effect here")


NOT_EVOLVED = "not_evolved"

SAME = ("epochs", "imgsz", "batch", "optimizer", "schedule", "trainer", "seed")
SAME_IF_GIVEN = (
    *("freeze_layers", "freeze_epochs", "freeze_batch", "nominal_batch", "single_cls"),
    *("rect", "multi_scale", "image_weights", "amp", "sync_bn", "metrics", *COLUMNS),
)


def identity_of(
    config: EvolveConfig, space: Space, fitness: Fitness, prepared: Prepared, pinned: Mapping[str, str]
) -> dict[str, Any]:
    """What must stay the same for the trials of a study to be comparable.

    What came later than the first studies is left out where it has its default: they are opened as if they had it.
    """
    usual = EvolveConfig()
    given = {name: getattr(config, name) for name in SAME_IF_GIVEN if getattr(config, name) != getattr(usual, name)}
    return {
        "space": space.to_dict(),
        "fitness": str(fitness),
        "data": prepared.digest,
        "model": _identify(config.train_options().model),
        **({"weights": mask_url(_identify(config.weights))} if config.weights else {}),
        **{name: getattr(config, name) for name in SAME},
        "trainer": _name(config.trainer),
        **given,
        **({"command": named} if (named := [_name(argument) for argument in config.command]) else {}),
        **({"models": models} if (models := _identify_choices(space)) else {}),
        **({NOT_EVOLVED: dict(pinned)} if pinned else {}),
    }


def storage_of(config: EvolveConfig, paths: RunPaths, space: Space) -> BaseStorage:
    """Where the study is kept, opened once it is known who would propose and prune. Raises StudyError."""
    _proposer_and_pruner(config, space)
    return open_storage(config.storage or sqlite_url(paths.database))


def open_resumable(
    config: EvolveConfig, storage: BaseStorage, space: Space, identity: Mapping[str, Any], *, joining: bool = False
) -> Study:
    """Create the study or take it up where it stopped. Raises StudyError where it is not the same one."""
    base = space.defaults()
    sampler, pruner = _proposer_and_pruner(config, space)
    study = open_study(
        config.study,
        storage,
        sampler=sampler,
        pruner=pruner,
        identity=identity,
        base=base,
        base_seeds=config.base_seeds or usual_base_seeds(config.generations),
        goals=Goals.parse(config.objective).directions,
        exclusive=config.storage is None and not joining,
        retries=config.retries,
    )
    if config.base_seeds not in (None, base_seeds_of(study)):
        raise StudyError(
            f"study {config.study!r} was made with --base-seeds {base_seeds_of(study)}, which cannot become "
            f"{config.base_seeds}; use another --study name, or leave --base-seeds out"
        )
    return study


def usual_base_seeds(generations: int) -> int:
    """How many trials of a new study train its base: three tell its noise, a short study cannot spare so many."""
    return min(3, max(1, generations // 10))


def _proposer_and_pruner(config: EvolveConfig, space: Space) -> tuple[BaseSampler, BasePruner]:
    sampler = build_sampler(config.sampler, space, seed=config.seed, goals=len(Goals.parse(config.objective).names))
    warmup_epochs = longest_warmup(space, config.epochs)
    return sampler, build_pruner(config.pruner, epochs=config.epochs, warmup_epochs=warmup_epochs)


def longest_warmup(space: Space, epochs: int) -> float:
    """The most epochs that pass before anything is learned, whatever hyp is drawn: 0 where no hyp says.

    That is the hyp `warmup_epochs`, which counts in epochs of a training of 30; shorter ones warm up in proportion.
    """
    name = "warmup_epochs"
    evolving = next((param for param in space.evolving if param.name == name), None)
    values = (evolving.choices or evolving.bounds) if evolving else (space.defaults().get(name),)
    longest = max((float(value) for value in values if isinstance(value, int | float)), default=0.0)
    return longest * min(epochs, 30) / 30


def _evolving(space: Space, otherwise: str) -> Space:
    if not space.evolving:
        raise SpaceError(f"nothing is left to evolve in space {space.name!r}: {otherwise}")
    return space


def _identify_choices(space: Space) -> dict[str, str]:
    """The models that are files, of those that may evolve."""
    choices = next((param.choices for param in space.params if param.name == "model"), ())
    return {str(choice): found for choice in choices if (found := _identify(str(choice))) != choice}


def _name(argument: str) -> str:
    """A trainer, or an argument of a program, as it is; of a file, its name, since it may lie elsewhere."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _identify(name: str) -> str:
    """A name as it is; of a file, its name and content, so that it may lie elsewhere but not be another."""
    path = Path(name)
    if not path.is_file():
        return name
    with path.open("rb") as file:
        return f"{path.name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
