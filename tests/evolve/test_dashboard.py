"""The dashboard: what each of its routes answers while it is for reading only, and what it shows."""

import contextlib
import inspect
import io
import json
import os
import re
import sqlite3
import sys
import threading
import urllib.request
from typing import Any

import optuna
import pytest
from made_study import make_study
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from small_world import wait_for

from evolve.config import ConfigError
from evolve.dashboard import OpenStorage, open_dashboard, place_of
from evolve.exhibits import id_of
from evolve.gate import names_of
from evolve.lookup import Place
from evolve.serving import Server
from studies import StudyError, open_storage, trials_of
from studies.note import leave_note
from studies.study import CONFIG

READING = {  # every route of optuna-dashboard 0.21, and what it answers where nothing may be written
    "GET /": 302,
    "GET /dashboard<:re:(/.*)?>": 200,
    "GET /api/meta": 200,
    "GET /api/studies": 200,
    "POST /api/studies": 403,
    "POST /api/studies/<study_id:int>/rename": 403,
    "DELETE /api/studies/<study_id:int>": 403,
    "GET /api/studies/<study_id:int>": 200,
    "GET /api/studies/<study_id:int>/param_importances": 200,
    "GET /api/studies/<study_id:int>/plot/<plot_type>": 200,
    "PUT /api/studies/<study_id:int>/note": 403,
    "POST /api/studies/<study_id:int>/preference": 403,
    "PUT /api/studies/<study_id:int>/preference_feedback_component": 403,
    "DELETE /api/studies/<study_id:int>/preference/<history_id>": 403,
    "POST /api/studies/<study_id:int>/preference/<history_id>": 403,
    "POST /api/trials/<trial_id:int>/tell": 403,
    "POST /api/trials/<trial_id:int>/user-attrs": 403,
    "POST /api/studies/<study_id:int>/<trial_id:int>/skip": 403,
    "PUT /api/studies/<study_id:int>/<trial_id:int>/note": 403,
    "GET /csv/<study_id:int>": 200,
    "GET /favicon.ico": 200,
    "GET /static/<filename:path>": 200,
    "GET /incompatible-rdb-schema": 302,
    "POST /incompatible-rdb-schema": 403,
    "GET /artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>": 200,
    "GET /artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>": 200,
    "POST /api/artifacts/<study_id:int>/<trial_id:int>": 403,
    "POST /api/artifacts/<study_id:int>": 403,
    "DELETE /api/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>": 403,
    "DELETE /api/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>": 403,
    "POST /api/llm/trial_filter_query": 403,
    "POST /api/llm/generate_plotly_graph_query": 403,
    "POST /api/llm/re_generate_plotly_graph_query": 403,
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "delete")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
AUDITED = ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.remove", "os.mkdir", "os.rename")
BODIES = (
    b"",
    json.dumps(
        {"study_name": "theirs", "directions": ["maximize"], "version": 1, "body": "x", "state": "fail", "values": [1]}
    ).encode(),
    json.dumps({"mode": "ChooseWorst", "candidates": [0, 1], "clicked": 0, "user_attrs": {"a": 1}}).encode(),
    json.dumps({"file": "data:text/plain;base64,eA==", "filename": "x.txt", "user_query": "x"}).encode(),
)


WRITE = "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, 1)"


class Opened:
    """A dashboard that is asked without a network."""

    def __init__(self, place: Place, **how: Any) -> None:
        self.place = place
        self.made = open_dashboard(place, names_of("127.0.0.1"), **how)

    @property
    def routes(self) -> list[Any]:
        return list(self.made.app.app.routes)

    def ask(self, method: str, path: str, body: bytes = b"", **environ: str) -> tuple[int, dict[str, str], bytes]:
        told: list[Any] = []
        path, _, query = path.partition("?")
        usual = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.encode("utf-8").decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1:8080",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
        }
        answer = self.made.app({**usual, **environ}, lambda *given: told.extend(given))
        return int(told[0][:3]), dict(told[1]), b"".join(answer)

    def detail(self, study_id: int | None = None) -> dict[str, Any]:
        first = int(self.made.page.rpartition("/")[2]) if study_id is None else study_id
        status, _, answer = self.ask("GET", f"/api/studies/{first}")
        assert status == 200, answer
        return json.loads(answer)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("runs"), 24)


