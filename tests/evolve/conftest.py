"""The small world that the tests of this room live in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_world import FAULTS, SPACE, TOY, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TOY)
    made = World(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


@pytest.fixture
def faulty(world: World) -> World:
    """The same, with a toy that can be broken by the hyp `fault`."""
    (world.folder / "space.yaml").write_text(SPACE + FAULTS)
    return world
