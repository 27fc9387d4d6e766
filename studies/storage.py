"""Where studies are kept: a URL in, an Optuna storage out, and one sentence when it cannot be had."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError

from studies.errors import StudyError

BUSY_TIMEOUT_S = 60  # how long to wait for another process that writes to the same SQLite file
CONNECT_TIMEOUT_S = 10  # how long to wait for a database server to answer
CREATION_TRIES = 20

_SCHEMES = "sqlite:///PATH, journal:PATH, postgresql://..., mysql://... or memory:"
_PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}  # of a module
_HINTS = {  # what the database says, and what its user can do
    "file is not a database": "the file is no SQLite database",
    "unable to open database file": "the file cannot be opened; check that its folder can be written to",
    "readonly database": "it cannot be written to; check the permissions of the file and of its folder",
    "disk is full": "the disk is full; free some space and run the same command again, no finished trial is lost",
    "disk I/O error": "the disk does not take what is written; check its free space, quota and health",
    "no such table": "no study has been stored in it yet",
    "database is locked": f"another process has kept it locked for {BUSY_TIMEOUT_S} seconds",
    "no longer compatible": "another version of Optuna made it; 'optuna storage upgrade --storage URL' converts it",
}


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def open_storage(url: str, *, read_only: bool = False) -> BaseStorage:
    """The storage behind a URL; SQLite and journal files are created where there are none.

    `sqlite:///PATH` is the default of every study: a file in WAL mode that any number of processes of one machine may
    share. `journal:PATH` suits network file systems, on which SQLite's locks do not work. Any other URL that SQLAlchemy
    knows (postgresql://, mysql://) serves several machines. `memory:` is gone when the process ends.

    `read_only` of an SQLite file creates nothing, waits for nobody who writes, and needs no right to write.

    Raises StudyError, within about ten seconds where the driver takes a timeout: unknown scheme, missing driver, no
    answer, no SQLite database, folder not writable. Passwords are not shown.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return InMemoryStorage()
    try:
        if scheme == "journal" and rest:
            return _open_journal(Path(rest))
        with storage_errors(url):
            return _open_database(url, read_only)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise StudyError(
            f"storage {_shown(url)} needs a driver that is not installed: pip install {package}"
        ) from error
    except OSError as error:
        raise _unusable(url, error) from error


def make_durable(study: Study) -> None:
    """Have all that was stored so far outlive a power cut, too: a checkpoint syncs SQLite's log before all else.

    Nothing is waited for: while another process reads what is older than the last checkpoint, it is left to the next
    call. Other storages are left to what they do themselves. Raises StudyError where the disk does not take it.
    """
    storage = getattr(study._storage, "_backend", study._storage)  # Optuna wraps a database in a cache
    if not isinstance(storage, RDBStorage) or storage.engine.dialect.name != "sqlite":
        return
    with storage_errors(storage.url), closing(storage.engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # not within a transaction


@contextmanager
def storage_errors(url: str = "") -> Iterator[None]:
    """Inside it, what a database fails with becomes a StudyError of one sentence; the cause stays attached."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        raise _unusable(url, error) from error


def _open_database(url: str, read_only: bool) -> BaseStorage:
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return _connect(url, {"pool_pre_ping": True, "connect_args": _connect_args(parsed)})
    if not parsed.database or parsed.database == ":memory:":
        return _connect(url, {})
    arguments = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    if read_only and "uri" not in parsed.query:
        return _connect(_read_only_url(Path(parsed.database)), arguments, skip_table_creation=True)
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    storage = _connect(url, arguments)
    event.listen(storage.engine, "connect", _configure_sqlite)
    event.listen(storage.engine, "begin", _begin_immediate)
    storage.engine.dispose()  # the connections so far were made without these
    with storage.engine.begin():  # and one with them shows whether the file can be written to
        return storage


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ValueError) as error:
        raise StudyError(f"{_shown(url)!r} is no storage; give {_SCHEMES}") from error
    return parsed


def _read_only_url(path: Path) -> str:
    """The URL by which SQLite opens a file for reading only. Raises OSError where there is none."""
    path = path.resolve(strict=True)
    query = {"mode": "ro", "uri": "true"}
    if not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        query["immutable"] = "1"  # SQLite would make a log to read by; where nobody has one, nobody writes
    return URL.create("sqlite", database=path.as_uri(), query=query).render_as_string()


def _connect(url: str, engine_kwargs: dict[str, Any], **more: Any) -> RDBStorage:
    """Optuna's storage; tried again while another process creates the same tables, which Optuna does without a lock."""
    escaped = url.replace("{", "{{").replace("}", "}}")  # Optuna calls url.format()
    for _ in range(CREATION_TRIES):
        try:
            return RDBStorage(escaped, engine_kwargs, **more)
        except ImportError as error:
            raise error.__cause__ or error from None
        except RuntimeError as error:  # tables of another version of Optuna
            raise StorageInternalError(str(error)) from None
        except (IntegrityError, OperationalError) as error:
            if not re.search("already exists|UNIQUE constraint|[Dd]uplicate", str(error.orig)):
                raise
            clash = error
            time.sleep(0.1)
    raise clash


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
    """Begin with the write lock, so that reading a trial's state and changing it are one step.

    Optuna locks rows for that (SELECT ... FOR UPDATE), which SQLite has not: two workers could pop the same queued
    trial. The recipe is SQLAlchemy's ("Serializable isolation / Savepoints / Transactional DDL").
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connect_args(url: URL) -> dict[str, Any]:
    drivers_with_timeout = ("psycopg", "psycopg2", "pymysql", "mysqldb", "mysqlconnector", "mariadbconnector")
    if url.get_driver_name() not in drivers_with_timeout:
        return {}
    name = "connection_timeout" if url.get_driver_name() == "mysqlconnector" else "connect_timeout"
    return {name: CONNECT_TIMEOUT_S}


def _open_journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.exists():
            _cut_torn_tail(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"storage journal:{path} cannot be used: the file is no journal of Optuna") from error


def _cut_torn_tail(path: Path) -> None:
    """Remove what a killed process left of a last line: Optuna 5.0 can no longer use a journal that has one."""
    lock = JournalFileSymlinkLock(str(path))  # the one that Optuna holds while it appends
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            if content[:1] not in (b"", b"{"):
                raise ValueError("not a line of JSON")
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
    finally:
        lock.release()


def _unusable(url: str, error: BaseException) -> StudyError:
    where = f"storage {_shown(url)}" if url else "the study's storage"
    return StudyError(f"{where} cannot be used: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The innermost cause on one line, in our words where we have some."""
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    if isinstance(error, FileExistsError):
        return f"{error.filename} is no folder"
    said = (
        " ".join(str(getattr(error, "strerror", None) or (error.args or [error])[-1]).split()) or type(error).__name__
    )
    filename = getattr(error, "filename", None)
    return next((hint for sign, hint in _HINTS.items() if sign in said), f"{filename}: {said}" if filename else said)


def _shown(url: str) -> str:
    """The URL without password and query, either of which may hold a secret."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url.partition("?")[0])
