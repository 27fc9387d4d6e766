"""Four rooms, one direction: who imports whom, and what an import must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "search_spaces": set(),
    "trainer": set(),
    "studies": {"search_spaces"},
    "evolve": {"search_spaces", "studies", "trainer"},
}
HEAVY = ("torch", "torchvision", "optuna", "pandas", "plotly", "sklearn")
FILES = sorted(path.relative_to(ROOT) for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def imported_rooms(path: Path) -> Iterator[str]:
    """Every room that a file imports from, wherever in it: at the top, in a function, for type checking."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.level == 0 else [path.parts[0]]
        yield from (room for name in names if (room := name.partition(".")[0]) in MAY_IMPORT)


def test_there_is_something_in_every_room():
    assert {path.parts[0] for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_one_way(path):
    room = path.parts[0]
    assert set(imported_rooms(path)) <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("search_spaces", HEAVY),
        ("trainer", HEAVY),
        ("trainer.process", HEAVY),
        ("studies", ("torch", "torchvision", "pandas", "plotly", "sklearn")),
        ("evolve", HEAVY),
        ("evolve.calling", HEAVY),
        ("evolve.cli", HEAVY),
        ("evolve.engine", ("torch", "torchvision", "pandas", "plotly", "sklearn")),
    ],
)
def test_importing_loads_nothing_heavy(module, unloaded):
    assert loaded_after(f"import {module}") & set(unloaded) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["spaces"]])
def test_what_answers_at_once_loads_nothing_heavy(arguments):
    command = f"from evolve.cli import cli; cli.main({arguments!r}, standalone_mode=False)"
    assert loaded_after(command) & set(HEAVY) == set()


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after this code."""
    tell = "import sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    output = subprocess.check_output([sys.executable, "-c", f"{code}\n{tell}"], cwd=ROOT, text=True)
    return set(output.rpartition("LOADED")[2].split())
