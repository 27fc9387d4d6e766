"""The packages for OptunaHub: built from our modules, they work where ours cannot be imported."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "docs" / "optunahub" / "build.py"
ALONE = """\
import sys, optunahub
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("search_spaces", "studies", "trainer", "evolve", "threadpoolctl"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
optunahub.load_module = lambda package: optunahub.load_local_module(package, registry_root=sys.argv[1] + "/package")
"""


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PACKAGES = load_build().PACKAGES
MODULES = {
    "samplers/evolve_genetic": "cores cube errors expectation genetics modern sampler space surrogate trials",
    "pruners/evolve_pruner": "pruner trials",
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    built = subprocess.check_output([sys.executable, str(BUILD), str(folder)], text=True).splitlines()
    assert built == [str(folder / "package" / name) for name in PACKAGES]
    return folder


def run_alone(registry: Path, code: str) -> str:
    """What the code prints in a process that has Optuna, and none of ours, nor what they can do without."""
    command = [sys.executable, "-c", ALONE + code, str(registry)]
    done = subprocess.run(command, cwd=registry, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_holds_what_the_registry_asks_for(registry: Path, name: str):
    package = registry / "package" / name
    assert {"__init__.py", "README.md", "LICENSE", "example.py"} <= {file.name for file in package.iterdir()}
    _, front, text = (package / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(front)
    assert set(told) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert name.split("/")[0].removesuffix("s") in told["tags"]
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Abstract", "Class or Function Names", "Installation", "Example", "Others"]
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_needs_none_of_our_rooms_and_little_else(registry: Path, name: str):
    modules = [file for file in (registry / "package" / name).glob("*.py") if file.name != "example.py"]
    imported = {found for file in modules for found in re.findall(r"^(?:from|import) (\w+)", file.read_text(), re.M)}
    assert imported - set(sys.stdlib_module_names) <= {"numpy", "optuna"}
    assert {file.stem for file in modules} == {"__init__", *MODULES[name].split()}, "what else comes along?"


def test_the_registry_is_built_anew(registry: Path):
    left = registry / "package" / "pruners" / "evolve_pruner" / "left_over.py"
    left.touch()
    load_build().build(registry)
    assert not left.exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_the_example_of_a_package_runs_where_ours_cannot_be_imported(registry: Path, name: str):
    example = f"import runpy; runpy.run_path('package/{name}/example.py', run_name='__main__')"
    assert re.search(r"\{'rate': 0\.\d+", run_alone(registry, example))
    assert (
        run_alone(registry, "try:\n    import studies\nexcept ModuleNotFoundError as e:\n    print(e)") == "studies\n"
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_the_example_in_the_readme_of_a_package_runs(registry: Path, name: str):
    [example] = re.findall(r"```python\n(.*?)```", (registry / "package" / name / "README.md").read_text(), re.DOTALL)
    assert run_alone(registry, example + "\nprint(len(study.trials))") == "50\n"


def test_what_is_built_draws_what_ours_draws(registry: Path):
    code = """
import optuna
{load}
study = optuna.create_study(direction="maximize", sampler=GeneticSampler(seed=3), pruner=EvolvePruner(epochs=9))
def objective(trial):
    x, n = trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 99)
    for epoch in range(1, 10):
        trial.report(x * epoch + n, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x * 9 + n
optuna.logging.set_verbosity(optuna.logging.ERROR)
study.optimize(objective, n_trials=30)
print([(trial.params, trial.state.name) for trial in study.trials])
"""
    ours = "from studies import EvolvePruner, GeneticSampler"
    built = """
GeneticSampler = optunahub.load_module("samplers/evolve_genetic").GeneticSampler
EvolvePruner = optunahub.load_module("pruners/evolve_pruner").EvolvePruner
"""
    by_ours = subprocess.check_output([sys.executable, "-c", code.format(load=ours)], cwd=ROOT, text=True)
    assert "PRUNED" in by_ours
    assert run_alone(registry, code.format(load=built)) == by_ours
