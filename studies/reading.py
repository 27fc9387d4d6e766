"""Trials read from a database, without the objects that SQLAlchemy makes of every row.

Every worker reads all trials that run, several times a trial: what many workers read grows with the square of their
number. So queries are made once, rows are asked for by the ids of their trials, and the params of a running trial are
not read again once all of them are there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ARRAY, Connection, Integer, Select, any_, bindparam, func, select

from studies.trials import DRAWN

MOST_AT_ONCE = 500  # trials named one by one: a database takes so many variables in a query, and no more
READS = "reads"  # execution option of a connection by which nothing is written

# the columns of Optuna's tables
TRIAL = models.TrialModel.__table__.c
VALUE = models.TrialValueModel.__table__.c
PARAM = models.TrialParamModel.__table__.c
NOTE = models.TrialUserAttributeModel.__table__.c
INNER = models.TrialSystemAttributeModel.__table__.c
REPORT = models.TrialIntermediateValueModel.__table__.c
STUDY = models.StudyModel.__table__.c
STUDY_NOTE = models.StudyUserAttributeModel.__table__.c

value_of = models.TrialValueModel.stored_repr_to_value
report_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value


@dataclass(frozen=True)
class Query:
    """What a table holds of some trials: rows that begin with a trial's id."""

    columns: tuple[Any, ...]
    order: Any = None
    group: Any = None

    @cached_property
    def by_list(self) -> Select[Any]:
        return self._where(self.columns[0].in_(bindparam("ids", expanding=True)))

    @cached_property
    def by_array(self) -> Select[Any]:
        """The same text however many the ids are, which PostgreSQL and its driver plan once; others have no arrays."""
        return self._where(self.columns[0] == any_(bindparam("ids", type_=ARRAY(Integer))))

    def _where(self, chosen: Any) -> Select[Any]:
        return select(*self.columns).where(chosen).group_by(self.group).order_by(self.order)

    def rows(self, connection: Connection, ids: Sequence[int]) -> list[Any]:
        """The rows of the trials `ids`, by no more than MOST_AT_ONCE of them in a query."""
        query = self.by_array if connection.dialect.name == "postgresql" else self.by_list
        parts = (ids[at : at + MOST_AT_ONCE] for at in range(0, len(ids), MOST_AT_ONCE))
        return [row for part in parts for row in connection.execute(query, {"ids": part}).all()]


ABOUT_TRIAL = (
    *(TRIAL.trial_id, TRIAL.study_id, TRIAL.number, TRIAL.state),
    *(TRIAL.datetime_start, TRIAL.datetime_complete),
)
TRIALS = Query(ABOUT_TRIAL)
NEWER = select(*ABOUT_TRIAL).where(TRIAL.study_id == bindparam("study_id"), TRIAL.trial_id > bindparam("newer"))
VALUES = Query((VALUE.trial_id, VALUE.objective, VALUE.value, VALUE.value_type))
PARAMS = Query((PARAM.trial_id, PARAM.param_name, PARAM.param_value, PARAM.distribution_json), order=PARAM.param_id)
PARAM_COUNTS = Query((PARAM.trial_id, func.count()), group=PARAM.trial_id)
NOTES = Query((NOTE.trial_id, NOTE.key, NOTE.value_json))
INNERS = Query((INNER.trial_id, INNER.key, INNER.value_json))
REPORTS = Query((REPORT.trial_id, REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type))
STUDIES = select(STUDY.study_id).where(STUDY.study_id == bindparam("study_id"))
STUDY_NOTES = select(STUDY_NOTE.key, STUDY_NOTE.value_json).where(STUDY_NOTE.study_id == bindparam("study_id"))

Params = Mapping[str, tuple[Any, BaseDistribution]]


class Settled:
    """The params of running trials that have all that they will have: Optuna adds params to a trial, and changes none.

    Those that a trial will have (see DRAWN) are known beforehand of most. When it has ended they are counted, as
    whoever trained it may have asked for more.
    """

    def __init__(self) -> None:
        self._params: dict[int, Params] = {}

    def read(self, connection: Connection, found: Sequence[Any]) -> dict[int, Params]:
        """Of these rows of TRIALS, those whose params need not be read."""
        noted = {row.trial_id: self._params.get(row.trial_id) for row in found}
        known = {trial_id: params for trial_id, params in noted.items() if params is not None}
        ended = [row.trial_id for row in found if row.trial_id in known and row.state != TrialState.RUNNING]
        counts = dict(map(tuple, PARAM_COUNTS.rows(connection, ended)))
        for trial_id in ended:
            self._params.pop(trial_id, None)
            if counts.get(trial_id) != len(known[trial_id]):
                del known[trial_id]
        return known

    def note(self, trial_id: int, state: TrialState, params: Params, inner: Mapping[str, Any]) -> None:
        if state == TrialState.RUNNING and params and params.keys() >= inner.get(DRAWN, {None: None}).keys():
            self._params[trial_id] = params

    def forget(self) -> None:
        self._params.clear()


