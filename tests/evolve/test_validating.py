"""evolve val: a file of weights is scored and told of, and what cannot be scored costs one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from evolve.cli import cli
from trainer import TrainJob, TrainOptions
from trainer.detection.checkpoint import describe, save_checkpoint
from trainer.detection.darknet import load_model, read_cfg
from trainer.detection.recipe import Recipe

NAMES = ["bright [bold]", "dark"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An untrained detector's checkpoint, and the four pictures of its data set."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            (folder / "labels" / split / f"{index}.txt").write_text(f"{index % 2} 0.5 0.5 0.4 0.5\n")
    data = folder / "data.yaml"
    data.write_text(f"train: images/train\nval: images/val\nnames: {NAMES}\n")
    torch.manual_seed(0)
    model = load_model("pico", 2, np.full((6, 2), 20.0))
    job = TrainJob({}, TrainOptions(data=str(data), model="pico", imgsz=64, amp="off"), folder)
    described = describe(model, job, Recipe(), cfg=read_cfg("pico"), names=tuple(NAMES), digest="")
    save_checkpoint(folder / "best.pt", described, model, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder / "best.pt"


def val(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["val", *map(str, arguments)])


def test_scores_of_all_classes_and_of_each_are_shown(weights: Path) -> None:
    result = val("--weights", weights)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "on val of" in lines[0] and lines[0].endswith("4 pictures at 64 px")
    assert lines[1].split() == ["class", "boxes", "precision", "recall", "F1", "mAP50", "mAP50-95"]
    assert [line.split("  ")[0] for line in lines[2:5]] == ["all", "bright [bold]", "dark"]
    assert lines[5].startswith("precision, recall and F1 at confidence")
    assert [step in lines[6] for step in ("preprocess", "inference", "suppression")] == [True] * 3


def test_json_holds_the_same_and_nothing_else_is_printed(weights: Path) -> None:
    content = json.loads(val("--weights", weights, "--split", "train", "--json").output)
    assert (content["split"], content["imgsz"], content["pictures"], content["boxes"]) == ("train", 64, 4, 4)
    assert [of_class["class"] for of_class in content["classes"]] == NAMES
    for name in ("precision", "recall", "f1", "map50", "map50_95"):
        mean = np.mean([of_class[name] for of_class in content["classes"]])
        assert content[name] == pytest.approx(mean)
    assert set(content["milliseconds"]) == {"preprocess", "inference", "suppression"}


def test_what_is_asked_for_reaches_the_scoring(weights: Path) -> None:
    content = json.loads(val("--weights", weights, "--imgsz", 32, "--conf", 0.999, "--json").output)
    assert (content["imgsz"], content["map50"], content["confidence"]) == (32, 0, 0)


def test_plots_are_left_in_the_folder_that_was_named(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)  # it would start a browser
    result = val("--weights", weights, "--plots", tmp_path / "plots")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plots" / "index.html").exists()
    assert result.output.splitlines()[-1] == f"figures: {tmp_path / 'plots' / 'index.html'}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--weights", "{weights}", "--data", "nowhere.yaml"], "nowhere.yaml"),
        (["--weights", "{weights}", "--imgsz", "50"], "imgsz must be a multiple of 16"),
        (["--weights", "{weights}", "--iou", "2"], "iou must lie in [0, 1], got 2"),
        (["--weights", "{weights}", "--split", "test"], "no split 'test'"),
        (["--weights", "some.weights"], "some.weights cannot be read"),
        (["--weights", "http://127.0.0.1:1/x.pt"], "http://127.0.0.1:1/x.pt"),
    ],
)
def test_what_cannot_be_scored_costs_one_sentence_and_exit_code_2(
    weights: Path, arguments: list[str], sentence: str
) -> None:
    result = val(*(argument.format(weights=weights) for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("evolve: error: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_weights_have_to_be_named() -> None:
    result = val()
    assert result.exit_code == 2
    assert "--weights" in result.stderr
