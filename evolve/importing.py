"""`evolve import`: the hyp file of another trainer as one of ours."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from evolve.config import ConfigError
from evolve.dialects import EVOLVE, Dialect, ours, pairs, say_lost, translate
from evolve.formats import FORMATS, format_named
from evolve.hyp_files import HypFile, read_hyp_file, whose
from search_spaces import dump_hyp
from studies.persistence import lines_of

MOST = 500  # characters of a message


@dataclass(frozen=True)
class Import:
    """A hyp file of ours, what the other one was read as, and what a person has to be warned of."""

    text: str
    read_as: str
    warnings: tuple[str, ...]


def import_hyp(path: Path, known: str | None = None, *, file: Path | None = None, strict: bool = False) -> Import:
    """The hyp in a file, in our words and no more than it says; of a file of ours all of it.

    `known` is the file's format, where it is not to be told by its content; `file` is where ours will lie. With
    `strict` a hyp that changes a training and has no equivalent is a ConfigError. Raises ConfigError, SpaceError.
    """
    read = read_hyp_file(path)
    dialect, told_by = whose(read, str(path)) if known is None else _said_to_be(known, read, str(path))
    try:
        told = translate(read.hyp, dialect, EVOLVE)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not told.hyp.keys() & set(ours()):
        raise ConfigError(f"{path} holds no hyp that evolve knows, only {pairs(read.hyp) or 'other settings'}"[:MOST])
    if strict and told.lost:
        raise ConfigError(f"--strict: {EVOLVE.title} has no equivalent of {pairs(told.lost)}")
    others = f"; {len(read.options)} other settings in it are no hyps" if read.options else ""
    read_as = f"{path} is read as {dialect.title}, by {told_by}{others}"
    use = shlex.join(["evolve", "train", "--hyp", str(file or FORMATS["evolve"].file)])
    notes = {"use": use, "gains": dialect.scales, "left out": pairs(told.lost), "as anyway": pairs(told.idle)}
    lines = lines_of({name: note for name, note in notes.items() if note})
    header = [f"The hyps of {path.name} ({dialect.title}) in evolve's names.", *lines, ""]
    return Import(dump_hyp(told.hyp, header), read_as, tuple(say_lost(told, EVOLVE.title)))


def _said_to_be(known: str, read: HypFile, where: str) -> tuple[Dialect, str]:
    """In whose words a file of that format is. Raises ConfigError."""
    given = format_named(known)
    if not given.readable:
        raise ConfigError(f"{known} is a format to write: files of it are not read")
    return whose(read, where) if known == "json" else (given.dialect or EVOLVE, f"--format {known}")
