"""The loop and its door: `evolve run` on the command line, `from evolve import evolve` in a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolve.calling import evolve
    from evolve.config import EvolveConfig
    from evolve.result import Result

__version__: str
__all__ = ["EvolveConfig", "Result", "__version__", "evolve"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `evolve --help` never waits for the engine."""
    if name == "evolve":
        from evolve.calling import evolve

        return evolve
    if name == "Result":
        from evolve.result import Result

        return Result
    if name == "EvolveConfig":
        from evolve.config import EvolveConfig

        return EvolveConfig
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("evolve-hyp")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
