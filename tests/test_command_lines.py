"""Every command line that the documents show works: it is run here, or held against the program that it calls.

A line of `evolve` is parsed by evolve itself, and then run in a folder that has what the documents speak of: studies,
data, hyp files. It runs on a trainer that costs nothing, and is told to be short by more options behind its own. What
cannot run here stands in CANNOT with the reason. Lines of other programs are held against what is there to be called.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from evolve.cli import cli
from evolve.config import PROGRAMS, EvolveConfig, resolve_config

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CHECK_OUTS, GOLDEN = ROOT / "tests" / "trainer" / "check_outs", ROOT / "tests" / "evolve" / "golden"
HELPERS = [ROOT / "tests", ROOT / "tests" / "trainer"]

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
KINDS = {"sh", "text", "yaml", "python", ""}

PLACEHOLDER = re.compile(r"\b(FILE|FOLDER|STUDY|NAME|TRIAL|URL|PATH)\b")
CANNOT = {
    r"--backend (dask|ray)": "needs a cluster: evolve/test_clusters.py starts one",
    r"--trainer ultralytics": "trains for minutes: evolve/test_ultralytics.py does with what is short",
    r"--trainer yolov[37]": "needs check-outs with their files: trainer/test_presets.py has some that stand in",
    r"https://": "needs a network",
    r"--log-to mlflow": "needs a server: evolve/test_tracking.py starts one",
    r"--png": "wants a browser: evolve/test_report.py has one",
    r"evolve dashboard": "serves until it is stopped: evolve/test_dashboard.py asks it",
    r"runs/train/exp": "wants weights: test_the_tutorial_runs_with_the_built_in_detector has some",
    r"mytrainer:train|best mine": "runs as it stands, with its page's files, in test_python_page.py",
    r"--study (parabola|shell)": "runs as it stands, with its page's files, in evolve/test_programs.py",
}
"""Lines that are parsed only, with the reason."""
ELSEWHERE = {r"^(\$HOME|~|/data)/": "", r"^/runs$": "runs", r"/net/": "net/", r"^\$SLURM_CPUS_PER_TASK$": "4"}
ELSEWHERE |= {r"^42$": "2", r"^one$": "first", r"^two$": "trial"}
"""What stands on another machine, or in another study, and what it is here."""

SHORT = {
    "run": ("--epochs", "2", "--generations", "3", "--race", "0", "--device", "cpu"),
    "train": ("--epochs", "1", "--device", "cpu"),
    "verify": ("--epochs", "2", "--seeds", "2", "--candidates", "1", "--quiet"),
    "worker": ("--device", "cpu", "--quiet"),
}
ANYTHING = ("--trainer", "anything:Anything")
DETECTOR = ("--model", "pico", "--imgsz", "32", "--epochs", "1", "--generations", "1")
"""The built-in one, on next to nothing."""
TRANSLATED = r"run --hyp hyp\.scratch"  # a file of another trainer, which only the detector makes its own of
SHELL_WORDS = {"&&", "||", ";", "<", ">>", "&"}


@dataclass(frozen=True)
class Line:
    """A command line of a document, without what the shell does with its output."""

    document: str
    text: str
    inline: bool = False

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.text, comments=True)
        words = words[1:] if words[:1] == ["exec"] else words
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # WANDB_MODE=disabled evolve run
            words = words[1:]
        assert not SHELL_WORDS & set(words), f"{self.document}: give a command at a time: {self.text}"
        ends = [words.index(word) for word in (">", "|") if word in words]
        return words[: min(ends, default=len(words))]

    @property
    def words_here(self) -> list[str]:
        """The same with this machine's paths."""
        words = self.words
        for there, ours in ELSEWHERE.items():
            words = [re.sub(there, ours, word) for word in words]
        return words

    @property
    def program(self) -> str:
        return Path(self.words[0]).name if self.words else ""

    @property
    def is_mention(self) -> bool:
        """Whether it is no more than the name of a command or an option in a sentence, or leaves something out."""
        return self.inline and (len(self.words) == 2 or "..." in self.words or self.words[-1] in valued(self.words[1]))


def valued(name: str) -> set[str]:
    """The options of a command that want a value."""
    options = [option for option in cli.commands.get(name, cli).params if isinstance(option, click.Option)]
    return {flag for option in options if not option.is_flag for flag in option.opts}


@cache
def blocks(document: Path) -> list[tuple[str, str]]:
    return FENCE.findall(document.read_text("utf-8"))


def lines_of(document: Path) -> Iterator[Line]:
    """Those in its blocks and in its sentences. Of a file that a page shows only the calls of `evolve` count."""
    for kind, text in blocks(document):
        for line in text.replace("\\\n", " ").splitlines() if kind == "sh" else ():
            called = not text.startswith("#!") or re.match(r"(exec )?evolve ", line)
            if called and line.strip() and not line.startswith("#"):
                yield Line(document.name, line.strip())
    for span in SPAN.findall(FENCE.sub("", document.read_text("utf-8"))):
        words = " ".join(span.split())
        if re.match(r"([A-Z_]+=\S+ )*(\S*/)?[\w-]+ ", words) and Line("", words.split()[0]).program in CALLED:
            yield Line(document.name, words, inline=True)


