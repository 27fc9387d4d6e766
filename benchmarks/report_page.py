"""Measures `evolve report`: seconds and megabytes for studies of 1, 300 and 1000 trials of 27 hyps, 10 epochs each.

`--browser` opens the pages in chromium (selenium, chromedriver), and tells when the last picture is drawn. `--bundle`
has them drawn by another build of Plotly, as plotly.js-basic-dist-min: would a smaller one do?
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.report import ROOT, header, print_now, table
from evolve.config import dump_config, resolve_config
from evolve.paths import RunPaths
from search_spaces import Space, load_space
from studies import build_pruner, build_sampler, distribution, open_study, sqlite_url
from studies.study import CONFIG
from studies.trials import BASE, EPOCHS, METRICS, OPERATOR, PARENTS, SEED, WORKER

LENGTH = 10  # epochs
BEGAN = datetime(2025, 1, 1)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 300, 1000], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="The quickest counts.")
    parser.add_argument("--browser", action="store_true", help="Open them in chromium, too.")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="Another plotly.min.js.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="Leave the pages there.")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    asked = build_parser().parse_args(argv)
    print_now(header(__file__, argv, [0]))
    rows = []
    with tempfile.TemporaryDirectory(prefix="evolve-report-") as folder:
        for trials in asked.trials:
            paths = make_study(Path(folder), trials)
            timed = [render(paths) for _ in range(asked.repeats)]
            page = paths.report
            if asked.bundle:
                exchange_bundle(page, asked.bundle)
            drawn = (open_in_browser(page),) if asked.browser else ()
            rows.append((trials, *map(min, zip(*timed, strict=True)), page.stat().st_size / 1e6, *drawn))
            if asked.keep:
                asked.keep.mkdir(parents=True, exist_ok=True)
                (asked.keep / f"{trials}.html").write_bytes(page.read_bytes())
    seen = ("drawn in the browser, s",) if asked.browser else ()
    print_now(table(("trials", "seconds", "of these CPU", "MB", *seen), rows))
    return 0


def make_study(runs: Path, trials: int) -> RunPaths:
    """A study of the default space in its run folder: half of the trials are pruned, each was made from a good one."""
    name = f"of{trials}"
    paths = RunPaths(runs / name)
    paths.root.mkdir()
    config = resolve_config({"study": name, "runs": str(runs), "epochs": LENGTH})
    paths.config.write_text(dump_config(config), encoding="utf-8")
    space = load_space(config.space)
    study = open_study(
        name,
        sqlite_url(paths.database),
        sampler=build_sampler("random", space, seed=0),
        pruner=build_pruner("none", epochs=LENGTH, warmup_epochs=0),
        identity={"space": space.to_dict(), "fitness": config.fitness, "epochs": LENGTH, "trainer": config.trainer},
        base=space.defaults(),
        base_seeds=0,
    )
    study.set_user_attr(CONFIG, dump_config(config))
    study.add_trials(draw_trials(space, trials))
    return paths


def draw_trials(space: Space, count: int) -> list[FrozenTrial]:
    """A search that gets better: each trial is a step from one of the best ten so far."""
    rng = np.random.default_rng(0)
    good: list[tuple[float, int, dict[str, float]]] = []
    found = []
    for number in range(count):
        parent = good[int(rng.integers(min(10, len(good))))] if number > 2 else None
        at = parent[2] if parent else {param.name: param.to_unit(param.default) for param in space.evolving}
        steps = rng.normal(0, 0.08, len(space.evolving)) * (rng.random(len(space.evolving)) < 0.5) * (number > 2)
        moved = np.clip(np.array([*at.values()]) + steps, 0, 1).tolist()
        units = dict(zip(at, moved, strict=True))
        away = math.sqrt(math.fsum((place - 0.4) ** 2 for place in units.values()) / len(units))
        height = 0.7 - away + rng.normal(0, 0.01)
        pruned = number > 2 and bool(good) and height < good[len(good) // 2][0]
        ran = int(rng.integers(2, 6)) if pruned else LENGTH
        curve = {epoch: float(height * (1 - math.exp(-epoch / 3)) + rng.normal(0, 0.01)) for epoch in range(1, ran + 1)}
        if not pruned:
            good = sorted([*good, (curve[ran], number, units)], key=lambda one: -one[0])
        hyp = {**space.defaults(), **{name: space[name].from_unit(place) for name, place in units.items()}}
        start = BEGAN + timedelta(seconds=10 * number)
        trial = create_trial(
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            value=None if pruned else curve[ran],
            params={param.name: hyp[param.name] for param in space.params},
            distributions={param.name: distribution(param) for param in space.params},
            intermediate_values=curve,
            user_attrs={
                SEED: number,
                EPOCHS: ran,
                METRICS: {"precision": 0.8, "recall": 0.7, "map50": curve[ran], "map50_95": curve[ran] / 2},
                WORKER: {"host": "machine", "pid": 1000 + number % 4, "started": ""},
                **({BASE: True} if parent is None else {PARENTS: [parent[1]], OPERATOR: "step"}),
            },
        )
        trial.datetime_start, trial.datetime_complete = start, start + timedelta(seconds=ran)
        found.append(trial)
    return found


def render(paths: RunPaths) -> tuple[float, float]:
    """The seconds that `evolve report` takes in a process of its own, and those of computing among them."""
    before, began = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "evolve", "report", str(paths.root)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = os.times()
    computing = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, computing


def exchange_bundle(page: Path, bundle: Path) -> None:
    """Have a page drawn by another build of Plotly."""
    from plotly.offline import get_plotlyjs

    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(get_plotlyjs(), bundle.read_text(encoding="utf-8")), encoding="utf-8")


def open_in_browser(page: Path) -> float:
    """After how many seconds the last picture is drawn. Raises AssertionError if one has an error, or nothing in it."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        began = time.perf_counter()
        driver.get(page.as_uri())
        WebDriverWait(driver, 300, 0.05).until(
            lambda driver: driver.execute_script("return document.documentElement.dataset.drawn === 'all'")
        )
        seconds = time.perf_counter() - began
        bare = driver.execute_script(
            "return [...document.querySelectorAll('.plot')].filter((plot) => plot.data.length >"
            " plot.querySelectorAll('.trace').length).map((plot) => plot.id)"
        )
        assert not bare, f"not all is drawn in {', '.join(bare)}"
        assert not (errors := [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]), errors
        return seconds
    finally:
        driver.quit()


if __name__ == "__main__":
    raise SystemExit(main())
