"""Real database servers for tests: each run by an unprivileged user, in a folder of its own, on a port of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSWORD = "s3cret-pass"
START_S = 60
PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None)


class Server:
    """A server that can be stopped, killed and started again, with all that it was told. It ends with this process."""

    programs: tuple[str, ...] = ()
    package = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.port = _free_port()
        self.largest_file: int | None = None  # bytes, from the next start on: as on a disk that is full
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Make its files."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = time.monotonic() + START_S
        while True:
            if self._process is None or self._process.poll() is not None:
                self._process = self._spawn(self.command())
            if self.is_ready():
                return
            assert time.monotonic() < deadline, f"it does not start:\n{self.log}"
            time.sleep(0.05)

    def stop(self) -> None:
        """As an administrator does it: connections are broken, all is written."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As the system does it when memory is out."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def run(self, *command: str) -> None:
        """Run a command as the server's user and to its end."""
        process = self._spawn(list(command))
        assert process.wait(START_S) == 0, self.log

    def program(self, name: str) -> str:
        folders = [
            os.environ.get("PATH", ""),
            "/usr/sbin",
            *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))),
        ]
        found = shutil.which(name, path=os.pathsep.join(reversed(folders)))
        assert found, f"{name} is not installed: apt-get install {self.package}"
        return found

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """An unprivileged process: database servers refuse to run as root."""
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self.folder), "LC_ALL": "C"},
                start_new_session=True,  # a Ctrl-C is for the tests
                preexec_fn=self._prepare_child,  # noqa: PLW1509  # one call, which needs no lock
                **(user if os.geteuid() == 0 else {}),
            )

    def _prepare_child(self) -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file, self.largest_file))

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        children = _children_of(self.pid)
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, number)
        self._process.wait(START_S)
        self._process = None


class Postgres(Server):
    package = "postgresql"

    def __init__(self) -> None:
        self._databases = 0
        super().__init__()

    def prepare(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        initdb = (self.program("initdb"), "-D", f"{self.folder}/data", "-U", "evolve", "--no-sync", "-E", "UTF8")
        self.run(*initdb, "--auth=scram-sha-256", f"--pwfile={self.folder}/password")

    def command(self) -> list[str]:
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}")
        roomy = ("max_connections=300",)  # a worker has two at times
        quick = ("fsync=off", "logging_collector=off")
        quiet = ("autovacuum=off",)  # its workers come and go while other tests count this process' descendants
        options = [part for setting in (*settings, *roomy, *quick, *quiet) for part in ("-c", setting)]
        return [self.program("postgres"), "-D", f"{self.folder}/data", *options]

    def is_ready(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        import psycopg

        url = f"postgresql://evolve:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]  # a text that is not literal
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._databases += 1
        self.execute(f"CREATE DATABASE study{self._databases}")
        return f"postgresql://evolve:{PASSWORD}@127.0.0.1:{self.port}/study{self._databases}"


class Redis(Server):
    package = "redis-server"

    def command(self) -> list[str]:
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "requirepass": PASSWORD, "save": ""}
        pairs = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return [self.program("redis-server"), *pairs, "--appendonly", "yes"]

    @property
    def client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.new_database())

    def is_ready(self) -> bool:
        import redis

        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def new_database(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def clear(self) -> None:
        self.client.flushall()


class MariaDB(Server):
    package = "mariadb-server-core mariadb-client-core"

    def __init__(self) -> None:
        self._databases = 0
        super().__init__()

    def prepare(self) -> None:
        (self.folder / "grants.sql").write_text(
            f"CREATE USER IF NOT EXISTS 'evolve'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO 'evolve'@'%';\n"
        )
        install = (self.program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder}/data")
        self.run(*install, "--skip-test-db", "--auth-root-authentication-method=normal")

    def command(self) -> list[str]:
        options = (f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.folder}/socket")
        files = (f"--datadir={self.folder}/data", f"--init-file={self.folder}/grants.sql", f"--tmpdir={self.folder}")
        return [self.program("mariadbd"), "--no-defaults", *files, *options, "--skip-name-resolve"]

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def is_ready(self) -> bool:
        import pymysql

        try:
            self.execute("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> None:
        import pymysql

        with pymysql.connect(host="127.0.0.1", port=self.port, user="evolve", password=PASSWORD) as connection:
            connection.cursor().execute(statement)

    def new_database(self) -> str:
        self._databases += 1
        self.execute(f"CREATE DATABASE study{self._databases}")
        return f"mysql://evolve:{PASSWORD}@127.0.0.1:{self.port}/study{self._databases}"


class Lent:
    """A server as one test sees it: `url` is that of a database which nobody else has."""

    def __init__(self, server: Postgres | Redis | MariaDB) -> None:
        self.server = server
        self.url = server.new_database()
        self.stop, self.start, self.kill = server.stop, server.start, server.kill


def lend(server: Postgres | Redis | MariaDB) -> Iterator[Lent]:
    """Lend the server to one test, which may leave it stopped."""
    server.start()
    yield Lent(server)
    server.largest_file = None
    server.start()


def serve(kind: type[Server]) -> Iterator[Server]:
    server = kind()
    try:
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _children_of(pid: int) -> list[int]:
    """The processes whose parent it is, from proc_pid_stat(5)."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == pid:
                children.append(int(path.parent.name))
    return children
