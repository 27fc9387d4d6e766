"""The panel in a notebook: one output that changes in place, and keeps what was told once the study has ended."""

from __future__ import annotations

import importlib
import io
import sys
import time
from typing import Any

from rich.console import Console

from evolve.panel import LivePanel, PlainLines
from evolve.standing import Outcome, Standing
from evolve.watcher import Ended, Opened, Racing, Silence, Watcher
from studies.decision import Decision
from studies.race import Heat

REDRAW_S = 0.25  # between two looks at what changes with every epoch
WIDTH, HEIGHT = 110, 40
PRE = (
    '<pre style="margin:0;white-space:pre;overflow-x:auto;line-height:normal;'
    'font-family:Menlo,Consolas,monospace">{code}</pre>'
)


class NotebookPanel(LivePanel):
    """What was printed so far and, while a study runs, the panel below it, as one display of IPython's.

    It is drawn anew when something has happened: a kernel that runs a cell has no other thread to draw in.
    """

    def __init__(self) -> None:
        super().__init__(_recorder())
        self._runs = False
        self._drawn_at = 0.0
        self._display: Any = None

    def preparing(self, data: str) -> None:
        super().preparing(data)
        self._draw()

    def opened(self, opened: Opened) -> None:
        super().opened(opened)
        self._draw()

    def started(self, number: int) -> None:
        super().started(number)
        self._draw_at_times()

    def epoch(self, number: int, epoch: int, fitness: float) -> None:
        super().epoch(number, epoch, fitness)
        self._draw_at_times()

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        super().finished(outcome, standing)
        self._draw_at_times()

    def racing(self, racing: Racing) -> None:
        super().racing(racing)
        self._draw()

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        super().raced(heat, outcome, done)
        self._draw_at_times()

    def decided(self, decision: Decision) -> None:
        super().decided(decision)
        self._draw()

    def warned(self, warning: str) -> None:
        super().warned(warning)
        self._draw()

    def ended(self, ended: Ended) -> None:
        self._runs = False
        super().ended(ended)
        self._draw()

    def _start(self) -> None:
        self._runs = True

    def _draw_at_times(self) -> None:
        if time.monotonic() - self._drawn_at >= REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        """Show both as HTML, and as text where that cannot be shown."""
        panel = _recorder()
        if self._runs:
            panel.print(self)
        html = (part.export_html(code_format=PRE, inline_styles=True, clear=False) for part in (self._console, panel))
        text = (part.export_text(clear=False) for part in (self._console, panel))
        shown = {"text/html": "".join(html), "text/plain": "".join(text)}
        if self._display is None:
            self._display = importlib.import_module("IPython.display").display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)
        self._drawn_at = time.monotonic()


def watcher_here(*, quiet: bool) -> Watcher:
    """The panel in a notebook, lines elsewhere, nothing when quiet."""
    if quiet:
        return Silence()
    return NotebookPanel() if in_a_notebook() else PlainLines(Console())


def in_a_notebook() -> bool:
    """Whether a kernel runs this; IPython in a terminal has none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _recorder() -> Console:
    return Console(
        record=True, file=io.StringIO(), width=WIDTH, height=HEIGHT, force_jupyter=False, color_system="truecolor"
    )
