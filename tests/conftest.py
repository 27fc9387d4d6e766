"""Fixtures of all tests: database servers, each started once, when the first test asks for it."""

from collections.abc import Iterator

import pytest
from servers import Lent, MariaDB, Postgres, Redis, lend, serve


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    yield from serve(Postgres)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    yield from serve(Redis)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    yield from serve(MariaDB)


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Lent]:
    """`.url` of a fresh database; `.stop()`, `.kill()` and `.start()` of its server."""
    yield from lend(postgres_server)


@pytest.fixture
def redis(redis_server: Redis) -> Iterator[Lent]:
    redis_server.start()
    redis_server.clear()
    yield from lend(redis_server)


@pytest.fixture
def mariadb(mariadb_server: MariaDB) -> Iterator[Lent]:
    yield from lend(mariadb_server)
