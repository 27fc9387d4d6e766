"""A journal on a Redis server, which may be away for a while."""

from __future__ import annotations

import json
import logging
import uuid
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import redis
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages.journal import JournalRedisBackend
from redis.backoff import NoBackoff
from redis.retry import Retry

from studies.patience import Patience

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10, 30
CHUNK = 1000  # records
ONCE_S = 3600  # how long the server remembers a record that it has appended; longer than any call waits

# As Optuna appends, but a record whose acknowledgement was lost is not appended again.
# Its arguments: prefix, id, record, ONCE_S.
_APPEND = """
if redis.call('set', ARGV[1] .. ':once:' .. ARGV[2], 1, 'NX', 'EX', ARGV[4]) then
    local i = redis.call('incr', ARGV[1] .. ':log_number')
    redis.call('set', string.format('%s:log:%d', ARGV[1], i), ARGV[3])
end
"""

Result = TypeVar("Result")


class RedisJournal(JournalRedisBackend):
    """Optuna's journal in Redis: every call waits for a server that is away, and takes effect once."""

    def __init__(self, url: str, shown: str, *, patient: bool = False) -> None:
        """Raises StorageInternalError where the server does not answer, ValueError where the URL is none."""
        self._patience = Patience(shown, is_away, waits=patient)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(url)
        self._redis = _client(url)
        if not self._call(self._keeps):
            logger.warning("storage %s forgets when it restarts: set appendonly to yes in its redis.conf", shown)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__dict__.update(state)
        self._redis = _client(self._url)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:  # type: ignore[override]  # a list, not a generator
        return self._call(lambda: list(self._records(log_number_from)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        def append(call: str, record: str) -> None:
            self._redis.setnx(f"{self._prefix}:log_number", -1)
            self._redis.eval(_APPEND, 0, self._prefix, call, record, ONCE_S)

        for log in logs:
            call, record = uuid.uuid4().hex, json.dumps(log)
            self._call(lambda: append(call, record))  # noqa: B023  # is called at once

    def save_snapshot(self, snapshot: bytes) -> None:
        self._call(lambda: super(RedisJournal, self).save_snapshot(snapshot))

    def load_snapshot(self) -> bytes | None:
        return self._call(lambda: super(RedisJournal, self).load_snapshot())

    def _records(self, first: int) -> Iterable[dict[str, Any]]:
        stored = int(self._redis.get(f"{self._prefix}:log_number") or -1) + 1
        if stored < first:
            raise StorageInternalError(f"the server has lost {first - stored} of the study's {first} records")
        for begin in range(first, stored, CHUNK):
            keys = [self._key_log_id(number) for number in range(begin, min(begin + CHUNK, stored))]
            records: list[Any] = self._redis.mget(keys)
            yield from map(json.loads, records)

    def _keeps(self) -> bool:
        """Whether what it was told outlives the server; True where it does not say."""
        with suppress(redis.ResponseError):
            return self._redis.config_get("appendonly").get("appendonly") != "no"
        return True

    def _call(self, work: Callable[[], Result]) -> Result:
        try:
            return self._patience(work)
        except redis.RedisError as error:
            raise StorageInternalError(str(error)) from error


def is_away(error: BaseException) -> bool:
    """Whether the server or the connection to it is gone for now, and not what was asked of it wrong."""
    refused = redis.AuthenticationError | redis.exceptions.AuthorizationError
    away = redis.ConnectionError | redis.TimeoutError | redis.exceptions.ReadOnlyError
    return isinstance(error, away) and not isinstance(error, refused)


def _client(url: str) -> Any:
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),  # how long to wait is ours to say
    )
