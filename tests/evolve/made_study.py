"""A study in its run folder as `evolve run` leaves one, made of drawn numbers: of any size in a moment."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from evolve.config import dump_config, resolve_config
from evolve.paths import RunPaths
from search_spaces import load_space
from studies import build_pruner, build_sampler, open_study, sqlite_url, trials_of
from studies.study import CONFIG
from studies.trials import EPOCHS, FAILURE, METRICS, OPERATOR, PARENTS, SEED

SPACE = """\
lr0: {low: 1.0e-4, high: 0.5, default: 0.0005, log: true}
momentum: {low: 0.0, high: 0.95, default: 0.5}
weight_decay: {low: 0.0, high: 0.01, default: 0.0}
"""
LENGTH = 6  # epochs
WHY = "no answer from postgresql://me:secret@db/digits"


def make_study(
    runs: Path, trials: int, *, name: str = "points", objective: str = "fitness", storage: str | None = None
) -> tuple[RunPaths, Study]:
    """A study of so many trials: complete and pruned ones, every eleventh failed, two pictures of the best.

    Of several goals the second is a cost.
    """
    paths = RunPaths(runs / name)
    paths.root.mkdir(parents=True)
    paths.space.write_text(SPACE)
    asked: dict[str, Any] = {"trainer": "toy:ToyTrainer", "data": "points", "space": str(paths.space), "epochs": LENGTH}
    config = resolve_config({**asked, "study": name, "runs": str(runs), "storage": storage, "objective": objective})
    paths.config.write_text(dump_config(config), encoding="utf-8")
    space = load_space(config.space)
    goals = {"fitness": "maximize"} if objective == "fitness" else {"map50_95": "maximize", "latency_ms": "minimize"}
    study = open_study(
        name,
        storage or sqlite_url(paths.database),
        sampler=build_sampler("random", space, seed=0),
        pruner=build_pruner("none", epochs=LENGTH, warmup_epochs=0),
        identity={"space": space.to_dict(), "fitness": config.fitness, "epochs": LENGTH, "trainer": config.trainer},
        base=space.defaults(),
        base_seeds=0,
        goals=goals,  # type: ignore[arg-type]
    )
    study.set_user_attr(CONFIG, dump_config(config))
    for number in range(trials):
        study.add_trial(drawn(number, len(goals)))
    complete = [trial for trial in trials_of(study) if trial.state == TrialState.COMPLETE]
    if complete:
        best = max(complete, key=lambda trial: trial.values[0]).number
        paths.best_hyp.parent.mkdir()
        paths.best_hyp.write_text("lr0: 0.01\n")
        paths.trial(best).mkdir(parents=True)
        paths.metrics(best).write_text("{}\n")
        Image.new("RGB", (64, 48), "teal").save(paths.trial(best) / "val.png")
        (paths.trial(best) / "page.html").write_text("<script>document.title = 'ran'</script>")
    return paths, study


def drawn(number: int, goals: int) -> optuna.trial.FrozenTrial:
    """The trial of that number, by numbers drawn for it."""
    dice = random.Random(number)
    hyp = {
        "lr0": 10 ** dice.uniform(-4, -0.4),
        "momentum": dice.uniform(0, 0.95),
        "weight_decay": dice.uniform(0, 0.01),
    }
    if number < 2:
        hyp = {"lr0": 0.0005, "momentum": 0.5, "weight_decay": 0.0}
    height = 1 - 0.2 * abs(math.log10(hyp["lr0"] / 0.02)) + dice.gauss(0, 0.02)
    failed, pruned = number % 11 == 7, number % 3 == 2
    ran = 2 if failed or pruned else LENGTH
    curve = {epoch: height * (1 - math.exp(-epoch / 2)) for epoch in range(1, ran + 1)}
    noted = {
        SEED: number,
        EPOCHS: ran,
        OPERATOR: "drawn",
        **({PARENTS: [number - 1 - number % 2]} if number > 2 else {}),
        **({"base": True} if number < 2 else {}),
        **(
            {FAILURE: "no answer from postgresql://me:secret@db/digits"} if failed else {METRICS: {"map50": curve[ran]}}
        ),
    }
    ended = not failed and not pruned
    return create_trial(
        state=TrialState.COMPLETE if ended else TrialState.FAIL if failed else TrialState.PRUNED,
        values=[curve[ran], 1 + hyp["momentum"]][:goals] if ended else None,
        params=hyp,
        distributions={
            "lr0": FloatDistribution(1e-4, 0.5, log=True),
            "momentum": FloatDistribution(0, 0.95),
            "weight_decay": FloatDistribution(0, 0.01),
        },
        intermediate_values=curve,
        user_attrs=noted,
    )
