"""Every picture of a study by its name: a function of a view of it, for the report and for the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.hyp_pictures import draw_hyps, draw_importances, draw_lineage, draw_parallel
from studies.progress_pictures import draw_curves, draw_front, draw_history, draw_race, draw_workers
from studies.view import View

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Picture:
    """How to draw one, what it is called, and how it is read. `wanted` tells whether a study has it at all."""

    title: str
    says: str
    draw: Callable[[View], Figure]
    wanted: Callable[[View], bool] = lambda _view: True


PICTURES: Mapping[str, Picture] = {
    "history": Picture(
        "Fitness over generations",
        "Each dot is a trial that was trained to its end; ticks below are pruned and failed ones. The band holds "
        "nineteen in twenty trainings of the base: what lies within it can be luck.",
        draw_history,
    ),
    "front": Picture(
        "The front",
        "What the trials reached in the first two goals; nothing beats those on the line in all goals.",
        draw_front,
        lambda view: len(view.goals) > 1,
    ),
    "race": Picture(
        "The race against the base",
        "The best hyps were trained again beside the base under fresh seeds. What lies right of zero with its whole "
        "interval is better.",
        draw_race,
        lambda view: view.decision is not None,
    ),
    "curves": Picture(
        "Learning curves",
        "Fitness after every epoch. Where an amber line ends, its trial was pruned as hopeless.",
        draw_curves,
    ),
    "hyps": Picture(
        "Every hyp",
        "A panel for each hyp: its value against the fitness, the later a trial the bluer, between its bounds. Hyps "
        "that never moved, or that sit at a bound, say so.",
        draw_hyps,
    ),
    "importances": Picture(
        "What matters",
        "How much each hyp has to do with a trial's being among the best tenth. What does not pass its mark may be "
        "chance, and what moved along with a hyp that matters seems to matter as well.",
        draw_importances,
    ),
    "lineage": Picture(
        "Lineage",
        "Which trial was made from which; what it changed stands beside a trial that you point at.",
        draw_lineage,
    ),
    "parallel": Picture(
        "Parallel coordinates",
        "Each line is a trial, from bound to bound of the hyps that matter most: where lines of the best run together, "
        "they agree. A click on the legend hides lines.",
        draw_parallel,
    ),
    "workers": Picture(
        "Time line of workers",
        "What each process trained, and when.",
        draw_workers,
    ),
}


def pictures_of(view: View) -> dict[str, Figure]:
    """All that the study has, by name, in the order in which they are told."""
    return {name: picture.draw(view) for name, picture in PICTURES.items() if picture.wanted(view)}
