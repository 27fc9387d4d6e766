"""The commands that take hyps in and out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from evolve.cli.door import quieten_libraries, under
from evolve.cli.options import found_study, output_option, strict_option
from evolve.formats import FORMATS, READABLE
from search_spaces import available_spaces, load_space

command = under("Hyps in and out")


@command()
@click.argument("study", required=False)
@click.option("--format", "wanted", required=True, metavar="NAME", help=f"For whom: {', '.join(FORMATS)}.")
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="Of this trial.  [default: the best hyp]")
@output_option
@strict_option
@found_study
def export(study: str | None, runs: str, output: Path | None, **asked: Any) -> None:
    """Write a study's best hyp as another trainer takes it.

    With the command that trains with it. Without STUDY it is the study that improved last.
    """
    quieten_libraries()
    from evolve.exporting import export as export_hyp

    made = export_hyp(study, Path(runs), file=output, **asked)
    _put(made.text, output, made.warnings)
    click.echo(f"train with it: {made.command}", err=output is None)


@command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "known",
    metavar="NAME",
    help=f"Its format, where its content does not tell: {', '.join(READABLE)}.",
)
@output_option
@strict_option
def import_(file: Path, known: str | None, output: Path | None, strict: bool) -> None:
    """Print another trainer's hyp file as one of ours.

    FILE is one of YOLOv3, YOLOv5, YOLOv7 or Ultralytics, or JSON. Its content tells which.
    """
    from evolve.importing import import_hyp

    made = import_hyp(file, known, file=output, strict=strict)
    click.echo(made.read_as, err=True)
    _put(made.text, output, made.warnings)


def _put(text: str, output: Path | None, warnings: Iterable[str]) -> None:
    """Print a file, or leave it there; what to be warned of goes to stderr."""
    from studies import write_atomically

    for warning in warnings:
        click.echo(f"evolve: warning: {warning}", err=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, text)
        click.echo(f"hyp file: {output}")


@command()
@click.argument("name", required=False)
def spaces(name: str | None) -> None:
    """List the search spaces, or show what one holds.

    NAME is a built-in space or a file.
    """
    if name is None:
        click.echo("\n".join(available_spaces()))
        return
    from rich.console import Console

    from evolve.tables import space_table

    Console().print(space_table(load_space(name)))
