"""A file by its path or URL: what is on the net comes into the user's cache folder, once and whole."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from trainer.api import DataError
from trainer.detection.data.cache import cache_folder, lock, remove_left_overs, replacing
from trainer.progress import progress

CHUNK = 1 << 20  # bytes
TIMEOUT_S = 30.0  # for a connection, and for every read from it
FOLDER = "downloads"  # in the cache folder
LONGEST_NAME = 100  # characters that are kept of the file's own name; its end says what it is

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expected:
    """What a file must be: its size in bytes and the sha256 of its content, in hexadecimal; None: whatever it is."""

    size: int | None
    sha256: str | None

    def find_fault(self, path: Path) -> str | None:
        """What is wrong with the file, or None. The content is read only if its hash is asked for."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes, expected {self.size}"
        if self.sha256 is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self.sha256:
                return f"its sha256 is {found}, expected {self.sha256}"
        return None


def fetch(
    path_or_url: str,
    *,
    cache_dir: Path | None = None,
    size: int | None = None,
    sha256: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """The path of a local file, or of the copy of an http, https or file URL in the cache folder. Raises DataError.

    The copy appears under its name when it is complete and has the size that the server announced, `size`, and
    `sha256`, which may also stand at the end of the URL as #sha256=...; a copy that is there is checked for these and
    otherwise not asked for again (remove it for a newer one). A lock lets one process at a time work on a file: of the
    processes of a training on one machine the first one downloads, the others wait and find it.
    """
    if not is_url(path_or_url):
        return _check_local(Path(path_or_url).expanduser(), Expected(size, _read_sha256(sha256)))
    url, _, fragment = path_or_url.partition("#")
    expected = Expected(size, _read_sha256(sha256, fragment))
    source = _read_source(url)
    copy = cache_folder(cache_dir) / FOLDER / _name(url)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with lock(copy.with_name(f"{copy.name}.lock")):
            if not (copy.is_file() and _is_current(copy, source) and expected.find_fault(copy) is None):
                remove_left_overs(copy)
                _download(url, source, copy, expected, timeout_s)
    except OSError as error:  # of the cache folder; what can go wrong with the source is a DataError by now
        raise DataError(f"{_show(url)} cannot be kept in {copy.parent}: {error.strerror or error}") from None
    return copy


def is_url(path_or_url: str) -> bool:
    """Whether it begins with a scheme as https:// rather than being a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path_or_url) is not None


def _check_local(path: Path, expected: Expected) -> Path:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a file")
        fault = expected.find_fault(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if fault:
        raise DataError(f"{path} is not the file that was asked for: {fault}")
    return path


def _read_sha256(given: str | None, fragment: str = "") -> str | None:
    key, _, value = fragment.partition("=")
    stated = [text for text in (given, value if key == "sha256" else None) if text is not None]
    for text in stated:
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
            raise DataError(f"a sha256 has 64 hexadecimal digits, got '{text}'")
    if len({text.lower() for text in stated}) > 1:
        raise DataError(f"the URL asks for the sha256 {stated[1]}, and {stated[0]} was asked for")
    return stated[0].lower() if stated else None


def _name(url: str) -> str:
    """A file name of its own for every URL, which ends as the URL's path does: the end says what the file is."""
    own = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path).rsplit("/", 1)[-1])[-LONGEST_NAME:]
    return f"{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}-{own or 'file'}"


def _show(url: str) -> str:
    """The URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}{parts.path}"


def _read_source(url: str) -> Path | None:
    """The file that a file URL names, None for http and https. Raises DataError for everything else."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DataError(f"'{url}' is no URL: {error}") from None
    if "@" in parts.netloc:
        raise DataError(f"{_show(url)} cannot be fetched with a user and password: download it, and name the file")
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme != "file":
        raise DataError(f"{_show(url)} cannot be fetched: only http, https and file URLs can, or a path")
    if parts.netloc not in ("", "localhost"):
        raise DataError(
            f"{_show(url)} names the host '{parts.netloc}': a file URL has three slashes, as file:///folder/a"
        )
    return Path(urllib.request.url2pathname(parts.path))


def _is_current(copy: Path, source: Path | None) -> bool:
    """Whether a copy is as new as its file; what a server offers under one URL is taken to stay the same."""
    if source is None or not source.is_file():
        return source is None
    here, there = copy.stat(), source.stat()
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def _download(url: str, source: Path | None, copy: Path, expected: Expected, timeout_s: float) -> None:
    """Put what the URL names at `copy`, whole and checked, or not at all."""
    logger.info("downloading %s to %s", _show(url), copy)
    answer, announced = _open_url(url, timeout_s) if source is None else _open_file(url, source)
    with answer:
        if expected.size is not None and announced not in (None, expected.size):
            raise DataError(f"{_show(url)} has {announced} bytes, expected {expected.size}")
        with replacing(copy) as file:
            received = _receive(url, answer, file, timeout_s, announced)
            if announced not in (None, received):
                raise DataError(f"the download of {_show(url)} broke off: {received} of {announced} bytes came")
            if not received:
                raise DataError(f"{_show(url)} is empty")
            file.flush()
            if fault := expected.find_fault(Path(file.name)):
                raise DataError(f"{_show(url)} is not the file that was asked for: {fault}")
            if source is not None:
                os.utime(file.name, ns=(time.time_ns(), source.stat().st_mtime_ns))


def _open_file(url: str, source: Path) -> tuple[IO[bytes], int]:
    try:
        return source.open("rb"), source.stat().st_size
    except OSError as error:
        raise DataError(f"{_show(url)} cannot be read: {error.strerror or error}") from None


def _open_url(url: str, timeout_s: float) -> tuple[IO[bytes], int | None]:
    """The body of the answer and how many bytes the server says that it has."""
    opener = urllib.request.OpenerDirector()  # not build_opener, which would follow a redirection to ftp
    for handler in _HANDLERS:
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "evolve-hyp")]  # some servers turn urllib's own away
    try:
        answer = opener.open(url, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        phrase = http.client.responses.get(error.code, "")  # not the server's own words, which may be anything
        raise DataError(f"{_show(url)} cannot be downloaded: the server says {error.code} {phrase}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{_show(url)} cannot be downloaded: {_tell(error, timeout_s)}") from None
    if answer.headers.get_content_type() == "text/html":
        answer.close()
        raise DataError(f"{_show(url)} is a web page, not a file: take the link that starts the download")
    length = answer.headers.get("Content-Length", "")
    return answer, int(length) if length.isdecimal() else None


_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.UnknownHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
)


def _receive(url: str, answer: IO[bytes], file: IO[bytes], timeout_s: float, announced: int | None) -> int:
    """Copy the answer's body to the file; returns how many bytes came."""
    received = 0
    while True:
        try:
            chunk = answer.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"the download of {_show(url)} broke off after {received} bytes: {_tell(error, timeout_s)}"
            ) from None
        if not chunk:
            return received
        file.write(chunk)
        received += len(chunk)
        progress(f"downloading {_show(url)}", received, announced)


def _tell(error: Exception, timeout_s: float) -> str:
    reason = getattr(error, "reason", error)  # of a URLError
    if isinstance(reason, TimeoutError):
        return f"no answer for {timeout_s:g} s"
    told = getattr(reason, "strerror", None) or str(reason).strip() or type(reason).__name__
    return str(told).splitlines()[0][:200]
