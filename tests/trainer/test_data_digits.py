"""The built-in data set is the same everywhere, honest about its splits, and an ordinary YOLO data set."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from trainer import DataError
from trainer.detection.data import digits, find_data, load_split

# Changes with VERSION or a dial, and never else.
GOLDEN = "c2747a3ac80041a066721e2a5a511ad8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits.materialise(tmp_path_factory.mktemp("cache")).parent


def fingerprint(folder: Path) -> str:
    """Of every file's name and bytes."""
    state = hashlib.blake2b(digest_size=16)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        state.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return state.hexdigest()


def test_every_byte_is_the_same_everywhere(folder: Path) -> None:
    assert fingerprint(folder) == GOLDEN


def test_no_handwriting_is_in_two_splits_and_each_split_has_every_class() -> None:
    splits = {split: digits.handwriting(split) for split in digits.SCENES}
    every = np.concatenate(list(splits.values()))
    assert sorted(every) == list(range(1797))
    classes = load_digits().target
    for split, samples in splits.items():
        shares = np.bincount(classes[samples], minlength=10) / np.bincount(classes, minlength=10)
        assert shares == pytest.approx(digits.SHARES[split], abs=0.01)


@pytest.mark.parametrize("split", digits.SCENES)
def test_scenes_keep_to_the_dials(split: str) -> None:
    scenes = digits.draw(split)
    dials = digits.DIFFICULTY
    assert len(scenes) == digits.SCENES[split]
    for scene in scenes:
        height, width = scene.pixels.shape[:2]
        assert dials.side[0] <= min(height, width) <= max(height, width) <= dials.side[1]
        assert 1 <= len(scene.classes) == len(scene.boxes) <= dials.digits[1]
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= (width, height)).all()
        assert (scene.boxes[:, 3] - scene.boxes[:, 1] <= dials.height[1] * 10 // 8).all()
    counts = np.bincount(np.concatenate([scene.classes for scene in scenes]), minlength=10)
    assert counts.min() > counts.max() / 2  # no class is rare


def test_boxes_are_tight_around_the_ink() -> None:
    """On a plain ground, the pixels that differ much from it lie inside the boxes and touch all their sides."""
    plain = digits.Difficulty(
        ground=(60, 60), gradient=0, blobs=0, stripes=0, strokes=(0, 0), noise=0, tint=0, overlap=0,
        contrast=(150, 150), opacity=(100, 100), digits=(1, 1),
    )  # fmt: skip
    for scene in digits.draw("val", plain):
        ys, xs = np.nonzero(np.abs(scene.pixels[..., 1].astype(int) - 60) >= 150 * digits.VISIBLE // 255)
        assert scene.boxes.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]


def test_it_is_an_ordinary_yolo_data_set(folder: Path) -> None:
    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert content["names"] == [str(i) for i in range(10)]
    scene = digits.draw("test")[5]
    with Image.open(folder / "images/test/0005.png") as image:
        assert (np.asarray(image) == scene.pixels).all()
    height, width = scene.pixels.shape[:2]
    rows = np.loadtxt(folder / "labels/test/0005.txt", ndmin=2)
    assert rows[:, 0].tolist() == scene.classes.tolist()
    corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1)
    assert corners * [width, height, width, height] == pytest.approx(scene.boxes, abs=1e-3)


def test_by_its_name_it_loads_without_a_problem(folder: Path) -> None:
    spec = find_data("digits", cache_dir=folder.parent)
    assert {split: len(files) for split, files in spec.splits.items()} == digits.SCENES
    assert load_split(spec, "val", 96, cache_dir=folder.parent).problems == ()


@pytest.mark.parametrize("harm", ["a picture is empty", "labels are gone", "killed while drawing"])
def test_what_is_not_whole_is_drawn_again(folder: Path, tmp_path: Path, harm: str) -> None:
    mine = tmp_path / folder.name
    shutil.copytree(folder, mine)
    if harm == "a picture is empty":
        os.truncate(mine / "images/train/0007.png", 0)
    elif harm == "labels are gone":
        shutil.rmtree(mine / "labels/val")
    else:
        mine.rename(tmp_path / f"{mine.name}.1234-abcd.part")
    assert digits.materialise(tmp_path) == mine / "data.yaml"
    assert fingerprint(mine) == fingerprint(folder)
    assert not list(tmp_path.glob("*.part"))


def test_a_cache_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"the cache folder .*file.* cannot be written .*: set EVOLVE_CACHE"):
        find_data("digits", cache_dir=tmp_path / "file" / "cache")