@pytest.fixture(scope="module")
def opened(made):
    paths, _ = made
    return Opened(place_of(str(paths.root), paths.root.parent, None))


def best_of(study) -> Any:
    return max(study.get_trials(states=[TrialState.COMPLETE]), key=lambda trial: trial.values[0])


def path_to(rule: str, made) -> str:
    """A path that the route matches, with what is there for whatever it names."""
    paths, study = made
    best = best_of(study)
    of_trial = "<trial_id" in rule
    file = paths.trial(best.number) / "val.png" if of_trial else paths.best_hyp
    named = {
        "study_id": study._study_id,
        "trial_id": best._trial_id,
        "artifact_id": id_of(file, paths),
        "plot_type": "timeline",
        "history_id": "0",
        "filename": "bundle.js",
        "": "/studies/1",
    }
    return re.sub(r"<(\w*)(?::[^>]*)?>", lambda found: str(named[found[1]]), rule.replace("(/.*)?", ""))


def content(made) -> tuple[Any, ...]:
    """All that is stored, and all files of the run folder with their contents."""
    paths, _ = made
    with contextlib.closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as database:
        rows = tuple(database.iterdump())
    files = {path: path.read_bytes() for path in sorted(paths.root.rglob("*")) if path.is_file()}
    return rows, {path: held for path, held in files.items() if not path.name.startswith("study.db-")}


def test_every_route_is_known_and_answers_as_it_has_to(opened, made):
    """A route that a new version of the dashboard brings fails here: look at what it does before it is listed above."""
    assert {f"{route.method} {route.rule}" for route in opened.routes} == READING.keys()
    before = content(made)
    for route in opened.routes:
        path, expected = path_to(route.rule, made), READING[f"{route.method} {route.rule}"]
        for body in BODIES:
            assert opened.ask(route.method, path, body)[0] == expected, f"{route.method} {path}"
    assert content(made) == before


@pytest.mark.parametrize("method", METHODS)
def test_no_method_but_reads_is_answered_on_any_path(opened, made, method):
    before = content(made)
    odd = (
        "",
        "*",
        "//",
        "/nothing",
        "/api/studies/1/",
        "//api/studies/1",
        "/api//studies/1",
        "/api/studies/1;x",
        "/%00",
    )
    for path in (*(path_to(route.rule, made) for route in opened.routes), *odd):
        for variant in (path, path + "/", f"/.{path}", f"/x/..{path}", f"{path}?_method=DELETE"):
            status, _, answer = opened.ask(method, variant, BODIES[1])
            if method not in ("GET", "HEAD"):
                assert (status, b"reading only" in answer) == (403, True), f"{method} {variant}"
            assert status < 500 or method in ("GET", "HEAD"), f"{method} {variant}"
    assert content(made) == before


@pytest.mark.parametrize("name", ["X_HTTP_METHOD_OVERRIDE", "X_METHOD_OVERRIDE", "X_HTTP_METHOD", "X_ORIGINAL_METHOD"])
def test_no_header_makes_a_read_anything_else(opened, made, name):
    before = content(made)
    for route in opened.routes:
        for method in ("GET", "POST"):
            opened.ask(method, path_to(route.rule, made), BODIES[1], **{f"HTTP_{name}": route.method})
    assert content(made) == before


def test_heads_are_as_gets_without_their_bodies(opened, made):
    for route in opened.routes:
        if route.method == "GET":
            path = path_to(route.rule, made)
            assert opened.ask("HEAD", path)[::2] == (READING[f"GET {route.rule}"], b"")


def test_reading_calls_nobody_starts_nothing_and_writes_no_file(opened, made):
    seen: list[tuple[str, Any]] = []
    watching = True

    def audit(event: str, arguments: Any) -> None:
        if not watching:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o1103  # O_WRONLY, RDWR, CREAT...
        if writes or event in (
            "socket.connect",
            "socket.bind",
            "subprocess.Popen",
            "os.system",
            "os.remove",
            "os.mkdir",
        ):
            seen.append((event, arguments))

    paths = [path_to(route.rule, made) for route in opened.routes if route.method == "GET"]
    for path in paths:
        opened.ask("GET", path)  # what is imported at first is compiled
    sys.addaudithook(audit)
    try:
        for path in paths:
            opened.ask("GET", path)
    finally:
        watching = False
    assert seen == []


