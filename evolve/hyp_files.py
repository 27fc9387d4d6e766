"""Hyp files of any trainer: what stands in them, and whose they are by their content."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.config import ConfigError
from evolve.dialects import DISPUTED, EVOLVE, ULTRALYTICS, YOLOV3, YOLOV5, Dialect, recognise
from search_spaces import Hyp, SpaceError, read_scalar
from search_spaces.files import parse_hyp, read_text
from search_spaces.space import as_number


@dataclass(frozen=True)
class HypFile:
    """A hyp as it stands in a file, and in whose words (None: nothing in it tells).

    `told_by` is what tells it; `options` are the names of what stands in the file beside hyps.
    """

    hyp: Hyp
    dialect: Dialect | None
    told_by: str
    options: tuple[str, ...] = ()


def read_hyp_file(path: Path) -> HypFile:
    """The hyp in a file of any format that we read. Raises SpaceError, ConfigError."""
    text, where = read_text(path), str(path)
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{where} is no hyp file: it has {len(text)} characters")
    words = [word for line in text.splitlines() for word in line.partition("#")[0].split()]
    if words and all(as_number(word) is not None for word in words):
        return _read_numbers([float(word) for word in words], where)
    if words and (words[0] == "yolo" or _ASSIGNMENT.match(words[0])):
        return _read_words(text, where)
    return _read_yaml(text, where)


def whose(read: HypFile, where: str) -> tuple[Dialect, str]:
    """In whose words a file is, and what tells it. Raises ConfigError where that matters and nothing tells it."""
    if read.dialect is not None:
        return read.dialect, read.told_by
    if disputed := [name for name in DISPUTED if name in read.hyp]:
        raise ConfigError(
            f"{where} may be a hyp file of evolve and YOLOv5 or one of Ultralytics, where {', '.join(disputed)} "
            f"{'has' if len(disputed) == 1 else 'have'} another meaning: say which by --format evolve or "
            "--format ultralytics"
        )
    return EVOLVE, "names that mean the same to all"


MOST_CHARACTERS = 200_000
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_OF_ARGS = ("task", "mode")  # stand in every args.yaml of Ultralytics, beside a hundred other options


def _read_numbers(values: Sequence[float], where: str) -> HypFile:
    """A hyp*.txt, which has an order and no names."""
    from studies.earlier import YOLOV3 as NAMES
    from studies.earlier import hyp_of_numbers

    if not all(map(math.isfinite, values)):
        raise ConfigError(f"{where} holds a number that is too large to be one")
    hyp = hyp_of_numbers(values)
    if hyp is None:
        many = len(values) > len(NAMES)
        results = "; the results of an evolution are for `evolve run --from`" if many else ""
        raise ConfigError(f"{where} holds {len(values)} numbers; a hyp*.txt of YOLOv3 has {len(NAMES)}{results}")
    of_yolov3 = list(hyp) == NAMES
    told_by = f"{len(NAMES)} numbers" + ("" if of_yolov3 else ", the tenth being at least 1: an anchor_t")
    return HypFile(hyp, YOLOV3 if of_yolov3 else YOLOV5, told_by)


def _read_words(text: str, where: str) -> HypFile:
    """Ultralytics' command line, or a part of it: `yolo detect train lr0=0.01 ...`."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise ConfigError(f"{where} is no command line: {error}") from None
    given = {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
    own = ULTRALYTICS.values
    try:
        hyp = {name: read_scalar(value) for name, value in given.items() if name in own}
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    if not hyp:
        raise ConfigError(f"{where} holds no hyp: none of its words is like lr0=0.01")
    return HypFile(hyp, ULTRALYTICS, "words such as lr0=0.01", tuple(name for name in given if name not in own))


def _read_yaml(text: str, where: str) -> HypFile:
    """YAML, of which JSON is a part, but for its tabs."""
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")
    if all(re.search(rf"^{name}:", text, re.MULTILINE) for name in _OF_ARGS):
        hyp = parse_hyp(text, where, only=ULTRALYTICS.values)
        names = re.findall(r"^(\w+):", text, re.MULTILINE)
        return HypFile(hyp, ULTRALYTICS, "task and mode", tuple(name for name in names if name not in hyp))
    hyp = parse_hyp(text, where)
    found = recognise(hyp)
    return HypFile(hyp, *found) if found else HypFile(hyp, None, "")
