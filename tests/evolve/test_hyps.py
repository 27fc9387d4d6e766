"""Hyp files of any trainer's kind, as the trainer that is to use them reads them."""

import pytest

from evolve.config import ConfigError
from evolve.hyps import read_hyp
from search_spaces import load_space

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