def read_trials(
    storage: RDBStorage,
    study_id: int,
    states: Container[TrialState] | None,
    included_trial_ids: Iterable[int],
    trial_id_greater_than: int,
    settled: Settled | None = None,
) -> list[FrozenTrial]:
    """What RDBStorage._get_trials of Optuna 5 returns for the same arguments. Raises KeyError where there is no study.

    A trial's state is read before all else of it, as whoever ends one writes it last. `settled` is kept by the caller.
    """
    older = [trial_id for trial_id in included_trial_ids if trial_id <= trial_id_greater_than]
    with reading(storage) as connection:
        newer = connection.execute(NEWER, {"study_id": study_id, "newer": trial_id_greater_than}).all()
        own = (row for row in TRIALS.rows(connection, older) if row.study_id == study_id)  # SQLite gives ids again
        found = sorted((*own, *newer), key=itemgetter(0))
        if not found and connection.execute(STUDIES, {"study_id": study_id}).first() is None:
            raise KeyError(models.NOT_FOUND_MSG)
        wanted = found if states is None else [row for row in found if row.state in states]
        return _read(connection, wanted, settled or Settled())


def read_trial(storage: RDBStorage, trial_id: int, settled: Settled | None = None) -> FrozenTrial:
    """What RDBStorage.get_trial of Optuna 5 returns. Raises KeyError where there is no such trial."""
    with reading(storage) as connection:
        found = TRIALS.rows(connection, [trial_id])
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return _read(connection, found, settled or Settled())[0]


def read_study_notes(storage: RDBStorage, study_id: int) -> dict[str, Any]:
    """What RDBStorage.get_study_user_attrs of Optuna 5 returns. Raises KeyError where there is no study."""
    with reading(storage) as connection:
        found = connection.execute(STUDY_NOTES, {"study_id": study_id}).all()
        if not found and connection.execute(STUDIES, {"study_id": study_id}).first() is None:
            raise KeyError(models.NOT_FOUND_MSG)
    return {key: _json_of(text) for key, text in found}


def reading(storage: RDBStorage) -> Connection:
    """A connection to read by, which holds up nobody who writes."""
    connection = storage.engine.connect()
    if connection.dialect.name == "postgresql":  # a transaction of Optuna's shows no more: READ COMMITTED
        return connection.execution_options(isolation_level="AUTOCOMMIT")
    return connection.execution_options(**{READS: True})


def by_trial(rows: Iterable[Any], value_of: Callable[..., Any]) -> defaultdict[int, dict[Any, Any]]:
    """Of rows of a trial's id, a key and what is stored for it: a mapping for each trial."""
    found: defaultdict[int, dict[Any, Any]] = defaultdict(dict)
    for trial_id, key, *stored in rows:
        found[trial_id][key] = value_of(*stored)
    return found


def here(utc: datetime | None) -> datetime | None:
    """A moment as Optuna gives it: in the time zone of this machine, without saying so."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _read(connection: Connection, found: Sequence[Any], settled: Settled) -> list[FrozenTrial]:
    """The trials of these rows of TRIALS, with all that belongs to them."""
    ids = [row.trial_id for row in found]
    known = settled.read(connection, found)
    unknown = [trial_id for trial_id in ids if trial_id not in known]
    finished = [row.trial_id for row in found if row.state.is_finished()]
    values = by_trial(VALUES.rows(connection, finished), value_of)
    read = by_trial(PARAMS.rows(connection, unknown), _param_of)
    noted = by_trial(NOTES.rows(connection, ids), _json_of)
    inner = by_trial(INNERS.rows(connection, ids), _json_of)
    reports = by_trial(REPORTS.rows(connection, ids), report_of)
    trials = []
    for trial_id, _, number, state, start, end in found:
        params = known.get(trial_id, read[trial_id])
        settled.note(trial_id, state, params, inner[trial_id])
        trials.append(
            FrozenTrial(
                number=number,
                state=state,
                value=None,
                values=[value for _, value in sorted(values[trial_id].items())] if trial_id in values else None,
                datetime_start=here(start),
                datetime_complete=here(end),
                params={name: value for name, (value, _) in params.items()},
                distributions={name: of for name, (_, of) in params.items()},
                user_attrs=noted[trial_id],
                system_attrs=inner[trial_id],
                intermediate_values=reports[trial_id],
                trial_id=trial_id,
            )
        )
    return trials


def _param_of(stored: float, distribution: str) -> tuple[Any, BaseDistribution]:
    known = _distribution(distribution)
    return known.to_external_repr(stored), known


@lru_cache(maxsize=4096)
def _json_of(text: str) -> Any:
    """Notes are read again and again: a study's every second, a running trial's with every trial. Only to be read."""
    return json.loads(text)


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    """A study has one for each hyp, and as many rows of them as trials."""
    return json_to_distribution(text)