def test_a_language_model_is_never_there_to_be_asked(opened, made):
    assert json.loads(opened.ask("GET", "/api/meta")[2])["llm_is_available"] is False
    with_write = Opened(opened.place, allow_write=True)
    for route in with_write.routes:
        if route.rule.startswith("/api/llm/"):
            assert with_write.ask("POST", route.rule, BODIES[3])[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../index.html", "/static/..%2f_app.py", "/static//etc/passwd", "/static/../../../../etc/passwd"),
        *("/artifacts/1/../../../etc/passwd", "/artifacts/1/..%2f..%2fstudy.db", "/artifacts/1/0/../study.db"),
        *("/artifacts/1/study.db", "/artifacts/1/-", "/artifacts/1/00000000", "/artifacts/1/7/-", "/artifacts/9/-"),
        *("/artifacts/1/99999/00000000-0000", "/static/%2e%2e/_app.py", "/static/....//_app.py", "/favicon.ico/../x"),
    ],
)
def test_no_path_leads_out_of_what_is_shown(opened, path):
    for asked in (path, urllib.request.unquote(path)):
        status, _, answer = opened.ask("GET", asked)
        assert status in (403, 404, 500), asked
        assert b"root:" not in answer
        assert b"SQLite" not in answer
        assert b"def create_app" not in answer


def test_files_of_a_trial_are_had_by_that_trial_alone(opened, made):
    paths, study = made
    best = best_of(study)
    artifact = id_of(paths.trial(best.number) / "val.png", paths)
    assert opened.ask("GET", f"/artifacts/1/{best._trial_id}/{artifact}")[0] == 200
    assert opened.ask("GET", f"/artifacts/1/{best._trial_id + 1}/{artifact}")[0] == 404
    assert opened.ask("GET", f"/artifacts/1/{artifact}")[0] == 404


def test_a_link_in_a_trials_folder_is_not_followed(opened, made, tmp_path):
    paths, study = made
    folder = paths.trial(best_of(study).number)
    (tmp_path / "secret.png").write_bytes(b"secret")
    link, links = folder / "link.png", folder / "links"
    link.symlink_to(tmp_path / "secret.png")
    links.symlink_to(tmp_path)
    try:
        trial = next(trial for trial in opened.detail()["trials"] if trial["number"] == best_of(study).number)
        assert {one["filename"] for one in trial["artifacts"]} == {"val.png", "page.html"}
        for path in (link, links / "secret.png"):
            assert opened.ask("GET", f"/artifacts/1/{trial['trial_id']}/{id_of(path, paths)}")[0] == 404
    finally:
        link.unlink()
        links.unlink()


def test_what_is_shown_are_the_note_the_hyp_file_pictures_of_the_best_trial_and_ours(opened, made):
    paths, study = made
    detail = opened.detail()
    assert detail["note"]["body"].startswith("# points\n")
    assert "**Best " in detail["note"]["body"]
    files = {one["filename"]: one for one in detail["artifacts"]}
    assert files.keys() == {"hyp.yaml", "evolve.yaml"}
    status, headers, answer = opened.ask("GET", f"/artifacts/1/{files['hyp.yaml']['artifact_id']}")
    assert (status, answer) == (200, paths.best_hyp.read_bytes())
    assert headers["Content-Security-Policy"] == "sandbox allow-scripts"
    assert "Access-Control-Allow-Origin" not in headers
    with_files = {trial["number"]: trial["artifacts"] for trial in detail["trials"] if trial["artifacts"]}
    assert {number: [one["filename"] for one in told] for number, told in with_files.items()} == {
        best_of(study).number: ["page.html", "val.png"]
    }
    plots = wait_for(lambda: opened.detail()["plotly_graph_objects"])
    assert [plot["id"] for plot in plots][:2] == ["history", "curves"]
    assert all(json.loads(plot["graph_object"])["layout"] for plot in plots)


def test_no_password_of_a_failure_is_told(opened):
    assert b"secret" not in opened.ask("GET", "/api/studies/1")[2]
    status, _, table = opened.ask("GET", "/csv/1")
    assert (status, b"secret" in table, b"postgresql://me:***@db" in table) == (200, False, True)


