"""Studies in a database: a file that many processes of one machine share, or a server that many machines do."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Insert, bindparam, create_engine, event, insert, select
from sqlalchemy.engine import URL, Connection, Dialect, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from studies.patience import Patience
from studies.reading import (
    INNER,
    NOTE,
    PARAM,
    READS,
    REPORT,
    TRIAL,
    Settled,
    read_study_notes,
    read_trial,
    read_trials,
    reading,
)

BUSY_TIMEOUT_S = 60  # how long to wait for another process that writes to the same SQLite file
CONNECT_TIMEOUT_S = 10  # how long to wait for a database server to answer
SILENCE_S = 60  # after which a connection that brings nothing is taken for broken
IDLE_S = 5  # after which a connection is tried before it is used: to ask every time was a third of what went over it
USED = "used"  # of a connection's record: when it was last used, by the monotonic clock
CREATION_TRIES = 20
BEAT_S, BEAT_GRACE_S = 15, 120  # of Optuna's heartbeat: how often, and who is stale

MADE_BY = "evolve:made_by"  # system attribute of a trial: the call that has created it, or popped it from the queue

_DRIVERS = {  # of a scheme that names none, as SQLAlchemy and as Python call them: the first is what our extras install
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
    "mysql": {"pymysql": "pymysql", "mysqldb": "MySQLdb"},
    "mariadb": {"pymysql": "pymysql", "mysqldb": "MySQLdb"},
}
_TIMEOUTS: dict[str, dict[str, Any]] = {  # how each driver is told
    "libpq": {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": SILENCE_S // 2,
        "keepalives_interval": SILENCE_S // 6,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * SILENCE_S,
    },
    "mysql": {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": SILENCE_S, "write_timeout": SILENCE_S},
    "mysqlconnector": {"connection_timeout": CONNECT_TIMEOUT_S},
    "mariadbconnector": {"connect_timeout": CONNECT_TIMEOUT_S},
}
_TIMED_AS = {"psycopg": "libpq", "psycopg2": "libpq", "pymysql": "mysql", "mysqldb": "mysql"}
_TRY_AGAIN = (  # codes by which a server asks for another try: it begins, ends, is full, or had to break a deadlock
    *("40001", "40P01", "53300", "57P01", "57P02", "57P03"),  # PostgreSQL: errcodes-appendix
    *(1040, 1053, 1205, 1213, 3169),  # MySQL: server-error-reference
)
_REFUSED = "authentication failed|no password|pg_hba.conf|does not exist|Access denied|Unknown database"

OWN = models.TrialModel.__table__.alias().c
STATES = select(TRIAL.state).where(TRIAL.trial_id == bindparam("trial_id"))
KEYS = select(NOTE.key).where(NOTE.trial_id == bindparam("trial_id"))
DISTRIBUTIONS = (
    select(PARAM.distribution_json)
    .join_from(PARAM.trial_id.table, TRIAL.trial_id.table)
    .where(PARAM.param_name == bindparam("param_name"))
    .where(TRIAL.study_id == select(OWN.study_id).where(OWN.trial_id == bindparam("trial_id")).scalar_subquery())
    .limit(1)
)
INSERT_PARAMS, INSERT_NOTES = (insert(table.trial_id.table) for table in (PARAM, NOTE))


def _insert_if_running(*columns: Any) -> Insert:
    """A row of these columns for the trial `of` (each column gives its name to what it takes); none if it has ended."""
    asked = [bindparam(column.name, type_=column.type) for column in columns]
    begun = TRIAL.state.in_([TrialState.RUNNING, TrialState.WAITING])
    trial = select(TRIAL.trial_id, *asked).where(TRIAL.trial_id == bindparam("of"), begun)
    row = insert(columns[0].table).from_select(["trial_id", *(column.name for column in columns)], trial)
    return row.execution_options(preserve_rowcount=True)  # which tells whether there was such a trial


INSERT_REPORT = _insert_if_running(REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type)
INSERT_INNER = _insert_if_running(INNER.key, INNER.value_json)

P = ParamSpec("P")
Result = TypeVar("Result")


def parse(url: str) -> URL:
    """The parts of a database's URL, with the driver that is installed. Raises ValueError."""
    try:
        parsed = make_url(url)
        known = _DRIVERS.get(parsed.drivername, {})
        found = next((name for name, module in known.items() if importlib.util.find_spec(module)), None)
        driver = found or next(iter(known), None)
        parsed = parsed.set(drivername=f"{parsed.drivername}+{driver}") if driver else parsed
        parsed.get_dialect()
    except ArgumentError as error:
        raise ValueError("no URL of a database") from error
    return parsed


