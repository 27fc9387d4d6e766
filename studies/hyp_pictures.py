"""Pictures of what a study found out about its hyps: a panel for each, importances, lineage, parallel coordinates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_spaces import Hyp, Param
from studies.drawing import (
    AGES,
    AMBER,
    BLUE,
    GREY,
    ORANGE,
    Trace,
    dots,
    drawn,
    empty,
    faded,
    joined,
    line,
    plain,
    say_trial,
    short,
    titled,
)
from studies.insight import LEAST_TRIALS, sits_at
from studies.progress_pictures import NOTHING
from studies.view import Seen, View

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLUMNS = 5
PANEL_PX = 190  # the height of a panel with what stands around it
MOST_DOTS = 12_000  # of all panels together: each is an element of the page
MOST_AXES = 12  # of the parallel coordinates
GOOD_SHARE = 0.1


def draw_hyps(view: View, columns: int = COLUMNS) -> Figure:
    """A small panel for each hyp that evolves: its value against the fitness, between its bounds.

    The base and the best hyp are marked, the later a trial the bluer it is. What never moved and what sits at a bound
    says so.
    """
    title = "Every hyp: its value against the fitness"
    params = view.space.evolving
    if not view.complete:
        return empty(title, NOTHING)
    shown = _some(view, MOST_DOTS // len(params))
    base = next((trial for trial in view.complete if trial.base), None)
    of_base = view.best.base_fitness if view.best else None
    best = view.by_number[view.best.number] if view.best else None
    flags = flags_of(view)
    traces: list[Trace] = []
    for index, param in enumerate(params):
        axes = {"xaxis": _named("x", index), "yaxis": _named("y", index), "showlegend": index == 0}
        traces += [
            dots(
                [_place(param, trial.hyp) for trial in shown],
                [trial.value for trial in shown],
                "complete",
                [trial.generation for trial in shown],
                marker={"size": 4, "colorscale": AGES},
                legendgroup="complete",
                customdata=[trial.number for trial in shown],
                hovertemplate="trial %{customdata}: %{x}, fitness %{y:.4f}<extra></extra>",
                **axes,
            ),
            *_marked(param, base, of_base, "the base", GREY, "diamond", axes),
            *_marked(param, best, view.best.fitness if view.best else None, "the best", ORANGE, "star", axes),
        ]
    return drawn(title, traces, **panels(view, flags, columns), hovermode="closest", showlegend=True)


def panels(view: View, flags: Mapping[str, Sequence[str]], columns: int) -> dict[str, Any]:
    """The layout of the panels in so many columns: the same traces fit any."""
    params = view.space.evolving
    columns = min(columns, len(params))
    rows = -(-len(params) // columns)
    above, below, between = 98, 4, 64  # pixels over and under the panels, and under and over each
    height = above + below + rows * PANEL_PX
    inner = height - above - below
    wide = (1 - 0.035 * (columns - 1)) / columns
    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": above, "b": below},
        "shapes": [],
        "annotations": [],
    }
    layout["legend"] = {"y": 1 + 30 / inner}
    for index, param in enumerate(params):
        row, column = divmod(index, columns)
        left = column * (wide + 0.035)
        top = 1 - row * PANEL_PX / inner
        bottom = top - (PANEL_PX - between) / inner
        layout[_named("xaxis", index)] = {
            "anchor": _named("y", index),
            "domain": [left, left + wide],
            "nticks": 4,
            "tickfont": {"size": 10},
            "tickangle": 0,
            "automargin": False,
            **_axis(param),
        }
        layout[_named("yaxis", index)] = {
            "anchor": _named("x", index),
            "domain": [max(bottom, 0), top],
            "nticks": 4,
            "tickfont": {"size": 10},
            "automargin": False,
            "showticklabels": column == 0,
            **({"matches": "y"} if index else {}),
        }
        told = "".join(f'<br><span style="color:{AMBER}">▲</span> {flag}' for flag in flags.get(param.name, ())[:1])
        layout["annotations"].append(
            {
                "text": f"<b>{plain(param.name, 22)}</b>{told or '<br> '}",
                "x": left,
                "y": top,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "align": "left",
                "showarrow": False,
                "font": {"size": 11},
            }
        )
        layout["shapes"] += _bounds(param, index)
    return layout


def flags_of(view: View) -> dict[str, list[str]]:
    """What is to be said of a hyp beside its panel: it never moved, it sits at a bound."""
    found: dict[str, list[str]] = {}
    insight = view.insight
    for one in insight.binding:
        found.setdefault(one.name, []).append(f"good ones at {one.side} bound")
    for param in view.space.evolving:
        best = view.best.hyp[param.name] if view.best else view.base[param.name]
        if param.name in found or param.choices or best == view.base[param.name]:
            continue
        for side in ("low", "high"):
            if sits_at(param, best, side):
                found.setdefault(param.name, []).append(f"best one at {side} bound")
    for unmoved in insight.unmoved:
        never = "never moved" if not unmoved.tried else "moved in no good hyp"
        found.setdefault(unmoved.name, []).append(never)
    return found


def draw_importances(view: View) -> Figure:
    """How much each hyp has to do with a trial's being good, beside what chance alone makes of it."""
    title = "What matters"
    found = list(view.insight.importances)[::-1]
    if not found:
        return empty(title, f"too few trials to say what matters: that takes {LEAST_TRIALS} with a fitness")
    names = [plain(one.name) for one in found]
    rows = list(range(len(found)))
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "importance",
        "x": [100 * one.share for one in found],
        "y": rows,
        "marker": {"color": [BLUE if one.told_from_chance else faded(GREY, 0.5) for one in found]},
        "text": [
            f"<b>{name}</b><br>{one.share:.1%} of all; by chance up to {one.chance:.1%}"
            for name, one in zip(names, found, strict=True)
        ],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }
    chance = dots(
        [100 * one.chance for one in found],
        rows,
        "what chance exceeds once in twenty times",
        AMBER,
        marker={"symbol": "line-ns-open", "size": 12, "line": {"width": 2.5}},
        hoverinfo="skip",
    )
    return drawn(
        title,
        [bars, chance],
        height=130 + 21 * len(found),
        xaxis=titled("share of all importances", ticksuffix=" %", rangemode="tozero"),
        yaxis={"tickvals": rows, "ticktext": names, "showgrid": False, "range": [-0.7, len(rows) - 0.3]},
        bargap=0.3,
        hovermode="closest",
    )


