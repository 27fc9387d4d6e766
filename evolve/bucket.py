"""Copies a run folder to a bucket while it grows: in the background, newest state first, never in the way."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config import MASK, ConfigError, mask_secrets

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # between tries, doubling
LAST_WAIT_S = 600.0  # a large file on a slow line; Ctrl-C ends it
SMALL_BYTES = 1 << 24  # what is read at once, so that it does not grow while it is sent

_OPTIONS: dict[str, dict[str, Any]] = {  # we try again ourselves, and tell of it
    "s3": {"config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}}
}
_WITHOUT_FOLDERS = {"s3", "gs", "az", "abfs"}


@dataclass(frozen=True)
class Bucket:
    """A folder behind a URL, and the fsspec file system that writes there. `url` has no password in it."""

    url: str
    files: Any
    path: str

    def send(self, source: Path, name: str) -> None:
        """Replace what `name` is there by a file of ours. Raises whatever the file system does."""
        target = f"{self.path}/{name}"
        if self.url.partition("://")[0] not in _WITHOUT_FOLDERS:
            self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
        if source.stat().st_size <= SMALL_BYTES:
            self.files.pipe_file(target, source.read_bytes())
        else:
            self.files.put_file(str(source), target)


def open_bucket(url: str) -> Bucket:
    """The bucket that fsspec finds behind a URL; most are not asked for anything yet. Raises ConfigError."""
    shown = mask_secrets(url)
    scheme = url.partition("://")[0]
    if not re.match(r"\w[\w+.-]*://[^/\s]|file:///", url):
        raise ConfigError(f"--bucket {shown} is not a URL, as s3://bucket/folder or file:///folder")
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url.rstrip("/"), skip_instance_cache=True, **_OPTIONS.get(scheme, {}))
    except ImportError as error:
        wanted = "pip install 'evolve-hyp[bucket]'" if scheme == "s3" else without_secrets(str(error))
        raise ConfigError(f"--bucket {shown} needs a package that is not installed: {wanted}") from error
    except Exception as error:  # of any file system: a protocol that is not known, a host that does not answer
        raise ConfigError(f"--bucket {shown} cannot be used: {_told(error)}") from error
    return Bucket(shown, files, path)


class Uploads:
    """Sends the files of `folder` that changed, whenever it is told that some did, to <bucket>/<name of the folder>.

    One thread sends one file at a time; whoever says `soon` never waits. What fails is tried again after a pause, each
    twice as long as the one before, and is one warning until something succeeds. `wanted` are glob patterns of what is
    sent, by default everything but hidden files.
    """

    def __init__(
        self, bucket: Bucket, folder: Path, warn: Callable[[str], object], wanted: Sequence[str] = ("**/*",)
    ) -> None:
        name = folder.resolve().name  # that of '.', too
        if _is_local(bucket.url) and (Path(bucket.path) / name).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"--bucket {bucket.url} would copy {folder} into itself")
        self._bucket = bucket
        self._folder = folder
        self._name = name
        self._warn = warn
        self._wanted = wanted
        self._state = threading.Condition()
        self._due = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._sent: dict[str, tuple[int, ...]] = {}

    @property
    def url(self) -> str:
        return f"{self._bucket.url.rstrip('/')}/{self._name}"

    def soon(self) -> None:
        """Something changed: send it when the line is free."""
        with self._state:
            self._due = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
                self._thread.start()
            self._state.notify()

    def finish(self, wait_s: float) -> bool:
        """Send what is not there yet, trying once more if need be; returns whether that ended in time, well or not."""
        if self._thread is None:
            return True
        with self._state:
            self._closing = self._due = True
            self._state.notify()
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def close(self, wait_s: float = LAST_WAIT_S) -> None:
        """Finish, and warn where that took too long."""
        if not self.finish(wait_s):
            self._warn(f"the upload to {self.url} was given up after {wait_s:g} s; everything lies in {self._folder}")

    def _work(self) -> None:
        failures = 0
        while True:
            with self._state:
                self._state.wait_for(lambda: self._due)
                self._due, last = False, self._closing
            failure = self._send_changes()
            if failure and last:
                time.sleep(FIRST_PAUSE_S)
                failure = self._send_changes()
            if failure and last:
                self._warn(f"not all could be sent to {self.url} ({failure}); everything lies in {self._folder}")
            if last:
                return
            failures = failures + 1 if failure else 0
            if failures == 1:
                self._warn(f"the upload to {self.url} failed ({failure}); it is tried again")
            if failures:
                with self._state:
                    self._due = True
                    pause_s = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 10), LONGEST_PAUSE_S)
                    self._state.wait_for(lambda: self._closing, pause_s)

    def _send_changes(self) -> str:
        """Why not everything could be sent; '' where it was."""
        try:
            for source in self._files():
                name, mark = source.relative_to(self._folder).as_posix(), _mark(source)
                if self._sent.get(name) != mark:
                    with _at_rest(source) as still:
                        self._bucket.send(still, f"{self._name}/{name}")
                    self._sent[name] = mark
        except Exception as error:  # of any file system: nothing that goes wrong there may end a training
            return _told(error)
        return ""

    def _files(self) -> list[Path]:
        """What is wanted, small things first: weights may take long."""
        found = {path for pattern in self._wanted for path in self._folder.glob(pattern) if path.is_file()}
        visible = [path for path in found if not path.name.startswith(".")]
        return sorted(visible, key=lambda path: (path.suffix == ".pt", path))


def without_secrets(text: str) -> str:
    """The same text without passwords of URLs, and without the value of any variable that is named like a secret."""
    for name, value in os.environ.items():
        if re.search(r"KEY|SECRET|TOKEN|PASS|CREDENTIAL", name.upper()) and len(value) >= 6:
            text = text.replace(value, MASK)
    return mask_secrets(text)


def _is_local(url: str) -> bool:
    return url.startswith(("file://", "local://"))


def _told(error: Exception) -> str:
    """An error in one line, and with nothing in it that nobody should read."""
    text = " ".join(str(error).split())
    return without_secrets(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:300]


def _mark(source: Path) -> tuple[int, ...]:
    """What differs when a file was written to or replaced; of a database, the log beside it counts too."""
    log = source.with_name(f"{source.name}-wal")
    found = [source.stat(), *([log.stat()] if log.exists() else [])]
    return tuple(number for stat in found for number in (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@contextmanager
def _at_rest(source: Path) -> Iterator[Path]:
    """The file itself; of a database that is written to, a copy of one moment."""
    if source.suffix != ".db":
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="evolve-upload-") as folder:
        copy = Path(folder) / source.name
        url = f"{source.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(url, uri=True)) as there, closing(sqlite3.connect(copy)) as here:
            there.backup(here)
        yield copy