def test_a_study_of_another_version_is_shown_without_a_note_of_ours(tmp_path):
    paths, study = make_study(tmp_path, 3)
    study.set_user_attr(CONFIG, study.user_attrs[CONFIG] + "unheard_of: 1\n")
    opened = Opened(place_of(str(paths.root), tmp_path, None))
    assert opened.ask("GET", "/api/studies/1")[0] == 200
    assert "evolve" not in opened.detail()["note"]["body"]


def test_a_storage_that_is_for_reading_has_no_method_that_writes(made):
    reader = open_storage(f"sqlite:///{made[0].database}", read_only=True)
    storage = OpenStorage(reader, None)
    reads = [name for name in dir(BaseStorage) if name.startswith("get_")] + ["check_trial_is_updatable"]
    for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction):
        if name.startswith("_"):
            continue
        if name in (*reads, "remove_session"):
            assert callable(getattr(storage, name))
        else:
            with pytest.raises(PermissionError, match="for reading only"):
                getattr(storage, name)
    with pytest.raises(PermissionError):
        _ = storage.upgrade


@pytest.fixture
def own(tmp_path):
    return make_study(tmp_path / "runs", 3)


def test_with_leave_to_write_notes_names_and_studies_change(own):
    paths, study = own
    dashboard = Opened(place_of("points", paths.root.parent, None), allow_write=True)
    body = json.dumps({"version": 1, "body": "mine"}).encode()
    assert dashboard.ask("PUT", "/api/studies/1/note", body, HTTP_ORIGIN="http://evil.example")[0] == 403
    assert dashboard.ask("PUT", "/api/studies/1/note", body)[0] == 204
    assert dashboard.detail()["note"] == {"version": 1, "body": "mine"}
    leave_note(study, "ours")
    assert dashboard.detail()["note"]["body"] == "mine", "what a person has written stays"
    upload = json.dumps({"file": "data:text/plain;base64,eA==", "filename": "x.txt"}).encode()
    assert dashboard.ask("POST", "/api/artifacts/1", upload)[0] == 201
    mine = next(one for one in dashboard.detail()["artifacts"] if one["filename"] == "x.txt")
    assert dashboard.ask("GET", f"/artifacts/1/{mine['artifact_id']}")[2] == b"x"
    assert dashboard.ask("DELETE", "/api/studies/1", b"{}")[0] == 204
    assert json.loads(dashboard.ask("GET", "/api/studies")[2])["study_summaries"] == []


@pytest.mark.parametrize(
    ("trials", "goals", "name"),
    [(0, "fitness", "empty"), (1, "fitness", "一个研究"), (9, "map50_95,latency_ms", "two goals")],
)
def test_a_study_of_any_size_number_of_goals_and_name_is_shown(tmp_path, trials, goals, name):
    paths, _ = make_study(tmp_path / "runs", trials, name=name, objective=goals)
    dashboard = Opened(place_of(name, paths.root.parent, None))
    detail = dashboard.detail()
    assert (detail["name"], len(detail["trials"])) == (name, trials)
    assert detail["note"]["body"].startswith(f"# {name}\n")
    for path in ("/csv/1", "/dashboard/studies/1", "/api/studies/1/param_importances"):
        assert dashboard.ask("GET", path)[0] == 200
    if goals != "fitness":
        assert detail["objective_names"] == ["map50_95", "latency_ms"]


