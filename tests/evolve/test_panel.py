"""What a person sees: the panel fits 80 columns, the lines keep theirs, and both tell the truth."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evolve.panel import LivePanel, Pace, PlainLines, say_best, say_summary, watcher_for
from evolve.standing import Outcome, Standing
from evolve.tables import describe_change, show_value
from evolve.watcher import Ended, Opened, Racing, Silence
from studies import BestHyp, Score
from studies.race import Heat

LONG = "obj_pw 1.2346 -> 0.98765"
OUTCOMES = [
    Outcome(0, "complete", 12, 0.35, change="the base"),
    Outcome(1, "pruned", 3, 0.1, change=LONG),
    Outcome(2, "failed", 1, failure="the training process was killed by SIGKILL in epoch 2 (did memory run out?)"),
    Outcome(3, "complete", 12, 0.3921, change="lr0 0.01 -> 0.013"),
]


NEW = Standing()


BASE = Score(0.35, 3, 0.0123)


def standing_after(outcomes):
    standing = Standing()
    for outcome in outcomes:
        standing = standing.after(outcome)
    return replace(standing, best=best_after(outcomes))


def best_after(outcomes):
    complete = [outcome for outcome in outcomes if outcome.state == "complete"]
    best = max(complete, key=lambda outcome: outcome.fitness)
    return BestHyp({"lr0": 0.013}, best.fitness, {}, best.number, best.number, "digits", base=BASE)


def opened(standing=NEW, generations=300):
    return Opened("digits", Path("runs/digits"), generations, 12, "10 classes, 320 pictures", standing)


def ended(hyp):
    base = {"lr0": 0.01, "fliplr": 0.0, "optimizer": "sgd", "box": 0.05}
    command = ["evolve", "train", "--hyp", "runs/my cells/best/hyp.yaml"]
    return Ended("300 of 300 generations are done", standing_after(OUTCOMES), 12, base, hyp, Path("hyp.yaml"), command)


def drawn(panel):
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(panel)
    return console.file.getvalue().splitlines()


def watch(watcher):
    watcher.opened(opened())
    for done, outcome in enumerate(OUTCOMES, start=1):
        watcher.started(outcome.number)
        watcher.epoch(outcome.number, 1, 0.1)
        watcher.finished(outcome, standing_after(OUTCOMES[:done]))


def test_the_panel_fits_80_columns_and_tells_where_the_study_stands():
    panel = LivePanel(Console(width=80, file=io.StringIO(), force_terminal=True))
    watch(panel)
    panel.started(4)
    panel.epoch(4, 7, 0.2345)
    lines = drawn(panel)
    panel.ended(ended(None))
    shown = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 16
    for part in (
        "generation 4/300",
        "trial 4: epoch  7 of 12 done, fitness 0.2345",
        "best 0.3921 (trial 3): +0.0421, +12.0 % against the base",
        "base 0.3500 ± 0.0123 (3 seeds)",
        "pruned 33 %; 27 of 36 epochs run, 25 % saved; 1 failed",
        LONG,
    ):
        assert part in shown


def test_the_panel_shows_the_last_six_trials():
    panel = LivePanel(Console(width=80, file=io.StringIO(), force_terminal=True))
    panel.opened(opened())
    for number in range(9):
        panel.finished(Outcome(number, "complete", 12, 0.1, change=f"hyp{number}"), Standing())
    shown = "\n".join(drawn(panel))
    panel.ended(ended(None))
    assert [number for number in range(9) if f"hyp{number}" in shown] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("height", "running", "ended"), [(40, 8, 6), (24, 8, 6), (20, 6, 6), (12, 2, 2), (8, 1, 0)])
def test_the_panel_of_many_workers_is_never_higher_than_the_terminal_and_keeps_its_height(height, running, ended):
    panel = LivePanel(Console(width=80, height=height, file=io.StringIO(), force_terminal=True))
    panel.opened(opened())
    for number in range(20):
        panel.finished(Outcome(number, "complete", 12, 0.1, change=f"hyp{number}"), Standing())
    for number in range(95, 105):
        panel.started(number)
    full = drawn(panel)
    for number in range(95, 104):
        panel.finished(Outcome(number, "complete", 12, 0.1, change=f"hyp{number}"), Standing())
    assert len(drawn(panel)) == len(full) <= max(height - 2, 7)
    shown = [line.split(":")[0] for line in full if ": epoch" in line]
    assert len(shown) == (running - 1 if running < 10 else 10)
    assert shown == sorted([f"trial {number:>3}" for number in range(95, 105)])[: len(shown)]
    assert sum("hyp" in line for line in full) == ended
    assert f"{10 - len(shown)}{' more' * (running > 1)} are running" in "\n".join(full)
    panel._stop()


def test_a_panel_that_never_opened_can_end():
    LivePanel(Console(file=io.StringIO())).ended(ended(None))


def test_lines_have_the_same_columns_for_every_trial():
    console = Console(file=io.StringIO(), width=80)
    watch(PlainLines(console))
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("generation")]
    assert len(lines) == len(OUTCOMES)
    for word in ("trial", "fitness", "epochs", "best", "left"):
        assert len({line.index(f" {word} ") for line in lines}) == 1
    assert lines[2].endswith("(did memory run out?)"), "a long line is not broken"
    assert "[" not in "".join(lines), "no colours in a file"


def test_the_time_left_is_the_mean_time_of_this_run_times_what_is_to_do():
    now = 100.0
    before = Standing(complete=40)
    pace = Pace(opened(before, generations=50), clock=lambda: now)
    assert pace.left_s(before) is None
    now = 106.0
    assert pace.left_s(Standing(complete=42)) == pytest.approx(3 * 8)
    assert pace.left_s(Standing(complete=50)) == 0


def test_the_time_left_is_never_more_than_the_run_may_still_take():
    now = 100.0
    pace = Pace(replace(opened(generations=50), seconds=60), clock=lambda: now)
    now = 110.0
    assert pace.left_s(Standing(complete=1)) == 50
    assert pace.left_s(Standing(complete=40)) == pytest.approx(2.5)
    now = 170.0
    assert pace.left_s(Standing(complete=2)) == 0


@pytest.mark.parametrize("watcher", [PlainLines, LivePanel])
def test_what_may_end_the_study_early_is_told_when_it_opens(watcher):
    console = Console(file=io.StringIO(), width=80)
    told = watcher(console)
    told.opened(replace(opened(), earlier="after 8h of this run"))
    told.ended(ended(None))
    assert "\nends earlier after 8h of this run\n" in console.file.getvalue()


def summary(hyp):
    console = Console(file=io.StringIO(), width=80)
    say_summary(console, ended(hyp))
    return console.file.getvalue()


def test_the_summary_sets_the_best_against_the_base_and_gives_file_and_command():
    rows = [
        line.split() for line in summary({"lr0": 0.013, "fliplr": 0.1, "optimizer": "adamw", "box": 0.05}).splitlines()
    ]
    assert ["lr0", "0.01", "0.013", "+30.0", "%"] in rows
    assert ["fliplr", "0", "0.1", "from", "0"] in rows
    assert ["optimizer", "sgd", "adamw", "changed"] in rows
    assert ["box", "0.05", "0.05"] in rows
    text = summary({"lr0": 0.013})
    assert "hyp file: hyp.yaml\n" in text
    assert "train with it: evolve train --hyp 'runs/my cells/best/hyp.yaml'\n" in text


@pytest.mark.parametrize(
    ("best", "base", "told"),
    [
        (0.4, Score(0.35), "best 0.4000 (trial 3): +0.0500, +14.3 % against the base\nbase 0.3500\n"),
        (0.4, None, "best 0.4000 (trial 3)\nbase not known\n"),
        (0.35, Score(0.35), "best 0.3500 (trial 3): nothing has beaten the base yet\nbase 0.3500\n"),
    ],
)
def test_a_spread_is_told_only_where_one_is_known(best, base, told):
    console = Console(file=io.StringIO(), width=80)
    found = replace(best_after(OUTCOMES), fitness=best, base=base)
    say_summary(console, replace(ended({"lr0": 0.013}), standing=Standing(complete=2, best=found)))
    assert told in console.file.getvalue()


def test_a_best_that_was_trained_again_says_so():
    console = Console(file=io.StringIO(), width=80)
    say_best(console, replace(best_after(OUTCOMES), seeds=2), {}, Path("hyp.yaml"))
    assert console.file.getvalue().startswith("digits: best 0.3921 (trial 3, mean of 2 seeds): +0.0421")


def test_the_summary_of_a_study_without_a_complete_trial_says_so():
    console = Console(file=io.StringIO(), width=80)
    say_summary(console, replace(ended(None), standing=Standing()))
    assert "no trial completed, so there is no best hyp" in console.file.getvalue()


def test_the_summary_of_a_worker_that_joined_tells_the_best_and_no_file():
    assert "best 0.3921 (trial 3): +0.0421" in summary(None)
    assert "hyp file" not in summary(None)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0.01, 0.013, "+30.0 %"),
        (-2.0, -1.0, "+50.0 %"),
        (0.5, 0.49998, "-0.004 %"),
        (0.0, 0.1, "from 0"),
        (1, 1, ""),
        (True, False, "changed"),
    ],
)
def test_a_change_is_relative_where_it_can_be(before, after, change):
    assert describe_change(before, after) == change


def test_values_are_shown_in_few_digits():
    assert [show_value(value) for value in (0.1 + 0.2, 1e-05, 3, "sgd", None)] == ["0.3", "1e-05", "3", "sgd", "-"]


def test_a_terminal_gets_the_panel_a_pipe_gets_lines_and_quiet_gets_nothing():
    assert isinstance(watcher_for(Console(force_interactive=True), quiet=False), LivePanel)
    assert isinstance(watcher_for(Console(file=io.StringIO()), quiet=False), PlainLines)
    assert isinstance(watcher_for(Console(force_interactive=True), quiet=True), Silence)


RACING = Racing("digits.race", 7, range(1_000_000, 1_000_006), 12, 28, 4)
HEAT = Heat(258, 1_000_001, 1)


def test_the_panel_tells_how_far_a_race_is_and_fits_80_columns():
    panel = LivePanel(Console(width=80, file=io.StringIO(), force_terminal=True))
    watch(panel)
    panel.racing(RACING)
    panel.started(5)
    panel.raced(HEAT, Outcome(5, "complete", 12, 0.4), 5)
    lines = drawn(panel)
    panel.ended(ended(None))
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    assert "race 5/28" in shown and "trial 258, seed 1000001" in shown
    assert LONG not in shown, "the study's trials are gone"


def test_a_race_without_a_study_before_it_has_a_panel_too():
    panel = LivePanel(Console(width=80, file=io.StringIO(), force_terminal=True))
    panel.racing(RACING)
    assert "race 4/28" in "\n".join(drawn(panel))
    panel.ended(ended(None))


def test_heats_are_lines_with_the_same_columns():
    console = Console(file=io.StringIO(), width=80)
    lines = PlainLines(console)
    lines.racing(RACING)
    for entrant, failure in ((None, ""), (258, ""), (7, "the loss was no longer finite in epoch 1 (box nan)")):
        lines.raced(Heat(entrant, 1_000_001, 1), Outcome(5, "complete", 12, 0.4, failure=failure), 5)
    first, resumed, *heats = console.file.getvalue().splitlines()
    assert first == ("race: 7 challengers against the base, 28 trainings of 12 epochs, fresh seeds 1000000 to 1000005")
    assert resumed == "resumed: 4 of 28 trainings of the race are already done"
    for word in ("seed", "fitness", "epochs", "left"):
        assert len({line.index(f" {word} ") for line in heats}) == 1
    assert heats[2].endswith("(box nan)")


def test_no_color_takes_the_colours_away(monkeypatch: pytest.MonkeyPatch):
    def codes() -> set[str]:
        console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="256")
        panel = LivePanel(console)
        watch(panel)
        console.print(panel)
        panel._stop()
        return {
            code for code in re.findall(r"\x1b\[([\d;]+)m", console.file.getvalue()) if re.search(r"\b[39]\d", code)
        }

    assert codes()
    monkeypatch.setenv("NO_COLOR", "1")
    assert codes() == set()


def test_a_terminal_that_becomes_narrower_loses_all_that_it_has_broken():
    console = Console(width=160, height=24, file=io.StringIO(), force_terminal=True, color_system=None)
    panel = LivePanel(console)
    watch(panel)
    panel._over.set()  # from here on it is drawn by us
    panel._changed.set()
    panel._drawing.join()
    panel._live.refresh()
    wide = panel._live._live_render._shape[1]
    console.width = 70
    before = len(console.file.getvalue())
    panel._follow_width(panel._live)
    panel._live.refresh()
    ups = console.file.getvalue()[before:].count("\x1b[1A")
    assert ups > wide - 1, "a line of 158 columns is three lines of 70"
    assert max(map(len, drawn(panel))) <= 80
    panel._stop()


def test_the_panel_shows_the_fitness_of_all_complete_trials_and_who_works():
    panel = LivePanel(Console(width=80, file=io.StringIO(), force_terminal=True))
    panel.opened(replace(opened(), fitnesses=(0.1, 0.2), standing=standing_after(OUTCOMES)))
    for number in (7, 8):
        panel.started(number)
    panel.epoch(7, 6, 0.2)
    panel.finished(Outcome(8, "complete", 12, 0.9), standing_after(OUTCOMES))
    shown = "\n".join(drawn(panel))
    panel._stop()
    assert "base 0.3500 ± 0.0123 (3 seeds)  fitness ▁▂█" in shown
    assert "generation 4/300, 1 of 2 workers are training" in shown
    assert "trial 7: epoch  6 of 12 done, fitness 0.2000  ━━━━━━──────" in shown
