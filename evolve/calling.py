"""`evolve` as Python calls it: settings named as the flags are, any function as trainer, a mapping as space."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.config import ConfigError, EvolveConfig, arguments, complete, resolve_config
from evolve.paths import RunPaths
from search_spaces import Space, dump_space
from trainer.function import name_of

if TYPE_CHECKING:
    from evolve.result import Result
    from evolve.watcher import Watcher


def evolve(
    config: EvolveConfig | None = None, watcher: Watcher | None = None, *, quiet: bool = False, **settings: Any
) -> Result:
    """Run a study to the end of its generations, resuming it where there is one, and return what it found.

    `settings` are those of `evolve run`, each named as its flag is (`per_device=2`; `from_` for --from), with lists for
    several names and a mapping for `set`. They go before those of `config`.

    `trainer` may also be a function of a job that yields an EpochMetrics after every epoch, or a class or an object
    with `hyps`, `prepare` and `train` (see `trainer.api`). It runs in a process of its own: that imports it if it can,
    and gets it by value otherwise, with all that it refers to, as from a notebook. Unless data are named, its study is
    called as the module that it comes from. `space` may also be a Space, or a mapping as a space file holds it.

    Without a `watcher` it tells how it goes: a table in a notebook, lines elsewhere; `quiet` tells nothing. Raises what
    `evolve.engine.evolve` does.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # by tqdm, which Optuna imports in a notebook
        from evolve.engine import evolve as run
        from evolve.notebook import watcher_here
        from evolve.result import Result
        from studies import sqlite_url

    objects = {name: settings.pop(name) for name in ("trainer", "space") if not _is_name(settings.get(name, ""))}
    if "trainer" in objects and config is None and "data" not in settings:
        settings = {"study": origin_of(objects["trainer"]), **settings}
    given = arguments(settings)
    config = resolve_config(given) if config is None else complete(replace(config, **given))
    paths = RunPaths(Path(config.runs) / config.study)
    place = {"trainer": place_trainer, "space": place_space}
    placed: dict[str, Any] = {name: place[name](made, paths) for name, made in objects.items()}
    config = replace(config, **placed)
    with quiet_optuna():
        best = run(config, watcher or watcher_here(quiet=quiet))
    return Result(**vars(best), paths=paths, storage=config.storage or sqlite_url(paths.database))


def origin_of(trainer: object) -> str:
    """The name of the module, script or notebook that a trainer comes from."""
    module = getattr(trainer, "__module__", None) or type(trainer).__module__
    if module == "__main__":
        return Path(getattr(sys.modules[module], "__file__", None) or "notebook").stem
    return module.rpartition(".")[2]


def place_trainer(trainer: object, paths: RunPaths) -> str:
    """Where another process finds a trainer: "module:attr" if it can import it, else a file with all that it needs.

    Raises ConfigError where it is none, or cannot be put into a file.
    """
    if not (callable(trainer) or hasattr(trainer, "train")):
        told = "a name, a function of a job, or what has hyps, prepare and train"
        raise ConfigError(f"the trainer is {trainer!r:.80}; expected {told}")
    if (spec := importable(trainer)) is not None:
        return spec
    import cloudpickle

    from studies import write_atomically

    path = paths.trainer(name_of(trainer))
    try:
        content = cloudpickle.dumps(trainer)
    except Exception as error:  # whatever the objects raise that it refers to
        raise ConfigError(
            f"the trainer {name_of(trainer)} refers to what cannot be given to another process "
            f"({type(error).__name__}: {error}); open it within the function, or put the function into a module"
        ) from error
    write_atomically(path, content)
    return str(path)


def importable(trainer: object) -> str | None:
    """The "module:attr" under which another process can import a function or class; None if it cannot."""
    module, name = getattr(trainer, "__module__", None), getattr(trainer, "__qualname__", None) or ""
    if module is None or module == "__main__" or not name.isidentifier():
        return None
    if getattr(sys.modules.get(module), name, None) is not trainer:
        return None
    try:
        return f"{module}:{name}" if importlib.util.find_spec(module) else None
    except ValueError:  # a module that somebody made up
        return None


def place_space(space: object, paths: RunPaths) -> str:
    """The file of a space that was given as such. Raises ConfigError, SpaceError."""
    from studies import write_atomically

    if not isinstance(space, Space | Mapping):
        raise ConfigError(f"the space is {space!r:.80}; expected a name, a file, a Space or a mapping")
    made = space if isinstance(space, Space) else Space.from_hyps(paths.space.stem, space)
    write_atomically(paths.space, dump_space(made))
    return str(paths.space)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Inside it Optuna tells only what it warns of, but not that something is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _is_name(given: object) -> bool:
    return isinstance(given, str | os.PathLike)
