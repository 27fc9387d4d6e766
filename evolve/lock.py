"""One run folder, one process: a lock on the folder that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from evolve.config import ConfigError
from evolve.paths import RunPaths, TrainingPaths


@contextmanager
def sole_use(paths: RunPaths | TrainingPaths) -> Iterator[None]:
    """Make the run folder and hold it alone. ConfigError if another process does; OSError if it cannot be made.

    A folder in which neither study nor training came to be (the data was mistyped) is removed at the end, unless a log
    says something.
    """
    descriptor = _lock(paths)
    try:
        yield
    finally:
        if not paths.config.exists():
            _remove_unused(paths)
        os.close(descriptor)


def _lock(paths: RunPaths | TrainingPaths) -> int:
    """The descriptor of the lock file; the lock is held while it is open."""
    while True:
        paths.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            command, flag = ("run", "--study") if isinstance(paths, RunPaths) else ("train", "--out")
            raise ConfigError(f"another `evolve {command}` works in {paths.root}; wait for it or give {flag}") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(paths.lock), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # whoever held it before has just removed the folder


def _remove_unused(paths: RunPaths | TrainingPaths) -> None:
    log = paths.worker_log
    if log.exists() and log.stat().st_size:
        return
    log.unlink(missing_ok=True)
    if os.listdir(paths.root) == [paths.lock.name]:
        paths.lock.unlink()
        paths.root.rmdir()
