"""A real PostgreSQL for benchmarks: the server that the tests start, for an unprivileged user, in its own folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.report import ROOT


@contextmanager
def postgres() -> Iterator[Any]:
    """`tests/servers.py`'s Postgres: `new_database()`, `kill()`, `stop()`, `start()`. It ends with this process."""
    spec = importlib.util.spec_from_file_location("servers_of_the_tests", ROOT / "tests" / "servers.py")
    assert spec is not None and spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    server = servers.Postgres()
    try:
        yield server
    finally:
        server.close()
