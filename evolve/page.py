"""The report's page: HTML around the pictures, in one file that asks the network for nothing.

Every text that comes from elsewhere (names of studies and hyps, reasons of failures) is escaped here, or in
`studies.drawing.plain` where it is part of a picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evolve
from evolve.summary import summarise
from evolve.tables import describe_change, show_goal, show_value
from search_spaces import Param, Value
from studies.drawing import template
from studies.hyp_pictures import flags_of, panels
from studies.pictures import PICTURES
from studies.verdict import Result
from studies.view import Moved, Seen, View

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from studies.status import Failure

UNTITLED = 34  # pixels that a picture needs less whose title stands on the page
NARROW_COLUMNS = 2  # of panels on a telephone
MOST_MOVES = 3  # that the table of trials tells of each
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class Page:
    """What stands on it. `commands` are by what they do; `hyp` is the best hyp's file, '' where there is none."""

    view: View
    pictures: Mapping[str, Figure]
    failures: Sequence[Failure]
    advice: Sequence[str]
    commands: Mapping[str, str]
    hyp: str
    facts: Mapping[str, str]
    config: str


def write(page: Page) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    name = escape(page.view.study)
    sections = "".join(_sections(page))
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="evolve {evolve.__version__}">
<title>{name} · evolve</title>
<style>{_resource("report.css")}</style>
</head>
<body>
<header>
<div><h1>{name}</h1><p>{escape(_subtitle(page))}</p></div>
<button id="theme" type="button" aria-label="Switch between light and dark">Dark</button>
</header>
<main>
{sections}
</main>
<footer>evolve {evolve.__version__}, {page.view.seen_at:%Y-%m-%d %H:%M}. This file needs no network.</footer>
<script>{get_plotlyjs()}</script>
<script type="application/json" id="figures">{_figures(page)}</script>
<script>{_resource("report.js")}</script>
</body>
</html>
"""


def _sections(page: Page) -> Iterator[str]:
    """All of them in order; the links to them stand below the verdict."""
    summary = summarise(page.view)
    tiles = "".join(
        f"<li><span>{escape(name)}</span><b>{escape(told)}</b></li>" for name, told in summary.figures.items()
    )
    yield (
        f'<section class="verdict {summary.certainty}" id="verdict" aria-label="Verdict">'
        f'<p>{escape(summary.sentence)}</p><ul class="tiles">{tiles}</ul></section>'
    )
    parts = dict(_parts(page))
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in parts)
    yield f'<nav aria-label="Sections">{links}</nav>'
    for name, (title, body) in parts.items():
        yield f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>\n'


def _parts(page: Page) -> Iterator[tuple[str, tuple[str, str]]]:
    """A name, a title and what is below it."""
    view = page.view
    more = {
        "race": lambda: _race_table(view),
        "importances": lambda: _advice(page.advice),
        "workers": lambda: _failures(page.failures),
    }
    for name in page.pictures:
        picture = PICTURES[name]
        below = more[name]() if name in more else ""
        yield name, (picture.title, f'<p class="says">{escape(picture.says)}</p>{_place(name, picture.title)}{below}')
        if name == ("race" if "race" in page.pictures else "front" if "front" in page.pictures else "history"):
            yield from _changes(page)
    yield "trials", ("Trials", _trials(view))
    if page.commands:
        yield "export", ("Go on with it", _commands(page))
    yield "provenance", ("Where this comes from", _provenance(page))


# --------------------------------------------------------------------------------------------------------------------
# pictures
# --------------------------------------------------------------------------------------------------------------------


def _place(name: str, title: str) -> str:
    drawn = f'<div class="plot" id="plot-{name}" role="img" aria-label="{escape(title)}"></div>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">{drawn}</div>'


def _figures(page: Page) -> str:
    """The pictures as JSON that is safe inside of HTML."""
    figures = {}
    for name, figure in page.pictures.items():
        told = json.loads(figure.to_json(validate=False))
        figures[name] = {"data": told["data"], "layout": _bare(told["layout"])}
    if "hyps" in figures and page.view.complete:
        slim = panels(page.view, flags_of(page.view), NARROW_COLUMNS)
        figures["hyps"]["narrow"] = {**figures["hyps"]["layout"], **json.loads(json.dumps(slim))}
    templates = {"light": template(), "dark": template(dark=True)}
    text = json.dumps({"figures": figures, "templates": templates}, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _bare(layout: dict[str, Any]) -> dict[str, Any]:
    """Without the title, which stands above the picture, and without colours, which the page knows."""
    margin = layout["margin"]
    bare = {key: value for key, value in layout.items() if key not in ("title", "template")}
    return {**bare, "margin": {**margin, "t": margin["t"] - UNTITLED}}


# --------------------------------------------------------------------------------------------------------------------
# tables
# --------------------------------------------------------------------------------------------------------------------


def _race_table(view: View) -> str:
    if view.decision is None:
        return ""
    has_test = any("fitness" in found.final for found in view.decision.results)
    heads = ["trial", "seeds", view.goal, "difference", "95 % interval", *(["on test"] if has_test else [])]
    winner = view.decision.verdict.winner
    rows = []
    for found in view.decision.results:
        best = found.entrant == winner and winner is not None
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in _race_cells(found, has_test))
        rows.append(f"<tr{' class=best' if best else ''}>{cells}</tr>")
    return _table("The race", heads, rows, whole=True)


def _race_cells(found: Result, has_test: bool) -> list[str]:
    return [
        "base" if found.entrant is None else str(found.entrant),
        f"{found.n}" + (f" ({found.failed} failed)" if found.failed else ""),
        "-" if found.mean is None else f"{found.mean:.4f}",
        "" if found.difference is None else f"{found.difference:+.4f}",
        " to ".join(f"{end:+.4f}" for end in found.interval) if found.interval else "",
        *([f"{found.final['fitness']:.4f}" if "fitness" in found.final else "-"] if has_test else []),
    ]


def _changes(page: Page) -> Iterator[tuple[str, tuple[str, str]]]:
    """From the base to what the study delivers, hyp by hyp."""
    view, after = page.view, page.view.delivered
    if after is None:
        return
    if view.decision is not None and view.decision.verdict.winner is None and view.best is not None:
        after, which = view.best.hyp, f"trial {view.best.number}, the best of the search, which was not confirmed"
    elif view.decision is not None:
        which = f"trial {view.decision.verdict.winner}, which won the race"
    else:
        which = f"trial {view.best.number}, the best so far" if view.best else ""
    params = {param.name: param for param in view.space.evolving}
    rows = [_change(params.get(name), name, view.base[name], value) for name, value in after.items()]
    says = f'<p class="says">{escape(f"The base (a ring) beside {which} (a dot), between the bounds.")}</p>'
    table = _table("Base and best hyp", ["hyp*", "base", "best", "change", "from bound to bound*"], rows, whole=True)
    yield "changes", ("From base to best", says + table)


def _change(param: Param | None, name: str, before: Value, after: Value) -> str:
    row = "same" if before == after else ""
    drawn = "" if param is None else _range(param, before, after)
    return (
        f'<tr class="{row}"><td class="text">{escape(name)}</td><td>{escape(show_value(before))}</td>'
        f"<td>{escape(show_value(after))}</td><td>{escape(describe_change(before, after))}</td>"
        f'<td class="text">{drawn or "fixed"}</td></tr>'
    )


def _range(param: Param, before: Value, after: Value) -> str:
    """Both values on a line from bound to bound."""
    old, new = (5 + 90 * param.to_unit(value) for value in (before, after))
    low, high = (param.choices[0], param.choices[-1]) if param.choices else param.bounds
    bounds = f"between {show_value(low)} and {show_value(high)}"
    told = escape(f"{param.name}: {show_value(before)} to {show_value(after)}, {bounds}")
    return (
        f'<svg class="range" role="img" aria-label="{told}"><title>{told}</title>'
        f'<line x1="4%" y1="50%" x2="96%" y2="50%"/><circle class="from" cx="{old:.1f}%" cy="50%" r="5"/>'
        f'<circle class="to" cx="{new:.1f}%" cy="50%" r="4.5"/></svg>'
    )


def _trials(view: View) -> str:
    """All trials; the newest first, as that is what somebody wants to see who looks at a study that runs."""
    if not view.trials:
        return '<p class="says">There is no trial yet.</p>'
    states = sorted({trial.state for trial in view.trials})
    options = "".join(f'<option value="{state}">{state}</option>' for state in states)
    tools = (
        '<div class="tools"><label for="states">Show</label>'
        f'<select id="states"><option value="">all {len(view.trials)} trials</option>{options}</select></div>'
    )
    goals = list(view.goals)
    heads = [
        "trial",
        "generation",
        "state*",
        *goals,
        "epochs",
        "seconds",
        "made by*",
        "what it changed, or why it failed*",
    ]
    best = view.best.number if view.best else None
    rows = [_trial(view, trial, goals, best) for trial in reversed(view.trials)]
    return tools + _table("Trials", heads, rows, sortable=True)


def _trial(view: View, trial: Seen, goals: Sequence[str], best: int | None) -> str:
    seconds = (trial.ended - trial.started).total_seconds() if trial.started and trial.ended else None
    reached = dict(zip(goals, trial.values, strict=False))
    cells = [
        f"<td>{trial.number}</td><td>{trial.generation}</td>",
        f'<td class="text"><span class="state {trial.state}">{trial.state}</span></td>',
        *(
            f'<td data-value="{reached[name]!r}">{escape(show_goal(name, reached[name]))}</td>'
            if name in reached
            else "<td></td>"
            for name in goals
        ),
        f"<td>{trial.epochs}</td>",
        "<td></td>" if seconds is None else f'<td data-value="{seconds}">{seconds:.1f}</td>',
        f'<td class="text">{escape(_made_by(trial))}</td>',
        f'<td class="text wrap">{escape(trial.why or _told(view, trial))}</td>',
    ]
    return f'<tr data-state="{trial.state}"{" class=best" if trial.number == best else ""}>{"".join(cells)}</tr>'


def _made_by(trial: Seen) -> str:
    parents = ", ".join(map(str, trial.parents))
    return trial.source or f"{trial.operator}{f' of {parents}' if parents else ''}"


def _told(view: View, trial: Seen) -> str:
    if trial.base:
        return "the base"
    moves = view.moves(trial)
    told = "; ".join(_move(one) for one in moves[:MOST_MOVES])
    return f"{told}; {len(moves) - MOST_MOVES} more" if len(moves) > MOST_MOVES else told


def _move(one: Moved) -> str:
    return f"{one.name} {show_value(one.before)} → {show_value(one.after)}"


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    rows = [
        f'<tr><td>{one.count}</td><td>{one.example}</td><td class="text wrap">{escape(one.reason)}</td></tr>'
        for one in failures
    ]
    return _table("Why trials failed", ["failed", "first in trial", "reason*"], rows)


def _table(
    label: str, heads: Iterable[str], rows: Sequence[str], *, sortable: bool = False, whole: bool = False
) -> str:
    """A table that can be scrolled, or only sideways (`whole`); a head with a * stands left, as its column does."""
    told = "".join(_head(head.removesuffix("*"), head.endswith("*"), sortable) for head in heads)
    return (
        f'<div class="scroll{" whole" if whole else ""}" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{told}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(name: str, left: bool, sortable: bool) -> str:
    kind = ' class="text"' if left else ""
    told = f'<button type="button">{escape(name)}</button>' if sortable else escape(name)
    return f'<th scope="col"{kind}>{told}</th>'


# --------------------------------------------------------------------------------------------------------------------
# what to do with it
# --------------------------------------------------------------------------------------------------------------------


def _advice(lines: Sequence[str]) -> str:
    return f'<ul class="advice">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def _commands(page: Page) -> str:
    told = "".join(_command(f"command-{at}", what, text) for at, (what, text) in enumerate(page.commands.items()))
    hyp = f"<details><summary>The hyp file</summary>{_command('hyp-file', 'hyp.yaml', page.hyp)}</details>"
    return f'<p class="says">Commands for a shell, where evolve is installed.</p>{told}{hyp}'


def _command(name: str, what: str, text: str) -> str:
    return (
        f'<div class="command"><span>{escape(what)}</span><pre id="{name}" tabindex="0">{escape(text)}</pre>'
        f'<button type="button" class="copy" data-of="{name}" aria-label="Copy: {escape(what)}">Copy</button></div>'
    )


def _provenance(page: Page) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts.items())
    if not page.config:
        return f"<dl>{told}</dl>"
    asked = f'<pre tabindex="0">{escape(page.config)}</pre>'
    return f"<dl>{told}</dl><details><summary>What it was asked for (evolve.yaml)</summary>{asked}</details>"


def _subtitle(page: Page) -> str:
    view = page.view
    running = sum(trial.state == "running" for trial in (*view.trials, *view.heats))
    data = "/".join(Path(page.facts.get("data", "")).parts[-2:])
    told = [data, page.facts.get("model", "")]
    epochs = f"{view.epochs} epochs a trial" if view.epochs else ""
    now = f"{running} running" if running else ""
    return " · ".join([*filter(None, (*told, epochs, now)), f"as of {view.seen_at:%Y-%m-%d %H:%M}"])


def _resource(name: str) -> str:
    return resources.files("evolve").joinpath(name).read_text(encoding="utf-8")
