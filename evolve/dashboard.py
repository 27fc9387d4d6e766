"""`evolve dashboard`: Optuna's dashboard on a study, to look at and not to touch, with what we know beside it."""

from __future__ import annotations

import copy
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from optuna import Study
from optuna.storages import BaseStorage, get_storage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from evolve.config import ConfigError, mask_secrets
from evolve.exhibits import Exhibits, Picture, kind_of
from evolve.gate import Gate, is_loopback, names_of
from evolve.interrupts import Interrupts
from evolve.lookup import Place, load, locate
from evolve.serving import Server
from studies import open_storage, storage_errors

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from bottle import Bottle

PAGE = "/dashboard<:re:(/.*)?>"  # the routes that we have something to add to, as the dashboard spells them
DETAIL = "/api/studies/<study_id:int>"
ARTIFACTS = "/artifacts/"
# It gives a custom plot half of the page and 450 pixels of height. Ours are as high as they need, and wide; and on a
# narrow page everything is.
LOOK = b"""<style>
[id^="user-defined-plot:"] { height: auto !important; min-height: 240px; }
.MuiGrid-root:has(> .MuiCard-root > .MuiCardContent-root > [id^="user-defined-plot:"]) {
    width: 100% !important; max-width: 100% !important; flex-basis: 100% !important; }
@media (max-width: 800px) {
    main, main fieldset { min-width: 0; }
    [class*="MuiGrid-grid-xs-"] { width: 100% !important; max-width: 100% !important; flex-basis: 100% !important; }
}
</style></head>"""
PACKAGE = "evolve dashboard needs a package that is not installed: pip install 'evolve-hyp[dashboard]'"


@dataclass(frozen=True)
class Dashboard:
    """An open storage as an application, and the path of the page to begin with."""

    app: WSGIApplication
    page: str
    place: Place


def dashboard(
    asked: str | None,
    runs: Path,
    *,
    storage: str | None = None,
    host: str,
    port: int,
    allow_write: bool = False,
    browse: bool = False,
    say: Callable[[str], object],
    warn: Callable[[str], object],
) -> None:
    """Serve the dashboard of a study, or of all in a storage, until Ctrl-C or SIGTERM.

    `asked` is a study as `evolve status` finds it, or the URL of a storage. Raises ConfigError, StudyError.
    """
    made = open_dashboard(place_of(asked, runs, storage), names_of(host), allow_write=allow_write)
    with Server(made.app, host, port) as server, Interrupts():
        say(f"dashboard of {made.place.study or 'all studies in this storage'}: {server.url}{made.page}")
        say("it can be written to; Ctrl-C ends it" if allow_write else "it is for reading only; Ctrl-C ends it")
        if not is_loopback(host):
            warn(f"whoever reaches port {server.server_port} of {host} {'rules' if allow_write else 'can read'} this")
        if browse:
            webbrowser.open(f"{server.url}{made.page}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # as was said
            return


def place_of(asked: str | None, runs: Path, storage: str | None) -> Place:
    """Where to find what was asked for. Raises ConfigError, StudyError."""
    if asked is not None and ("://" in asked or asked.startswith(("journal:", "memory:"))):
        asked, storage = None, asked
    if storage is not None and storage.startswith("memory:"):
        raise ConfigError("a study in memory: is seen by nobody but the process that runs it; give another --storage")
    return locate(asked, runs, storage)


def open_dashboard(place: Place, names: frozenset[str], *, allow_write: bool = False) -> Dashboard:
    """The dashboard of a storage, as an application that goes by these names. Raises ConfigError, StudyError."""
    try:
        from optuna_dashboard._app import create_app
    except ImportError as error:
        raise ConfigError(PACKAGE) from error
    with storage_errors(place.url):
        reader = get_storage(open_storage(place.url, read_only=True))
        study = None if place.study is None else load(reader, place.study)
        writer = open_storage(place.url) if allow_write else None
        page = "/dashboard" if study is None else f"/dashboard/studies/{study._study_id}"
        app = create_app(OpenStorage(reader, writer), store_of(place, allow_write))
    add_exhibits(app, Exhibits(reader, place, draw_pictures))
    return Dashboard(Gate(app, names, allow_write), page, place)


class OpenStorage:
    """A storage as the dashboard gets it: what reads it has, and of all else nothing where there is no `writer`.

    Optuna takes for a storage whatever has its methods. What a trial failed with comes without passwords.
    """

    def __init__(self, reader: BaseStorage, writer: BaseStorage | None) -> None:
        self._reader = reader
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("get_") or name in ("remove_session", "check_trial_is_updatable"):
            return getattr(self._reader, name)
        if self._writer is None:
            raise PermissionError(f"{name}: this storage is open for reading only")
        return getattr(self._writer, name)

    def get_all_studies(self) -> list[FrozenStudy]:
        return sorted(self._reader.get_all_studies(), key=lambda study: study._study_id)

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return [without_secrets(trial) for trial in self._reader.get_all_trials(*args, **kwargs)]


def without_secrets(trial: FrozenTrial) -> FrozenTrial:
    """The trial, with no password in what it failed with."""
    noted = trial.user_attrs
    told = {key: text for key, text in noted.items() if isinstance(text, str) and "://" in text}
    if trial.state != TrialState.FAIL or not told:
        return trial
    masked = copy.copy(trial)
    masked.user_attrs = {**noted, **{key: mask_secrets(text) for key, text in told.items()}}
    return masked


def store_of(place: Place, allow_write: bool) -> Any:
    """Where the files lie that people upload: in the run folder, if it is here. Ours stay where they were left."""
    from optuna.artifacts import FileSystemArtifactStore

    if place.paths is None:
        return NoUploads()
    if allow_write:
        place.paths.uploads.mkdir(exist_ok=True)
    return FileSystemArtifactStore(place.paths.uploads)


class NoUploads:
    """A store of artifacts that has none and takes none."""

    def open_reader(self, artifact_id: str) -> NoReturn:
        from optuna.artifacts.exceptions import ArtifactNotFound

        raise ArtifactNotFound("it lies on another machine")

    def remove(self, artifact_id: str) -> NoReturn:
        self.open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: object) -> NoReturn:
        raise PermissionError("the run folder is on another machine")


