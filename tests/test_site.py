"""docs/ as a site: built without a warning, led nowhere that is not there, and asking no other server for anything."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("form", "action")}


class Page(HTMLParser):
    """What a page loads, where it leads, and the names in it that one can be led to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        self.loads += [given[name] for kind, name in LOADED if kind == tag and name in given]
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_every_page_of_docs_is_one_of_the_site(site: Path):
    written = {file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md")}
    written = {page for page in written if page.parts[0] != "optunahub"}  # what others' registry shows
    assert {page for page in written if not (site / page).with_suffix(".html").is_file()} == set()


def test_no_page_asks_another_server_for_anything(pages: dict[Path, Page]):
    assert {load for page in pages.values() for load in page.loads if urlsplit(load).netloc} == set()


def test_every_link_leads_to_what_is_there(pages: dict[Path, Page]):
    for file, page in pages.items():
        if file.name == "404.html":  # is shown anywhere, so that its links begin at the root
            continue
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{file.name}: {link}"
            if parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].names, f"{file.name}: {link}"


def test_the_page_on_commands_holds_all_of_them(site: Path):
    from evolve.cli import cli

    assert set(cli.commands) <= Page(site / "commands.html").names


def test_every_public_name_of_a_room_stands_in_the_reference(site: Path):
    import evolve
    import search_spaces
    import studies
    import trainer

    tables = {"SAMPLERS", "PRUNERS", "Hyp", "Value", "__version__"}  # names of names, and of plain types
    for room in (evolve, studies, trainer, search_spaces):
        names = Page(site / "api" / f"{room.__name__}.html").names
        shown = {name.rpartition(".")[2] for name in names}
        assert set(room.__all__) - tables <= shown, room.__name__
