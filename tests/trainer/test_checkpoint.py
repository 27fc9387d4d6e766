"""Checkpoints: all or nothing on disk, and nothing in them that could run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainer.api import DataError
from trainer.detection.checkpoint import read_checkpoint, read_training, strip, write_checkpoint
from trainer.detection.provenance import find_commit, find_provenance

CONTENT = {"weights": {"a": torch.ones(3)}, "cfg": "", "names": ["x"], "options": {}, "hyp": {}}


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({**CONTENT, "bomb": Bomb(tmp_path / "gone-off")}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="is no checkpoint"):
        read_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "gone-off").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 nor a zip"])
def test_what_is_no_checkpoint_is_said_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.pt is no checkpoint of this trainer") as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.pt", {**CONTENT, "weights": {"a": torch.ones(10_000)}})
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.pt is no checkpoint of this trainer"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_foreign_checkpoint_is_told_what_it_lacks(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="lacks weights, cfg"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_checkpoint(path, CONTENT)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"pickle|local"):
        write_checkpoint(path, {"unpicklable": lambda: None})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def test_stripping_drops_what_only_resuming_needs(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(path, {**CONTENT, "training": {"optimizer": torch.zeros(100_000)}})
    assert read_training(path)["training"]["optimizer"].shape == (100_000,)
    size = path.stat().st_size
    strip(path)
    assert path.stat().st_size < size / 10
    assert "training" not in read_checkpoint(path)
    with pytest.raises(DataError, match="finished training"):
        read_training(path)


def test_a_checkpoint_knows_the_versions_it_was_made_with() -> None:
    assert {"python", "torch", "torchvision", "numpy"} <= find_provenance().keys()


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert find_commit(tmp_path) == ""
