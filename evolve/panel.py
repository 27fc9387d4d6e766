"""What a person sees while a study runs: a live panel on a terminal, lines elsewhere, a summary at the end."""

from __future__ import annotations

import math
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from evolve.events import Events
from evolve.paths import from_here
from evolve.standing import Outcome, Standing
from evolve.tables import (
    changes_table,
    front_table,
    name_dead,
    name_entrant,
    race_table,
    show_duration,
    show_fitness,
    show_goal,
    sparkline,
)
from evolve.waiting import Bar
from evolve.watcher import Ended, Opened, Racing, Silence, Watcher
from search_spaces import Hyp

if TYPE_CHECKING:
    from studies import BestHyp, Score
    from studies.decision import Decision
    from studies.race import Heat

STYLES = {"complete": "green", "pruned": "yellow", "failed": "red"}
ROWS = 6
BAR = 12  # columns of a trial's epochs
TELL_S = 10.0  # between two lines of what takes long
REDRAW_S, IDLE_S = 0.5, 2.0  # between two looks at what has changed; between two drawings if nothing has
RUNNING_ROWS = 8  # trials at once that are told apart
OTHER_ROWS = 8  # of the panel: head, bar, three of shares, the table's head; and two below it for what a terminal adds
RUNNING_WIDTH = len("epoch  of  done, fitness 0.1234")  # and twice the epochs
LEAVING = "leaving after this epoch; Ctrl-C again leaves at once"


