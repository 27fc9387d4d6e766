"""The note on a study, as Optuna's dashboard keeps and shows it: Markdown, in pieces, in the study's system attributes.

The keys are those of optuna-dashboard 0.21 (`_note.py`), which need not be installed. A note has a version, which
counts how often it was written; ours is noted beside it, so that we never write over what a person has written.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from optuna import Study

VERSION, PIECE = "dashboard:note_ver", "dashboard:note_str:{}"
OURS = "evolve:note_ver"  # the version of the note that we have written last
PIECE_LENGTH = 2045  # characters


def leave_note(study: Study, text: str) -> None:
    """Replace the study's note, unless a person has written or changed it."""
    noted = study._storage.get_study_system_attrs(study._study_id)
    if is_of_a_person(noted) or note_in(noted) == text:
        return
    pieces = [text[start : start + PIECE_LENGTH] for start in range(0, len(text), PIECE_LENGTH)]
    left_over = itertools.takewhile(noted.get, map(PIECE.format, itertools.count(len(pieces))))
    version = noted.get(VERSION, 0) + 1
    content = dict(zip(map(PIECE.format, itertools.count()), pieces, strict=False))
    for key, value in {OURS: version, VERSION: version, **content, **dict.fromkeys(left_over, "")}.items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def note_in(noted: Mapping[str, Any]) -> str:
    """The note in a study's system attributes, '' where there is none."""
    keys = map(PIECE.format, itertools.count())
    return "".join(itertools.takewhile(bool, (noted.get(key, "") for key in keys)))


def is_of_a_person(noted: Mapping[str, Any]) -> bool:
    """Whether there is a note that we have not written."""
    return bool(note_in(noted)) and noted.get(VERSION) != noted.get(OURS)
