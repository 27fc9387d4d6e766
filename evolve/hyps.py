"""A hyp as a trainer reads it: older names translated, what is left out filled in, what stands for options settled."""

from __future__ import annotations

import importlib
import itertools
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolve.config import ConfigError
from evolve.dialects import DIALECTS, EVOLVE, YOLOV3, YOLOV5, say_lost, translate
from evolve.hyp_files import HypFile, read_hyp_file
from evolve.plugins import AS_OPTIONS, PLUGINS
from search_spaces import Hyp, Param, Space, Value
from trainer import TrainerError, TrainOptions

logger = logging.getLogger(__name__)

READ_BY_ITSELF = {"detection": (EVOLVE, YOLOV5, YOLOV3)}
"""Trainers that know more names than their own, and what they make of them."""


def read_hyp(path: str | None, trainer: str, how: str) -> Hyp:
    """A hyp file of any format (None: an empty one) as a trainer reads it; one of your own reads it as it stands.

    `how` is 'translate' or 'complete'. Warns of what the trainer has no equivalent of. Raises SpaceError for a file
    that cannot be read, and ConfigError for one that is no hyp file, or for a value that the trainer refuses.
    """
    read = read_hyp_file(Path(path)) if path else HypFile({}, None, "")
    try:
        hyp = _in_words_of(trainer, read, Path(path or "").name)
        return _completed(as_read(hyp, trainer, how), trainer) if how == "complete" else as_read(hyp, trainer, how)
    except ConfigError as error:
        raise ConfigError(f"{Path(path or '').name}: {error}") from None


def _in_words_of(trainer: str, read: HypFile, name: str) -> Hyp:
    """The hyp in a file of that name, translated if it is one of another trainer and both are known."""
    own = EVOLVE if trainer == "detection" else DIALECTS.get(trainer)
    known = (own, *READ_BY_ITSELF.get(trainer, ()))
    if own is None or read.dialect is None or read.dialect in known:
        return read.hyp
    told = translate(read.hyp, read.dialect, own)
    for warning in say_lost(told, own.title):
        logger.warning("%s (%s): %s", name, read.dialect.title, warning)
    return told.said


def _completed(hyp: Hyp, trainer: str) -> Hyp:
    """With the values of a trainer that takes no file but a whole one, where it has no defaults by itself."""
    own = DIALECTS.get(trainer)
    return hyp if own is None or own.open else {**own.values, **hyp}


def beyond_space(trainer: str) -> Collection[str]:
    """What a trainer's hyp files may hold beside the hyps of its space."""
    return DIALECTS[trainer].own if trainer in DIALECTS else ()


def as_read(hyp: Hyp, trainer: str, how: str) -> Hyp:
    """A hyp as a trainer reads it, `how` being 'translate', 'complete' or 'adopt' (see `evolve.plugins`).

    Raises ConfigError for a value that it refuses.
    """
    if trainer not in PLUGINS[how]:
        return hyp
    chosen, rest = part(hyp, AS_OPTIONS.get(trainer, ()))
    module, _, attribute = PLUGINS[how][trainer].partition(":")
    try:
        read: Hyp = getattr(importlib.import_module(module), attribute)(rest)
    except TrainerError as error:
        raise ConfigError(str(error)) from None
    return {**chosen, **read}


def option_hyps(space: Space, trainer: str) -> tuple[str, ...]:
    """The hyps of the space that stand for options of a training."""
    return tuple(name for name in AS_OPTIONS.get(trainer, ()) if name in space.order)


def part(hyp: Hyp, names: Collection[str]) -> tuple[dict[str, Value], dict[str, Value]]:
    """The values of these names, and the others."""
    chosen = {name: value for name, value in hyp.items() if name in names}
    return chosen, {name: value for name, value in hyp.items() if name not in names}


def settle(hyp: Hyp, options: TrainOptions, names: Collection[str]) -> tuple[dict[str, Value], TrainOptions]:
    """The hyp and the options of a training in which these hyps stand for options. Raises ConfigError."""
    chosen, rest = part(hyp, names)
    for name, value in chosen.items():
        if type(value) is not type(getattr(options, name)):
            kind = "a text" if isinstance(getattr(options, name), str) else "a whole number"
            raise ConfigError(f"the hyp {name} stands for --{name} and is {value!r}; expected {kind}")
    given: Any = chosen
    return rest, replace(options, **given)


def variants(space: Space, options: TrainOptions, names: Collection[str]) -> list[TrainOptions]:
    """The options of every training that the space allows: all models at all image sizes. Raises ConfigError.

    Those of the base come last.
    """
    values = {param.name: levels_of(param) for param in space.params if param.name in names}
    base = space.defaults()
    every = [{**base, **dict(zip(values, drawn, strict=True))} for drawn in itertools.product(*values.values())]
    found = [settle(hyp, options, names)[1] for hyp in (*every, base)]
    return [option for place, option in enumerate(found) if option not in found[place + 1 :]]


def levels_of(param: Param) -> list[Value]:
    """All values of a param. Raises ConfigError where they cannot be counted."""
    if not param.evolves:
        return [param.default]
    if param.levels is None:
        raise ConfigError(
            f"the hyp {param.name} stands for --{param.name}: give choices, or low, high and step of whole numbers"
        )
    return [param.from_unit((level + 0.5) / param.levels) for level in range(param.levels)]


def limits_of(trainer: str) -> Mapping[str, tuple[float, float]]:
    """Where a trainer's hyps have a meaning at all; nothing is known of one of your own."""
    if trainer not in PLUGINS["limits"]:
        return {}
    module, _, attribute = PLUGINS["limits"][trainer].partition(":")
    limits: Mapping[str, tuple[float, float]] = getattr(importlib.import_module(module), attribute)
    return limits
