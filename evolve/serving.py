"""Serves a WSGI application to a few people: a thread for each request, nothing that outlives Ctrl-C."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from evolve.config import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

logger = logging.getLogger(__name__)

IDLE_S = 60  # after which a connection is closed that sends nothing


class Handler(WSGIRequestHandler):
    """Says nothing of requests that went well."""

    timeout = IDLE_S

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


class Server(ThreadingMixIn, WSGIServer):
    """The application at an address; port 0 is any that is free. Raises ConfigError where it cannot be had."""

    daemon_threads = True  # what is being answered does not hold up who leaves
    allow_reuse_port = False  # or a second dashboard would share the port of the first
    request_queue_size = 64

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"--port is {port}; it has to be one of 1 to 65535, or 0 for any that is free")
        try:
            self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__(address[:2], Handler)  # type: ignore[arg-type]
        except socket.gaierror as error:
            raise ConfigError(f"--host {host} is no address of this machine: {error.strerror}") from error
        except PermissionError as error:
            raise ConfigError(f"port {port} is for root alone: give --port 1024 or higher, or 0 for any") from error
        except OSError as error:
            why = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
            raise ConfigError(f"cannot listen on port {port} of {host}: {why}; --port 0 takes any") from error
        self.set_app(app)

    def server_bind(self) -> None:
        """As HTTPServer does it, but for asking the network for this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]
        self.setup_environ()

    @property
    def url(self) -> str:
        name = str(self.server_address[0])
        return f"http://{f'[{name}]' if ':' in name else name}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may leave before the answer."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            logger.warning("a request could not be answered: %s", type(error).__name__, exc_info=error)
