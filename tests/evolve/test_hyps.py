"""Hyp files of any trainer's kind, as the trainer that is to use them reads them."""

from pathlib import Path

import pytest

from evolve.config import ConfigError
from evolve.hyps import option_hyps, read_hyp, settle, variants
from search_spaces import load_space
from trainer import TrainOptions
from trainer.detection.darknet import load_model
from trainer.detection.recipe import Recipe

YOLOV3 = "giou: 3.54\ncls: 37.4\nobj: 64.3\niou_t: 0.2\nlr0: 0.01\nlrf: 0.0005\nmomentum: 0.937\nhsv_h: 0.0138\n"


def test_a_hyp_file_of_an_older_trainer_is_read_in_todays_names(tmp_path):
    (tmp_path / "hyp.yaml").write_text(YOLOV3)
    read = read_hyp(str(tmp_path / "hyp.yaml"), "detection", "translate")
    assert set(read) == {"box", "cls", "obj", "lr0", "lrf", "momentum", "hsv_h", "warmup_momentum"}
    assert (round(read["box"], 3), round(read["obj"], 2), read["lrf"]) == (0.055, 1.0, 0.05)


def test_a_hyp_file_is_completed_by_the_trainers_own_values(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 0.02\niou_t: 0.3\n")
    assert read_hyp(str(tmp_path / "hyp.yaml"), "detection", "complete") == {
        **load_space("detection").defaults(),
        "lr0": 0.02,
        "iou_t": 0.3,
    }
    assert read_hyp(None, "detection", "complete") == load_space("detection").defaults()


def test_a_trainer_of_your_own_gets_a_hyp_file_as_it_stands(tmp_path):
    (tmp_path / "hyp.yaml").write_text("giou: 3.54\nany: 1\n")
    assert read_hyp(str(tmp_path / "hyp.yaml"), "toy:Toy", "complete") == {"giou": 3.54, "any": 1}
    assert read_hyp(None, "toy:Toy", "translate") == {}


@pytest.mark.parametrize("text", ["lr0: fast", "lr0: -1", "mosaic: true", "box: 0.05\ngiou: 3.54"])
def test_a_value_that_makes_no_sense_is_told_with_its_file(tmp_path, text):
    (tmp_path / "hyp.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^hyp\.yaml: "):
        read_hyp(str(tmp_path / "hyp.yaml"), "detection", "translate")


# hyps that stand for options

CHOICES = """\
model: {choices: [pico, nano], default: pico}
imgsz: {low: 64, high: 128, step: 32, default: 96}
lr0: {low: 0.001, high: 0.1, default: 0.01}
"""
NAMES = ("model", "imgsz")


def space_of(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    return load_space(tmp_path / "space.yaml")


def test_model_and_image_size_in_a_hyp_are_options_of_the_built_in_trainer_and_of_no_other(tmp_path):
    space = space_of(tmp_path, CHOICES)
    assert option_hyps(space, "detection") == NAMES
    assert option_hyps(space, "toy:ToyTrainer") == ()
    assert option_hyps(load_space("detection"), "detection") == ()
    rest, options = settle({"model": "nano", "imgsz": 64, "lr0": 0.02}, TrainOptions(epochs=7), NAMES)
    assert rest == {"lr0": 0.02}
    assert options == TrainOptions(model="nano", imgsz=64, epochs=7)


def test_every_training_that_a_space_allows_is_known_before_the_first_and_the_bases_comes_last(tmp_path):
    found = variants(space_of(tmp_path, CHOICES), TrainOptions(), NAMES)
    sizes = {(options.model, options.imgsz) for options in found}
    assert sizes == {(model, imgsz) for model in ("pico", "nano") for imgsz in (64, 96, 128)}
    assert len(found) == 6
    assert (found[-1].model, found[-1].imgsz) == ("pico", 96)
    assert variants(load_space("detection"), TrainOptions(), ()) == [TrainOptions()]
    pinned = space_of(tmp_path, "imgsz: 64\nlr0: {low: 0.001, high: 0.1, default: 0.01}\n")
    assert variants(pinned, TrainOptions(), NAMES) == [TrainOptions(imgsz=64)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("imgsz: {low: 64, high: 128, default: 96}", "give choices, or low, high and step of whole numbers"),
        (
            "imgsz: {choices: [small, large], default: small}",
            "stands for --imgsz and is 'small'; expected a whole number",
        ),
        ("model: 3", "stands for --model and is 3; expected a text"),
    ],
)
def test_a_value_that_is_none_of_the_option_is_told(tmp_path, line, told):
    space = space_of(tmp_path, f"{line}\nlr0: {{low: 0.001, high: 0.1, default: 0.01}}\n")
    with pytest.raises(ConfigError, match=told):
        variants(space, TrainOptions(), NAMES)


def test_a_hyp_file_may_hold_them(tmp_path):
    (tmp_path / "hyp.yaml").write_text("model: nano\nlr0: 0.02\n")
    read = read_hyp(str(tmp_path / "hyp.yaml"), "detection", "complete")
    assert read == {"model": "nano", **load_space("detection").defaults(), "lr0": 0.02}


def test_the_space_of_the_documents_can_be_searched():
    space = load_space(Path(__file__).parents[2] / "docs" / "tradeoff.yaml")
    names = option_hyps(space, "detection")
    assert names == NAMES
    rest, _ = settle(space.defaults(), TrainOptions(), names)
    assert {name: vars(Recipe())[name] for name in rest} == rest
    strides = {load_model(model, nc=1).stride for model in space["model"].choices}
    assert all(options.imgsz % stride == 0 for options in variants(space, TrainOptions(), names) for stride in strides)
