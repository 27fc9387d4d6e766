"""Trials read from a database, without the objects that SQLAlchemy makes of every row.

Every worker reads all trials that run, several times a trial: what many workers read grows with the square of their
number. So a reading of some hundred trials is three queries, which are made once, and the params of a running trial are
not read again once all of them are there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Connection,
    Dialect,
    Integer,
    Select,
    String,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    union_all,
)

from studies.trials import DRAWN

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
VALUE_TYPES = models.TrialValueModel.TrialValueType.__members__
REPORT_TYPES = models.TrialIntermediateValueModel.TrialIntermediateValueType.__members__

ABOUT_TRIAL = (
    *(TRIAL.trial_id, TRIAL.study_id, TRIAL.number, TRIAL.state),
    *(TRIAL.datetime_start, TRIAL.datetime_complete),
)
NEWER = select(*ABOUT_TRIAL).where(TRIAL.study_id == bindparam("study_id"), TRIAL.trial_id > bindparam("newer"))
STUDIES = select(STUDY.study_id).where(STUDY.study_id == bindparam("study_id"))
STUDY_NOTES = select(STUDY_NOTE.key, STUDY_NOTE.value_json).where(STUDY_NOTE.study_id == bindparam("study_id"))


class Ids(TypeDecorator[Sequence[int]]):
    """Ids as the text that PostgreSQL reads as an array of them: its driver would look at each."""

    impl = ARRAY(Integer)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Sequence[int] | None], str]:
        return lambda ids: f"{{{','.join(map(str, ids or ()))}}}"


KINDS = PARAMS, COUNTS, VALUES, NOTES, INNERS, REPORTS = range(6)

Among = Callable[[ColumnElement[int], str], ColumnElement[bool]]
"""The condition that a column is one of the ids that a query is given under a name."""


def _in_list(column: ColumnElement[int], name: str) -> ColumnElement[bool]:
    return column.in_(bindparam(name, expanding=True))


def _in_array(column: ColumnElement[int], name: str) -> ColumnElement[bool]:
    """The same text however many the ids are, which PostgreSQL and its driver plan once; others have no arrays."""
    return column == any_(bindparam(name, type_=Ids()))


def _trials(among: Among) -> Select[Any]:
    return select(*ABOUT_TRIAL).where(among(TRIAL.trial_id, "ids"))


def _rest(among: Among) -> CompoundSelect[Any]:
    """All that belongs to trials, in rows of one shape: which of KINDS, the trial's id, an int, a key, a float, a text.

    The params are those of the trials "whole", and counted are those of "counted".
    """

    def rows(kind: int, of: Any, at: Any, key: Any, number: Any, text: Any, ids: str = "ids") -> Select[Any]:
        # cast, since MySQL joins no texts of columns that are sorted in different ways
        texts = cast(key, String), cast(text, String)
        which: Any = literal_column(str(kind))
        return select(which, of.trial_id, at, texts[0], number, texts[1]).where(among(of.trial_id, ids))

    none: Any = literal_column("0")
    nothing: Any = literal_column("0.0")
    no_text: Any = literal_column("''")
    return union_all(  # the first has a column of each type: the others take these on
        rows(PARAMS, PARAM, PARAM.param_id, PARAM.param_name, PARAM.param_value, PARAM.distribution_json, "whole"),
        rows(COUNTS, PARAM, func.count(), no_text, nothing, no_text, "counted").group_by(PARAM.trial_id),
        rows(VALUES, VALUE, VALUE.objective, no_text, VALUE.value, VALUE.value_type),
        rows(NOTES, NOTE, none, NOTE.key, nothing, NOTE.value_json),
        rows(INNERS, INNER, none, INNER.key, nothing, INNER.value_json),
        rows(REPORTS, REPORT, REPORT.step, no_text, REPORT.intermediate_value, REPORT.intermediate_value_type),
    )


@dataclass(frozen=True)
class Queries:
    """Of trials by their ids, of what belongs to them, and how many ids at most are named in one."""

    trials: Select[Any]
    rest: CompoundSelect[Any]
    most: int


# Some databases take no more than 999 variables, and an id is one in up to five places.
BY_LIST = Queries(_trials(_in_list), _rest(_in_list), 150)
BY_ARRAY = Queries(_trials(_in_array), _rest(_in_array), 500)


def _queries(connection: Connection) -> Queries:
    return BY_ARRAY if connection.dialect.name == "postgresql" else BY_LIST


Params = Mapping[str, tuple[Any, BaseDistribution]]


class Settled:
    """The params of running trials that have all that they will have: Optuna adds params to a trial, and changes none.

    Those that a trial will have (see DRAWN) are known beforehand of most. When it has ended they are counted, as
    whoever trained it may have asked for more.
    """

    def __init__(self) -> None:
        self._params: dict[int, Params] = {}

    def of(self, trial_ids: Iterable[int]) -> dict[int, Params]:
        """What is known of these trials' params."""
        noted = {trial_id: self._params.get(trial_id) for trial_id in trial_ids}
        return {trial_id: params for trial_id, params in noted.items() if params is not None}

    def note(self, trial_id: int, state: TrialState, params: Params, inner: Mapping[str, Any]) -> None:
        if state != TrialState.RUNNING:
            self._params.pop(trial_id, None)
        elif params and params.keys() >= inner.get(DRAWN, {None: None}).keys():
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
        own = (row for row in _find(connection, older) if row.study_id == study_id)  # SQLite gives ids again
        found = sorted((*own, *newer), key=itemgetter(0))
        if not found and connection.execute(STUDIES, {"study_id": study_id}).first() is None:
            raise KeyError(models.NOT_FOUND_MSG)
        wanted = found if states is None else [row for row in found if row.state in states]
        return _read(connection, wanted, settled or Settled())


