"""Where studies are kept: a URL in, an Optuna storage out, and one sentence when it cannot be had."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from studies.database import BUSY_TIMEOUT_S, open_database
from studies.errors import StudyError
from studies.journal_file import JournalFile
from studies.trials import without_cache

_SCHEMES = "sqlite:///PATH, journal:PATH, postgresql://..., mysql://..., redis://... or memory:"
_PACKAGES = {  # of a module that is missing
    "psycopg": "'evolve-hyp[postgresql]'",
    "pymysql": "'evolve-hyp[mysql]'",
    "redis": "'evolve-hyp[redis]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
_DISK_FULL = "the disk is full; free some space and run the same command again, no finished trial is lost"
_HINTS = {  # what the database says, and what its user can do
    "file is not a database": "the file is no SQLite database",
    "unable to open database file": "the file cannot be opened; check that its folder can be written to",
    "readonly database": "it cannot be written to; check the permissions of the file and of its folder",
    "disk is full": _DISK_FULL,
    "No space left on device": _DISK_FULL,
    "could not extend file": _DISK_FULL,  # PostgreSQL
    "disk I/O error": "the disk does not take what is written; check its free space, quota and health",
    "no such table": "no study has been stored in it yet",
    'relation "version_info" does not exist': "no study has been stored in it yet",
    "version_info' doesn't exist": "no study has been stored in it yet",
    "database is locked": f"another process has kept it locked for {BUSY_TIMEOUT_S} seconds",
    "no longer compatible": "another version of Optuna made it; 'optuna storage upgrade --storage URL' converts it",
}


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def open_storage(url: str, *, read_only: bool = False, patient: bool = False) -> BaseStorage:
    """The storage behind a URL; SQLite and journal files are created where there are none.

    `sqlite:///PATH` is the default of every study: a file in WAL mode that any number of processes of one machine may
    share. `journal:PATH` suits network file systems, on which SQLite's locks do not work. `postgresql://`, `mysql://`
    and any other URL that SQLAlchemy knows serve several machines, as does `redis://`, a journal on a Redis server.
    `memory:` is gone when the process ends.

    A server that goes away later is waited for, see `studies.patience`; `patient` waits for it here, too. `read_only`
    of a file creates nothing, waits for nobody who writes, and needs no right to write.

    Raises StudyError, within about ten seconds where the driver takes a timeout: unknown scheme, missing driver, no
    answer, no SQLite database, folder not writable. Passwords are not shown.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return InMemoryStorage()
    try:
        with storage_errors(url):
            if scheme == "journal" and rest:
                return _open_journal(Path(rest), read_only)
            if scheme in ("redis", "rediss", "unix"):
                return _open_redis(url, patient)
            return open_database(url, _shown(url), read_only=read_only, patient=patient)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise StudyError(
            f"storage {_shown(url)} needs a driver that is not installed: pip install {package}"
        ) from error
    except ValueError as error:
        raise StudyError(f"{_shown(url)!r} is no storage; give {_SCHEMES}") from error
    except OSError as error:
        raise _unusable(url, error) from error


def make_durable(study: Study) -> None:
    """Have all that was stored so far outlive a power cut, too: a checkpoint syncs SQLite's log before all else.

    Nothing is waited for: while another process reads what is older than the last checkpoint, it is left to the next
    call. Other storages are left to what they do themselves. Raises StudyError where the disk does not take it.
    """
    storage = without_cache(study._storage)
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


def _open_journal(path: Path, read_only: bool) -> BaseStorage:
    try:
        return JournalStorage(JournalFile(path, read_only=read_only))
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"storage journal:{path} cannot be used: the file is no journal of Optuna") from error


def _open_redis(url: str, patient: bool) -> BaseStorage:
    from studies.redis_journal import RedisJournal  # needs a package that not everybody has

    return JournalStorage(RedisJournal(url, _shown(url), patient=patient))


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
    without_secrets = re.sub(r"(?i)([?&][^=&]*(?:passw|pwd|token|secret)[^=&]*=)[^&]*", r"\1", url)
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", without_secrets, flags=re.DOTALL).partition("?")[0]
