"""docs/python.md: every block on the page runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import optuna
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {found[1]: text for _, text in BLOCKS if (found := re.match(r"# (\S+\.\w+)\n", text))}
CELLS = [text for kind, text in BLOCKS if kind == "python" and text not in FILES.values()]
PROGRAMS = [name for name in FILES if name.endswith(".py")]
SHELL = [text for kind, text in BLOCKS if kind == "sh"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that the page names, in one folder, as its reader has them."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("PATH", f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}")


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_no_block_but_these():
    assert [kind for kind, _ in BLOCKS if kind not in ("python", "yaml", "sh")] == []
    assert len(BLOCKS) == len(FILES) + len(CELLS) + len(SHELL)
    assert {name for name in FILES if not name.endswith(".py")} == {"space.yaml"}
    assert PROGRAMS and CELLS and SHELL


@pytest.mark.parametrize("script", SHELL)
def test_a_shell_block_runs(folder: Path, script: str):
    (folder / "bin").mkdir(exist_ok=True)
    evolve = folder / "bin" / "evolve"
    evolve.write_text(f"#!{sys.executable} -P\nfrom evolve.cli import main\nmain()\n")  # as pip installs it
    evolve.chmod(0o755)
    assert "10 of 10 generations are done" in run(["bash", "-euc", script], folder)


SAID = {
    "mytrainer.py": r"\A\Z",
    "search.py": r"generation +20/20 (?s:.*)\n\{'lr0': .+, 'weight_decay': .+\}\n0\.\d+ 0\.\d+ \d+\n/.*hyp.yaml /.*csv",
    "longer.py": r"\A0\.\d+ after 22 generations\n0\.\d+ after 24 generations\n\Z",
    "inline.py": r"\A<Result of inline: fitness 0\.\d+ in trial \d+, base 0\.\d+; runs/inline/best/hyp.yaml>\n\Z",
    "look.py": r"\n19 +23 |\n23 +23 ",
    "anybody.py": r"\A0\.\d+ \{'rate': ",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs(folder: Path, name: str):
    assert re.search(SAID[name], run([sys.executable, name], folder))


def test_the_cells_run_in_a_notebook(folder: Path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    table, best = (cell.outputs for cell in notebook.cells[1:])
    assert [output.output_type for output in table] == ["display_data"]
    assert "12 of 12 generations are done" in table[0].data["text/html"]
    assert best[0].data["text/plain"].startswith("<Result of cells: fitness 0.")


def test_the_study_of_anybody_was_pruned_and_evolved(folder: Path):
    [name] = optuna.get_all_study_names(f"sqlite:///{folder}/anybody.db")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/anybody.db")
    states = [trial.state.name for trial in study.trials]
    assert (len(states), set(states)) == (60, {"COMPLETE", "PRUNED"})
    assert study.best_value > 0.85
    assert any(trial.user_attrs.get("operator") == "step" for trial in study.trials)
