"""The formats in which trainers take hyps: a table, and how a hyp is written in each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evolve import usage
from evolve.config import ConfigError, EvolveConfig, did_you_mean
from evolve.dialects import (
    MMDETECTION,
    TORCHVISION,
    ULTRALYTICS,
    YOLOV3,
    YOLOV5,
    YOLOV7,
    Dialect,
    Told,
    as_float,
    as_whole,
)
from evolve.fragments import write_mmdetection, write_torchvision
from search_spaces import Hyp, Value, dump_hyp
from search_spaces.files import comment_lines


@dataclass(frozen=True)
class Format:
    """How one trainer takes hyps.

    `write(hyp, header, config)` is the text of its file for a hyp in the words of `dialect` (None: as it stands), and
    `use(file, config, told)` the command that trains with it as a study with that configuration did. `file` is what
    such a file is called where nobody calls it otherwise, `choices` are its optimizers and schedules. The hyps that
    are `sgd_only` it reads under no other optimizer. One that is not `readable` is only written.
    """

    name: str
    dialect: Dialect | None
    file: str
    write: Callable[[Hyp, Sequence[str], EvolveConfig], str]
    use: Callable[[str, EvolveConfig, Told], str]
    choices: usage.Choices
    sgd_only: tuple[str, ...] = ()
    readable: bool = True

    @property
    def title(self) -> str:
        return self.dialect.title if self.dialect else "evolve"


def format_named(name: str) -> Format:
    """The format of that name. Raises ConfigError."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'{did_you_mean(name, FORMATS)}")
    return FORMATS[name]


# ultralytics 8.4.190, cfg/__init__.py: CFG_INT_KEYS and CFG_FLOAT_KEYS; all other numbers have to lie in [0, 1]
WHOLE = frozenset({"epochs", "patience", "workers", "seed", "close_mosaic", "mask_ratio", "nbs", "save_period"})
ANY_FLOAT = frozenset({"warmup_epochs", "box", "cls", "dfl", "degrees", "shear"})
WIDTH = 24  # of a value, before its comment


def _write_evolve(hyp: Hyp, header: Sequence[str], _config: EvolveConfig) -> str:
    return dump_hyp(hyp, header)


def _write_json(hyp: Hyp, _header: Sequence[str], _config: EvolveConfig) -> str:
    return json.dumps(dict(hyp), indent=2, ensure_ascii=False) + "\n"


def _write_numbers(hyp: Hyp, header: Sequence[str], _config: EvolveConfig) -> str:
    """A value a line, in the order of the hyp, which is all that YOLOv3 goes by."""
    lines = (f"{as_float(name, value)!r:<{WIDTH}}# {name}\n" for name, value in hyp.items())
    return comment_lines(header) + "".join(lines)


def _write_yolo(hyp: Hyp, header: Sequence[str], _config: EvolveConfig) -> str:
    """Plain floats, but for YOLOv7's loss_ota, which it compares with 1."""
    typed = {name: (as_whole if name == "loss_ota" else as_float)(name, value) for name, value in hyp.items()}
    return dump_hyp(typed, header)


def _write_ultralytics(hyp: Hyp, header: Sequence[str], _config: EvolveConfig) -> str:
    return dump_hyp(_typed(hyp), header)


def _write_words(hyp: Hyp, header: Sequence[str], _config: EvolveConfig) -> str:
    """Arguments of `yolo` on one line."""
    return comment_lines(header) + shlex.join(f"{name}={value}" for name, value in _typed(hyp).items()) + "\n"


def _typed(hyp: Hyp) -> dict[str, Value]:
    """Ultralytics' arguments, of the types and within the bounds that it insists on. Raises ConfigError."""
    for name in ULTRALYTICS.values.keys() & hyp.keys() - WHOLE - ANY_FLOAT - {"optimizer"}:
        if not 0 <= as_float(name, hyp[name]) <= 1:
            raise ConfigError(f"{name} is {hyp[name]}, which Ultralytics does not take: it has to lie in [0, 1]")
    return {name: as_whole(name, value) if name in WHOLE else value for name, value in hyp.items()}


FORMATS: Mapping[str, Format] = {
    known.name: known
    for known in (
        Format("evolve", None, "hyp.yaml", _write_evolve, usage.use_evolve, usage.OURS),
        Format(
            "yolov3",
            YOLOV3,
            "hyp.yolov3.txt",
            _write_numbers,
            usage.use_yolov3,
            usage.YOLOV3,
            sgd_only=("momentum",),
        ),
        Format("yolov5", YOLOV5, "hyp.yolov5.yaml", _write_yolo, usage.use_yolov5, usage.YOLOV5),
        Format("yolov7", YOLOV7, "hyp.yolov7.yaml", _write_yolo, usage.use_yolov7, usage.YOLOV7),
        Format(
            "ultralytics",
            ULTRALYTICS,
            "hyp.ultralytics.yaml",
            _write_ultralytics,
            usage.use_ultralytics,
            usage.ULTRALYTICS,
        ),
        Format(
            "ultralytics-cli",
            ULTRALYTICS,
            "hyp.ultralytics.txt",
            _write_words,
            usage.use_words,
            usage.ULTRALYTICS,
        ),
        Format("json", None, "hyp.json", _write_json, usage.use_evolve, usage.OURS),
        Format(
            "mmdetection",
            MMDETECTION,
            "hyp.mmdetection.py",
            write_mmdetection,
            usage.use_mmdetection,
            usage.OURS,
            readable=False,
        ),
        Format(
            "torchvision",
            TORCHVISION,
            "hyp.torchvision.txt",
            write_torchvision,
            usage.use_torchvision,
            usage.TORCHVISION,
            sgd_only=("momentum",),
            readable=False,
        ),
    )
}

READABLE = tuple(name for name, known in FORMATS.items() if known.readable)