def draw_pictures(study: Study) -> list[Picture]:
    """Our pictures of a study, in order, with no password in what they tell."""
    from evolve.report import view_into
    from studies.pictures import pictures_of

    return [(name, str(figure.to_json())) for name, figure in pictures_of(view_into(study)).items()]


def add_exhibits(app: Bottle, exhibits: Exhibits) -> None:
    """Have the dashboard's own routes answer with ours beside what is theirs."""
    from bottle import Route, request, static_file

    class Beside:
        name, api = "evolve", 2

        def apply(self, callback: Callable[..., Any], route: Route) -> Callable[..., Any]:
            if route.method == "GET" and route.rule == PAGE:
                return lambda: self.page(callback)
            if route.method == "GET" and route.rule == DETAIL:
                return lambda **asked: self.detail(callback, **asked)
            if route.method == "GET" and route.rule.startswith(ARTIFACTS):
                return lambda **asked: self.artifact(callback, **asked)
            return callback

        def page(self, callback: Callable[..., Any]) -> Any:
            for header in ("HTTP_RANGE", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH"):
                request.environ.pop(header, None)
            found = callback()
            if request.method == "GET":
                with found.body as file:
                    found.body = file.read().replace(b"</head>", LOOK)
                found.set_header("Content-Length", str(len(found.body)))
            return found

        def detail(self, callback: Callable[..., Any], study_id: int) -> Any:
            found = callback(study_id=study_id)
            if isinstance(found, dict) and "plotly_graph_objects" in found:
                exhibits.add_to(study_id, found)
            return found

        def artifact(self, callback: Callable[..., Any], artifact_id: str, **where: int) -> Any:
            if (path := exhibits.file(artifact_id, **where)) is not None:
                return static_file(path.name, root=path.parent, mimetype=kind_of(path))
            return callback(artifact_id=artifact_id, **where)

    app.install(Beside())
