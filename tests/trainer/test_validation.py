"""A file of weights scores what its model scored, and what does not fit is refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.api import DataError, TrainJob, TrainOptions
from trainer.detection.checkpoint import describe, save_checkpoint
from trainer.detection.darknet import Darknet, load_model, read_cfg
from trainer.detection.data import find_data, load_split
from trainer.detection.detect import detect
from trainer.detection.evaluate import score
from trainer.detection.recipe import Recipe
from trainer.detection.validation import labels_by_picture, score_split, validate
from trainer.detection.weights import save_darknet_weights
from trainer.progress import listening

NAMES = ("bright", "dark")


@dataclass(frozen=True)
class World:
    """A data set of four pictures a split, an untrained model and its checkpoint."""

    data: Path
    model: Darknet
    checkpoint: Path


def write_data(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            (folder / "labels" / split / f"{index}.txt").write_text(f"{index % len(names)} 0.5 0.5 0.4 0.5\n")
    yaml = folder / "data.yaml"
    yaml.write_text(f"train: images/train\nval: images/val\nnames: {list(names)}\n")
    return yaml


def write_checkpoint(path: Path, model: Darknet, data: Path, names: tuple[str, ...] = NAMES, **options: object) -> Path:
    job = TrainJob({}, TrainOptions(data=str(data), model="pico", imgsz=64, amp="off", **options), path.parent)  # type: ignore[arg-type]
    content = describe(model, job, Recipe(), cfg=read_cfg("pico"), names=names, digest="")
    save_checkpoint(path, content, model, None)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("world")
        data = write_data(folder)
        torch.manual_seed(0)
        model = load_model("pico", len(NAMES), np.full((6, 2), 20.0)).eval()
        yield World(data, model, write_checkpoint(folder / "best.pt", model, data))


def test_a_split_is_scored_by_what_is_detected(world: World) -> None:
    split = load_split(find_data(str(world.data)), "val", 64)
    expected = score(detect(world.model, split), labels_by_picture(split), 2)
    np.testing.assert_array_equal(score_split(world.model, split, 2)[0].ap, expected.ap)


def test_it_is_told_how_many_pictures_are_scored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.progress.EVERY_S", 0.0)
    told: list[tuple[str, int, int | None]] = []
    with listening(lambda *one: told.append(one)):
        validate(world.checkpoint, batch=3)
    assert [one for one in told if one[0] == "scoring"] == [("scoring", 3, 4), ("scoring", 4, 4)]


def test_labels_of_a_picture_are_those_of_its_file(world: World) -> None:
    labels = labels_by_picture(load_split(find_data(str(world.data)), "val", 64))
    assert [rows[:, 0].tolist() for rows in labels] == [[0], [1], [0], [1]]
    np.testing.assert_allclose(labels[0][0, 1:], [0.3 * 64, 10, 0.7 * 64, 30], atol=1e-4)


def test_a_checkpoint_scores_what_its_model_scored(world: World) -> None:
    report = validate(world.checkpoint)
    split = load_split(find_data(str(world.data)), "val", 64)
    np.testing.assert_array_equal(report.scores.ap, score_split(world.model, split, 2)[0].ap)
    assert (report.data, report.split, report.imgsz, report.names) == (str(world.data), "val", 64, NAMES)
    assert len(report.detections) == len(report.pictures.images) == 4
    assert report.scores.boxes.tolist() == [2, 2]


def test_what_is_asked_for_goes_before_what_the_checkpoint_says(world: World, tmp_path: Path) -> None:
    other = write_data(tmp_path)
    report = validate(world.checkpoint, data=str(other), split="train", imgsz=32, conf=0.5)
    assert (report.data, report.split, report.imgsz) == (str(other), "train", 32)
    assert all((rows[:, 4] > 0.5).all() for rows in report.detections)


def test_a_detector_of_any_object_takes_all_classes_for_one(world: World, tmp_path: Path) -> None:
    model = load_model("pico", 1, np.full((6, 2), 20.0)).eval()
    single = write_checkpoint(tmp_path / "best.pt", model, world.data, ("object",), single_cls=True)
    assert validate(single).scores.boxes.tolist() == [4]


def test_darknet_weights_are_scored_with_the_cfg_that_they_are_for(world: World, tmp_path: Path) -> None:
    model = load_model("pico", 2).eval()
    save_darknet_weights(model, tmp_path / "pico.weights")
    report = validate(tmp_path / "pico.weights", model="pico", data=str(world.data), imgsz=64)
    split = load_split(find_data(str(world.data)), "val", 64)
    np.testing.assert_array_equal(report.scores.ap, score_split(model, split, 2)[0].ap)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": -1}, "batch cannot be negative, got -1"),
        ({"conf": 1.5}, r"conf must lie in \[0, 1\], got 1.5"),
        ({"iou": -1.0}, r"iou must lie in \[0, 1\], got -1"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"imgsz": 50}, "imgsz must be a multiple of 16 for this model, got 50"),
        ({"split": "test"}, "no split 'test'"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"model": "pico"}, "data, what to score it on, must be given"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(world: World, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        validate(world.checkpoint, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_other_classes_than_those_of_the_training_are_refused(world: World, tmp_path: Path) -> None:
    other = write_data(tmp_path, ("dark", "bright"))
    with pytest.raises(DataError, match=r"detects 2 classes \(bright, dark\), but .* has 2 classes \(dark, bright\)"):
        validate(world.checkpoint, data=str(other))


def test_weights_whose_heads_are_for_other_classes_are_refused(world: World, tmp_path: Path) -> None:
    save_darknet_weights(load_model("pico", 5), tmp_path / "pico.weights")
    with pytest.raises(DataError, match="is not whole"):
        validate(tmp_path / "pico.weights", model="pico", data=str(world.data), imgsz=64)


def test_darknet_weights_alone_say_too_little(tmp_path: Path) -> None:
    save_darknet_weights(load_model("pico", 5), tmp_path / "pico.weights")
    with pytest.raises(DataError, match=r"model, the cfg .* and data, .* must be given"):
        validate(tmp_path / "pico.weights")


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "best.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"best\.pt"):
        validate(path)


@pytest.mark.parametrize("key", ["weights", "options", "cfg"])
def test_a_checkpoint_that_lacks_something_is_refused(world: World, tmp_path: Path, key: str) -> None:
    content = torch.load(world.checkpoint, weights_only=True)
    torch.save({**content, key: {} if key != "cfg" else "[net]"}, tmp_path / "best.pt")
    with pytest.raises(DataError, match=r"best\.pt is no whole checkpoint"):
        validate(tmp_path / "best.pt")
