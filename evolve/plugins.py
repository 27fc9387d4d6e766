"""The table of what can be named on the command line: kind -> name -> "module:attr"."""

from __future__ import annotations

from evolve.config import PROGRAMS, ConfigError, did_you_mean
from trainer.function import PICKLED

PLUGINS: dict[str, dict[str, str]] = {
    "trainer": {
        "detection": "trainer.detection.trainer:DetectionTrainer",
        "ultralytics": "trainer.ultralytics_yolo:UltralyticsTrainer",
    },
    # How a trainer reads a hyp file: in older trainers' names too (translate), with its own defaults (complete), and of
    # any trainer as much as means the same to it (adopt). Where its hyps have a meaning at all (limits).
    "translate": {"detection": "trainer.detection.recipe:translate"},
    "complete": {"detection": "trainer.detection.recipe:complete"},
    "adopt": {"detection": "trainer.detection.recipe:adopt"},
    "limits": {"detection": "trainer.detection.recipe:LIMITS"},
}

AS_OPTIONS = {"detection": ("model", "imgsz")}
"""Hyps that a trainer takes as options of a training, so that they can evolve."""


def resolve(kind: str, name: str) -> str:
    """The "module:attr" behind a name; one of these, or the .pkl file of a trainer, stands as it is.

    Imports nothing. Raises ConfigError.
    """
    table = PLUGINS[kind]
    if name in table:
        return table[name]
    if kind == "trainer" and name.endswith(PICKLED):
        return name
    module, colon, attribute = name.partition(":")
    if colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return name
    known = [*table, *PROGRAMS] if kind == "trainer" else table
    raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, known)}; one of your own is given as module:attr")