def understand(words: Sequence[str]) -> click.Context:
    """What evolve makes of a line: its command, with all that it was given. Raises what the command line would."""
    (program, name, *arguments) = words
    assert Path(program).name == "evolve"
    command = cli.commands[name]
    context = command.make_context(name, list(arguments))
    if name == "run":
        given = {field.name: context.params[field.name] for field in fields(EvolveConfig)}
        context.obj = resolve_config(given)
    return context


def extended(words: Sequence[str], *more: str) -> list[str]:
    """The line with more options, in front of another program's."""
    at = list(words).index("--") if "--" in words else len(words)
    return [*words[:at], *more, *words[at:]]


# Other programs: what can be known without running them


def check_make(words: Sequence[str]) -> None:
    assert subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=False, capture_output=True).returncode == 0
    known = re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word.partition("=")[0] for word in words[1:] if "=" in word} <= set(known)


def check_pip(words: Sequence[str]) -> None:
    """An extra of ours, or what one of ours asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked_for = {re.split(r"[\[><=]", need)[0] for needs in extras.values() for need in needs}
    assert words[1] == "install"
    for word in words[2:]:
        name, _, extra = word.strip("]").partition("[")
        if name in (".", project["name"]):
            assert not extra or extra in extras
        else:
            assert word == "-e" or {name, extra} & asked_for, f"{word} is in no extra"


def check_python(words: Sequence[str]) -> None:
    """A module or a file of ours; a benchmark has to take these arguments."""
    if words[1] != "-m":
        assert (ROOT / words[1]).is_file() or re.match(r"[A-Z0-9]+_FOLDER/", words[1]), "or another project's"
    elif words[2].startswith("benchmarks."):
        importlib.import_module(words[2]).build_parser().parse_args(words[3:])
    else:
        assert importlib.util.find_spec(words[2])


def check_kubectl(words: Sequence[str]) -> None:
    pages = (ROOT / "docs" / "workers.md").read_text()
    named = [word for word in words if word.endswith(".yaml")] + re.findall(r"job/(\S+)", " ".join(words))
    assert all(f"# {name}\n" in pages or f"name: {name}\n" in pages for name in named)
    if "--" in words:
        understand(words[list(words).index("--") + 1 :])


def check_installed(words: Sequence[str]) -> None:
    """A program that a package of ours brings."""
    scripts = distribution(words[0]).entry_points
    assert words[0] in {script.name for script in scripts if script.group == "console_scripts"}


def need_nothing(words: Sequence[str]) -> None:
    """The system's, or another project's own."""


CALLED: dict[str, Callable[[Sequence[str]], object]] = {
    "evolve": understand,
    "make": check_make,
    "run": need_nothing,  # .ci/run
    "pip": check_pip,
    "python": check_python,
    "python3": check_python,
    "kubectl": check_kubectl,
    "optuna-dashboard": check_installed,
    "tensorboard": check_installed,
    "mlflow": check_installed,
    **dict.fromkeys(
        ("apt-get", "chmod", "cp", "export", "source", "sbatch", "torchrun", "xdg-open", "yolo"), need_nothing
    ),
}
LINES = list(dict.fromkeys(line for document in DOCUMENTS for line in lines_of(document)))
OURS = [line for line in LINES if line.program == "evolve" and not line.is_mention]
UNIQUE = list({" ".join(line.words): line for line in OURS}.values())
RUN = [
    line
    for line in UNIQUE
    if not PLACEHOLDER.search(line.text) and not any(re.search(what, line.text) for what in CANNOT)
]


def named(line: Line) -> str:
    return f"{line.document}: {' '.join(line.words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_what_it_is(document: Path):
    assert {kind for kind, _ in blocks(document)} <= KINDS
    output = [line for kind, text in blocks(document) if kind in ("", "text") for line in text.splitlines()]
    assert [line for line in output if re.match(r"(evolve|make|pip|python3?) [a-z-]", line)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_of_yaml_or_python_is_some(document: Path):
    for text in (text for kind, text in blocks(document) if kind == "yaml"):
        list(yaml.safe_load_all(text))
    for text in (text for kind, text in blocks(document) if kind == "python"):
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        ours = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "evolve"]
        settings = {keyword.arg for call in ours for keyword in call.keywords}
        assert settings <= {"watcher", "quiet", *(field.name for field in fields(EvolveConfig))}


def test_every_program_that_is_called_is_known():
    assert {line.program for line in LINES} - set(CALLED) == set()


@pytest.mark.parametrize("reason", CANNOT)
def test_what_cannot_run_is_still_there(reason: str):
    assert any(re.search(reason, line.text) for line in UNIQUE)


@pytest.mark.parametrize("line", [line for line in LINES if line.program != "evolve"], ids=named)
def test_another_program_is_called_as_it_can_be(line: Line):
    CALLED[line.program](line.words)


@pytest.mark.parametrize("line", [line for line in LINES if line.is_mention and line.program == "evolve"], ids=named)
def test_what_is_mentioned_is_a_command_and_its_option(line: Line):
    command = cli.commands.get(line.words[1], cli)  # or evolve itself: evolve --help
    options = {flag for option in command.params for flag in option.opts} | {"--help"}
    words = line.words[: line.words.index("--")] if "--" in line.words else line.words
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("line", [line for line in UNIQUE if line not in RUN], ids=named)
def test_what_cannot_run_here_is_understood(line: Line, furnished: Path):
    understand(line.words_here)


# Where lines run


@pytest.fixture(scope="module")
def furnished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents speak of; lines work in copies of it."""
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch)
        furnish(folder)
    return folder


