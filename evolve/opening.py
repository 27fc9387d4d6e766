"""What a study is opened with: its space, what makes it the same study, who proposes and who prunes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna import Study

from evolve.config import EvolveConfig
from evolve.fitness import Fitness
from evolve.paths import RunPaths
from search_spaces import Space, SpaceError, load_hyp, load_space
from studies import build_pruner, build_sampler, open_study, sqlite_url
from trainer import Prepared


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


SAME = ("epochs", "imgsz", "batch", "optimizer", "schedule", "trainer", "seed")
SAME_IF_GIVEN = (
    *("freeze_layers", "freeze_epochs", "freeze_batch", "nominal_batch", "single_cls"),
    *("rect", "multi_scale", "image_weights", "amp", "sync_bn"),
)


def identity_of(config: EvolveConfig, space: Space, fitness: Fitness, prepared: Prepared) -> dict[str, Any]:
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
        **({"weights": _identify(config.weights)} if config.weights else {}),
        **{name: getattr(config, name) for name in SAME},
        **given,
    }


def open_resumable(config: EvolveConfig, paths: RunPaths, space: Space, identity: Mapping[str, Any]) -> Study:
    """Create the study or take it up where it stopped. Raises StudyError where it is not the same one."""
    base = space.defaults()
    sampler = build_sampler(config.sampler, space, seed=config.seed)
    pruner = build_pruner(config.pruner, epochs=config.epochs, warmup_epochs=longest_warmup(space, config.epochs))
    return open_study(
        config.study,
        config.storage or sqlite_url(paths.database),
        sampler=sampler,
        pruner=pruner,
        identity=identity,
        base=base,
        exclusive=config.storage is None,
    )


def longest_warmup(space: Space, epochs: int) -> float:
    """The most epochs that pass before anything is learned, whatever hyp is drawn: 0 where no hyp says.

    That is the hyp `warmup_epochs`, which counts in epochs of a training of 30; shorter ones warm up in proportion.
    """
    name = "warmup_epochs"
    evolving = next((param for param in space.evolving if param.name == name), None)
    values = (evolving.choices or evolving.bounds) if evolving else (space.defaults().get(name),)
    longest = max((float(value) for value in values if isinstance(value, int | float)), default=0.0)
    return longest * min(epochs, 30) / 30


def _identify(name: str) -> str:
    """A name as it is; of a file, its name and content, so that it may lie elsewhere but not be another."""
    path = Path(name)
    if not path.is_file():
        return name
    with path.open("rb") as file:
        return f"{path.name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
