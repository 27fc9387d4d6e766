"""What is written about the project is true of it: commands, options, links."""

import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from test_layers import MAY_IMPORT

from evolve.cli import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?[^)]*\)")
ELSEWHERE = ("http://", "https://", "mailto:", "#")

COMMANDS = dict(cli.commands)
OPTIONS = [(name, option) for name, command in COMMANDS.items() for option in command.params]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    assert COMMANDS[name].help
    assert "..." not in COMMANDS[name].get_short_help_str(limit=68), "its first sentence fits the list of commands"


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name} {option.name}" for name, option in OPTIONS])
def test_every_option_has_help_and_every_argument_stands_in_that_of_its_command(name, option):
    if isinstance(option, click.Argument):
        assert option.name.upper() in COMMANDS[name].help
    else:
        assert option.help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_readme(name):
    assert f"evolve {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_what_newcomers_read_first_is_there(document):
    assert (ROOT / document).read_text(encoding="utf-8").startswith("# ")


def named_in_contributing() -> dict[str, set[Path]]:
    """The files and folders of each room that the table in CONTRIBUTING names, below the room's folder."""
    named: dict[str, set[Path]] = {}
    for cell in re.findall(r"^\| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE):
        if heading := re.fullmatch(r"\*\*(\w+)\*\*", cell):
            room = named.setdefault(heading[1], set())
        elif names := re.findall(r"`([^`]+)`", cell):
            folder = Path(names[0]).parent  # is said once a row
            room |= {Path(names[0]), *(folder / name for name in names[1:])}
    return named


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_every_module_stands_in_the_table_of_contributing_and_nothing_else_does(room):
    named = named_in_contributing()[room]
    assert [name for name in named if not list((ROOT / room).glob(str(name)))] == []
    modules = {path.relative_to(ROOT / room) for path in (ROOT / room).rglob("*.py") if path.stem != "__init__"}
    modules -= {Path("__main__.py")}  # what it is, its name says
    assert {module for module in modules if not {module, module.parent} & named} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in LINK.findall(text) if not link.startswith(ELSEWHERE)]
    broken = [link for link in links if not (document.parent / link.partition("#")[0]).exists()]
    assert broken == []


def test_every_option_that_the_documents_show_exists():
    """In `evolve run --option`, wherever it stands: a document outlives the option that it names."""
    known = {name: {flag for option in command.params for flag in option.opts} for name, command in COMMANDS.items()}
    for document in DOCUMENTS:
        for name, rest in re.findall(r"\bevolve (\w+)((?:\\\n|[^\n`])*)", document.read_text(encoding="utf-8")):
            if name in known:
                ours = re.split(r"\s--\s|;", rest)[0]  # behind it stand those of another program, or another command
                shown = set(re.findall(r"(?<!\S)--[\w-]+", ours)) - {"--help"}
                assert shown <= known[name], f"{document.name}: evolve {name}"


BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WORKERS = ROOT / "docs" / "workers.md"


@pytest.mark.parametrize("script", [text for kind, text in BLOCK.findall(WORKERS.read_text("utf-8")) if kind == "sh"])
def test_every_script_on_workers_is_one_to_a_shell(script):
    assert subprocess.run(["bash", "-n"], check=False, input=script, text=True, capture_output=True).stderr == ""


def test_every_manifest_on_workers_is_a_job_whose_command_exists():
    jobs = [yaml.safe_load(text) for kind, text in BLOCK.findall(WORKERS.read_text("utf-8")) if kind == "yaml"]
    assert [job["metadata"]["name"] for job in jobs] == ["evolve-parent", "evolve-workers"]
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        program, name, *arguments = container["command"]
        assert (job["kind"], program) == ("Job", "evolve")
        assert all(isinstance(argument, str) for argument in arguments)
        COMMANDS[name].make_context(name, [*arguments, "--storage", "memory:"]).close()
        secrets = [entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if "valueFrom" in entry]
        assert secrets == [{"name": "evolve", "key": "storage"}]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
