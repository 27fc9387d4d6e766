"""Hyp files of any trainer, recognised by their content, imported, and taken by --hyp."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml
from format_golden import GOLDEN, HYP
from small_world import World

from evolve.config import ConfigError, resolve_config
from evolve.dialects import DIALECTS
from evolve.formats import FORMATS, READABLE
from evolve.hyp_files import read_hyp_file
from evolve.hyps import read_hyp
from evolve.importing import import_hyp
from evolve.opening import space_of
from search_spaces import SpaceError, dump_hyp, load_space

YOLOV5_V1 = {
    "lr0": 0.01, "momentum": 0.937, "weight_decay": 0.0005, "giou": 0.05, "cls": 0.58, "cls_pw": 1.0, "obj": 1.0,
    "obj_pw": 1.0, "iou_t": 0.2, "anchor_t": 4.0, "fl_gamma": 0.0, "hsv_h": 0.014, "hsv_s": 0.68, "hsv_v": 0.36,
    "degrees": 0.0, "translate": 0.0, "scale": 0.5, "shear": 0.0,
}  # fmt: skip
ULTRALYTICS = load_space("ultralytics").defaults()
OPTIONS = {  # of an args.yaml, which has a hundred
    "task": "detect", "mode": "train", "model": "yolo11n.pt", "data": "coco8.yaml", "epochs": 100, "time": None,
    "freeze": None, "classes": [0, 1], "imgsz": 640, "amp": True, "tracker": "botsort.yaml", "save_dir": "runs/x",
    "nbs": 64, "label_smoothing": 0.0,
}  # fmt: skip
ARGS = {**OPTIONS, **ULTRALYTICS, "warmup_bias_lr": 0.1}
COMMAND = "yolo detect train model='my yolo.pt' lr0=0.01 dfl=1.5  # tuned"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


FILES = {
    "ours": ("hyp.yaml", dump_hyp(HYP), "evolve", "label_smoothing"),
    "ours as JSON": ("hyp.json", json.dumps(HYP), "evolve", "label_smoothing"),
    "JSON with tabs": ("hyp.json", json.dumps(HYP, indent="\t"), "evolve", "label_smoothing"),
    "YOLOv3": ("hyp.txt", "".join(f"{value} # x\n" for value in load_space("yolov3").defaults().values()), "yolov3",
               "18 numbers"),
    "YOLOv3 on one line": ("hyp.txt", " ".join(map(str, load_space("yolov3").defaults().values())), "yolov3",
                           "18 numbers"),
    "YOLOv3 as YAML": ("hyp.yaml", dump_hyp(load_space("yolov3").defaults()), "yolov3", "giou"),
    "YOLOv5 v1.0": ("hyp.txt", "\n".join(map(str, YOLOV5_V1.values())), "yolov5",
                    "18 numbers, the tenth being at least 1: an anchor_t"),
    "YOLOv5 v3.0": ("hyp.yaml", dump_hyp(YOLOV5_V1), "yolov5", "giou"),
    "YOLOv5": ("hyp.yaml", dump_hyp(load_space("yolov5").defaults()), "yolov5", "iou_t"),
    "YOLOv7": ("hyp.yaml", dump_hyp(load_space("yolov7").defaults()), "yolov7", "paste_in"),
    "Ultralytics' tuner": ("best_hyperparameters.yaml", dump_hyp(ULTRALYTICS), "ultralytics", "dfl"),
    "Ultralytics' args.yaml": ("args.yaml", yaml.safe_dump(ARGS, sort_keys=False), "ultralytics", "task and mode"),
    "Ultralytics' command": ("train.sh", COMMAND, "ultralytics", "words such as lr0=0.01"),
    "words": ("hyp.txt", "# best\nlr0=1e-3\nmomentum=0.9\n", "ultralytics", "words such as lr0=0.01"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "dialect", "told_by"), FILES.values(), ids=FILES.keys())
def test_a_file_is_known_by_its_content(tmp_path, name, text, dialect, told_by):
    read = read_hyp_file(write(tmp_path, name, text))
    assert (read.dialect, read.told_by) == (DIALECTS[dialect], told_by)


def test_of_an_args_yaml_only_hyps_are_looked_at(tmp_path):
    read = read_hyp_file(write(tmp_path, "args.yaml", yaml.safe_dump(ARGS)))
    assert read.hyp == {**ULTRALYTICS, "warmup_bias_lr": 0.1}
    assert set(read.options) == OPTIONS.keys()


def test_of_a_command_line_only_hyps_are_looked_at(tmp_path):
    read = read_hyp_file(write(tmp_path, "train.sh", COMMAND))
    assert (read.hyp, read.options) == ({"lr0": 0.01, "dfl": 1.5}, ("model",))


def test_an_import_says_no_more_than_the_file(tmp_path):
    found = import_hyp(write(tmp_path, "hyp.txt", "lr0=1e-3 momentum=0.9 close_mosaic=0"))
    assert yaml.safe_load(found.text) == {"lr0": 0.001, "momentum": 0.9}
    assert found.warnings == ()
    assert "# as anyway  close_mosaic 0\n" in found.text


def test_an_import_tells_what_it_was_how_that_was_seen_and_what_is_lost(tmp_path):
    found = import_hyp(write(tmp_path, "args.yaml", yaml.safe_dump(ARGS)))
    others = f"{len(OPTIONS)} other settings in it are no hyps"
    assert found.read_as == f"{tmp_path}/args.yaml is read as Ultralytics, by task and mode; {others}"
    assert found.warnings == ("evolve has no equivalent of close_mosaic 10, dfl 1.5: left out",)
    assert yaml.safe_load(found.text)["box"] == pytest.approx(0.05)
    assert found.text.startswith("# The hyps of args.yaml (Ultralytics) in evolve's names.\n# use ")
    assert "rule of thumb" in found.text


def test_strict_refuses_to_lose_anything(tmp_path):
    path = write(tmp_path, "hyp.yaml", dump_hyp(load_space("yolov7").defaults()))
    with pytest.raises(ConfigError, match=r"^--strict: evolve has no equivalent of paste_in 0\.15, loss_ota 1$"):
        import_hyp(path, strict=True)
    path = write(tmp_path, "hyp.yaml", dump_hyp(load_space("yolov5").defaults()))
    assert yaml.safe_load(import_hyp(path, strict=True).text) == {
        name: value for name, value in load_space("detection").defaults().items() if name != "label_smoothing"
    }


DISPUTED = "lr0: 0.01\nbox: 0.1\ncls: 0.4\n"


def test_a_file_that_could_be_of_two_is_asked_about_and_no_other(tmp_path):
    path = write(tmp_path, "hyp.yaml", DISPUTED)
    with pytest.raises(ConfigError) as error:
        import_hyp(path)
    assert str(error.value) == (
        f"{path} may be a hyp file of evolve and YOLOv5 or one of Ultralytics, where box, cls have another meaning: "
        "say which by --format evolve or --format ultralytics"
    )
    assert yaml.safe_load(import_hyp(path, "evolve").text) == {"lr0": 0.01, "box": 0.1, "cls": 0.4}
    assert yaml.safe_load(import_hyp(path, "ultralytics").text)["box"] == pytest.approx(0.1 / 150)
    assert yaml.safe_load(import_hyp(write(tmp_path, "hyp.yaml", "lr0: 0.01\n")).text) == {"lr0": 0.01}


SIXTY = "\n".join(["0.5"] * 34)
BAD = {
    "nothing": ("", SpaceError, "is empty"),
    "no hyp": ("task: 1\nwidth: 3\n", ConfigError, "holds no hyp that evolve knows, only task 1, width 3"),
    "an args.yaml without hyps": ("task: x\nmode: y\n", ConfigError, "holds no hyp that evolve knows"),
    "an evolve.txt": (SIXTY, ConfigError, "holds 34 numbers; a hyp*.txt of YOLOv3 has 18; the results of an evolution"),
    "too few numbers": ("0.5 0.5", ConfigError, "holds 2 numbers; a hyp*.txt of YOLOv3 has 18"),
    "a number beyond floats": ("1e999 " * 18, ConfigError, "holds a number that is too large to be one"),
    "a command line without hyps": ("yolo train", ConfigError, "holds no hyp: none of its words is like lr0=0.01"),
    "an open quote": ("lr0=0.1 model='a", ConfigError, "is no command line: No closing quotation"),
    "a file of any length": ("lr0=" + "1" * 200_000, ConfigError, "is no hyp file: it has 200004 characters"),
    "a value that is none": ("lr0=[1,2]", SpaceError, "is not a value"),
    "a text to be scaled": ("dfl: 1.5\nbox: wide\n", ConfigError, "box is 'wide'; a number belongs there"),
    "Python": ("_base_ = 'a.py'\nlr = dict(x=1)\n", SpaceError, "must be a mapping of names to values"),
    "aliases of aliases": ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n"
                           for i in range(1, 9)), SpaceError, "unfold into more than"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "error", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_no_hyp_file_is_refused_in_one_sentence(tmp_path, text, error, said):
    with pytest.raises(error) as raised:
        import_hyp(write(tmp_path, "hyp.txt", text))
    message = str(raised.value)
    assert said in message
    assert "\n" not in message and len(message) < 1000


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - set(READABLE)))
def test_a_format_to_write_is_not_read(name):
    with pytest.raises(ConfigError, match=f"^{name} is a format to write: files of it are not read$"):
        import_hyp(GOLDEN / "hyp.yaml", name)


# --hyp


@pytest.mark.parametrize("name", READABLE)
def test_the_built_in_trainer_takes_every_format(name, caplog):
    read = read_hyp(str(GOLDEN / FORMATS[name].file), "detection", "complete")
    words = (FORMATS[name].dialect or DIALECTS["evolve"]).words
    assert {our: read[our] for our in words} == pytest.approx({our: HYP[our] for our in words}, rel=1e-12)
    lost = {
        "yolov7": "(YOLOv7): evolve has no equivalent of paste_in 0.15, loss_ota 1: left out",
        "ultralytics": "(Ultralytics): evolve has no equivalent of dfl 1.5, optimizer SGD: left out",
        "ultralytics-cli": "(Ultralytics): evolve has no equivalent of dfl 1.5, optimizer SGD: left out",
    }
    expected = [f"{FORMATS[name].file} {lost[name]}"] if name in lost else []
    assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.parametrize("name", READABLE)
def test_a_study_starts_from_every_format(name):
    space = space_of(resolve_config({"hyp": str(GOLDEN / FORMATS[name].file)}))
    assert space.defaults()["lr0"] == HYP["lr0"]
    assert space.defaults()["box"] == pytest.approx(HYP["box"])


@pytest.mark.parametrize("name", ["yolov3", "yolov5", "yolov7", "ultralytics"])
def test_a_study_of_another_trainer_starts_from_what_was_exported_for_it(name):
    asked = {"trainer": name, "hyp": str(GOLDEN / FORMATS[name].file), "epochs": 50}
    space = space_of(resolve_config(asked))
    assert space.defaults() == pytest.approx(read_hyp(asked["hyp"], name, "complete"))


def test_a_file_that_could_be_anybodys_is_taken_for_the_trainers_own(tmp_path, caplog):
    path = write(tmp_path, "hyp.yaml", DISPUTED)
    assert read_hyp(str(path), "detection", "translate") == {"lr0": 0.01, "box": 0.1, "cls": 0.4}
    assert read_hyp(str(path), "ultralytics", "translate") == {"lr0": 0.01, "box": 0.1, "cls": 0.4}
    assert caplog.records == []


def test_another_trainer_that_is_known_is_told_in_its_words_and_only_what_the_file_says(tmp_path, caplog):
    path = write(tmp_path, "hyp.yaml", "lr0: 0.01\nbox: 0.1\nobj: 0.4\n")
    with caplog.at_level(logging.WARNING):
        assert read_hyp(str(path), "ultralytics", "translate") == {"lr0": 0.01, "box": pytest.approx(15.0)}
    assert "Ultralytics has no equivalent of obj 0.4: left out" in caplog.text


def test_a_trainer_that_takes_whole_files_alone_gets_one(tmp_path):
    path = write(tmp_path, "hyp.yaml", "lr0: 0.02\nbox: 0.1\nlabel_smoothing: 0\n")
    whole = {**load_space("yolov7").defaults(), "lr0": 0.02, "box": 0.1}
    assert read_hyp(str(path), "yolov7", "complete") == whole
    assert read_hyp(str(path), "yolov7", "translate") == {"lr0": 0.02, "box": 0.1}
    assert read_hyp(None, "yolov5", "complete") == load_space("yolov5").defaults()


def test_a_value_that_cannot_be_translated_is_told_with_its_file(tmp_path):
    path = write(tmp_path, "hyp.yaml", "dfl: 1.5\nbox: wide\n")
    with pytest.raises(ConfigError, match=r"^hyp\.yaml: box is 'wide'; a number belongs there$"):
        read_hyp(str(path), "detection", "complete")


# the commands


def test_import_prints_a_hyp_file_and_nothing_else_on_stdout(world: World):
    write(world.folder, "hyp.txt", "lr0=1e-3 dfl=2")
    result = world.evolve("import", "hyp.txt")
    assert (result.exit_code, yaml.safe_load(result.stdout)) == (0, {"lr0": 0.001})
    assert result.stderr.splitlines() == [
        "hyp.txt is read as Ultralytics, by words such as lr0=0.01",
        "evolve: warning: evolve has no equivalent of dfl 2: left out",
    ]


def test_import_leaves_a_file_that_train_takes(world: World):
    write(world.folder, "hyp.json", '{"lr0": 0.003, "momentum": 0.4}')
    result = world.evolve("import", "hyp.json", "-o", "new/hyp.yaml")
    assert (result.exit_code, result.stdout) == (0, "hyp file: new/hyp.yaml\n")
    toy = ("--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "1")
    for out, hyp in (("one", "new/hyp.yaml"), ("two", "hyp.json")):
        assert world.evolve("train", *toy, "--hyp", hyp, "--out", out).exit_code == 0
        trained = yaml.safe_load((world.folder / out / "hyp.yaml").read_text())
        assert trained == {"lr0": 0.003, "momentum": 0.4}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.yaml"], "none.yaml does not exist"),
        (["hyp.yaml"], "say which by --format"),
        (["hyp.yaml", "--format", "yolov6"], "unknown format 'yolov6'"),
        (["hyp.yaml", "--format", "ultralytics", "--strict", "-o", "."], "is a directory"),
    ],
)
def test_import_says_what_is_wrong(world: World, arguments, said):
    write(world.folder, "hyp.yaml", DISPUTED)
    result = world.evolve("import", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said.lower() in result.stderr.lower()
