"""Trainers that are somebody else's program: what `--trainer command` and the presets are told, and what it makes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from evolve.config import COLUMNS, PROGRAMS, USUAL, ConfigError, EvolveConfig, did_you_mean
from search_spaces import SpaceError
from trainer.command import Program
from trainer.presets import PRESETS, preset_program
from trainer.results import Told

SETTINGS = ("repo", "metrics", *COLUMNS)
"""What a program is told beside its command."""

OF_OURS = (
    *("optimizer", "schedule", "freeze_layers", "freeze_epochs", "freeze_batch", "nominal_batch", "single_cls"),
    *("rect", "multi_scale", "image_weights", "cache", "amp", "sync_bn", "notest"),
)
"""Options that no program hears of."""
IF_PLACED = ("model", "weights", "imgsz", "batch")
"""Options that a program hears of if its command asks for them."""


def program_of(config: EvolveConfig) -> Program | None:
    """The program that trains; None where none does. Raises ConfigError, and DataError for a command that is none."""
    if config.trainer not in PROGRAMS:
        for name in SETTINGS:
            if getattr(config, name) is not None:
                raise ConfigError(f"--{_flag(name)} is for programs: --trainer {', '.join(PROGRAMS)}")
        return None
    for name in OF_OURS:
        if getattr(config, name) != getattr(EvolveConfig, name):
            raise ConfigError(f"--{_flag(name)} means nothing to --trainer {config.trainer}: {_instead(config)}")
    if config.trainer in PRESETS:
        return _preset(config)
    return _command(config)


def settings_of(config: EvolveConfig) -> dict[str, Any]:
    """What was told of a program, and its command: what makes it again."""
    given = {name: getattr(config, name) for name in SETTINGS}
    told = {name: value for name, value in given.items() if value is not None}
    return {**told, **({"command": list(config.command)} if config.command else {})}


def check_needed(names: Collection[str], program: Program | None, trainer: str) -> None:
    """Raise SpaceError for a hyp without which the program cannot be run."""
    for name in sorted(program.needs - set(names)) if program else ():
        raise SpaceError(f"the trainer {trainer} needs the hyp {name!r}, which is not given{did_you_mean(name, names)}")


def _preset(config: EvolveConfig) -> Program:
    if config.repo is None:
        raise ConfigError(f"--trainer {config.trainer} needs --repo PATH, the folder of its train.py")
    for name in ("metrics", *COLUMNS):
        if getattr(config, name) is not None:
            raise ConfigError(f"--{_flag(name)} is for --trainer command: what {config.trainer} tells is known")
    return preset_program(config.trainer, Path(config.repo), config.command)


def _command(config: EvolveConfig) -> Program:
    if config.repo is not None:
        raise ConfigError(f"--repo is for --trainer {', '.join(PRESETS)}")
    if not config.command:
        raise ConfigError("--trainer command needs a program: evolve run --trainer command ... -- PROGRAM ARGUMENTS")
    if config.metrics is not None:
        path = PurePosixPath(config.metrics)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ConfigError(
                f"--metrics is {config.metrics}; it has to be a file below the folder that the program is told "
                "as {workdir}"
            )
    columns = {name.removesuffix("_column"): column for name in COLUMNS if (column := getattr(config, name))}
    if any(column.isdecimal() for column in columns.values()):
        for name, column in columns.items():
            if not column.isdecimal() or int(column) < 1:
                raise ConfigError(
                    f"the column of {name} is {column}; columns are all named, or all counted from 1 where a file "
                    "has no header"
                )
        if config.metrics is None:
            raise ConfigError("columns that are counted are those of a file: give --metrics FILE")
    program = Program(config.command, Told(config.metrics, columns))
    usual = EvolveConfig(**USUAL[config.trainer])
    for name in IF_PLACED:
        if name not in program.placeholders and getattr(config, name) != getattr(usual, name):
            raise ConfigError(f"--{_flag(name)} means nothing to this command: it holds no {{{name}}}")
    return program


def _instead(config: EvolveConfig) -> str:
    where = "behind --" if config.trainer in PRESETS else "in its command"
    return f"give what it has itself {where}"


def _flag(name: str) -> str:
    return name.replace("_", "-")
