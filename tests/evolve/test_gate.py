"""Who is let in to the dashboard, and with what: the gate by itself, in front of an application that tells."""

import io
from typing import Any

import pytest

from evolve.gate import Gate, is_loopback, names_of

HERE = {"HTTP_HOST": "127.0.0.1:8080"}


def ask(method: str = "GET", *, gate: dict[str, Any] | None = None, body: bytes = b"", **environ: str):
    """The status, headers and body of an answer, and whether the application was asked at all."""
    asked: list[dict[str, Any]] = []
    told: list[Any] = []

    def app(environ, start_response):
        asked.append(environ)
        start_response("200 OK", [("Access-Control-Allow-Origin", "*"), ("X-Own", "kept")])
        return [b"hello"]

    made = Gate(app, **{"names": names_of("127.0.0.1"), **(gate or {})})
    usual = {"REQUEST_METHOD": method, "PATH_INFO": "/", "wsgi.input": io.BytesIO(body), **HERE}
    answer = b"".join(made({**usual, **environ}, lambda *given: told.extend(given)))
    return told[0], dict(told[1]), answer, asked


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_pass(method):
    status, headers, answer, _ = ask(method)
    assert (status, answer, headers["X-Own"]) == ("200 OK", b"hello", "kept")


@pytest.mark.parametrize(
    "method",
    ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "GET ", "", "XYZ", "ä"],
)
def test_nothing_else_does(method):
    status, headers, answer, asked = ask(method, body=b"x" * 100, CONTENT_LENGTH="100")
    assert (status, asked) == ("403 Forbidden", [])
    assert b"--allow-write lifts that" in answer
    assert headers["Content-Length"] == str(len(answer))


@pytest.mark.parametrize("length", ["", "-5", "abc", "9" * 30, "٣"])
def test_a_length_that_is_none_is_no_way_around(length):
    assert ask("DELETE", CONTENT_LENGTH=length)[0] == "403 Forbidden"


@pytest.mark.parametrize("override", ["HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD"])
def test_a_header_does_not_change_the_method(override):
    assert ask("POST", **{override: "GET"})[0] == "403 Forbidden"
    (passed,) = ask("GET", **{override: "DELETE"})[3]
    assert passed["REQUEST_METHOD"] == "GET"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:80", "[::1]:8080", "10.1.2.3:8080", "[fe80::1]"]
)
def test_it_goes_by_its_names_and_by_any_address(host):
    assert ask(HTTP_HOST=host)[0] == "200 OK"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", ":8080", " "),
        *("localhost,evil.example", "localhost@evil.example", "evil.example/@localhost", "localhost#.evil.example"),
        *("127.0.0.1:8080:1", "127.1", "0x7f.1", "2130706433", "[::1", "::1", "[evil]", "localhost:x", "lоcalhost"),
        *("localhost\nX: y", "localhost:8080\n", "127.0.0.1\\.evil.example", "xn--localhost", "foo.localhost"),
    ],
)
def test_a_page_whose_name_has_come_to_mean_this_machine_gets_no_answer(host):
    for method in ("GET", "HEAD", "POST"):
        for allow_write in (False, True):
            status, _, _, asked = ask(method, gate={"allow_write": allow_write}, HTTP_HOST=host)
            assert (status, asked) == ("403 Forbidden", [])


def test_without_a_host_there_is_no_answer():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO()}
    assert "does not go by the name ''" in Gate(lambda *_: [], frozenset()).refusal(environ)


def test_what_is_given_as_host_is_a_name_and_this_machines_is_one_where_others_come(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    assert names_of("gpu.lab") == {"localhost", "gpu.lab", "box"}
    assert names_of("0.0.0.0") == {"localhost", "0.0.0.0", "box"}
    assert names_of("::1") == {"localhost", "::1"}
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "gpu.lab", "localhost.lab")] == [False] * 5


@pytest.mark.parametrize("site", ["cross-site", "same-site", "strange"])
@pytest.mark.parametrize("allow_write", [False, True])
def test_no_page_of_another_site_gets_anything_but_a_link_that_is_followed(site, allow_write):
    gate = {"allow_write": allow_write}
    for mode, kind in (
        ("no-cors", "image"),
        ("cors", "empty"),
        ("navigate", "iframe"),
        ("no-cors", "script"),
        ("", ""),
    ):
        told = {"HTTP_SEC_FETCH_SITE": site, "HTTP_SEC_FETCH_MODE": mode, "HTTP_SEC_FETCH_DEST": kind}
        assert ask("GET", gate=gate, **told)[0] == "403 Forbidden"
    link = {"HTTP_SEC_FETCH_SITE": site, "HTTP_SEC_FETCH_MODE": "navigate", "HTTP_SEC_FETCH_DEST": "document"}
    assert ask("GET", gate=gate, **link)[0] == "200 OK"
    assert ask("POST", gate=gate, **link)[0] == "403 Forbidden", "a form"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:3000", "127.0.0.1:8080"])
def test_browsers_that_tell_the_origin_alone_are_heeded(origin):
    for method in ("GET", "POST", "DELETE"):
        status, _, answer, _ = ask(method, gate={"allow_write": True}, HTTP_ORIGIN=origin)
        assert (status, answer) == ("403 Forbidden", b"this was asked by a page of another site\n")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_pages_may_write_where_that_is_allowed(site):
    told = {"HTTP_SEC_FETCH_SITE": site, "HTTP_ORIGIN": "http://127.0.0.1:8080"}
    assert ask("POST", gate={"allow_write": True}, **told)[0] == "200 OK"
    assert ask("POST", **told)[0] == "403 Forbidden"


def test_no_other_site_may_read_what_it_answers_and_files_of_trainings_are_of_no_site():
    _, headers, _, _ = ask()
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert headers["Content-Security-Policy"] == "sandbox allow-scripts"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"


def test_a_forged_host_leads_nowhere():
    (passed,) = ask(HTTP_X_FORWARDED_HOST="evil.example", HTTP_X_FORWARDED_PROTO="https")[3]
    assert not [name for name in passed if "FORWARDED" in name]