@pytest.fixture
def furnished(furnished_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    shutil.copytree(furnished_once, folder)
    settle(folder, monkeypatch)
    return folder


def settle(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("HOME", str(folder))
    patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    patch.delenv("EVOLVE_STORAGE", raising=False)
    for helper in HELPERS:
        patch.syspath_prepend(helper)


def furnish(folder: Path) -> None:
    from drawn_data import write_yolo

    write_yolo(folder / "cells")
    shutil.copytree(folder / "cells", folder / "bccd_320")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "tradeoff.yaml", folder / "docs")
    shutil.copytree(CHECK_OUTS / "yolov5", folder / "yolov5")
    for file, made_of in {
        "hyp.yaml": "hyp.yaml",
        "hyp.json": "hyp.json",
        "hyp.finetune.yaml": "hyp.yolov5.yaml",
        "hyp.scratch-low.yaml": "hyp.yolov5.yaml",
        "runs/detect/train/args.yaml": "hyp.ultralytics.yaml",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / made_of, folder / file)
    (folder / "cells.yaml").write_text("nc: 2\n" + (folder / "cells" / "data.yaml").read_text())
    (folder / "yolov5s.pt").touch()
    (folder / "space.yaml").write_text("lr: {low: 0.001, high: 0.5, default: 0.01, log: true}\n")
    shutil.copy(folder / "space.yaml", folder / "my.yaml")
    (folder / "train.py").write_text(
        'print(*(f\'{{"epoch": {epoch}, "map50": 0.5, "map50_95": 0.4}}\' for epoch in (1, 2)), sep="\\n")\n'
    )
    for study, more in {
        "first": (),
        "trial": ("--pruner", "none"),
        "cells": ("--data", "cells/data.yaml"),
        "digits": ("--generations", "6"),
    }.items():
        succeed("evolve", "run", *SHORT["run"], *ANYTHING, "--study", study, *more)
    succeed("evolve", "run", *SHORT["run"], *ANYTHING, "--storage", "journal:net/digits.log", "--runs", "net/runs")


def succeed(program: str, *arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, f"{arguments}\n{result.output}"
    return result.output


@pytest.mark.parametrize("line", RUN, ids=named)
def test_a_line_runs(line: Line, furnished: Path, monkeypatch: pytest.MonkeyPatch):
    words, name = line.words_here, line.words[1]
    if name == "worker":
        monkeypatch.setenv("EVOLVE_STORAGE", f"sqlite:///{furnished}/runs/cells/study.db")
    understood = understand(words)
    more = SHORT.get(name, ())
    if name == "run":
        config: EvolveConfig = understood.obj
        shutil.rmtree(furnished / "runs" / config.study, ignore_errors=True)
        workers = () if config.jobs is None else ("--jobs", "2")
        trainer = () if config.trainer in PROGRAMS else DETECTOR if re.search(TRANSLATED, line.text) else ANYTHING
        more = (*more, *workers, *trainer)
        more = more if "--json" in words else (*more, "--quiet")
    if name == "train":
        more = () if "--resume" in words else (*more, *ANYTHING)
    succeed(*extended(words, *more))


def test_the_tutorial_runs_with_the_built_in_detector(furnished: Path):
    shutil.rmtree("runs")
    document = ROOT / "docs" / "tutorial.md"
    lines = [line for line in lines_of(document) if line.program == "evolve" and not line.is_mention]
    short = {"run": (*DETECTOR, "--race", "0"), "train": ("--epochs", "1", "--imgsz", "32", "--noplots")}
    lines += [line for line in UNIQUE if "runs/train/exp" in line.text and line.document != document.name]
    for line in lines:
        if "--png" not in line.words:
            succeed(*line.words, *(() if "--resume" in line.words else short.get(line.words[1], ())))
    assert len(lines) > 5
    assert (furnished / "runs" / "train" / "exp" / "best.pt").is_file()
