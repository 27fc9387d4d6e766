"""Which numbers a training computes in: measured once, remembered, and refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainer.api import DataError
from trainer.detection.darknet import Darknet, load_model
from trainer.detection.precision import Precision, choose_precision, time_precisions

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Darknet:
    return load_model("pico", nc=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOLVE_CACHE", str(tmp_path))
    return tmp_path / "precision"


def test_a_precision_that_is_asked_for_is_taken(model: Darknet, cache: Path) -> None:
    assert choose_precision("off", model, 32, 2, CPU) == Precision(torch.float32)
    assert choose_precision("bf16", model, 32, 2, CPU) == Precision(torch.bfloat16)
    assert not cache.exists()


def test_what_was_measured_holds_ever_after(model: Darknet, cache: Path) -> None:
    first = choose_precision("auto", model, 32, 2, CPU)
    (answer,) = cache.iterdir()
    found = json.loads(answer.read_text())
    assert first.dtype == {"bf16": torch.bfloat16, "off": torch.float32}[found["amp"]]
    other = "off" if found["amp"] == "bf16" else "bf16"
    answer.write_text(json.dumps({"amp": other}))
    assert choose_precision("auto", model, 32, 2, CPU) != first
    choose_precision("auto", model, 64, 2, CPU)
    assert len(list(cache.iterdir())) == 2  # another size is another question


def test_a_spoilt_answer_is_measured_again(model: Darknet, cache: Path) -> None:
    choose_precision("auto", model, 32, 2, CPU)
    (answer,) = cache.iterdir()
    answer.unlink()
    answer.write_text("{")
    assert choose_precision("auto", model, 32, 2, CPU).dtype in (torch.float32, torch.bfloat16)


def test_measuring_leaves_the_model_and_the_random_numbers_as_they_were(model: Darknet) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    torch.manual_seed(7)
    seconds = time_precisions(model, 32, 2)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert all(value > 0 for value in seconds.values()) and set(seconds) == {"off", "bf16"}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("amp", "said"), [("fp16", "needs a GPU"), ("half", "auto, bf16, fp16, off")])
def test_what_cannot_be_is_refused(amp: str, said: str, model: Darknet) -> None:
    with pytest.raises(DataError, match=said):
        choose_precision(amp, model, 32, 2, CPU)