def open_database(url: str, shown: str, *, read_only: bool, patient: bool) -> RDBStorage:
    """The storage in a database, whose tables are created where there are none; `shown` is its URL without password.

    Raises ValueError (no URL of a database), ModuleNotFoundError (the driver), OSError, SQLAlchemyError and
    StorageInternalError (the database).
    """
    parsed = parse(url)
    if parsed.get_backend_name() != "sqlite":
        patience = Patience(shown, is_away, waits=patient)
        patience(lambda: _reach(parsed))
        tables = {"skip_table_creation": read_only}
        address = parsed.render_as_string(hide_password=False)
        kwargs = _engine_for(parsed)
        return patience(lambda: _created(lambda: _open(ServerStorage, address, kwargs, patience=patience, **tables)))
    if not parsed.database or parsed.database == ":memory:":
        return _created(lambda: _open(RDBStorage, url, {}))
    arguments = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    if read_only and "uri" not in parsed.query:
        address = _read_only_url(Path(parsed.database))
        return _created(lambda: _open(FileStorage, address, arguments, skip_table_creation=True))
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return _created(lambda: _open_file(url, arguments))


def is_away(error: BaseException) -> bool:
    """Whether the server or the connection to it is gone for now, and not what was asked of it wrong."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        if isinstance(cause, PendingRollbackError):  # of an earlier error, after which Optuna asked on
            return True
        cause = cause.__cause__
    if cause is None or re.search(_REFUSED, str(cause.orig)):
        return False
    connecting = cause.statement is None and isinstance(cause, OperationalError | InterfaceError)
    return cause.connection_invalidated or connecting or _code(cause.orig) in _TRY_AGAIN


def _code(error: Any) -> str | int | None:
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code or next(iter(getattr(error, "args", ())), None)


def _patient(method: Callable[Concatenate[Any, P], Result]) -> Callable[Concatenate[Any, P], Result]:
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        patience: Patience = self.patience
        return patience(lambda: method(self, *args, **kwargs))

    return call


class Database(RDBStorage):
    """Optuna's storage, read as `studies.reading` does, in which one transaction may store much of a trial."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._settled = Settled()
        super().__init__(*args, **kwargs)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What this thread sets within it of a trial's params and user attributes is stored at its end: all or nothing.

        That holds for the trial that it sets first, and nobody sees any of it before, not even this thread.
        """
        before = getattr(_here, "held", None)
        held = _here.held = _Held(self)
        try:
            yield
        finally:
            _here.held = before
        if held.trial_id is not None:
            self._store(held.trial_id, held.params, held.notes)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if (held := _held_of(self, trial_id)) is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            held.notes[key] = json.dumps(value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if not self._insert(INSERT_INNER, {"of": trial_id, "key": key, "value_json": json.dumps(value)}):
            super().set_trial_system_attr(trial_id, key, value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"of": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        if not self._insert(INSERT_REPORT, row):
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def _insert(self, statement: Insert, row: Mapping[str, Any]) -> bool:
        """Have one statement do what Optuna does in three; False where that is there, or no trial that can have it."""
        try:
            with self._transaction() as connection:
                return connection.execute(statement, row).rowcount == 1
        except IntegrityError:
            return False
        except SQLAlchemyError as error:
            raise StorageInternalError("the database did not store it") from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Of one statement: PostgreSQL needs no other two to begin and end it."""
        if self.engine.dialect.name == "postgresql":
            with self.engine.connect() as connection:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")
        else:
            with self.engine.begin() as connection:
                yield connection

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if (held := _held_of(self, trial_id)) is None:
            super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)
            return
        if (known := previous_distribution or self._distribution_of(param_name, trial_id)) is not None:
            check_distribution_compatibility(known, distribution)
        held.params[param_name] = param_value_internal, distribution_to_json(distribution)

    def _distribution_of(self, param_name: str, trial_id: int) -> BaseDistribution | None:
        """That which the param has in the trial's study; None where no trial has the param."""
        with reading(self) as connection:
            asked = {"param_name": param_name, "trial_id": trial_id}
            found: str | None = connection.execute(DISTRIBUTIONS, asked).scalar()
        return None if found is None else json_to_distribution(found)

    def _store(self, trial_id: int, params: Mapping[str, tuple[float, str]], notes: Mapping[str, str]) -> None:
        """As Optuna does it one by one: params that are there already stay as they are, notes are replaced."""
        rows = [
            {"trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": distribution}
            for name, (value, distribution) in params.items()
        ]
        try:
            with _create_scoped_session(self.scoped_session) as session:
                self._check_runs(session, trial_id)
                there = {*session.execute(KEYS, {"trial_id": trial_id}).scalars()}
                new = [{"trial_id": trial_id, "key": key, "value_json": notes[key]} for key in notes.keys() - there]
                if rows:
                    session.execute(INSERT_PARAMS, rows)
                if new:
                    session.execute(INSERT_NOTES, new)
                for key in notes.keys() & there:
                    self._set_trial_attr_without_commit(
                        session, models.TrialUserAttributeModel, trial_id, key, json.loads(notes[key])
                    )
        except IntegrityError:  # some of it is there by now: it was set elsewhere, or here without hearing of it
            for row in rows:
                with _create_scoped_session(self.scoped_session, True) as session:
                    self._check_runs(session, trial_id)
                    session.execute(INSERT_PARAMS, row)
            for key, text in notes.items():
                super().set_trial_user_attr(trial_id, key, json.loads(text))

    def _check_runs(self, session: Session, trial_id: int) -> None:
        state = session.execute(STATES, {"trial_id": trial_id}).scalar_one_or_none()
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self.check_trial_is_updatable(trial_id, state)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return read_trial(self, trial_id, self._settled)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return read_study_notes(self, study_id)

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        self._settled.forget()  # SQLite gives the ids of its trials to others

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return read_trials(self, study_id, states, included_trial_ids, trial_id_greater_than, self._settled)


