"""Builds the packages that OptunaHub takes, from the modules that we run: python docs/optunahub/build.py FOLDER

Each becomes FOLDER/package/<samplers or pruners>/<name>, as the registry lays them out: the modules that its class
needs, importing each other by relative names, with the README and the example that lie here, and our licence.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = {
    "samplers/evolve_genetic": {
        "studies/sampler.py": ("GeneticSampler",),
        "search_spaces/space.py": ("Param", "Space"),
    },
    "pruners/evolve_pruner": {"studies/pruner.py": ("EvolvePruner",)},
}
IMPORT = re.compile(r"^from (studies|search_spaces)(?:\.(\w+))? import ", re.MULTILINE)
MENTION = re.compile(r"`(?:studies|search_spaces)\.(\w+)`")
WHOLE_ROOM = {"search_spaces": "space"}  # the module that all which is imported from a whole room comes from


def build(folder: Path) -> list[Path]:
    """Build all packages and return their folders; what is there of an earlier build is replaced."""
    return [build_package(name, folder / "package" / name) for name in PACKAGES]


def build_package(name: str, package: Path) -> Path:
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for module in needed(ROOT / module for module in PACKAGES[name]):
        (package / module.name).write_text(made_relative(module.read_text("utf-8")), "utf-8")
    (package / "__init__.py").write_text(door(PACKAGES[name]), "utf-8")
    for file in (HERE / name / "README.md", HERE / name / "example.py", ROOT / "LICENSE"):
        shutil.copyfile(file, package / file.name)
    return package


def needed(modules: Iterable[Path]) -> list[Path]:
    """These modules and all of ours that they import."""
    found: dict[str, Path] = {}
    unread = list(modules)
    while unread:
        module = unread.pop()
        if module.name not in found:
            found[module.name] = module
            imports = IMPORT.findall(module.read_text("utf-8"))
            unread += [ROOT / room / f"{name or WHOLE_ROOM[room]}.py" for room, name in imports]
    return sorted(found.values())


def made_relative(text: str) -> str:
    """The module as one among its neighbours."""
    text = IMPORT.sub(lambda found: f"from .{found[2] or WHOLE_ROOM[found[1]]} import ", text)
    return MENTION.sub(r"`\1`", text)


def door(exported: dict[str, tuple[str, ...]]) -> str:
    """The package's __init__.py."""
    imports = [f"from .{Path(module).stem} import {', '.join(names)}\n" for module, names in exported.items()]
    names = [name for names in exported.values() for name in names]
    return "".join(sorted(imports)) + f"\n\n__all__ = {sorted(names)}\n".replace("'", '"')


if __name__ == "__main__":
    for package in build(Path(sys.argv[1])):
        print(package)
