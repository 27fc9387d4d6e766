"""The trials of a study as far as its status needs them, read from a database in five queries.

Optuna makes an object of every row. Ten thousand trials have half a million, and that takes ten seconds and more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, select

from studies.lease import BEAT
from studies.reading import (
    ABOUT_TRIAL,
    NOTE,
    PARAM,
    REPORT,
    TRIAL,
    VALUE,
    frozen,
    reading,
    report_of,
    value_of,
)
from studies.trials import BASE, EPOCHS, FAILURE, KNOWN, LOST, RETRY_OF, SURPLUS, WORKER, trials_of, without_cache

NOTED = (BASE, BEAT, EPOCHS, FAILURE, KNOWN, LOST, RETRY_OF, SURPLUS, WORKER)  # the user attributes that are read


def glance(study: Study) -> list[FrozenTrial]:
    """All trials by number, only to be read: of the user attributes at least those in NOTED.

    From a database, `params` are those of complete trials alone and as it stores them (those of equal hyps are equal),
    and `intermediate_values` those of running ones. Other storages have all of them at hand.
    """
    storage = without_cache(study._storage)
    return _read(storage, study._study_id) if isinstance(storage, RDBStorage) else trials_of(study)


def _read(storage: RDBStorage, study_id: int) -> list[FrozenTrial]:
    own = TRIAL.study_id == study_id
    complete, running = (TRIAL.state == state for state in (TrialState.COMPLETE, TrialState.RUNNING))
    with reading(storage) as connection:
        rows = Rows(connection, own)
        found = connection.execute(select(*ABOUT_TRIAL).where(own).order_by(TRIAL.number)).all()
        noted = by_trial(rows(NOTE, NOTE.key, NOTE.value_json, where=NOTE.key.in_(NOTED)), _json())
        values = by_trial(rows(VALUE, VALUE.objective, VALUE.value, VALUE.value_type, where=complete), value_of)
        params = by_trial(rows(PARAM, PARAM.param_name, PARAM.param_value, where=complete), lambda value: value)
        reported = REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type
        reports = by_trial(rows(REPORT, *reported, where=running), report_of)
    return [
        frozen(
            row,
            values=values[row.trial_id],
            params=params[row.trial_id],
            distributions={},
            notes=noted[row.trial_id],
            inner={},
            reports=reports[row.trial_id],
        )
        for row in found
    ]


def by_trial(rows: Iterable[Any], value_of: Callable[..., Any]) -> defaultdict[int, dict[Any, Any]]:
    """Of rows of a trial's id, a key and what is stored for it: a mapping for each trial."""
    found: defaultdict[int, dict[Any, Any]] = defaultdict(dict)
    for trial_id, key, *stored in rows:
        found[trial_id][key] = value_of(*stored)
    return found


@dataclass(frozen=True)
class Rows:
    """The rows of other tables that belong to the trials chosen by `chosen`, by the ids of these."""

    connection: Connection
    chosen: ColumnElement[bool]

    def __call__(self, of: Any, *columns: Any, where: ColumnElement[bool]) -> Iterable[Any]:
        query = select(of.trial_id, *columns).join_from(of.trial_id.table, TRIAL.trial_id.table)
        return self.connection.execute(query.where(self.chosen & where))


def _json() -> Callable[[str], Any]:
    """Reads JSON, of which most is the same: there are few workers and fewer numbers of epochs."""
    return lru_cache(maxsize=None)(json.loads)
