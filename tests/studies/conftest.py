"""Fixtures of the studies' tests: a small space, a URL, and Optuna's log kept out of the output."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from search_spaces import Param, Space
from studies import sqlite_url


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def space() -> Space:
    return Space(
        "small",
        (
            Param("lr0", 0.01, 1e-5, 0.1, log=True),
            Param("degrees", 0.0, 0.0, 45.0),
            Param("layers", 3, 1, 9, step=1),
            Param("optimizer", "sgd", choices=("sgd", "adam", "lion")),
            Param("fl_gamma", 0.5, 0.0, 2.0, gain=0.0),
        ),
        {"copy_paste": 0.0, "schedule": "cosine"},
        ("lr0", "degrees", "copy_paste", "layers", "optimizer", "fl_gamma", "schedule"),
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "study.db")
