"""What stands between the network and Optuna's dashboard: reads pass, and only those that were meant for it.

The dashboard knows no users, answers whoever asks, and one DELETE deletes a study. It is kept from the network by
listening on the loopback address alone. That does not keep it from what runs in a browser of this machine: any page
there may send requests to 127.0.0.1, and by a name of its own that comes to resolve to it (DNS rebinding) even read
the answers. So a request has to name a host that is ours, and must not come from a page of another site.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

READS = ("GET", "HEAD")
MOST_UNREAD_BYTES = 1 << 16  # of what is refused: who still sends does not hear the answer

ALWAYS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
# What is no page of the dashboard has no policy yet. If a training left a page, its scripts run as of no site.
POLICY = "Content-Security-Policy"
OF_NO_SITE = (POLICY, "sandbox allow-scripts")

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


@dataclass(frozen=True)
class Gate:
    """An application that is asked for nothing but reads, unless `allow_write`, and under no names but these.

    A host that is told by its address is always one of ours: no other site has that for its name.
    """

    app: WSGIApplication
    names: frozenset[str]
    allow_write: bool = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if refusal := self.refusal(environ):
            return _refuse(environ, start_response, refusal)
        for forged in ("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO"):  # bottle would redirect to what these say
            environ.pop(forged, None)
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # without it the dashboard fails
        return self.app(environ, _with_headers(start_response))

    def refusal(self, environ: WSGIEnvironment) -> str:
        """Why this is not answered; '' where it is."""
        host = environ.get("HTTP_HOST", "")
        method = environ["REQUEST_METHOD"]
        if not self._is_ours(host):
            return f"this dashboard does not go by the name {host!r}: open it by its address, or give --host that name"
        if not _is_of_this_site(environ, host):
            return "this was asked by a page of another site"
        if method not in READS and not self.allow_write:
            return "this dashboard is for reading only: evolve dashboard --allow-write lifts that"
        return ""

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names us; the port may be another one, as that of a tunnel."""
        if (found := _HOST.fullmatch(host)) is None:
            return False
        name = found[1].lower().strip("[]")
        return name in self.names or _is_address(name)


def names_of(host: str) -> frozenset[str]:
    """The names that a server goes by which listens there; one that others can reach goes by this machine's, too."""
    own = () if is_loopback(host) else (socket.gethostname(),)
    return frozenset(name.lower() for name in ("localhost", host, *own))


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach who listens there."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_of_this_site(environ: WSGIEnvironment, host: str) -> bool:
    """Whether a page of ours asks, no page at all, or one that has a link to us which somebody follows.

    Browsers tell by Fetch Metadata (W3C, sec-fetch-site), and of what is no plain read by Origin (RFC 6454).
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin.partition("://")[2] != host:
        return False
    if environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin"):
        return True
    followed = environ.get("HTTP_SEC_FETCH_MODE"), environ.get("HTTP_SEC_FETCH_DEST")
    return environ["REQUEST_METHOD"] in READS and followed == ("navigate", "document")


def _with_headers(start_response: StartResponse) -> Callable[..., Any]:
    """The same, with headers of ours, and without those by which the dashboard lets any site read its artifacts."""

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        policy = [] if any(name.lower() == POLICY.lower() for name, _ in kept) else [OF_NO_SITE]
        return start_response(status, [*kept, *ALWAYS, *policy], *more)

    return start


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, reason: str) -> Iterable[bytes]:
    _read_on(environ)
    body = (reason + "\n").encode("utf-8", "backslashreplace")
    told = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("403 Forbidden", [*told, *ALWAYS])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _read_on(environ: WSGIEnvironment) -> None:
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdecimal():
        environ["wsgi.input"].read(min(int(length), MOST_UNREAD_BYTES))
