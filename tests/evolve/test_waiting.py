"""A bar for what lasts longer than two seconds, and for nothing else."""

import io

import pytest
from rich.console import Console

from evolve.panel import LivePanel, PlainLines
from evolve.waiting import Bar


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [100.0]
    monkeypatch.setattr("evolve.waiting.time.monotonic", lambda: moment[0])
    return moment


def terminal() -> Console:
    return Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)


def test_a_bar_appears_after_two_seconds_and_leaves_nothing(now):
    console = terminal()
    with Bar(console) as bar:
        bar.tell("decoding pictures at 320 px", 10, 100)
        now[0] += 1.9
        bar.tell("decoding pictures at 320 px", 20, 100)
        assert console.file.getvalue() == ""
        now[0] += 0.2
        bar.tell("decoding pictures at 320 px", 30, 100)
        shown = console.file.getvalue()
        assert "decoding pictures at 320 px" in shown and "30%" in shown
    assert console.file.getvalue().endswith("\x1b[2K")


def test_what_nobody_knows_the_length_of_has_a_bar_too_and_the_next_thing_another(now):
    console = terminal()
    bar = Bar(console)
    for what in ("downloading", "reading"):
        bar.tell(what, 1, None)
        now[0] += 3
        bar.tell(what, 2, None)
    bar.close()
    assert "downloading" in console.file.getvalue() and "reading" in console.file.getvalue()


def test_no_terminal_has_a_bar(now):
    console = Console(file=io.StringIO())
    bar = Bar(console)
    for _ in range(3):
        bar.tell("reading", 1, 2)
        now[0] += 3
    assert console.file.getvalue() == ""


def test_lines_tell_it_every_ten_seconds_and_the_panel_by_its_bar(now):
    console = Console(file=io.StringIO())
    lines = PlainLines(console)
    for done in range(30):
        lines.progress("reading pictures", done, 30)
        now[0] += 1
    assert console.file.getvalue().splitlines() == ["reading pictures: 10 of 30", "reading pictures: 20 of 30"]
    console = terminal()
    panel = LivePanel(console)
    for done in (1, 2):
        panel.progress("reading pictures", done, None)
        now[0] += 3
    panel._stop()
    assert "reading pictures" in console.file.getvalue()