@dataclass
class _Held:
    """What a thread is to store of one trial: internal value and distribution of params, and JSON of notes, by name."""

    storage: Database
    trial_id: int | None = None
    params: dict[str, tuple[float, str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


_here = threading.local()
"""`held`, in a thread that stores much at once."""


def _held_of(storage: Database, trial_id: int) -> _Held | None:
    """What this thread holds back of this trial; None if it stores what it sets."""
    held: _Held | None = getattr(_here, "held", None)
    if held is None or held.storage is not storage:
        return None
    held.trial_id = trial_id if held.trial_id is None else held.trial_id
    return held if held.trial_id == trial_id else None


class FileStorage(Database):
    """Optuna's storage in an SQLite file."""


class ServerStorage(Database):
    """Optuna's storage on a database server, which may be away for up to RETRY_S: every call waits for it.

    A connection may break after the server has done what it was asked, and before it said so. A call that is made
    again then has its effect once all the same: what sets a value sets it to the same; a trial that an earlier attempt
    has created or popped from the queue bears the name of the call; to finish a trial that has just been finished in
    the same way is right.

    Heartbeats are on, for Optuna's own tools (see `studies.lease`): with ask and tell, no trial is failed by them.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], *, patience: Patience, **more: Any) -> None:
        self.patience = patience
        self._attempted: set[str] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(url, engine_kwargs, heartbeat_interval=BEAT_S, grace_period=BEAT_GRACE_S, **more)
        event.listen(self.engine, "checkin", _note_use)
        event.listen(self.engine, "checkout", partial(_check, self.engine.dialect))
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")  # at every study.ask()
        logging.getLogger("optuna.storages._rdb.storage").addFilter(_is_worth_telling)
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # or a broken connection is a page of traceback

    create_new_study = _patient(RDBStorage.create_new_study)
    delete_study = _patient(Database.delete_study)
    set_study_user_attr = _patient(RDBStorage.set_study_user_attr)
    set_study_system_attr = _patient(RDBStorage.set_study_system_attr)
    get_study_id_from_name = _patient(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _patient(RDBStorage.get_study_name_from_id)
    get_study_directions = _patient(RDBStorage.get_study_directions)
    get_study_user_attrs = _patient(Database.get_study_user_attrs)
    get_study_system_attrs = _patient(RDBStorage.get_study_system_attrs)
    get_all_studies = _patient(RDBStorage.get_all_studies)
    _set_trial_param = _patient(Database._set_trial_param)
    _store = _patient(Database._store)
    set_trial_intermediate_value = _patient(Database.set_trial_intermediate_value)
    set_trial_user_attr = _patient(Database.set_trial_user_attr)
    set_trial_system_attr = _patient(Database.set_trial_system_attr)
    get_trial_id_from_study_id_trial_number = _patient(RDBStorage.get_trial_id_from_study_id_trial_number)
    get_trial = _patient(Database.get_trial)
    get_trial_param = _patient(RDBStorage.get_trial_param)
    get_trial_user_attrs = _patient(RDBStorage.get_trial_user_attrs)
    get_trial_system_attrs = _patient(RDBStorage.get_trial_system_attrs)
    _get_trials = _patient(Database._get_trials)
    _get_best_trial_id = _patient(RDBStorage._get_best_trial_id)
    record_heartbeat = _patient(RDBStorage.record_heartbeat)
    _get_stale_trial_ids = _patient(RDBStorage._get_stale_trial_ids)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        call, attempts = uuid.uuid4().hex, 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            if state == TrialState.RUNNING:
                return self._pop(trial_id, call)
            try:
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                trial = self.get_trial(trial_id)
                if attempts > 1 and trial.state == state and trial.values == (list(values) if values else None):
                    return True
                raise

        return self.patience(attempt)

    def _pop(self, trial_id: int, call: str) -> bool:
        """Begin a trial that waits in the queue; False where somebody else did. As Optuna does it, and signed."""
        with _create_scoped_session(self.scoped_session) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            self.check_trial_is_updatable(trial_id, trial.state)
            if trial.state != TrialState.WAITING:
                return _made_by(call, trial.study_id, session) is not None
            trial.state = TrialState.RUNNING
            trial.datetime_start = datetime.now()
            self._set_trial_attr_without_commit(session, models.TrialSystemAttributeModel, trial_id, MADE_BY, call)
            return True

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        template = copy.copy(template_trial) if template_trial else create_trial(state=TrialState.RUNNING)
        call = uuid.uuid4().hex
        template.system_attrs = {**template.system_attrs, MADE_BY: call}
        try:
            return self.patience(lambda: RDBStorage._create_new_trial(self, study_id, template))
        finally:
            self._attempted.discard(call)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> Any:
        """Within the transaction: what an earlier attempt of the same call has stored, or else a new trial."""
        assert template_trial is not None
        call = template_trial.system_attrs[MADE_BY]
        if call in self._attempted and (stored := _made_by(call, study_id, session)) is not None:
            return stored
        self._attempted.add(call)
        return super()._get_prepared_new_trial(study_id, template_trial, session)


def _note_use(_connection: Any, record: Any) -> None:
    record.info[USED] = time.monotonic()


def _check(dialect: Dialect, connection: Any, record: Any, _proxy: object) -> None:
    """Ask the server for a sign of life over a connection that has lain idle; a broken one is replaced."""
    if time.monotonic() - record.info.setdefault(USED, time.monotonic()) > IDLE_S:
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Not that a query failed, with the whole of it: Optuna takes any error for a query that was too long."""
    return not str(record.msg).startswith("Caught an error from sqlalchemy")


def _made_by(call: str, study_id: int, session: Session) -> Any:
    """The trial that this call has created or popped; None if there is none."""
    signature = models.TrialSystemAttributeModel
    trials = session.query(models.TrialModel).join(signature).filter(models.TrialModel.study_id == study_id)
    return trials.filter(signature.key == MADE_BY, signature.value_json == f'"{call}"').one_or_none()


def _reach(url: URL) -> None:
    """Connect once: until that succeeds, the address may be wrong."""
    engine = create_engine(url, poolclass=NullPool, connect_args=_engine_for(url)["connect_args"])
    engine.connect().close()


def _engine_for(url: URL) -> dict[str, Any]:
    """One connection is kept: of 64 workers, 64 of the 100 that PostgreSQL grants. A thread beside opens a second."""
    driver = url.get_driver_name()
    timeouts = _TIMEOUTS.get(_TIMED_AS.get(driver, driver), {})
    asked = {name: value for name, value in timeouts.items() if name not in url.query}
    return {"pool_pre_ping": False, "pool_size": 1, "max_overflow": 9, "connect_args": asked}  # see _check


Storage = TypeVar("Storage", bound=RDBStorage)


def _open(kind: type[Storage], url: str, engine_kwargs: dict[str, Any], **more: Any) -> Storage:
    return kind(url.replace("{", "{{").replace("}", "}}"), engine_kwargs, **more)  # Optuna calls url.format()


def _open_file(url: str, arguments: dict[str, Any]) -> FileStorage:
    """An SQLite file, to be written to as well."""
    storage = _open(FileStorage, url, arguments)
    event.listen(storage.engine, "connect", _configure_sqlite)
    event.listen(storage.engine, "begin", _begin_immediate)
    storage.engine.dispose()  # the connections so far were made without these
    with storage.engine.begin():  # and one with them shows whether the file can be written to
        return storage


def _created(make: Callable[[], Storage]) -> Storage:
    """What this makes; tried again while another process creates the same tables, which Optuna does without a lock."""
    began = time.monotonic()
    for _ in range(CREATION_TRIES):
        try:
            return make()
        except ImportError as error:
            raise error.__cause__ or error from None
        except RuntimeError as error:  # tables of another version of Optuna
            raise StorageInternalError(str(error)) from None
        except (DBAPIError, StorageInternalError) as error:
            said = str(getattr(error, "orig", None) or getattr(error.__cause__, "orig", ""))
            # of two that have read an SQLite file and would write, one is refused without having waited
            refused = "database is locked" in said and time.monotonic() - began < BUSY_TIMEOUT_S
            if not (refused or re.search("already exists|UNIQUE constraint|[Dd]uplicate", said)):
                raise
            clash = error
            time.sleep(0.1)
    raise clash


def _read_only_url(path: Path) -> str:
    """The URL by which SQLite opens a file for reading only. Raises OSError where there is none."""
    path = path.resolve(strict=True)
    query = {"mode": "ro", "uri": "true"}
    if not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        query["immutable"] = "1"  # SQLite would make a log to read by; where nobody has one, nobody writes
    return URL.create("sqlite", database=path.as_uri(), query=query).render_as_string()


def _configure_sqlite(connection: Any, _record: object) -> None:
    """WAL lets others read while one writes.

    synchronous=NORMAL writes without waiting for the disk, except at checkpoints. A process may be killed at any moment
    and nothing is lost, since the system holds what was written; a power cut costs what was stored since the last
    checkpoint, but not the file. `make_durable` makes one when a trial has finished: FULL would wait for the disk about
    a hundred times a trial.
    """
    connection.isolation_level = None  # the driver begins no transaction of its own, and too late; see _begin_immediate
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediate(connection: Connection) -> None:
    """Begin with the write lock, so that reading a trial's state and changing it are one step; else read what is there.

    Optuna locks rows for that (SELECT ... FOR UPDATE), which SQLite has not: two workers could pop the same queued
    trial. The recipe is SQLAlchemy's ("Serializable isolation / Savepoints / Transactional DDL").
    """
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READS) else "BEGIN IMMEDIATE")
