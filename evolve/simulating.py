"""What pruning would have cost or saved on trainings that were recorded: `evolve simulate` as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from rich.console import Console
from rich.table import Table

from evolve.config import ConfigError
from evolve.curves import Recording
from evolve.replay import Curve, Replay, replay
from studies import PRUNERS, build_pruner, build_sampler
from studies.trials import BASE

UNUSUAL = ("nop", "wilcoxon")  # "none" by another name; one that is made for pairs and needs scipy

LEGEND = """\
best: fitness of the best that was not pruned; behind: the true best by so much;
kept: whether it is that; after: epochs until it was found; saved: h:mm:ss"""


@dataclass(frozen=True)
class Simulated:
    """One pruner's replays: a single one in the order of the study, or one for each order that was drawn."""

    pruner: str
    replays: tuple[Replay, ...]


def simulate(
    recording: Recording, pruners: Sequence[str], *, orders: int = 0, sampler: str | None = None, seed: int = 0
) -> Iterator[Simulated]:
    """Replay the curves through each pruner in turn. Raises ConfigError, StudyError before the first.

    `orders`: so many random orders instead of the recorded one; the curves of the base stay in front. `sampler`: it
    chooses the order, as `replay` tells.
    """
    if sampler and recording.space is None:
        raise ConfigError("--sampler needs hyps and their bounds, which a study has; give a run folder as --curves")
    for name in pruners:
        build_pruner(name, epochs=recording.epochs)
    if sampler and recording.space:
        build_sampler(sampler, recording.space, seed=seed)
    for name in pruners:
        yield Simulated(name, tuple(_replays(recording, name, orders, sampler, seed)))


def known_pruners(names: Sequence[str]) -> tuple[str, ...]:
    """The names as given; every pruner that compares epochs where none is given, or "all"."""
    if not names or "all" in names:
        return tuple(name for name in PRUNERS if name not in UNUSUAL)
    return tuple(dict.fromkeys(names))


def tell_simulated(console: Console, recording: Recording, found: Sequence[Simulated]) -> None:
    console.print(_what_is_replayed(recording), highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pruner", no_wrap=True)
    columns = ("epochs", "share", "pruned", "best", "behind", "kept", "after")
    timed = all(one.seconds_saved is not None for row in found for one in row.replays)
    for name in (*columns, *(("saved",) if timed else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found:
        table.add_row(row.pruner, *_cells(row.replays), *((_saved(row.replays),) if timed else ()))
    console.print(table)
    console.print(LEGEND, style="dim", highlight=False)


def _replays(recording: Recording, name: str, orders: int, sampler: str | None, seed: int) -> Iterator[Replay]:
    for draw in range(max(1, orders)):
        pruner = build_pruner(name, epochs=recording.epochs, warmup_epochs=recording.warmup_epochs)
        curves = _shuffled(recording.curves, seed + draw) if orders else recording.curves
        proposer = build_sampler(sampler, recording.space, seed=seed + draw) if sampler and recording.space else None
        yield replay(curves, pruner, recording.direction, sampler=proposer, space=recording.space)


def _shuffled(curves: Sequence[Curve], seed: int) -> list[Curve]:
    """In random order, the base in front."""
    base = [curve for curve in curves if BASE in curve.attrs]
    others = [curve for curve in curves if BASE not in curve.attrs]
    return base + [others[i] for i in np.random.default_rng(seed).permutation(len(others))]


def _cells(replays: Sequence[Replay]) -> Iterator[str]:
    yield f"{fmean(one.epochs for one in replays):.0f}"
    yield f"{fmean(one.share for one in replays):.1%}"
    yield f"{fmean(one.pruned for one in replays):.0f}"
    yield f"{fmean(one.kept.end for one in replays):.4f}"
    yield f"{fmean(one.regret for one in replays):.4f}"
    kept = sum(one.regret == 0 for one in replays)
    yield ("yes" if kept else "no") if len(replays) == 1 else f"{kept} of {len(replays)}"
    yield f"{fmean(one.epochs_to_kept for one in replays):.0f}"


def _saved(replays: Sequence[Replay]) -> str:
    seconds = round(fmean(one.seconds_saved or 0.0 for one in replays))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _what_is_replayed(recording: Recording) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in recording.left_out.items())
    better = "higher" if recording.direction == "maximize" else "lower"
    told = f"{len(recording.curves)} curves of {recording.epochs} epochs, {better} is better"
    return f"{told}; left out, as their end is not known: {left_out}" if left_out else told
