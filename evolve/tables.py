"""Hyps and spaces as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from search_spaces import Hyp, Space, Value

if TYPE_CHECKING:
    from studies import BestHyp
    from studies.decision import Decision
    from studies.insight import Importance
    from studies.status import AtWork, Failure

BARS = "▁▂▃▄▅▆▇█"
SHOWN = ("model", "imgsz")  # of a hyp of the front: what most of its costs come from


def space_table(space: Space) -> Table:
    """Every hyp of a space in file order: bounds (or choices), default, gain, scale and what it needs not to be 0.

    What is fixed has no bounds.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("hyp", no_wrap=True)
    for name in ("low", "high", "default", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("scale")
    params = {param.name: param for param in space.params}
    for name in space.order:
        if (param := params.get(name)) is None:
            table.add_row(name, "", "", show_value(space.fixed[name]), "", "fixed")
            continue
        needs = f", needs {param.needs}" if param.needs else ""
        if param.choices:
            choices = ", ".join(map(str, param.choices))
            table.add_row(name, "", "", show_value(param.default), show_value(param.gain), f"one of {choices}{needs}")
        else:
            low, high = param.bounds
            scale = "log" if param.log else "linear"
            whole = f", steps of {param.step}" if param.step else ""
            bounds = (show_value(low), show_value(high))
            table.add_row(name, *bounds, show_value(param.default), show_value(param.gain), scale + whole + needs)
    return table


def changes_table(base: Hyp, best: Hyp, names: Sequence[str] = ("base", "best")) -> Table:
    """Name, base value, best value and change, in the order of the space; what did not move has no change."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("hyp", no_wrap=True)
    for name in (*names, "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, value in best.items():
        before = base.get(name)
        table.add_row(name, show_value(before), show_value(value), describe_change(before, value))
    return table


def front_table(front: Sequence[BestHyp]) -> Table:
    """A row for each hyp of the front: its trial, its goals, and what it trains; in the last one, the base's goals."""
    best = front[0]
    shown = [name for name in SHOWN if name in best.hyp]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", *best.goals, *shown):
        table.add_column(name, justify="right", no_wrap=True)
    for member in front:
        goals = (show_goal(name, value) for name, value in member.goals.items())
        table.add_row(str(member.number), *goals, *(show_value(member.hyp[name]) for name in shown))
    if best.base_goals:
        table.add_row("base", *(show_goal(name, value) for name, value in best.base_goals.items()), style="dim")
    return table


def show_goal(name: str, value: float | None) -> str:
    """'0.4123' of a score, '1.42' milliseconds, '309,456' parameters."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if name == "params" else f"{value:.3g}" if name == "latency_ms" else f"{value:.4f}"


def importance_table(importances: Iterable[Importance]) -> Table:
    """Each hyp's importance, and how many times what chance makes of it that is; what is below 1 is dim."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("hyp", no_wrap=True)
    table.add_column("importance", justify="right", no_wrap=True)
    table.add_column("times chance", justify="right", no_wrap=True)
    for one in importances:
        times = f"{one.share / one.chance:.1f}" if one.chance else "-"
        share = f"{100 * one.share:.1f} %"
        table.add_row(one.name, share, times, style="bold" if one.told_from_chance else "dim")
    return table


def race_table(decision: Decision) -> Table:
    """Who ran, over how many seeds, how well, by how much more than the base, and how well on test."""
    has_test = any("fitness" in found.final for found in decision.results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", no_wrap=True)
    for name in ("seeds", "fitness", "difference", "95 % interval", *(["on test"] if has_test else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for found in decision.results:
        interval = " to ".join(f"{end:+.4f}" for end in found.interval) if found.interval else ""
        difference = "" if found.difference is None else f"{found.difference:+.4f}"
        failed = f" ({found.failed} failed)" if found.failed else ""
        mean = "-" if found.mean is None else f"{found.mean:.4f}"
        on_test = [f"{found.final['fitness']:.4f}" if "fitness" in found.final else "-"] if has_test else []
        name = "base" if found.entrant is None else str(found.entrant)
        table.add_row(name, f"{found.n}{failed}", mean, difference, interval, *on_test)
    return table


def workers_table(workers: Sequence[AtWork], study: str, epochs: int | None, now: float) -> Table:
    """Who is at which trial, for how long, how far, how well, and when its worker last gave a sign."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("worker", overflow="fold")  # the one that gives way where the terminal is narrow
    for name in ("pid", "here for", "ended", "trial", "at it for", "epochs", "fitness", "last sign"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in workers:
        sign = {
            "alive": Text(f"{one.sign_s:.0f} s ago"),
            "silent": Text(f"silent {show_duration(one.sign_s)}", style="yellow"),
            "ended": Text("has ended", style="red"),
        }[one.life]
        table.add_row(
            one.host or "(not claimed yet)",
            "" if one.pid is None else str(one.pid),
            show_duration(now - one.joined.timestamp()),
            str(one.done),
            str(one.trial) if one.study == study else f"{one.study} {one.trial}",
            show_duration(now - one.since.timestamp()),
            str(one.epochs) if epochs is None else f"{one.epochs}/{epochs}",
            show_fitness(one.fitness),
            sign,
        )
    return table


def failures_table(failures: Sequence[Failure]) -> Table:
    """Why trials failed, how many did, and which was the first of them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("failed", justify="right", no_wrap=True)
    table.add_column("first in trial", justify="right", no_wrap=True)
    table.add_column("reason")
    for one in failures:
        table.add_row(str(one.count), str(one.example), Text(one.reason))
    return table


def name_entrant(entrant: int | None) -> str:
    return "base" if entrant is None else f"trial {entrant}"


def describe_change(before: Value | None, after: Value) -> str:
    """'+31.4 %' for numbers, 'from 0' where there is no ratio, '' where nothing changed."""
    if before == after:
        return ""
    if not _is_number(before) or not _is_number(after):
        return "changed"
    old, new = float(before or 0), float(after)
    if not old:
        return "from 0"
    percent = 100 * (new - old) / abs(old)
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else f"{percent:+.1g} %"


def show_value(value: Value | None) -> str:
    """A hyp's value in a few digits."""
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def show_fitness(fitness: float | None) -> str:
    return "-" if fitness is None else f"{fitness:.4f}"


def show_duration(seconds: float | None) -> str:
    """'1:02:03' or '2:03'; '-' where it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as bars of a line, the least the lowest; where there are more than columns, the best of each few."""
    if not values:
        return ""
    columns = min(width, len(values))
    cuts = [round(column * len(values) / columns) for column in range(columns + 1)]
    best = [max(values[start:end]) for start, end in pairwise(cuts)]
    low, span = min(best), max(best) - min(best)
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1)) if span else 0] for value in best)


def name_dead(dead: Mapping[str, str]) -> str:
    """'cls (one class), copy_paste (no polygons)'."""
    return ", ".join(f"{name} ({reason})" for name, reason in dead.items())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
