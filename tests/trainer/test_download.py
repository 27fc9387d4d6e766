"""Files by path or URL: whole or not at all, once for all processes; held against a real server on this machine."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainer.api import DataError
from trainer.detection.download import fetch, is_url

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """A server on the loopback that answers each path as its `Handler` says, and remembers what it was asked for."""

    address: str
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.address}/{path}"


class Handler(BaseHTTPRequestHandler):
    server_of: Server
    release = threading.Event()

    def do_GET(self) -> None:
        self.server_of.asked.append(self.path)
        answer: Callable[[], None] = getattr(
            self, f"answer_{self.path.split('?')[0].split('/')[1]}", self.answer_missing
        )
        answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def start(self, code: int = 200, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer_whole(self) -> None:
        self.start(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT)

    def answer_slow(self) -> None:
        self.start(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        self.release.wait(20)
        self.wfile.write(CONTENT[1000:])

    def answer_truncated(self) -> None:
        self.start(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:-10])

    def answer_dying(self) -> None:
        self.start(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        # What was sent but not read yet is dropped by a reset, as when a machine goes away.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.connection.close()

    def answer_silent(self) -> None:
        self.release.wait(20)

    def answer_chunked(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self.start(Transfer_Encoding="chunked", Connection="close")
        half = len(CONTENT) // 2
        self.wfile.write(b"%x\r\n%s\r\n" % (half, CONTENT[:half]))
        if not self.path.endswith("cut"):
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT) - half, CONTENT[half:]))

    def answer_unannounced(self) -> None:
        self.start()
        self.wfile.write(CONTENT)

    def answer_moved(self) -> None:
        self.start(302, Location="/whole/moved.weights", Content_Length=0)

    def answer_astray(self) -> None:
        self.start(302, Location="file:///etc/hostname", Content_Length=0)

    def answer_circle(self) -> None:
        self.start(302, Location="/circle/a", Content_Length=0)

    def answer_page(self) -> None:
        self.start(Content_Type="text/html; charset=utf-8", Content_Length=6)
        self.wfile.write(b"<html>")

    def answer_empty(self) -> None:
        self.start(Content_Length=0)

    def answer_garbage(self) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def answer_missing(self) -> None:
        self.start(404, Content_Length=0)

    def answer_broken(self) -> None:
        self.start(500, Content_Length=0)


@pytest.fixture
def server() -> Iterator[Server]:
    handler = type("OwnHandler", (Handler,), {"release": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        server = Server(f"127.0.0.1:{http.server_address[1]}")
        handler.server_of = server  # type: ignore[attr-defined]
        server.release = handler.release.set  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            handler.release.set()  # type: ignore[attr-defined]
            http.shutdown()
            thread.join()


def kept(folder: Path) -> list[str]:
    """What lies in the cache folder, but for locks."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


# from a server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["whole", "chunked", "unannounced", "moved"])
def test_what_a_server_sends_is_kept_under_a_name_that_ends_as_the_urls(
    server: Server, tmp_path: Path, path: str
) -> None:
    file = fetch(server.url(f"{path}/a%20b.conv.15?raw=1"), cache_dir=tmp_path)
    assert file.read_bytes() == CONTENT
    assert file.name.endswith("-a_b.conv.15")
    assert tmp_path in file.parents
    assert kept(tmp_path) == [file.name]


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    url = server.url("whole/a.pt")
    first = fetch(url, cache_dir=tmp_path)
    assert fetch(url, cache_dir=tmp_path) == first
    assert fetch(f"{url}#sha256={SHA256}", cache_dir=tmp_path, size=len(CONTENT)) == first
    assert server.asked == ["/whole/a.pt"]


def test_files_of_one_name_from_different_urls_lie_side_by_side(server: Server, tmp_path: Path) -> None:
    files = {
        fetch(server.url(path), cache_dir=tmp_path) for path in ("whole/1/a.pt", "whole/2/a.pt", "whole/1/a.pt?v=2")
    }
    assert len(files) == 3