def draw_lineage(view: View) -> Figure:
    """Which trial was made from which, and the line that leads to the best one."""
    title = "Lineage"
    nodes = [trial for trial in view.trials if trial.values and trial.state in ("complete", "known")]
    if not nodes:
        return empty(title, NOTHING)
    there = {trial.number for trial in nodes}
    children = Counter(parent for trial in view.trials for parent in trial.parents[:1])
    stopped = Counter(parent for trial in view.trials if trial.state == "pruned" for parent in trial.parents[:1])
    edges = [(trial.parents[0], trial.number) for trial in nodes if trial.parents and trial.parents[0] in there]
    x, y = joined([(_at(view, parent), _at(view, child)) for parent, child in edges])
    way = [number for number in view.line if number in there]
    told = [
        say_trial(view, trial)
        + (f"<br>{children[trial.number]} children, {stopped[trial.number]} pruned" if children[trial.number] else "")
        for trial in nodes
    ]
    traces = [
        line(x, y, "made from", faded(GREY, 0.35), line={"width": 1}, hoverinfo="skip"),
        {
            **line(*_unzip([_at(view, number) for number in way]), "the way to the best", ORANGE, line={"width": 2.5}),
            "hoverinfo": "skip",
        },
        dots(
            [trial.generation for trial in nodes],
            [trial.value for trial in nodes],
            "trial, the larger the more children",
            [ORANGE if trial.number in way else GREY if trial.base else BLUE for trial in nodes],
            marker={"size": [6 + 3 * children[trial.number] ** 0.5 for trial in nodes], "opacity": 0.85},
            text=told,
            hovertemplate="%{text}<extra></extra>",
        ),
    ]
    return drawn(
        title,
        [trace for trace in traces if trace["x"]],
        height=460,
        xaxis=titled("generation"),
        yaxis=titled(view.goal),
        hovermode="closest",
    )


