"""The trials of a study as far as its status needs them, read from a database in five queries.

Optuna makes an object of every row. Ten thousand trials have half a million, and that takes ten seconds and more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, select

from studies.lease import BEAT
from studies.reading import NOTE, PARAM, REPORT, TRIAL, VALUE, by_trial, here, reading, report_of, value_of
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
        times = TRIAL.datetime_start, TRIAL.datetime_complete
        found = connection.execute(
            select(TRIAL.trial_id, TRIAL.number, TRIAL.state, *times).where(own).order_by(TRIAL.number)
        ).all()
        noted = by_trial(rows(NOTE, NOTE.key, NOTE.value_json, where=NOTE.key.in_(NOTED)), _json())
        values = by_trial(rows(VALUE, VALUE.objective, VALUE.value, VALUE.value_type, where=complete), value_of)
        params = by_trial(rows(PARAM, PARAM.param_name, PARAM.param_value, where=complete), lambda value: value)
        reported = REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type
        reports = by_trial(rows(REPORT, *reported, where=running), report_of)
    return [
        FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[value for _, value in sorted(values[trial_id].items())] if trial_id in values else None,
            datetime_start=here(start),
            datetime_complete=here(end),
            params=params.get(trial_id, {}),
            distributions={},
            user_attrs=noted.get(trial_id, {}),
            system_attrs={},
            intermediate_values=reports.get(trial_id, {}),
            trial_id=trial_id,
        )
        for trial_id, number, state, start, end in found
    ]


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
