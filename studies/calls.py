"""What whoever runs a study calls to its workers, through the storage: to leave, and how soon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optuna import Study

CALL = "call"  # user attribute of a study
EVERYBODY = ""


@dataclass(frozen=True)
class Call:
    """Leave after this trial, after this epoch, or now.

    `run` is whose workers are meant: those of one run of the command, or everybody.

    `reached` tells whether the study has done what it was asked for.
    """

    how: Literal["trial", "epoch", "now"]
    reason: str
    run: str = EVERYBODY
    reached: bool = False

    def is_for(self, run: str) -> bool:
        return self.run in (EVERYBODY, run)


def call(study: Study, said: Call | None) -> None:
    """Have the workers hear this; None takes back what was said before."""
    study.set_user_attr(CALL, None if said is None else asdict(said))


def heard(noted: Mapping[str, Any], run: str) -> Call | None:
    """What is said to the workers of a run; `noted` are the user attributes of the study."""
    said = None if noted.get(CALL) is None else Call(**noted[CALL])
    return said if said is not None and said.is_for(run) else None