def draw_parallel(view: View) -> Figure:
    """Each complete trial as a line through its hyps, from bound to bound: what the best have in common."""
    title = "Parallel coordinates"
    if not view.complete:
        return empty(title, NOTHING)
    params = _first(view, MOST_AXES)
    ranked = sorted(_some(view, MOST_DOTS // len(params)), key=lambda trial: view.sign * (trial.value or 0.0))
    good = max(1, round(GOOD_SHARE * len(ranked)))
    half = max(0, (len(ranked) - good) // 2)
    traces = [
        _threads(ranked[:half], params, "the lower half", faded(GREY, 0.25), width=1),
        _threads(ranked[half : len(ranked) - good], params, "the upper half", faded(BLUE, 0.35), width=1),
        _threads(ranked[len(ranked) - good :], params, "the best tenth", faded(ORANGE, 0.7), width=1.5),
    ]
    base = [trial for trial in view.complete if trial.base][:1]
    best = [view.by_number[view.best.number]] if view.best else []
    traces.append(_threads(base, params, "the base", GREY, width=2.5, dash="dash"))
    traces.append(_threads(best, params, "the best hyp", ORANGE, width=4))
    places, axis = list(range(len(params))), {"color": GREY, "width": 1}
    ends = [
        {
            "text": plain(text, 12),
            "x": place,
            "y": y,
            "yanchor": anchor,
            "showarrow": False,
            "font": {"size": 10},
        }
        for place, param in zip(places, params, strict=True)
        for text, y, anchor in zip(_ends(param), (-0.02, 1.02), ("top", "bottom"), strict=True)
    ]
    return drawn(
        title,
        [trace for trace in traces if trace["x"]],
        height=460,
        xaxis={
            "tickvals": places,
            "ticktext": [plain(param.name, 16) for param in params],
            "range": [-0.4, len(params) - 0.6],
            "showgrid": False,
            "showline": False,
            "ticks": "",
            "tickangle": -35,
        },
        yaxis={"range": [-0.1, 1.1], "visible": False, "fixedrange": True},
        shapes=[{"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": axis} for x in places],
        annotations=ends,
        hovermode="closest",
    )


def _some(view: View, most: int) -> list[Seen]:
    """At most so many complete trials: half of them the best ones, the others evenly drawn from all."""
    trials = list(view.complete)
    if len(trials) <= most:
        return trials
    ranked = sorted(trials, key=lambda trial: -view.sign * (trial.value or 0.0))
    best, rest = ranked[: most // 2], sorted(ranked[most // 2 :], key=lambda trial: trial.number)
    step = len(rest) / (most - len(best))
    return sorted([*best, *(rest[int(index * step)] for index in range(most - len(best)))], key=lambda one: one.number)


def _marked(
    param: Param, trial: Seen | None, mean: float | None, name: str, colour: str, symbol: str, axes: Mapping[str, Any]
) -> list[Trace]:
    """The hyp of a trial, at the mean of all trainings that it had."""
    if trial is None or mean is None:
        return []
    told = {
        "marker": {"size": 10, "symbol": symbol, "line": {"width": 1, "color": "#ffffff"}},
        "text": [short(trial.hyp[param.name])],
        "hovertemplate": f"{name}, trial {trial.number}: %{{text}}, fitness %{{y:.4f}}<extra></extra>",
        "legendgroup": name,
    }
    return [dots([_place(param, trial.hyp)], [mean], name, colour, **told, **axes)]


def _place(param: Param, hyp: Hyp) -> Any:
    """Where a value stands on the axis of its panel: of choices its number."""
    value = hyp[param.name]
    return param.choices.index(value) if param.choices else value


def _axis(param: Param) -> dict[str, Any]:
    """From bound to bound, with a little beyond."""
    if param.choices:
        places = list(range(len(param.choices)))
        names = [plain(choice if choice != "" else "''", 10) for choice in param.choices]
        return {"tickvals": places, "ticktext": names, "range": [-0.5, len(places) - 0.5]}
    low, high = param.bounds
    if not param.log:
        room = 0.05 * (high - low) or 0.5
        return {"range": [low - room, high + room]}
    edges = math.log10(low), math.log10(high)
    room = 0.05 * (edges[1] - edges[0]) or 0.1
    decades = range(math.ceil(edges[0] - 1e-9), math.floor(edges[1] + 1e-9) + 1)
    ticks = [10.0**decade for decade in decades]
    ticks = ticks[:: max(1, len(ticks) // 2)] if len(ticks) > 1 else [low, high]
    return {
        "type": "log",
        "range": [edges[0] - room, edges[1] + room],
        "tickvals": ticks,
        "ticktext": [short(float(tick)) for tick in ticks],
    }


def _bounds(param: Param, index: int) -> list[dict[str, Any]]:
    """A faint line at each bound."""
    if param.choices:
        return []
    axes = {"xref": _named("x", index), "yref": f"{_named('y', index)} domain"}
    style = {"color": GREY, "width": 1, "dash": "dot"}
    return [{"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": style, **axes} for x in param.bounds]


def _named(axis: str, index: int) -> str:
    """The first one has no number."""
    return f"{axis}{index + 1}" if index else axis


def _at(view: View, number: int) -> tuple[int, float | None]:
    trial = view.by_number[number]
    return trial.generation, trial.value


def _unzip(points: Sequence[tuple[int, float | None]]) -> tuple[list[int], list[float | None]]:
    return [point[0] for point in points], [point[1] for point in points]


def _first(view: View, most: int) -> list[Param]:
    """The hyps that matter most, or, where that is not known, those that the best one has moved furthest."""
    known = [one.name for one in view.insight.importances]
    best = view.by_number[view.best.number] if view.best else None
    moved = {
        param.name: abs(param.to_unit(best.hyp[param.name]) - param.to_unit(view.base[param.name]))
        for param in view.space.evolving
        if best is not None
    }
    ranked = sorted(
        view.space.evolving,
        key=lambda param: (known.index(param.name) if param.name in known else len(known), -moved.get(param.name, 0.0)),
    )
    return ranked[:most]


def _threads(trials: Sequence[Seen], params: Sequence[Param], name: str, colour: str, **style: Any) -> Trace:
    x, y = joined(
        [(x, round(param.to_unit(trial.hyp[param.name]), 4)) for x, param in enumerate(params)] for trial in trials
    )
    told = [
        f"trial {trial.number}, fitness {short(trial.value)}<br>{plain(param.name)} {short(trial.hyp[param.name])}"
        for trial in trials
        for param in [*params, params[-1]]
    ][: len(x)]
    return line(x, y, name, colour, line=style, text=told, hovertemplate="%{text}<extra></extra>")


def _ends(param: Param) -> tuple[str, str]:
    low, high = (param.choices[0], param.choices[-1]) if param.choices else param.bounds
    return short(low), short(high)