def test_who_writes_is_not_held_up_and_whoever_holds_the_lock_holds_up_no_reader(own):
    paths, study = own
    dashboard = Opened(place_of("points", paths.root.parent, None))
    with contextlib.closing(sqlite3.connect(paths.database, timeout=0.1)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert len(dashboard.detail()["trials"]) == 3
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            dashboard.detail()

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        with contextlib.closing(sqlite3.connect(paths.database, timeout=0)) as writer:
            for number in range(30):  # with no patience at all
                with writer:
                    writer.execute(
                        "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, 1)", [number]
                    )
    finally:
        done.set()
        for reader in readers:
            reader.join()
    study.add_trial(trials_of(study)[0])
    wait_for(lambda: len(dashboard.detail()["trials"]) == 4)  # the dashboard remembers trials for two seconds


def test_a_file_without_a_study_stays_as_it_is(tmp_path):
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    url = f"sqlite:///{tmp_path}/empty.db"
    with pytest.raises(StudyError, match="no study has been stored in it yet"):
        Opened(place_of(url, tmp_path, None))
    assert (tmp_path / "empty.db").read_bytes() == b""
    with pytest.raises(StudyError, match=r"none\.db: No such file"):
        Opened(place_of(f"sqlite:///{tmp_path}/none.db", tmp_path, None))
    with pytest.raises(ConfigError, match="by nobody but the process that runs it"):
        place_of("memory:", tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


def test_a_storage_shows_all_studies_in_it_those_of_others_as_they_are(own):
    paths, study = own
    url = f"sqlite:///{paths.database}"
    other = optuna.create_study(study_name="theirs", storage=url)
    other.add_trial(trials_of(study)[0])
    dashboard = Opened(place_of(url, paths.root.parent, None))
    assert dashboard.made.page == "/dashboard"
    listed = json.loads(dashboard.ask("GET", "/api/studies")[2])["study_summaries"]
    assert [one["study_name"] for one in listed] == ["points", "theirs"]
    assert [one["filename"] for one in dashboard.detail(1)["artifacts"]] == ["hyp.yaml", "evolve.yaml"]
    theirs = dashboard.detail(2)
    assert (theirs["note"]["body"], theirs["artifacts"], theirs["plotly_graph_objects"]) == ("", [], [])


@pytest.mark.parametrize("kind", ["journal", "postgres"])
def test_other_storages_are_shown_with_the_files_that_are_here(tmp_path, kind, request):
    url = f"journal:{tmp_path}/study.log" if kind == "journal" else request.getfixturevalue("postgres").url
    paths, _ = make_study(tmp_path / "runs", 4, storage=url)
    dashboard = Opened(place_of("points", tmp_path / "elsewhere", url))
    detail = dashboard.detail()
    assert len(detail["trials"]) == 4
    assert [one["filename"] for one in detail["artifacts"]] == ["hyp.yaml", "evolve.yaml"]
    paths.root.rename(tmp_path / "moved")
    assert dashboard.detail()["artifacts"] == []
    study = dashboard.made.page.rpartition("/")[2]
    assert dashboard.ask("GET", f"/artifacts/{study}/{detail['artifacts'][0]['artifact_id']}")[0] == 404


def test_optunas_own_dashboard_opens_the_study_and_shows_the_note_that_was_left(own):
    from optuna_dashboard import wsgi

    paths, study = own
    leave_note(study, "what it is")
    dashboard = Opened(place_of("points", paths.root.parent, None))
    plain = wsgi(f"sqlite:///{paths.database}")
    dashboard.made = type(dashboard.made)(plain, dashboard.made.page, dashboard.place)
    assert dashboard.detail()["note"]["body"] == "what it is"
    for path in ("/dashboard", "/api/studies", "/csv/1"):
        assert dashboard.ask("GET", path, HTTP_ACCEPT_ENCODING="")[0] == 200


def test_a_server_answers_many_at_once_and_bears_with_those_who_leave_or_dawdle(opened):
    import socket

    server = Server(opened.made.app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        dawdlers = [socket.create_connection(server.server_address) for _ in range(8)]
        for dawdler in dawdlers:
            dawdler.sendall(b"GET /api/studies HTTP/1.1\r\nHost: 127")
        leaver = socket.create_connection(server.server_address)
        leaver.sendall(b"GET /static/bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        leaver.close()
        answers: list[int] = []

        def read() -> None:
            with urllib.request.urlopen(f"{server.url}/api/studies", timeout=30) as answer:
                answers.append(answer.status)

        readers = [threading.Thread(target=read) for _ in range(16)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert answers == [200] * 16
        for dawdler in dawdlers:
            dawdler.close()
        with pytest.raises(ConfigError, match=f"cannot listen on port {server.server_port} of 127.0.0.1: it is taken"):
            Server(opened.made.app, "127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("no.such.host.invalid", 0, "is no address of this machine"),
        ("127.0.0.1", 70000, "1 to 65535"),
        ("192.0.2.1", 0, ""),
    ],
)
def test_an_address_that_cannot_be_had_is_one_sentence(host, port, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Server(lambda *_: [], host, port)
