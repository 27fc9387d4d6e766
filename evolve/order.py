"""What one `evolve train` was asked for: by its flags, or by the run folder that it goes on in."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from evolve.config import PROGRAMS, ConfigError, EvolveConfig, read_settings, resolve_config
from evolve.fitness import Fitness
from evolve.hyps import part, read_hyp, settle
from evolve.paths import TrainingPaths
from evolve.plugins import AS_OPTIONS
from evolve.programs import SETTINGS, program_of, settings_of
from search_spaces import Hyp, dump_hyp, load_hyp
from studies import write_atomically
from trainer import TrainOptions
from trainer.command import Program

RUNS, NAME = Path("runs") / "train", "exp"
MAY_CHANGE = ("device", "threads", "cache", "plots")
"""What may be asked for differently when a training goes on."""

_PROGRAM = {name: kind for name, kind in get_type_hints(EvolveConfig).items() if name in (*SETTINGS, "command")}
_TYPES = {**get_type_hints(TrainOptions), **_PROGRAM, "trainer": str, "fitness": str, "seeds": int}
del _TYPES["fitness_weights"]  # they follow from `fitness`
_CONFIG = {field.name for field in dataclasses.fields(EvolveConfig)} - {"runs"}


@dataclass(frozen=True)
class Order:
    """One hyp, to be trained once for each of `seeds` seeds from `options.seed` on.

    `folder` is where, exactly; None takes the next free `name` in `runs`. `resume` goes on with what is there. A
    trainer that is a `program` was asked for with `settings`.
    """

    options: TrainOptions
    hyp: Hyp
    trainer: str
    fitness: Fitness
    seeds: int = 1
    folder: Path | None = None
    runs: Path = RUNS
    name: str = NAME
    resume: bool = False
    timeout_s: int | None = None
    tensorboard: bool = False
    bucket: str | None = None
    program: Program | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def all_seeds(self) -> range:
        return range(self.options.seed, self.options.seed + self.seeds)

    def paths_of(self, paths: TrainingPaths, seed: int) -> TrainingPaths:
        """The files of one seed: those of the run folder itself where there is no other."""
        return paths if self.seeds == 1 else paths.of_seed(seed)

    def write(self, paths: TrainingPaths) -> None:
        """Leave what `take_order` needs to go on in this folder. Raises OSError."""
        given = {name: value for name, value in vars(self.options).items() if name != "fitness_weights"}
        given |= {"trainer": self.trainer, "fitness": str(self.fitness), "seeds": self.seeds, **self.settings}
        goes_on = "" if self.program else " `evolve train --resume` goes on with it."
        header = f"# What this training was asked for.{goes_on}\n"
        write_atomically(paths.hyp, dump_hyp(self.hyp))
        write_atomically(paths.config, header + yaml.safe_dump(given, sort_keys=False, allow_unicode=True))


def take_order(flags: Mapping[str, Any]) -> Order:
    """The order that the flags give; those that are None were not given. Raises ConfigError, SpaceError."""
    if flags.get("resume"):
        given = Path(flags["resume"])
        return _resumed(given.parent if given.is_file() else given, flags)
    config = resolve_config({name: value for name, value in flags.items() if name in _CONFIG})
    name = flags.get("name") or NAME
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise ConfigError(f"--name {name} cannot name a run folder: give letters, digits, '.', '-' or '_'")
    if flags.get("out") and (flags.get("name") or flags.get("runs")):
        raise ConfigError("--out names the run folder itself: leave out --name and --runs")
    as_options = AS_OPTIONS.get(config.trainer, ())
    hyp, options = settle(read_hyp(config.hyp, config.trainer, "complete"), _options(config, flags), as_options)
    for option in as_options:
        held = getattr(options, option)
        if flags.get(option) is not None and getattr(config, option) != held:
            raise ConfigError(f"--{option} {flags[option]} contradicts {config.hyp}, which holds {held}; leave it out")
    return Order(
        options=options,
        hyp=hyp,
        trainer=config.trainer,
        fitness=Fitness.parse(config.fitness),
        seeds=flags.get("seeds") or 1,
        folder=Path(flags["out"]) if flags.get("out") else None,
        runs=Path(flags.get("runs") or RUNS),
        name=name,
        timeout_s=config.trial_timeout,
        tensorboard=bool(flags.get("tensorboard")),
        bucket=config.bucket,
        program=program_of(config),
        settings=settings_of(config),
    )


def claim_folder(order: Order) -> Path:
    """The folder of this order, made now unless it is a given one: exp, exp2, exp3, ... Raises OSError.

    Making a folder either succeeds or tells that it is there, so that two trainings never get the same one.
    """
    if order.folder is not None:
        return order.folder
    order.runs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = order.runs / (order.name if number == 1 else f"{order.name}{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


def check_folder(order: Order, paths: TrainingPaths) -> None:
    """ConfigError where there is nothing to go on with, or where a new training would come between other files.

    A training that was stopped before its first epoch had ended starts over.
    """
    states = [order.paths_of(paths, seed).last for seed in order.all_seeds]
    found = [file for file in states if file.exists()]
    if order.resume and not found and not order.options.save:
        raise ConfigError(f"{states[0]} does not exist, so there is nothing to go on with: it ran with --nosave")
    if order.resume:
        return
    others = sorted(entry.name for entry in paths.root.iterdir() if entry.name not in (".lock", paths.worker_log.name))
    if found:
        raise ConfigError(
            f"{found[0]} is another training's: go on with that by --resume {paths.root}, or give another --out"
        )
    if others:
        raise ConfigError(f"{paths.root} is not empty ({', '.join(others[:3])}): give --out a new folder")


def _options(config: EvolveConfig, flags: Mapping[str, Any]) -> TrainOptions:
    return dataclasses.replace(
        config.train_options(),
        fitness_weights=Fitness.parse(config.fitness).in_order,
        split=flags.get("split") or "val",
        save=not flags.get("nosave"),
        plots=not flags.get("noplots"),
    )


def _resumed(folder: Path, flags: Mapping[str, Any]) -> Order:
    """The order that was left in a run folder. Flags may say the same again, and change what `MAY_CHANGE`."""
    paths = TrainingPaths(folder)
    if not paths.config.is_file():
        raise ConfigError(f"{folder} holds no training to go on with: it has no {paths.config.name}")
    for flag in ("out", "name", "runs"):
        if flags.get(flag) is not None:
            raise ConfigError(f"--{flag} does not go with --resume, which trains in {folder}")
    kept = read_settings(paths.config, _TYPES)
    hyp = load_hyp(paths.hyp)
    trainer, fitness = kept.pop("trainer", EvolveConfig.trainer), kept.pop("fitness", EvolveConfig.fitness)
    if trainer in PROGRAMS:
        raise ConfigError(f"{folder} was trained by a program ({trainer}), which cannot go on: start a new training")
    seeds = kept.pop("seeds", 1)
    told = {**vars(TrainOptions(**kept)), "trainer": trainer, "fitness": fitness, "seeds": seeds, "hyp": hyp}
    asked = _asked(flags, trainer)
    for name, value in asked.items():
        if name not in MAY_CHANGE and value != told[name]:
            raise ConfigError(_contradiction(name, value, told[name], folder))
    parsed = Fitness.parse(fitness)
    changed = {name: asked[name] for name in MAY_CHANGE if name in asked}
    return Order(
        options=TrainOptions(**{**kept, **changed, "fitness_weights": parsed.in_order}),
        hyp=hyp,
        trainer=trainer,
        fitness=parsed,
        seeds=seeds,
        folder=folder,
        resume=True,
        timeout_s=flags.get("trial_timeout"),
        tensorboard=bool(flags.get("tensorboard")),
        bucket=flags.get("bucket"),
    )


def _asked(flags: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """What the flags ask for anew, as it would have been written down."""
    given = {name: value for name, value in flags.items() if value is not None}
    config = resolve_config({name: value for name, value in given.items() if name in _CONFIG})
    asked = {name: getattr(config, name) for name in given if name in _TYPES and hasattr(config, name)}
    asked |= {name: given[name] for name in ("split", "seeds") if name in given}
    asked |= {option: False for flag, option in (("nosave", "save"), ("noplots", "plots")) if given.get(flag)}
    if "fitness" in asked:
        asked["fitness"] = str(Fitness.parse(config.fitness))
    if "hyp" in given:
        chosen, asked["hyp"] = part(read_hyp(given["hyp"], trainer, "complete"), AS_OPTIONS.get(trainer, ()))
        asked = {**chosen, **asked}
    return asked


def _contradiction(name: str, asked: Any, told: Any, folder: Path) -> str:
    if name == "hyp":
        return f"--hyp holds other values than {TrainingPaths(folder).hyp}, with which the training began; leave it out"
    flag = f"--{name.replace('_', '-')}"
    if name == "save":
        return f"--nosave contradicts {folder}, whose training keeps its weights; leave it out"
    if asked is True:
        return f"{flag} contradicts {folder}, whose training began without it; leave it out"
    longer = f", or start a new one with --weights {folder / 'last.pt'}" if name == "epochs" else ""
    return f"{flag} {asked} contradicts {folder}, whose training began with {flag} {told!r}; leave it out{longer}"
