"""Studies with the ultralytics package: their space suits short trainings, and what it ignores ends them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from small_world import TOY, World

from evolve.config import resolve_config
from evolve.opening import space_of
from search_spaces import load_hyp

TOLD = ("--trainer", "ultralytics", "--imgsz", "64", "--batch", "4", "--race", "0", "--base-seeds", "1")


@pytest.mark.parametrize(("epochs", "bounds"), [(10, (0, 2)), (30, (0, 6)), (100, (0, 10)), (5, (0, 1))])
def test_close_mosaic_spans_a_fifth_of_a_training_at_most(epochs: int, bounds: tuple[int, int]):
    space = space_of(resolve_config({"trainer": "ultralytics", "data": "cells.yaml", "epochs": epochs}))
    assert space["close_mosaic"].bounds == bounds
    assert space["close_mosaic"].default == bounds[1]


def test_close_mosaic_is_off_in_the_shortest_and_what_set_says_goes():
    short = space_of(resolve_config({"trainer": "ultralytics", "epochs": 3}))
    assert short.fixed["close_mosaic"] == 0
    told = space_of(resolve_config({"trainer": "ultralytics", "epochs": 3, "set": {"close_mosaic": 7}}))
    assert told.fixed["close_mosaic"] == 7
    ours = space_of(resolve_config({"space": "ultralytics", "epochs": 3}))
    assert ours["close_mosaic"].bounds == (0, 10), "a space alone says nothing of who trains"


@pytest.fixture
def drawn(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The small world with a data.yaml of a few drawn pictures."""
    monkeypatch.syspath_prepend(TOY)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(world.folder))
    from drawn_data import draw, yolo_line

    for split, count in (("train", 4), ("val", 2)):
        (world.folder / "cells" / "labels" / split).mkdir(parents=True)
        for number in range(count):
            draw(world.folder / "cells" / "images" / split / f"{number}.png", number, (64, 64))
            labels = world.folder / "cells" / "labels" / split / f"{number}.txt"
            labels.write_text(yolo_line((0, 8, 8, 40, 48), (64, 64)))
    told = {"path": str(world.folder / "cells"), "train": "images/train", "val": "images/val", "names": {0: "cell"}}
    (world.folder / "cells" / "data.yaml").write_text(yaml.safe_dump(told))
    return world


def test_a_study_leaves_hyps_as_the_package_takes_them(drawn: World):
    result = drawn.evolve("run", *TOLD, "--data", "cells/data.yaml", "--epochs", "1", "--generations", "2")
    assert result.exit_code == 0, result.output
    base, child = drawn.trials("cells")
    assert {base.state.name, child.state.name} == {"COMPLETE"}
    assert base.params != child.params
    best = load_hyp(drawn.folder / "runs/cells/best/hyp.yaml")
    assert (best["optimizer"], best["close_mosaic"]) == ("AdamW", 0)
    (used,) = Path(drawn.folder, "runs/cells/trials/00001").glob("train/args.yaml")
    told = yaml.safe_load(used.read_text())
    assert {name: told[name] for name in child.params} == child.params


def test_a_hyp_that_it_trains_without_ends_the_study_with_its_name(drawn: World, monkeypatch: pytest.MonkeyPatch):
    (drawn.folder / "ignoring.py").write_text(
        "import trainer.ultralytics_yolo as yolo\n"
        "class Ignoring(yolo.UltralyticsTrainer):\n"
        "    def train(self, job):\n"
        "        yolo.check_used(self._trainer_of(job), yolo.arguments_of(job, job.workdir))\n"
        "        yield\n"
        "    def _trainer_of(self, job):\n"
        "        from types import SimpleNamespace as Name\n"
        "        told = {**job.hyp, 'degrees': 0.5}\n"
        "        group = {'initial_lr': job.hyp['lr0']}\n"
        "        return Name(args=Name(**told), optimizer=type('AdamW', (), {'param_groups': [group]})())\n"
    )
    monkeypatch.syspath_prepend(drawn.folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(drawn.folder), os.environ.get("PYTHONPATH", "")]))
    result = drawn.evolve(
        *("run", "--trainer", "ignoring:Ignoring", "--space", "ultralytics", "--schedule", "linear"),
        *("--data", "cells/data.yaml", "--model", "yolov8n.yaml", "--epochs", "1", "--generations", "5"),
    )
    assert result.exit_code == 2, result.output
    assert "ultralytics trains with degrees 0.5, and was told 0.0" in result.stderr
    assert not any(trial.state.name == "COMPLETE" for trial in drawn.trials("cells"))