class Pace:
    """How long the rest will take at most, from the mean time of the trials that finished since the start."""

    def __init__(self, opened: Opened, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._opened = opened
        self._start = clock()

    def left_s(self, standing: Standing) -> float | None:
        """Seconds left, None until a first trial has finished."""
        done = standing.finished - self._opened.standing.finished
        if done <= 0:
            return None
        to_do = max(self._opened.generations - standing.finished, 0)
        ran = self._clock() - self._start
        may_run = math.inf if self._opened.seconds is None else max(self._opened.seconds - ran, 0.0)
        return min(ran / done * to_do, may_run)


class PlainLines:
    """One line a trial, always in the same columns: for files, pipes and continuous integration."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told_at = time.monotonic()  # how far what takes long is

    def preparing(self, data: str) -> None:
        self._say(f"preparing {data} ...")

    def progress(self, what: str, done: int, of: int | None) -> None:
        """A line from time to time."""
        if (now := time.monotonic()) >= self._told_at + TELL_S:
            self._told_at = now
            self._say(f"{what}: {done}" + ("" if of is None else f" of {of}"))

    def opened(self, opened: Opened) -> None:
        self._opened = opened
        self._pace = Pace(opened)
        self._say(f"{opened.study}: {opened.data}")
        self._say(f"{opened.generations} generations of up to {opened.epochs} epochs in {from_here(opened.folder)}")
        if opened.earlier:
            self._say(f"ends earlier {opened.earlier}")
        if opened.pinned:
            self._say(say_pinned(opened.pinned))
        for note in opened.notes:
            self._say(note)
        if opened.standing.finished:
            self._say(f"resumed: {opened.standing.finished} of {opened.generations} generations are already done")

    def started(self, number: int) -> None: ...

    def epoch(self, number: int, epoch: int, fitness: float) -> None: ...

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        best = f"best {show_fitness(standing.best.fitness if standing.best else None):>7}"
        front = f"front {len(standing.front):>3}"
        self._say(
            f"generation {standing.finished:>4}/{self._opened.generations}  trial {outcome.number:>4}"
            f"  {outcome.state:<8}  {_reached(outcome)}"
            f"  epochs {outcome.epochs:>3}/{self._opened.epochs}"
            f"  {front if standing.front else best}  left {show_duration(self._pace.left_s(standing)):>8}"
            f"  {outcome.failure or outcome.change}"
        )

    def racing(self, racing: Racing) -> None:
        self._race = race_as_opened(racing)
        self._pace = Pace(self._race)
        self._say(say_racing(racing))
        if racing.done:
            self._say(f"resumed: {racing.done} of {racing.trainings} trainings of the race are already done")

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        self._say(
            f"race {done:>4}/{self._race.generations}  {name_entrant(heat.entrant):<10}  seed {heat.seed}"
            f"  {outcome.state:<8}  fitness {show_fitness(outcome.fitness):>7}"
            f"  epochs {outcome.epochs:>3}/{self._race.epochs}"
            f"  left {show_duration(self._pace.left_s(Standing(complete=done))):>8}  {outcome.failure}"
        )

    def decided(self, decision: Decision) -> None:
        say_decision(self._console, decision)

    def warned(self, warning: str) -> None:
        self._say(f"warning: {warning}")

    def leaving(self) -> None:
        self._say(LEAVING)

    def ended(self, ended: Ended) -> None:
        say_summary(self._console, ended)

    def _say(self, line: str) -> None:
        self._console.print(Text(line.rstrip()), soft_wrap=True)


class LivePanel:
    """A panel that redraws itself in place when something has changed, and leaves the summary behind.

    A thread draws, twice a second at most: a drawing takes milliseconds, and whoever trains needs the processor.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: deque[Outcome] = deque(maxlen=ROWS)
        self._running: dict[int, tuple[int, str]] = {}  # epochs that are done, and what there is to say
        self._fitnesses: list[float] = []
        self._at_once = 1  # the most that ran so far
        self._of, self._each = "generation", "trial"
        self._waiting = Bar(console)
        self._live: Live | None = None
        self._width, self._lengths = console.width, list[int]()  # of the last drawing's lines
        self._changed, self._over = threading.Event(), threading.Event()
        self._drawing: threading.Thread | None = None

    def preparing(self, data: str) -> None:
        self._console.print(Text(f"preparing {data} ..."))

    def progress(self, what: str, done: int, of: int | None) -> None:
        if self._live is None:
            self._waiting.tell(what, done, of)

    def opened(self, opened: Opened) -> None:
        self._opened = opened
        self._waiting.close()
        self._standing = opened.standing
        self._fitnesses = list(opened.fitnesses)
        self._pace = Pace(opened)
        self._console.print(Text(f"{opened.study}: {opened.data}"))
        if opened.earlier:
            self._console.print(Text(f"ends earlier {opened.earlier}"))
        if opened.pinned:
            self._console.print(Text(say_pinned(opened.pinned)))
        for note in opened.notes:
            self._console.print(Text(note))
        self._start()

    def started(self, number: int) -> None:
        self._running[number] = 0, f"epoch {1:>{len(str(self._opened.epochs))}} of {self._opened.epochs}"
        self._at_once = max(self._at_once, len(self._running))
        self._changed.set()

    def epoch(self, number: int, epoch: int, fitness: float) -> None:
        of = str(self._opened.epochs)
        self._running[number] = epoch, f"epoch {epoch:>{len(of)}} of {of} done, fitness {show_fitness(fitness)}"
        self._changed.set()

    def finished(self, outcome: Outcome, standing: Standing) -> None:
        self._running.pop(outcome.number, None)
        self._rows.append(outcome)
        if outcome.state == "complete" and outcome.fitness is not None:
            self._fitnesses.append(outcome.fitness)
        self._standing = standing
        self._changed.set()

    def racing(self, racing: Racing) -> None:
        self._of, self._each = "race", "heat"
        self._opened = race_as_opened(racing)
        self._standing = self._opened.standing
        self._pace = Pace(self._opened)
        self._rows.clear()
        self._running.clear()
        self._at_once = 1
        self._console.print(Text(say_racing(racing)))
        self._start()

    def raced(self, heat: Heat, outcome: Outcome, done: int) -> None:
        self._running.pop(outcome.number, None)
        self._rows.append(replace(outcome, change=f"{name_entrant(heat.entrant)}, seed {heat.seed}"))
        self._standing = Standing(complete=done)
        self._changed.set()

    def decided(self, decision: Decision) -> None:
        say_decision(self._console, decision)

    def warned(self, warning: str) -> None:
        self._console.print(Text(f"warning: {warning}", style="yellow"))

    def leaving(self) -> None:
        self._console.print(Text(LEAVING))

    def ended(self, ended: Ended) -> None:
        self._stop()
        say_summary(self._console, ended)

    def _start(self) -> None:
        if self._live is None:
            self._live = Live(self, console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)
            self._drawing = threading.Thread(target=self._draw_changes, args=(self._live,), name="panel", daemon=True)
            self._drawing.start()

    def _draw_changes(self, live: Live) -> None:
        while not self._over.wait(REDRAW_S):
            if self._changed.wait(IDLE_S - REDRAW_S) and self._over.is_set():
                return
            self._changed.clear()
            self._follow_width(live)
            live.refresh()

    def _follow_width(self, live: Live) -> None:
        """Where the terminal has become narrower, it has broken lines of the last drawing: all are to be replaced."""
        width = self._console.width
        if width < self._width and (before := live._live_render._shape) is not None:
            rows = sum(max(1, -(-length // width)) for length in self._lengths)
            live._live_render._shape = before[0], max(rows, before[1])
        self._width = width

    def _stop(self) -> None:
        self._waiting.close()
        self._over.set()
        self._changed.set()
        if self._live is not None and self._drawing is not None:
            self._drawing.join()
            self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The panel as it is now; rich asks for it whenever it draws."""
        lines = console.render_lines(self.draw(), options, pad=False)
        self._lengths = [Segment.get_line_length(line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()

    def draw(self) -> RenderableType:
        standing, opened = self._standing, self._opened
        head = Table.grid(expand=True)
        head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        head.add_column(justify="right", no_wrap=True)
        head.add_row(
            Text(f"{self._of} {standing.finished}/{opened.generations}", style="bold").append(self._workers(), "none"),
            Text(f"time left {show_duration(self._pace.left_s(standing))}"),
        )
        bar = Table.grid(expand=True)  # a bar of its own ends without a new line, and rich would count one line too few
        bar.add_row(ProgressBar(total=opened.generations, completed=standing.finished, complete_style="cyan"))
        best, base = _scores(standing.best)
        shares = (best, self._with_sparkline(base), _shares(standing, opened.epochs))
        room = self._console.height - OTHER_ROWS
        running = self._tell_running(max(1, min(RUNNING_ROWS, self._at_once, room // 2)))
        lines = (*running, *(shares if self._of == "generation" else ()))
        told = (Text(line, no_wrap=True, overflow="ellipsis") for line in lines)
        # Room for the "^C" that a terminal writes at the end: in a full last line it would push the panel up by a line.
        table = self._table(max(0, min(ROWS, room - len(running))))
        return Constrain(Group(head, bar, *told, table), width=self._console.width - 2)

    def _workers(self) -> str:
        """How many work, where there may be more than one."""
        return f", {len(self._running)} of {self._at_once} workers are training" if self._at_once > 1 else ""

    def _with_sparkline(self, base: str) -> str:
        """The line on the base, and behind it the fitness of the complete trials as far as there is room."""
        told = f"{base}  fitness "
        return told + sparkline(self._fitnesses, self._console.width - len(told) - 3) if self._fitnesses else base

    def _tell_running(self, rows: int) -> list[str]:
        """So many lines, however many trials are running: what is below stays where it is."""
        width = max(map(len, map(str, self._running)), default=0)
        room = RUNNING_WIDTH + 2 * len(str(self._opened.epochs))
        running = sorted(self._running.copy().items())
        lines = [f"{self._each} {n:>{width}}: {now:<{room}}  {self._bar(epoch)}" for n, (epoch, now) in running]
        if len(lines) > rows:
            lines[rows - 1 :] = [f"{len(lines) - rows + 1}{' more' * (rows > 1)} are running"]
        return lines + [""] * (rows - len(lines))

    def _bar(self, epochs: int) -> str:
        done = round(BAR * epochs / self._opened.epochs)
        return "━" * done + "─" * (BAR - done)

    def _table(self, rows: int) -> Table:
        table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
        for name, width in ((self._each, 5), ("state", 8), ("fitness", 8), ("epochs", 7)):
            table.add_column(name, width=width, justify="left" if name == "state" else "right", no_wrap=True)
        table.add_column(
            "what it changed most" if self._of == "generation" else "whose hyp, under which seed",
            ratio=1,
            no_wrap=True,
            overflow="ellipsis",
        )
        for outcome in list(self._rows)[::-1][:rows][::-1]:
            table.add_row(
                str(outcome.number),
                Text(outcome.state, style=STYLES[outcome.state]),
                show_fitness(outcome.fitness),
                f"{outcome.epochs}/{self._opened.epochs}",
                Text(outcome.failure or outcome.change),
            )
        return table


def watcher_for(console: Console, *, quiet: bool, as_json: bool = False) -> Watcher:
    """The panel on a terminal, lines elsewhere, nothing when quiet, and events for a program."""
    if quiet:
        return Silence()
    if as_json:
        return Events(console.file)
    return LivePanel(console) if console.is_interactive else PlainLines(console)


def say_pinned(pinned: Mapping[str, str]) -> str:
    return f"not evolved, since they can have no effect here: {name_dead(pinned)}"


def race_as_opened(racing: Racing) -> Opened:
    """A race as what paces and panels know: so many trainings to do, so many done."""
    done = Standing(complete=racing.done)
    return Opened(racing.name, Path(), racing.trainings, racing.epochs, "", done)


def say_race(decision: Decision) -> str:
    trainings, seeds = len(decision.runs), decision.verdict.seeds
    return f"race of {trainings} trainings of {decision.epochs} epochs, seeds {seeds[0]} to {seeds[-1]}"


def say_racing(racing: Racing) -> str:
    rivals = f"{racing.challengers} challenger{'s' * (racing.challengers > 1)}"
    seeds = f"fresh seeds {racing.seeds[0]} to {racing.seeds[-1]}"
    return f"race: {rivals} against the base, {racing.trainings} trainings of {racing.epochs} epochs, {seeds}"


def say_decision(console: Console, decision: Decision) -> None:
    """Print what a race has decided: everybody's results, how the study's ranks carried over, and who is best."""
    console.print(race_table(decision))
    if (rho := decision.correlation) is not None:
        told = f"the study's ranks of these {len(decision.scores)} against the race's: Spearman's rho {rho:.2f}"
        console.print(Text(told), soft_wrap=True)
    console.print(Text(decision.sentence()), soft_wrap=True)


def say_summary(console: Console, ended: Ended) -> None:
    """Print how a study ended: the best hyp against the base, where it lies, how to train with it."""

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    say(f"{ended.reason}: {_counts(ended.standing)}")
    say(_shares(ended.standing, ended.epochs))
    if ended.hyp is None:
        best = ended.standing.best  # of a worker that joined: the files are where the study is run
        for line in _scores(best) if best else ["no trial completed, so there is no best hyp"]:
            say(line)
        return
    if ended.standing.front:
        say_front(console, ended.standing.front, ended.hyp_file)
    else:
        found, base = _scores(ended.standing.best)
        say(f"in the search: {found}" if ended.raced else found)
        say(base)
        if ended.unconfirmed is None:
            console.print(changes_table(ended.base, ended.hyp))
            say(f"hyp file: {from_here(ended.hyp_file)}")
        else:
            say(f"hyp file: {from_here(ended.hyp_file)} holds the base")
            say(f"the best of the search, not confirmed: {from_here(ended.unconfirmed)}")
    if ended.report is not None:
        say(f"report: {from_here(ended.report)}")
    if ended.no_race:
        say(ended.no_race)
    say(f"train with it: {shlex.join(ended.command)}")
    for line in ended.hints():
        say(line)


def say_best(console: Console, best: BestHyp, base: Hyp, hyp_file: Path) -> None:
    """Print the best hyp of a study that is not running: how fit it is, what it changed, where it lies."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in best.metrics.items())
    score, base_score = _scores(best)
    for line in (f"{best.study}: {score}", base_score, metrics):
        console.print(Text(line), soft_wrap=True)
    console.print(changes_table(base, best.hyp))
    console.print(Text(f"hyp file: {from_here(hyp_file)}"), soft_wrap=True)


def say_front(console: Console, front: Sequence[BestHyp], hyp_file: Path) -> None:
    """Print what a study with several goals found: each hyp that no other beats in all of them, and where it lies."""
    best = front[0]
    trials = f"{len(front)} trial{'s' if len(front) > 1 else ''}"
    console.print(Text(f"the front, which nothing beats in all of {', '.join(best.goals)}: {trials}"), soft_wrap=True)
    console.print(front_table(front))
    for what, file in (
        (f"hyp of the best {next(iter(best.goals))}", hyp_file),
        ("hyps of all", hyp_file.parent / "front"),
        ("as a table", hyp_file.parent / "front.csv"),
    ):
        console.print(Text(f"{what}: {from_here(file)}"), soft_wrap=True)


def _reached(outcome: Outcome) -> str:
    """The fitness, or what was reached in each goal."""
    reached: Mapping[str, float | None] = outcome.goals or {"fitness": outcome.fitness}
    return "  ".join(f"{name} {show_goal(name, value):>7}" for name, value in reached.items())


def say_decided(console: Console, decision: Decision, base: Hyp, hyp_file: Path) -> None:
    """Print what the last race of a study that is not running has decided, what its best hyp changed, where it lies."""
    console.print(Text(f"{decision.study}: {say_race(decision)}"), soft_wrap=True)
    say_decision(console, decision)
    if decision.verdict.winner is not None:
        console.print(changes_table(base, decision.hyp))
    console.print(Text(f"hyp file: {from_here(hyp_file)}"), soft_wrap=True)


def _scores(best: BestHyp | None) -> tuple[str, str]:
    """The best hyp's fitness, and that of the base it is measured against."""
    if best is None:
        return "no trial has completed yet", ""
    several = f", mean of {best.seeds} seeds" if best.seeds > 1 else ""
    against = "" if best.base is None else say_gain(best.fitness, best.base.fitness)
    return f"best {show_fitness(best.fitness)} (trial {best.number}{several}){against}", say_base(best.base)


def say_gain(best: float, base: float) -> str:
    """': +0.0409, +11.6 % against the base'."""
    if best == base:
        return ": nothing has beaten the base yet"
    share = f", {(best - base) / base:+.1%}".replace("%", " %") if base else ""
    return f": {best - base:+.4f}{share} against the base"


def say_base(score: Score | None) -> str:
    """'base 0.3512 ± 0.0102 (3 seeds)': the mean, and the standard deviation of a single training."""
    if score is None:
        return "base not known"
    spread = "" if score.sd is None else f" ± {show_fitness(score.sd)} ({score.seeds} seeds)"
    return f"base {show_fitness(score.fitness)}{spread}"


def _shares(standing: Standing, epochs: int) -> str:
    """How much was pruned, and the epochs that were run of those that the same trials had without pruning."""
    unfailed = standing.complete + standing.pruned
    share = standing.pruned / unfailed if unfailed else 0.0
    whole = unfailed * epochs
    saved = 1 - standing.epochs_run / whole if whole else 0.0
    pruned = f"pruned {share:.0%}; {standing.epochs_run} of {whole} epochs run, {max(saved, 0.0):.0%} saved"
    failed = f"; {standing.failed} failed" if standing.failed else ""
    return f"{pruned}{failed}".replace("%", " %")


def _counts(standing: Standing) -> str:
    return f"{standing.complete} complete, {standing.pruned} pruned, {standing.failed} failed"
