"""A hyp file as a trainer reads it: older trainers' names translated, what is left out filled in."""

from __future__ import annotations

import importlib
from pathlib import Path

from evolve.config import ConfigError
from evolve.plugins import PLUGINS
from search_spaces import Hyp, load_hyp
from trainer import TrainerError


def read_hyp(path: str | None, trainer: str, how: str) -> Hyp:
    """A hyp file (None: an empty one) as a trainer reads it; one of your own reads it as it stands.

    `how` is 'translate' or 'complete'. Raises SpaceError, and ConfigError for a value that the trainer refuses.
    """
    hyp = load_hyp(path) if path else {}
    try:
        return as_read(hyp, trainer, how)
    except ConfigError as error:
        raise ConfigError(f"{Path(path or '').name}: {error}") from None


def as_read(hyp: Hyp, trainer: str, how: str) -> Hyp:
    """A hyp as a trainer reads it, `how` being 'translate', 'complete' or 'adopt' (see `evolve.plugins`).

    Raises ConfigError for a value that it refuses.
    """
    if trainer not in PLUGINS[how]:
        return hyp
    module, _, attribute = PLUGINS[how][trainer].partition(":")
    try:
        read: Hyp = getattr(importlib.import_module(module), attribute)(hyp)
    except TrainerError as error:
        raise ConfigError(str(error)) from None
    return read
