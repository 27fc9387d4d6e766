"""The door: the group that all commands join, and the one place where errors become a sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

import evolve
from evolve.config import ConfigError, mask_secrets
from evolve.standing import NoResult
from search_spaces import SpaceError
from trainer import DataError, TrainerError

NOTHING_COMPLETED, ASKED_WRONGLY, INTERRUPTED = 1, 2, 130
HEADINGS = ("Search", "Look and ask", "Hyps in and out", "Train by itself")  # of the commands, in this order


class Sectioned(click.Command):
    """Shows its options under the headings that `together` gave them; those without one stand last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading in sorted(sections, key=lambda heading: heading == "Options"):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])


class Door(click.Group):
    """The one place where errors become one line on stderr and an exit code; all others are bugs and shown."""

    command_class = Sectioned

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under their headings, each with its first sentence."""
        for heading in HEADINGS:
            under = {name: one for name, one in self.commands.items() if getattr(one, "heading", "") == heading}
            width = formatter.width - 6 - max(map(len, self.commands))
            with formatter.section(heading):
                formatter.write_dl([(name, one.get_short_help_str(width)) for name, one in under.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            click.echo(f"evolve: error: {mask_secrets(_sentence(error))}", err=True)
            ctx.exit(code)


def _exit_code(error: Exception) -> int | None:
    """2 for what was asked wrongly, 1 for a result that did not come about, None for a bug."""
    if isinstance(error, NoResult):
        return NOTHING_COMPLETED
    if isinstance(error, TrainerError) and not isinstance(error, DataError):
        return NOTHING_COMPLETED
    if isinstance(error, ConfigError | SpaceError | DataError | OSError):
        return ASKED_WRONGLY
    from studies import StudyError

    return ASKED_WRONGLY if isinstance(error, StudyError) else None


def _sentence(error: Exception) -> str:
    """An error on one line; the system's own name the file first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines())


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(evolve.__version__, prog_name="evolve", message="%(prog)s %(version)s")
def cli() -> None:
    """Evolve the hyperparameters of an object detector's training."""


def under(heading: str) -> Callable[..., Callable[[Callable[..., Any]], click.Command]]:
    """What makes commands of functions, as `cli.command` does, and lists them under this heading."""
    assert heading in HEADINGS

    def command(name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
        def decorate(function: Callable[..., Any]) -> click.Command:
            made = cli.command(name)(function)
            made.heading = heading  # type: ignore[attr-defined]  # for Door
            return made

        return decorate

    return command


def quieten_libraries() -> None:
    """Leave the screen to us: of Optuna's lines only warnings, and none about what it calls experimental.

    Our own loggers need no set-up: what they warn of goes to stderr, where Python's last resort writes it.
    """
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