def test_the_cache_folder_is_the_users(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOLVE_CACHE", str(tmp_path / "mine"))
    assert tmp_path / "mine" in fetch(server.url("whole/a.pt")).parents


def test_a_hash_and_a_size_that_are_right_are_accepted(server: Server, tmp_path: Path) -> None:
    url = server.url("whole/a.pt")
    assert fetch(f"{url}#sha256={SHA256.upper()}", cache_dir=tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert fetch(server.url("unannounced/a.pt"), cache_dir=tmp_path, size=len(CONTENT)).read_bytes() == CONTENT


WRONG = "0" * 64


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("truncated/a.pt", "broke off"),
        ("dying/a.pt", "broke off"),
        ("chunked/cut", "broke off"),
        (f"whole/a.pt#sha256={WRONG}", f"its sha256 is {SHA256}, expected {WRONG}"),
        (f"unannounced/a.pt#sha256={WRONG}", f"its sha256 is {SHA256}, expected {WRONG}"),
        ("whole/a.pt#sha256=12", "a sha256 has 64 hexadecimal digits, got '12'"),
        ("missing/a.pt?token=secret", "cannot be downloaded: the server says 404 Not Found"),
        ("broken/a.pt", "cannot be downloaded: the server says 500 Internal Server Error"),
        ("page/a.pt", "is a web page, not a file: take the link that starts the download"),
        ("empty/a.pt", "is empty"),
        ("garbage/a.pt", "cannot be downloaded: "),
        ("circle/a.pt", "cannot be downloaded: the server says 302"),
        ("astray/a.pt", "cannot be downloaded: the server says 302"),
        ("whole/a b.pt", "cannot be downloaded: "),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing_behind(
    server: Server, tmp_path: Path, path: str, sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        fetch(server.url(path), cache_dir=tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert kept(tmp_path) == []


def test_a_size_that_is_wrong_is_refused_before_and_after_the_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"/whole/a.pt has {len(CONTENT)} bytes, expected 5"):
        fetch(server.url("whole/a.pt"), cache_dir=tmp_path, size=5)
    with pytest.raises(DataError, match=f"it has {len(CONTENT)} bytes, expected 5"):
        fetch(server.url("unannounced/a.pt"), cache_dir=tmp_path, size=5)
    assert kept(tmp_path) == []


def test_a_server_that_says_nothing_is_given_up(server: Server, tmp_path: Path) -> None:
    for path in ("silent/a.pt", "slow/a.pt"):
        with pytest.raises(DataError, match=r"no answer for 0\.2 s"):
            fetch(server.url(path), cache_dir=tmp_path, timeout_s=0.2)
    assert kept(tmp_path) == []


def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match=r"http://127\.0\.0\.1:\d+/a\.pt cannot be downloaded: Connection refused"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/a.pt", cache_dir=tmp_path)


def test_a_broken_copy_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    url = server.url("whole/a.pt")
    file = fetch(url, cache_dir=tmp_path)
    file.write_bytes(CONTENT[:100])
    assert fetch(url, cache_dir=tmp_path, sha256=SHA256).read_bytes() == CONTENT
    file.write_bytes(CONTENT[:100])
    assert fetch(url, cache_dir=tmp_path, size=len(CONTENT)).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_copy_outlives_a_download_that_fails(server: Server, tmp_path: Path) -> None:
    url = server.url("whole/a.pt")
    file = fetch(url, cache_dir=tmp_path)
    with pytest.raises(DataError, match="its sha256 is"):
        fetch(url, cache_dir=tmp_path, sha256=WRONG)
    assert file.read_bytes() == CONTENT
    assert kept(tmp_path) == [file.name]


def test_what_a_killed_process_left_is_cleared_away(server: Server, tmp_path: Path) -> None:
    file = fetch(server.url("whole/a.pt"), cache_dir=tmp_path)
    file.unlink()
    (left := file.with_name(f"{file.name}.123-abcd.part")).write_bytes(b"half")
    assert fetch(server.url("whole/a.pt"), cache_dir=tmp_path) == file
    assert not left.exists()


def note_and_fetch(url: str, folder: Path, note: str) -> Path:
    (folder / note).touch()
    return fetch(url, cache_dir=folder)


def test_processes_that_ask_at_once_download_once(server: Server, tmp_path: Path) -> None:
    url = server.url("slow/a.pt")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = [pool.submit(note_and_fetch, url, tmp_path, f"ready-{i}") for i in range(2)]
        while not (server.asked and (tmp_path / "ready-0").exists() and (tmp_path / "ready-1").exists()):
            assert not any(future.done() for future in asked)
            time.sleep(0.01)
        server.release()  # type: ignore[attr-defined]
        files = {future.result() for future in asked}
    assert [file.read_bytes() for file in files] == [CONTENT]
    assert server.asked == ["/slow/a.pt"]


def test_the_next_process_tries_again_where_the_first_one_failed(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="404"):
            fetch(server.url("missing/a.pt"), cache_dir=tmp_path)
    assert len(server.asked) == 2


def test_a_cache_folder_that_cannot_be_is_said_so(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"/whole/a\.pt cannot be kept in .*: Not a directory"):
        fetch(server.url("whole/a.pt"), cache_dir=tmp_path / "file")


# from this machine --------------------------------------------------------------------------------------------------


def test_a_path_is_returned_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a#b.pt"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(str(file), size=len(CONTENT), sha256=SHA256) == file
    assert fetch("~/a#b.pt") == file


@pytest.mark.parametrize(
    ("name", "asked", "sentence"),
    [
        ("none.pt", {}, "none.pt cannot be read: No such file or directory"),
        (".", {}, " is a folder, not a file"),
        ("a.pt", {"size": 5}, "a.pt is not the file that was asked for: it has 300000 bytes, expected 5"),
        (
            "a.pt",
            {"sha256": WRONG},
            f"a.pt is not the file that was asked for: its sha256 is {SHA256}, expected {WRONG}",
        ),
        ("a.pt", {"sha256": "xyz"}, "a sha256 has 64 hexadecimal digits, got 'xyz'"),
    ],
)
def test_a_path_that_is_not_as_asked_is_refused(
    tmp_path: Path, name: str, asked: dict[str, str], sentence: str
) -> None:
    (tmp_path / "a.pt").write_bytes(CONTENT)
    with pytest.raises(DataError) as caught:
        fetch(str(tmp_path / name), **asked)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_a_file_url_is_copied_and_copied_again_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "with space.pt"
    file.write_bytes(CONTENT)
    copy = fetch(file.as_uri(), cache_dir=tmp_path / "cache")
    assert copy.read_bytes() == CONTENT
    copied = copy.stat().st_ino
    assert fetch(file.as_uri(), cache_dir=tmp_path / "cache").stat().st_ino == copied
    file.write_bytes(CONTENT[::-1])
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert fetch(file.as_uri(), cache_dir=tmp_path / "cache").read_bytes() == CONTENT[::-1]
    assert kept(tmp_path / "cache") == [copy.name]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///no/such/file.pt", "file:///no/such/file.pt cannot be read: No such file or directory"),
        ("file://folder/a.pt", "names the host 'folder': a file URL has three slashes, as file:///folder/a"),
        ("ftp://host/a.pt", "ftp://host/a.pt cannot be fetched: only http, https and file URLs can, or a path"),
        ("s3://bucket/a.pt", "only http, https and file URLs can, or a path"),
        ("http://[::1/a.pt", "'http://[::1/a.pt' is no URL: "),
        ("http://host:port/a.pt", "http://host:port/a.pt cannot be downloaded: "),
        ("https://user:secret@host/a.pt", "https://host/a.pt cannot be fetched with a user and password: download it"),
        ("http:///a.pt", "cannot be downloaded: no host given"),
    ],
)
def test_a_url_that_cannot_be_is_refused(tmp_path: Path, url: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        fetch(url, cache_dir=tmp_path)
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


def test_hashes_that_disagree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the URL asks for the sha256 {WRONG}, and {SHA256} was asked for"):
        fetch(f"https://host/a.pt#sha256={WRONG}", cache_dir=tmp_path, sha256=SHA256)


def test_urls_are_told_from_paths() -> None:
    assert [is_url(text) for text in ("https://a/b", "FILE:///a", "a/b.pt", "C:\\a.pt", "a:b.pt", "//a/b")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
