"""Trials read from a database, without the objects that SQLAlchemy makes of every row.

With 28 hyps that is about six times as fast. Every worker reads all trials that run, several times a trial:
what many workers read grows with the square of their number.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, or_, select

MOST_INCLUDED = 500  # of trials named one by one: a database takes so many variables in a query, and no more
READS = "reads"  # execution option of a connection by which nothing is written

# the columns of Optuna's tables
TRIAL = models.TrialModel.__table__.c
VALUE = models.TrialValueModel.__table__.c
PARAM = models.TrialParamModel.__table__.c
NOTE = models.TrialUserAttributeModel.__table__.c
INNER = models.TrialSystemAttributeModel.__table__.c
REPORT = models.TrialIntermediateValueModel.__table__.c

value_of = models.TrialValueModel.stored_repr_to_value
report_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value


def read_trials(
    storage: RDBStorage,
    study_id: int,
    states: Container[TrialState] | None,
    included_trial_ids: set[int],
    trial_id_greater_than: int,
) -> list[FrozenTrial]:
    """What RDBStorage._get_trials of Optuna 5 returns for the same arguments. Raises KeyError where there is no study.

    A trial's state is read before all else of it, as whoever ends one writes it last.
    """
    included = [trial_id for trial_id in included_trial_ids if trial_id <= trial_id_greater_than]
    if len(included) > MOST_INCLUDED:
        return RDBStorage._get_trials(storage, study_id, states, set(included), trial_id_greater_than)
    newer = TRIAL.trial_id > trial_id_greater_than
    where = (TRIAL.study_id == study_id) & (or_(newer, TRIAL.trial_id.in_(included)) if included else newer)
    if states is not None:
        where &= TRIAL.state.in_([state for state in TrialState if state in states])
    with reading(storage) as connection:
        times = TRIAL.datetime_start, TRIAL.datetime_complete
        query = select(TRIAL.trial_id, TRIAL.number, TRIAL.state, *times).where(where).order_by(TRIAL.trial_id)
        found = connection.execute(query).all()
        if not found:
            _check_exists(connection, study_id)
            return []
        rows = Rows(connection, where)
        values = by_trial(rows(VALUE, VALUE.objective, VALUE.value, VALUE.value_type), value_of)
        params = by_trial(
            rows(PARAM, PARAM.param_name, PARAM.param_value, PARAM.distribution_json, order=PARAM.param_id),
            _param_of,
        )
        noted = by_trial(rows(NOTE, NOTE.key, NOTE.value_json), json.loads)
        inner = by_trial(rows(INNER, INNER.key, INNER.value_json), json.loads)
        reports = by_trial(
            rows(REPORT, REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type), report_of
        )
    return [
        FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[value for _, value in sorted(values[trial_id].items())] if trial_id in values else None,
            datetime_start=here(start),
            datetime_complete=here(end),
            params={name: value for name, (value, _) in params[trial_id].items()},
            distributions={name: of for name, (_, of) in params[trial_id].items()},
            user_attrs=noted[trial_id],
            system_attrs=inner[trial_id],
            intermediate_values=reports[trial_id],
            trial_id=trial_id,
        )
        for trial_id, number, state, start, end in found
    ]


def reading(storage: RDBStorage) -> Connection:
    """A connection to read by, which holds up nobody who writes."""
    return storage.engine.connect().execution_options(**{READS: True})


class Rows:
    """The rows of other tables that belong to the trials chosen by `where`, by the ids of these."""

    def __init__(self, connection: Connection, where: ColumnElement[bool]) -> None:
        self._connection = connection
        self._where = where

    def __call__(
        self, of: Any, *columns: Any, where: ColumnElement[bool] | None = None, order: Any = None
    ) -> Iterable[Any]:
        query = select(of.trial_id, *columns).join_from(of.trial_id.table, TRIAL.trial_id.table)
        query = query.where(self._where if where is None else self._where & where)
        return self._connection.execute(query if order is None else query.order_by(order))


def by_trial(rows: Iterable[Any], value_of: Callable[..., Any]) -> defaultdict[int, dict[Any, Any]]:
    """Of rows of a trial's id, a key and what is stored for it: a mapping for each trial."""
    found: defaultdict[int, dict[Any, Any]] = defaultdict(dict)
    for trial_id, key, *stored in rows:
        found[trial_id][key] = value_of(*stored)
    return found


def here(utc: datetime | None) -> datetime | None:
    """A moment as Optuna gives it: in the time zone of this machine, without saying so."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _check_exists(connection: Connection, study_id: int) -> None:
    study = models.StudyModel.__table__.c.study_id
    if connection.execute(select(study).where(study == study_id)).first() is None:
        raise KeyError(models.NOT_FOUND_MSG)


def _param_of(stored: float, distribution: str) -> tuple[Any, BaseDistribution]:
    known = _distribution(distribution)
    return known.to_external_repr(stored), known


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    """A study has one for each hyp, and as many rows of them as trials."""
    return json_to_distribution(text)
