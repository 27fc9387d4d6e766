"""A journal in a file, for network file systems: whoever is killed while writing to it harms no line but its own.

Every record is a line. What a killed process left of one has no end; readers leave it alone, and the next who opens the
file or appends to it cuts it off. (Optuna 5.0's own backend appends behind it, which no reader gets past.)
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import BaseJournalBackend

from studies.worker import is_alive, this_worker

logger = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes
LOCK_GRACE_S = 30.0  # how long another host may keep the lock
DEAD_GRACE_S = 1.0  # and a process of this host that is gone
LONGEST_PAUSE_S = 0.05

_BEGINNING = b'{"op_code":'  # of every record
_NOTHING = {"op_code": 2, "worker_id": "", "study_id": -1, "user_attr": {"": None}}  # sets an attribute of no study


class JournalFile(BaseJournalBackend):
    """Optuna's file format, appended to under the lock that Optuna takes, too."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Create the file where there is none, and cut off its torn end; who only reads does neither.

        Raises OSError, and ValueError for a file that is no journal.
        """
        self._path = path
        self._lock = Path(f"{path}.lock")
        self._number, self._offset = 0, 0  # of the record that is read next
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened(os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT) as file:
            _check(os.pread(file, CHUNK, 0))
            if not read_only and _torn(file):
                with self._locked():
                    self._cut(file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from that number on which are whole by now."""
        if log_number_from != self._number:
            self._number, self._offset = 0, 0
        with self._opened(os.O_RDONLY) as file:
            while lines := self._lines(file):
                for line in lines:
                    record = _parsed(line)
                    if record is None:
                        with self._locked():
                            settled = self._lines(file)
                        if settled[:1] != [line]:
                            break  # it was being cut off and written over
                        logger.warning("journal %s: cannot read record %d, it is left out", self._path, self._number)
                    self._number, self._offset = self._number + 1, self._offset + len(line) + 1
                    if self._number > log_number_from:
                        yield _NOTHING if record is None else record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append all of them, and wait until the disk has them. A full disk is a StorageInternalError."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._locked(), self._opened(os.O_RDWR | os.O_APPEND) as file:
            self._cut(file)
            try:
                _write(file, lines)
            except BaseException:
                self._cut(file)
                raise
            os.fsync(file)

    def _lines(self, file: int) -> list[bytes]:
        """Some whole lines, from the next record on; none where there are no more."""
        size = CHUNK
        while True:  # never two reads for one line: its end may have been cut off and written over in between
            chunk = os.pread(file, size, self._offset)
            *lines, _ = chunk.split(b"\n")
            if lines or len(chunk) < size:
                return lines
            size *= 2

    def _cut(self, file: int) -> None:
        if torn := _torn(file):
            os.ftruncate(file, os.fstat(file).st_size - torn)
            logger.warning("journal %s ended within a line: cut off %d bytes of a killed process", self._path, torn)

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        """Any OSError in here names the file and, once the study is open, ends it as a storage's error does."""
        try:
            file = os.open(self._path, flags, 0o666)
            try:
                yield file
            finally:
                os.close(file)
        except OSError as error:
            named = OSError(error.errno, error.strerror, str(self._path))
            raise StorageInternalError(str(named)) from named

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all hosts: by a symbolic link, which even old network file systems create in one step.

        It says who holds the lock. That of a process of this host that was killed is broken after DEAD_GRACE_S, that
        of one elsewhere which has not moved for LOCK_GRACE_S too.
        """
        me = json.dumps({**this_worker(), "id": uuid.uuid4().hex})
        holder, since, pause = "", time.monotonic(), 0.001
        try:
            while not self._acquired(me):
                if (found := _holder(self._lock)) != holder:
                    holder, since = found, time.monotonic()
                elif time.monotonic() - since > (DEAD_GRACE_S if _is_dead(holder) else LOCK_GRACE_S):
                    self._break(holder)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            yield
        finally:
            if _holder(self._lock) == me:
                self._lock.unlink(missing_ok=True)

    def _acquired(self, me: str) -> bool:
        try:
            self._lock.symlink_to(me)
        except FileExistsError:
            return False
        return True

    def _break(self, holder: str) -> None:
        """Take the lock away from its holder. Two may try at once: who took that of a third gives it back."""
        taken = self._lock.with_name(f"{self._lock.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            self._lock.rename(taken)
            if _holder(taken) == holder:
                taken.unlink()
            else:
                taken.rename(self._lock)


def _holder(lock: Path) -> str:
    """Who holds the lock, as it was written there; '' where nobody does, or a process that writes nothing there."""
    try:
        return os.readlink(lock)
    except OSError:
        return ""


def _is_dead(holder: str) -> bool:
    """Whether it was a process of this host that is gone. Of Optuna's own locks and of other hosts nobody can tell."""
    with suppress(ValueError, KeyError, TypeError):
        worker = json.loads(holder)
        return bool(worker["host"] == this_worker()["host"]) and not is_alive(worker)
    return False


def _check(content: bytes) -> None:
    """ValueError where a file that begins so is no journal: such a one is not to be cut or written to."""
    first, end, _ = content.partition(b"\n")
    if (end and not first.startswith(_BEGINNING)) or first[: len(_BEGINNING)] != _BEGINNING[: len(first)]:
        raise ValueError("not a line of JSON")


def _parsed(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict) and "op_code" in record:
            return record
    return None


def _torn(file: int) -> int:
    """How many bytes stand behind the last whole line."""
    end = size = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - CHUNK)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return size - (begin + found + 1)
        end = begin
    return size


def _write(file: int, content: bytes) -> None:
    while content:  # in one go, unless the disk fills up
        content = content[os.write(file, content) :]
