"""Where a checkpoint came from: the versions of what computed it, and the commit of this project."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("evolve-hyp", "torch", "torchvision", "numpy")


@cache
def find_provenance() -> dict[str, str]:
    """Versions by name ('python', the packages), and 'commit' where this code runs from a checkout of its own."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its sources, not installed
            continue
    commit = find_commit(Path(__file__).parents[2])
    return {**found, "commit": commit} if commit else found


def find_commit(root: Path) -> str:
    """The commit that is checked out at `root`, with '-dirty' behind it if files differ; '' if that is no checkout."""
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
