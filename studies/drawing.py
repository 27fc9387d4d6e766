"""How our pictures look: colours, type, axes, and words that are safe to draw. Plotly is loaded where it is needed.

Colours are of middling lightness and backgrounds are clear, so that a picture reads on white and on black: `template`
has what differs between the two. Plotly takes text for a little HTML; `plain` makes a name that a user gave harmless.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_spaces import Value
from studies.view import Moved, Seen, View

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, ORANGE, AMBER, RED, GREY, VIOLET = "#3f7fd6", "#e2581f", "#b9860b", "#d94343", "#7d8796", "#8d63c9"
STATE_COLOURS = {
    "complete": BLUE,
    "pruned": AMBER,
    "failed": RED,
    "running": "#2a9d6a",
    "lost": GREY,
    "race": VIOLET,
}
AGES = [[0.0, "#a5aebb"], [1.0, "#1f6fe5"]]  # from the first generation to the last: what is old has no colour
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', 'Noto Sans CJK SC', Arial, sans-serif"
LONGEST_NAME = 28
TITLE = {
    "x": 0,
    "xref": "paper",
    "xanchor": "left",
    "y": 1,
    "yref": "container",
    "yanchor": "top",
    "pad": {"t": 12},
    "font": {"size": 16},
}
MOST_MOVES = 4  # that are told of a trial

Trace = dict[str, Any]


def template(*, dark: bool = False) -> dict[str, Any]:
    """What differs between a picture on white and the same on black, as a Plotly template."""
    ink, faint, paper = ("#e3e7ed", "#323945", "#1c2129") if dark else ("#22272e", "#e3e6ea", "#ffffff")
    axis = {
        "gridcolor": faint,
        "linecolor": GREY,
        "tickcolor": GREY,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 8},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": TITLE,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "align": "left",
                "bgcolor": paper,
                "bordercolor": GREY,
                "font": {"family": FONT, "size": 12, "color": ink},
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        }
    }


def drawn(title: str, traces: Sequence[Trace], *, height: int, **layout: Any) -> Figure:
    """The picture of these traces."""
    from plotly import graph_objects as go

    margin = {"l": 60, "r": 20, "t": 70, "b": 50}
    whole = {"title": {"text": title}, "height": height, "margin": margin, "template": template(), **layout}
    return go.Figure({"data": list(traces), "layout": whole})


def empty(title: str, why: str) -> Figure:
    """A picture of which there is nothing to see yet."""
    note = {"text": why, "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    hidden = {"visible": False}
    return drawn(title, [], height=130, annotations=[note], xaxis=hidden, yaxis=hidden)


def line(x: Iterable[Any], y: Iterable[Any], name: str, colour: str, **more: Any) -> Trace:
    style = {"color": colour, "width": 2, **more.pop("line", {})}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": name, "line": style, **more}


def dots(x: Iterable[Any], y: Iterable[Any], name: str, colour: Any, **more: Any) -> Trace:
    style = {"color": colour, "size": 6, **more.pop("marker", {})}
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "name": name, "marker": style, **more}


def joined(polylines: Iterable[Sequence[tuple[Any, Any]]]) -> tuple[list[Any], list[Any]]:
    """Several lines as one trace: their points, with a gap after each."""
    x: list[Any] = []
    y: list[Any] = []
    for points in polylines:
        x += [*(point[0] for point in points), None]
        y += [*(point[1] for point in points), None]
    return x[:-1], y[:-1]


def plain(text: object, most: int = LONGEST_NAME) -> str:
    """A text as Plotly draws it: not as HTML, and not too long."""
    told = str(text)
    return html.escape(told if len(told) <= most else f"{told[: most - 1]}…", quote=False)


def short(value: Value | float | None) -> str:
    """A value in a few digits."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else plain(value)


def say_moves(moves: Sequence[Moved], most: int = MOST_MOVES) -> str:
    """'lr0 0.01 → 0.013, scale 0.5 → 0.3 and 12 more'."""
    told = [f"{plain(one.name)} {short(one.before)} → {short(one.after)}" for one in moves[:most]]
    more = [f"and {len(moves) - most} more"] if len(moves) > most else []
    return ", ".join(told) + (f" {more[0]}" if more else "")


def say_trial(view: View, trial: Seen) -> str:
    """What stands beside a trial when it is pointed at: its fitness, where it comes from, what it moved."""
    reached = " · ".join(f"{plain(name)} {value:.4f}" for name, value in zip(view.goals, trial.values, strict=False))
    parents = ", ".join(map(str, trial.parents))
    made = [*([plain(trial.operator)] if trial.operator else []), *([f"from {parents}"] if parents else [])]
    lines = [
        f"<b>trial {trial.number}</b> · {trial.state}",
        *([reached] if reached else []),
        f"{trial.epochs} epochs" + (f" · {' '.join(made)}" if made else ""),
        *(["the base"] if trial.base else _moves_in_lines(view.moves(trial))),
    ]
    return "<br>".join(lines)


def _moves_in_lines(moves: Sequence[Moved]) -> list[str]:
    told = [f"{plain(one.name)} {short(one.before)} → {short(one.after)}" for one in moves[:MOST_MOVES]]
    return [*told, *([f"and {len(moves) - MOST_MOVES} more hyps"] if len(moves) > MOST_MOVES else [])]


def faded(colour: str, opacity: float) -> str:
    """'#3f7fd6' as 'rgba(63,127,214,0.3)'."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def titled(text: str, **more: Any) -> Mapping[str, Any]:
    """An axis with a title."""
    return {"title": {"text": plain(text, 60)}, **more}
