"""What a study tells of its hyps, and what to do about it: for a person, as JSON, or in brief at its end."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from optuna import Study
from rich.console import Console, RenderableType
from rich.text import Text

from evolve.hyps import limits_of
from evolve.opening import NOT_EVOLVED
from evolve.paths import found_as, from_here
from evolve.tables import importance_table, name_dead, show_value
from search_spaces import Param, Space, dump_space
from studies.insight import LEAST_TRIALS, Insight, insight_of
from studies.study import IDENTITY

SHOWN = 3  # hyps that are named at a study's end


def insight_into(study: Study, space: Space) -> Insight:
    """What an evolve study tells of its hyps."""
    identity = study.user_attrs[IDENTITY]
    return insight_of(study, space, limits_of(identity["trainer"]), identity.get(NOT_EVOLVED, {}))


def tell_insight(console: Console, study: str, config: Path, insight: Insight) -> None:
    """Print all of it, and the advice that follows; `config` is the study's evolve.yaml."""
    for part in _parts(study, config, insight):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def insight_as_json(study: str, insight: Insight) -> str:
    """One JSON document: the fields of studies.insight.Insight, `wider` as in a space file, and `idle`, its advice."""
    binding = [{**vars(one), "wider": one.wider.to_dict()} for one in insight.binding]
    told = {"study": study, **dataclasses.asdict(insight), "binding": binding, "idle": insight.idle}
    return json.dumps(told, indent=2, ensure_ascii=False)


def brief(study: Study, space: Space, root: Path) -> list[str]:
    """What there is to say of it at the end of a study with this run folder; no line where it is nothing."""
    insight = insight_into(study, space)
    told = [f"{one.name} ({_percent(one.share)})" for one in insight.importances if one.told_from_chance]
    bounds = [f"{one.name} ({one.side} {show_value(one.bound)})" for one in insight.binding]
    lines = [f"what mattered most: {', '.join(told[:SHOWN])}"] if told else []
    lines += [f"the best sit at a bound: {', '.join(bounds)}"] if bounds else []
    found = shlex.quote(found_as(study.study_name, root))
    return [*lines, f"`evolve insight {found}` tells what follows from it"] if lines else []


def advise(study: str, config: Path | None, insight: Insight) -> list[str]:
    """What follows from it, a line each; `config` is the study's evolve.yaml, None where it has no run folder here."""
    return [" ".join(text.plain.split()) for text in _advice(study, config, insight)]


def _parts(study: str, config: Path, insight: Insight) -> Iterator[RenderableType]:
    yield Text(f"{study}: {insight.completed} trials with a fitness; the good hyps are the best {insight.good}")
    yield Text(_spread(insight))
    yield Text()
    if insight.importances:
        yield importance_table(insight.importances)
        yield Text(
            "below 1 it may be chance; what moved along with a hyp that matters seems to matter as well", style="dim"
        )
    else:
        yield Text(f"too few trials to say what matters: that takes {LEAST_TRIALS} with a fitness")
    for part in _advice(study, config, insight):
        yield Text()
        yield part


def _spread(insight: Insight) -> str:
    between = "-" if insight.spread is None else f"{insight.spread:.4f}"
    if insight.noise is None:
        return f"{insight.goal} varies by {between} from hyp to hyp; how much a seed makes of it is not known"
    says = f"{insight.goal} varies by {between} from hyp to hyp, by {insight.noise.sd:.4f} from seed to seed"
    lost = insight.spread is not None and insight.spread <= insight.noise.sd
    return f"{says}: no hyp can be told from another" if lost else says


def _advice(study: str, config: Path | None, insight: Insight) -> Iterator[Text]:
    if idle := insight.idle:
        yield Text(f"not told from chance; without them the next search has less to do: --freeze {','.join(idle)}")
    for one in insight.binding:
        sit = f"{_percent(one.share)} of the good hyps sit at its {one.side} bound, {show_value(one.bound)}"
        yield Text(f"{one.name}: {sit}; with room beyond it is\n    {_entry(one.wider)}")
    if insight.binding and config is not None:
        found, settings, next_one = map(shlex.quote, (found_as(study, config.parent), from_here(config), f"{study}-2"))
        run = f"evolve run --config {settings} --space wider.yaml --study {next_one} --from {found}"
        yield Text(f"so search on: evolve insight {found} --yaml > wider.yaml; {run}")
    tried = [f"{one.name} {show_value(one.value)} (moved in {one.tried})" for one in insight.unmoved if one.tried]
    if tried:
        yield Text(f"moved in trials, but in no good hyp: {', '.join(tried)}")
    if untried := [one.name for one in insight.unmoved if not one.tried]:
        yield Text(f"never moved, so nothing is known of them: {', '.join(untried)}")
    if insight.dead:
        yield Text(f"not evolved, since they can have no effect here: {name_dead(insight.dead)}")


def _entry(param: Param) -> str:
    """What stands in a space file for it."""
    needed = {param.needs: 0} if param.needs else {}  # no space is without what its params need
    entry, *_ = dump_space(Space("", (param,), needed)).splitlines()
    return " ".join(entry.split())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
