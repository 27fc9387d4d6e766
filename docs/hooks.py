"""What mkdocs calls while it builds the site: the page on commands is made of what `evolve COMMAND --help` says."""

from __future__ import annotations

from typing import Any

import click

HERE = "<!-- here: what each command says of itself -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text, with the help of all commands in the place of the comment that asks for it."""
    return markdown.replace(HERE, "\n".join(sections())) if HERE in markdown else markdown


def sections() -> list[str]:
    """A section for each command, in the order of `evolve --help`."""
    from evolve.cli import cli

    with click.Context(cli, info_name="evolve", max_content_width=100, terminal_width=100) as door:
        return [
            f"## evolve {name} {{#{name}}}\n\n```text\n{help_of(cli.commands[name], name, door)}\n```\n"
            for name in cli.list_commands(door)
        ]


def help_of(command: click.Command, name: str, door: click.Context) -> str:
    with click.Context(command, parent=door, info_name=name, max_content_width=100, terminal_width=100) as context:
        return command.get_help(context)
