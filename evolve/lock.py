"""One study, one process: a lock on the run folder that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evolve.config import ConfigError


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`, made where there is none. ConfigError if another process holds it; OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another `evolve run` works in {path.parent}; wait for it or give --study") from None
        yield
