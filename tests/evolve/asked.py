"""Two studies of a second each, made once, that the tests of the commands which ask look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from small_world import FAULTS, SPACE, TOY

from evolve.cli import cli

TOYS = ("--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "3", "--race", "0")


def make_studies(folder: Path) -> None:
    """In runs/: 'one' of six generations, 'two' of as many under another seed, 'broken' whose trials fail."""
    (folder / "space.yaml").write_text(SPACE)
    (folder / "faults.yaml").write_text(SPACE + FAULTS)
    runs = ("--runs", str(folder / "runs"))
    more = ("--generations", "6", "--base-seeds", "2", "--space", str(folder / "space.yaml"), *runs)
    ask("run", *TOYS, "--study", "one", *more)
    ask("run", *TOYS, "--study", "two", "--seed", "7", *more)
    fault = ("--space", str(folder / "faults.yaml"), "--set", "fault=TrainerError", "--set", "fault_epoch=2")
    ask("run", *TOYS, "--study", "broken", "--generations", "2", *fault, *runs)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def told(*arguments: str) -> Any:
    """What a command prints as JSON."""
    result = ask(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


__all__ = ["TOY", "ask", "make_studies", "told"]
