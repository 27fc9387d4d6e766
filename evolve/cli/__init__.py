"""The command line: every command parses, calls and prints. What it needs is imported when a command runs."""

from evolve.cli import ask, hyps, search, train
from evolve.cli.door import ASKED_WRONGLY, INTERRUPTED, NOTHING_COMPLETED, cli, quieten_libraries
from evolve.cli.options import PASSWORD_SHOWN

COMMANDS = (search, ask, hyps, train)  # their commands join the group when they are imported

__all__ = [
    "ASKED_WRONGLY",
    "COMMANDS",
    "INTERRUPTED",
    "NOTHING_COMPLETED",
    "PASSWORD_SHOWN",
    "cli",
    "main",
    "quieten_libraries",
]


def main() -> None:
    """What the console script calls."""
    cli(prog_name="evolve")
