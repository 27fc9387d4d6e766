"""Pictures of how a study went: fitness over generations, learning curves, who trained when, the race, the front."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from studies.drawing import (
    AMBER,
    BLUE,
    GREY,
    ORANGE,
    RED,
    STATE_COLOURS,
    Trace,
    dots,
    drawn,
    empty,
    faded,
    joined,
    line,
    plain,
    say_trial,
    titled,
)
from studies.view import Seen, View

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 40_000  # of all learning curves together
BAND = 2  # noise floors to either side of the base: nineteen in twenty of its trainings
NOTHING = "no trial has completed yet"


def draw_history(view: View) -> Figure:
    """Each trial's fitness by its generation, the best hyp so far, and what the base gives from seed to seed."""
    title = f"{plain(view.goal)} over generations"
    if not any(trial.counts for trial in view.trials):
        return empty(title, "no trial has ended yet")
    last = max(trial.generation for trial in view.trials)
    traces = [*_base_band(view, (-0.5, last + 0.5))]
    complete = view.complete
    traces.append(
        dots(
            [trial.generation for trial in complete],
            [trial.value for trial in complete],
            "complete",
            faded(BLUE, 0.75),
            text=[say_trial(view, trial) for trial in complete],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    if complete:
        x, y = _best_so_far(view)
        traces.append(line([*x, last], [*y, y[-1]], "best hyp so far", ORANGE, line={"shape": "hv"}, hoverinfo="skip"))
    traces += [
        _rug(view, "pruned", "line-ns-open", AMBER, "%{text}<extra></extra>"),
        _rug(view, "failed", "x-thin-open", RED, "%{text}<extra></extra>"),
    ]
    return drawn(
        title,
        [trace for trace in traces if trace["x"]],
        height=420,
        xaxis=titled("generation", range=[-0.02 * last - 0.6, 1.02 * last + 0.6]),
        yaxis=titled(view.goal),
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        hovermode="closest",
    )


def draw_curves(view: View) -> Figure:
    """The fitness after every epoch of each trial, and where trials were pruned."""
    title = "Learning curves"
    curves = [trial for trial in view.trials if trial.curve and trial.state in ("complete", "pruned", "failed")]
    if not curves:
        return empty(title, "no trial has told of an epoch yet")
    best = view.best.number if view.best else None
    complete = [trial for trial in curves if trial.state == "complete"]
    pruned = [trial for trial in curves if trial.state == "pruned"]
    failed = [trial for trial in curves if trial.state == "failed"]
    every = max(1, math.ceil(sum(len(trial.curve) for trial in curves) / MOST_POINTS))
    traces = [
        _bundle([trial for trial in pruned if not trial.base], "pruned", faded(AMBER, 0.35), every, width=1),
        _bundle(complete, "complete", faded(BLUE, 0.3), every, width=1),
        _ends(pruned, "pruned here", AMBER, "circle"),
        _ends(failed, "failed here", RED, "x"),
        _bundle([trial for trial in complete if trial.base], "the base", GREY, every, width=2.5, dash="dash"),
        _bundle([trial for trial in complete if trial.number == best], "the best hyp", ORANGE, every, width=3),
    ]
    return drawn(
        title,
        [trace for trace in traces if trace["x"]],
        height=420,
        xaxis=titled("epoch", rangemode="tozero"),
        yaxis=titled(view.goal),
        hovermode="closest",
    )


def draw_workers(view: View) -> Figure:
    """Which worker trained what, and when."""
    title = "Time line of workers"
    trained = [(trial, trial.state) for trial in view.trials] + [(heat, "race") for heat in view.heats]
    shown = [(trial, kind) for trial, kind in trained if trial.started and (trial.ended or trial.state == "running")]
    shown = [(trial, kind) for trial, kind in shown if kind in STATE_COLOURS]
    if not shown:
        return empty(title, "nothing has been trained yet")
    in_order = sorted((trial for trial, _ in shown), key=_start)
    names = list(dict.fromkeys(trial.worker or "not known" for trial in in_order))
    rows = {name: len(names) - 1 - index for index, name in enumerate(names)}
    traces = []
    for kind, colour in STATE_COLOURS.items():
        own = [trial for trial, of in shown if of == kind]
        if own:
            traces.append(_spans(view, own, kind, colour, rows))
    return drawn(
        title,
        traces,
        height=130 + 28 * len(names),
        barmode="overlay",
        bargap=0.25,
        xaxis={"type": "date"},
        yaxis={
            "tickvals": list(rows.values()),
            "ticktext": [plain(name, 22) for name in rows],
            "showgrid": False,
            "range": [-0.6, len(names) - 0.4],
        },
        hovermode="closest",
    )


def draw_race(view: View) -> Figure:
    """What each challenger gave beyond the base under the same seeds, with its 95 % interval."""
    title = "The race against the base"
    decision = view.decision
    found = decision.verdict.challengers if decision else ()
    challengers = [one for one in found if one.difference is not None]
    if decision is None or not challengers:
        return empty(title, "no race has been run on the study as it is now")
    of_base = {run.heat.seed: run.fitness for run in decision.runs if run.heat.entrant is None}
    rows = {one.entrant: len(challengers) - 1 - index for index, one in enumerate(challengers)}
    pairs = [
        (run.fitness - base, rows[run.heat.entrant], run.heat.seed)
        for run in decision.runs
        if run.heat.entrant in rows and run.fitness is not None and (base := of_base.get(run.heat.seed)) is not None
    ]
    winner = decision.verdict.winner
    means = dots(
        [one.difference for one in challengers],
        [rows[one.entrant] for one in challengers],
        "mean difference, 95 % interval",
        [ORANGE if one.entrant == winner and winner is not None else BLUE for one in challengers],
        marker={"size": 11, "symbol": "diamond"},
        error_x={
            "type": "data",
            "array": [one.margin or 0.0 for one in challengers],
            "color": GREY,
            "thickness": 1.5,
            "width": 5,
        },
        text=[
            f"<b>trial {one.entrant}</b><br>{one.difference:+.4f} over {one.n} seeds"
            + (f"<br>95 % interval {one.interval[0]:+.4f} to {one.interval[1]:+.4f}" if one.interval else "")
            for one in challengers
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    seeds = dots(
        [difference for difference, _, _ in pairs],
        [row for _, row, _ in pairs],
        "under one seed",
        faded(BLUE, 0.45),
        marker={"size": 5},
        customdata=[seed for _, _, seed in pairs],
        hovertemplate="seed %{customdata}: %{x:+.4f}<extra></extra>",
    )
    return drawn(
        title,
        [seeds, means],
        height=150 + 30 * len(challengers),
        xaxis=titled(f"{view.goal} beyond the base's"),
        yaxis={
            "tickvals": list(rows.values()),
            "ticktext": [f"trial {entrant}" for entrant in rows],
            "range": [-0.7, len(rows) - 0.3],
            "showgrid": False,
        },
        shapes=[{"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY}}],
        hovermode="closest",
    )


def draw_front(view: View) -> Figure:
    """What the trials reached in the first two goals, and the front that nothing beats."""
    names = list(view.goals)
    if len(names) < 2:
        return empty("The front", "the study has one goal")
    title = "The front"
    if not view.complete:
        return empty(title, NOTHING)
    front = [[best.goals[name] for name in names[:2]] for best in view.front]
    others = dots(
        [trial.values[0] for trial in view.complete],
        [trial.values[1] for trial in view.complete],
        "complete",
        faded(BLUE, 0.5),
        text=[say_trial(view, trial) for trial in view.complete],
        hovertemplate="%{text}<extra></extra>",
    )
    best = {
        **line([point[0] for point in front], [point[1] for point in front], "the front", ORANGE),
        "mode": "lines+markers" if len(names) == 2 else "markers",
        "marker": {"size": 9, "color": ORANGE, "symbol": "diamond"},
        "text": [
            f"<b>trial {one.number}</b><br>" + "<br>".join(f"{plain(n)} {v:.5g}" for n, v in one.goals.items())
            for one in view.front
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    based = view.front[0].base_goals
    base = dots(
        [based[names[0]]] if based else [],
        [based[names[1]]] if based else [],
        "the base",
        GREY,
        marker={"size": 11, "symbol": "x"},
        hovertemplate="the base: %{x:.4g}, %{y:.4g}<extra></extra>",
    )
    traces = [trace for trace in (others, best, base) if trace["x"]]
    return drawn(title, traces, height=420, xaxis=titled(names[0]), yaxis=titled(names[1]), hovermode="closest")


def _base_band(view: View, x: tuple[float, float]) -> Iterable[Trace]:
    """The base's mean fitness as a line, and as a band how far its trainings lie apart by their seeds alone."""
    values = [trial.value for trial in view.complete if trial.base and trial.value is not None]
    if not values:
        return
    base = fmean(values)
    if view.noise is not None and len(view.goals) == 1:
        low, high = (base + side * BAND * view.noise.sd for side in (-1, 1))
        yield {
            **line([x[0], x[1], x[1], x[0]], [low, low, high, high], f"base ± {BAND} × noise", GREY),
            "fill": "toself",
            "fillcolor": faded(GREY, 0.18),
            "line": {"width": 0},
            "hoverinfo": "skip",
        }
    yield line(x, [base, base], "the base", GREY, line={"dash": "dash", "width": 1.5}, hoverinfo="skip")


def _best_so_far(view: View) -> tuple[list[int], list[float]]:
    """Where the best hyp's mean has changed, by generation; a hyp that was trained again counts with its mean."""
    sums: dict[frozenset[tuple[str, Any]], tuple[float, int]] = {}
    means: dict[frozenset[tuple[str, Any]], float] = {}  # more is better
    x: list[int] = []
    y: list[float] = []
    for trial in sorted(view.complete, key=lambda trial: trial.generation):
        assert trial.value is not None
        key = frozenset(trial.hyp.items())
        total, count = sums.get(key, (0.0, 0))
        sums[key] = total + trial.value, count + 1
        before, means[key] = means.get(key), view.sign * (total + trial.value) / (count + 1)
        best = max(y[-1] * view.sign, means[key]) if before is None and y else max(means.values())
        if not y or y[-1] != view.sign * best:
            x.append(trial.generation)
            y.append(view.sign * best)
    return x, y


def _rug(view: View, state: str, symbol: str, colour: str, hover: str) -> Trace:
    own = [trial for trial in view.trials if trial.state == state]
    return dots(
        [trial.generation for trial in own],
        [0.02] * len(own),
        state,
        colour,
        marker={"symbol": symbol, "size": 8},
        yaxis="y2",
        text=[_say_end(trial) for trial in own],
        hovertemplate=hover,
    )


def _say_end(trial: Seen) -> str:
    reached = f" at {trial.curve[max(trial.curve)]:.4f}" if trial.curve else ""
    why = f"<br>{plain(trial.why, 90)}" if trial.why else ""
    return f"<b>trial {trial.number}</b> · {trial.state} after {trial.epochs} epochs{reached}{why}"


def _bundle(trials: Sequence[Seen], name: str, colour: str, every: int, **style: Any) -> Trace:
    """Their learning curves as one trace, of which every so many points are drawn, and the last."""
    lines = [_thinned(list(trial.curve.items()), every) for trial in trials]
    x, y = joined(lines)
    numbers = [
        number for trial, points in zip(trials, lines, strict=True) for number in [trial.number] * (len(points) + 1)
    ][: len(x)]
    hover = "trial %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>"
    return line(x, y, name, colour, line=style, customdata=numbers, hovertemplate=hover)


def _thinned(points: list[tuple[int, float]], every: int) -> list[tuple[int, float]]:
    return points if every == 1 else [*points[:-1:every], points[-1]]


def _ends(trials: Sequence[Seen], name: str, colour: str, symbol: str) -> Trace:
    last = [max(trial.curve) for trial in trials]
    return dots(
        last,
        [trial.curve[epoch] for trial, epoch in zip(trials, last, strict=True)],
        name,
        colour,
        marker={"size": 5, "symbol": symbol},
        text=[_say_end(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )


def _spans(view: View, trials: Sequence[Seen], kind: str, colour: str, rows: dict[str, int]) -> Trace:
    by_row: defaultdict[str, list[Any]] = defaultdict(list)
    for trial in trials:
        start, end = _start(trial), trial.ended or view.seen_at
        by_row["base"].append(start.isoformat(sep=" ", timespec="milliseconds"))
        by_row["x"].append(max(0.0, (end - start).total_seconds() * 1000))
        by_row["y"].append(rows[trial.worker or "not known"])
        seed = f"<br>seed {trial.seed}" if trial.seed is not None else ""
        by_row["text"].append(f"{_say_end(trial)}<br>{(end - start).total_seconds():.1f} s{seed}")
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "marker": {"color": colour, "line": {"width": 0.5, "color": "rgba(127,127,127,0.6)"}},
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        **by_row,
    }


def _start(trial: Seen) -> datetime:
    assert trial.started is not None
    return trial.started