def read_trial(storage: RDBStorage, trial_id: int, settled: Settled | None = None) -> FrozenTrial:
    """What RDBStorage.get_trial of Optuna 5 returns. Raises KeyError where there is no such trial."""
    with reading(storage) as connection:
        found = _find(connection, [trial_id])
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


def frozen(
    row: Any,
    *,
    values: Mapping[int, float],
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    notes: dict[str, Any],
    inner: dict[str, Any],
    reports: dict[int, float],
) -> FrozenTrial:
    """The trial of a row of ABOUT_TRIAL; `values` are by objective, `reports` by step."""
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=[value for _, value in sorted(values.items())] or None,
        datetime_start=here(row.datetime_start),
        datetime_complete=here(row.datetime_complete),
        params=params,
        distributions=distributions,
        user_attrs=notes,
        system_attrs=inner,
        intermediate_values=reports,
        trial_id=row.trial_id,
    )


def here(utc: datetime | None) -> datetime | None:
    """A moment as Optuna gives it: in the time zone of this machine, without saying so."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _find(connection: Connection, trial_ids: Sequence[int]) -> list[Any]:
    """What the table of trials holds of these: rows of ABOUT_TRIAL."""
    queries = _queries(connection)
    portions = _portions(trial_ids, queries.most)
    return [row for ids in portions for row in connection.execute(queries.trials, {"ids": ids}).all()]


def _portions(sequence: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (sequence[at : at + most] for at in range(0, len(sequence), most))


class _Rest:
    """What belongs to trials, by their ids: reports by step, notes by key, and so on."""

    def __init__(self) -> None:
        self.params: defaultdict[int, list[tuple[int, str, float, str]]] = defaultdict(list)  # as they are stored
        self.counts: dict[int, int] = {}  # of params
        self.values: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self.notes: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self.inner: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self.reports: defaultdict[int, dict[int, float]] = defaultdict(dict)

    def read(self, connection: Connection, ids: Iterable[int], whole: Iterable[int], counted: Iterable[int]) -> None:
        """Of these trials, with the params of those in `whole`, and the number of those of the ones in `counted`."""
        asked = {"ids": [*ids], "whole": [*whole], "counted": [*counted]}
        for kind, trial_id, at, key, number, text in connection.execute(_queries(connection).rest, asked).all():
            if kind == PARAMS:
                self.params[trial_id].append((at, key, number, text))
            elif kind == COUNTS:
                self.counts[trial_id] = at
            elif kind == VALUES:
                self.values[trial_id][at] = value_of(number, VALUE_TYPES[text])
            elif kind == NOTES:
                self.notes[trial_id][key] = _json_of(text)
            elif kind == INNERS:
                self.inner[trial_id][key] = _json_of(text)
            else:
                self.reports[trial_id][at] = report_of(number, REPORT_TYPES[text])

    def params_of(self, trial_id: int) -> Params:
        """In the order in which they were set."""
        return {
            name: _param_of(stored, distribution) for _, name, stored, distribution in sorted(self.params[trial_id])
        }


def _read(connection: Connection, found: Sequence[Any], settled: Settled) -> list[FrozenTrial]:
    """The trials of these rows of ABOUT_TRIAL, with all that belongs to them."""
    portions = _portions(found, _queries(connection).most)
    return [trial for rows in portions for trial in _read_portion(connection, rows, settled)]


def _read_portion(connection: Connection, found: Sequence[Any], settled: Settled) -> list[FrozenTrial]:
    ids = [row.trial_id for row in found]
    known = settled.of(ids)
    ended = [row.trial_id for row in found if row.trial_id in known and row.state != TrialState.RUNNING]
    rest = _Rest()
    rest.read(connection, ids, [trial_id for trial_id in ids if trial_id not in known], ended)
    if more := {trial_id for trial_id in ended if rest.counts.get(trial_id) != len(known[trial_id])}:
        rest.read(connection, more, more, ())
    trials = []
    for row in found:
        reread = row.trial_id in more or row.trial_id not in known
        params = rest.params_of(row.trial_id) if reread else known[row.trial_id]
        settled.note(row.trial_id, row.state, params, rest.inner[row.trial_id])
        trials.append(
            frozen(
                row,
                values=rest.values[row.trial_id] if row.state.is_finished() else {},
                params={name: value for name, (value, _) in params.items()},
                distributions={name: of for name, (_, of) in params.items()},
                notes=rest.notes[row.trial_id],
                inner=rest.inner[row.trial_id],
                reports=rest.reports[row.trial_id],
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
