"""The table of what can be named on the command line: kind -> name -> "module:attr"."""

from __future__ import annotations

import importlib
from pathlib import Path

from evolve.config import ConfigError, did_you_mean
from search_spaces import Hyp, load_hyp
from trainer import TrainerError

PLUGINS: dict[str, dict[str, str]] = {
    "trainer": {"detection": "trainer.detection.trainer:DetectionTrainer"},
    # How a trainer reads a hyp file: in older trainers' names too (translate), and with its own defaults (complete).
    "translate": {"detection": "trainer.detection.recipe:translate"},
    "complete": {"detection": "trainer.detection.recipe:complete"},
}


def resolve(kind: str, name: str) -> str:
    """The "module:attr" behind a name; one of these stands as it is. Imports nothing. Raises ConfigError."""
    table = PLUGINS[kind]
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    if colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return name
    raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, table)}; one of your own is given as module:attr")


def read_hyp(path: str | None, trainer: str, how: str) -> Hyp:
    """A hyp file (None: an empty one) as a trainer reads it; one of your own reads it as it stands.

    `how` is 'translate' or 'complete'. Raises SpaceError, and ConfigError for a value that the trainer refuses.
    """
    hyp = load_hyp(path) if path else {}
    if trainer not in PLUGINS[how]:
        return hyp
    module, _, attribute = PLUGINS[how][trainer].partition(":")
    try:
        read: Hyp = getattr(importlib.import_module(module), attribute)(hyp)
    except TrainerError as error:
        raise ConfigError(f"{Path(path or '').name}: {error}") from None
    return read
