"""Files for other trainers: byte for byte what they were, and accepted by readers written from their descriptions."""

from __future__ import annotations

import argparse
import ast
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from format_golden import CONFIG, GOLDEN, HYP, text_of
from hypothesis import given, settings
from test_dialects import SPACE, hyps_of

from evolve import fragments
from evolve.config import ConfigError, EvolveConfig
from evolve.dialects import EVOLVE, ULTRALYTICS, translate
from evolve.formats import FORMATS, READABLE, format_named
from evolve.hyp_files import read_hyp_file
from evolve.importing import import_hyp
from evolve.usage import own_choices
from search_spaces import dump_hyp, load_space
from trainer.detection import optimizer
from trainer.detection.recipe import Recipe

ROOT = Path(__file__).parents[2]
calm = settings(deadline=None, max_examples=50)  # a busy machine is no failure
every_hyp = given(hyp=hyps_of(SPACE))

# ultralytics/yolov3, branch archive, train.py: the keys of `hyp`, which the values of hyp*.txt are zipped with
YOLOV3_ORDER = (
    "giou cls cls_pw obj obj_pw iou_t lr0 lrf momentum weight_decay fl_gamma "
    "hsv_h hsv_s hsv_v degrees translate scale shear"
)
# YOLOv5 v7.0, data/hyps/*.yaml; YOLOv7, data/hyp.scratch.*.yaml
YOLOV5_KEYS = (
    "lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw iou_t "
    "anchor_t fl_gamma hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr mosaic mixup "
    "copy_paste"
)
YOLOV7_KEYS = f"{YOLOV5_KEYS} paste_in loss_ota"
# ultralytics 8.4.190, cfg/__init__.py: CFG_FLOAT_KEYS, CFG_FRACTION_KEYS, CFG_INT_KEYS, of what an export may hold
ULTRALYTICS_FLOATS = "warmup_epochs box cls dfl degrees shear"
ULTRALYTICS_FRACTIONS = (
    "lr0 lrf momentum weight_decay warmup_momentum warmup_bias_lr cls_pw hsv_h hsv_s hsv_v translate scale "
    "perspective flipud fliplr bgr mosaic mixup cutmix copy_paste"
)
ULTRALYTICS_INTS = "close_mosaic epochs imgsz batch seed"
ULTRALYTICS_TEXTS = "optimizer model data cfg"


def read_yolov3(text: str) -> dict[str, float]:
    values = np.loadtxt(text.splitlines(), ndmin=1)
    assert values.shape == (18,), "fewer leave later hyps at their defaults, silently"
    return dict(zip(YOLOV3_ORDER.split(), values.tolist(), strict=True))


def read_yolo(text: str, keys: str) -> dict[str, float]:
    hyp = yaml.safe_load(text)
    assert list(hyp) == keys.split()
    assert all(type(value) is (int if name == "loss_ota" else float) for name, value in hyp.items())
    return hyp


def check_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """As check_dict_alignment and check_cfg do: any unknown name, wrong type or bound ends the program."""
    for name, value in given.items():
        if name in ULTRALYTICS_INTS.split():
            assert type(value) is int, name
        elif name in ULTRALYTICS_FRACTIONS.split():
            assert type(value) in (int, float) and 0.0 <= value <= 1.0, name
        elif name in ULTRALYTICS_FLOATS.split():
            assert type(value) in (int, float), name
        else:
            assert name in ULTRALYTICS_TEXTS.split() and type(value) is str, name
    return given


def read_words(words: list[str]) -> dict[str, Any]:
    """`yolo` takes what Python reads in a value, and the text where that is nothing."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        assert equals, word
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return check_arguments(found)


def read_config(text: str) -> dict[str, Any]:
    """A config of mmengine, by its syntax: names, and values made of dict(...), lists, tuples and constants."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
            return {str(keyword.arg): value(keyword.value) for keyword in node.keywords}
        if isinstance(node, ast.List):
            return [value(item) for item in node.elts]
        return ast.literal_eval(node)

    return {line.targets[0].id: value(line.value) for line in ast.parse(text).body}  # type: ignore[attr-defined]


def torchvision_parser() -> argparse.ArgumentParser:
    """references/detection/train.py of torchvision: what of its flags an export may hold."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data-path")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("-b", "--batch-size", type=int)
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--lr", default=0.02, type=float)
    parser.add_argument("--momentum", default=0.9, type=float)
    parser.add_argument("--wd", "--weight-decay", default=1e-4, type=float, dest="weight_decay")
    parser.add_argument("--norm-weight-decay", default=None, type=float)
    parser.add_argument("--lr-scheduler", default="multisteplr")
    return parser


def words_of(text: str) -> list[str]:
    """As $(grep -v '^#' FILE) gives them to a program."""
    return " ".join(line for line in text.splitlines() if not line.startswith("#")).split()


def write(name: str, hyp: dict[str, Any], config: EvolveConfig = CONFIG, header: tuple[str, ...] = ("# é",)) -> str:
    """The text of a hyp of ours in a format."""
    wanted = FORMATS[name]
    told = hyp if wanted.dialect is None else translate(hyp, EVOLVE, wanted.dialect, {"optimizer": "SGD"}).hyp
    return wanted.write(told, header, config)


@pytest.mark.parametrize("known", FORMATS.values(), ids=lambda known: known.name)
def test_a_file_is_byte_for_byte_what_it_was(known):
    assert text_of(known) == (GOLDEN / known.file).read_text(encoding="utf-8")


def test_every_golden_file_is_one_of_a_format():
    assert {path.name for path in GOLDEN.iterdir()} == {known.file for known in FORMATS.values()}


@calm
@every_hyp
def test_yolov3_reads_18_values_in_its_order(hyp):
    read = read_yolov3(write("yolov3", hyp))
    assert read == translate(hyp, EVOLVE, FORMATS["yolov3"].dialect).hyp
    assert (read["giou"], read["obj"], read["shear"]) == (hyp["box"] * 64, hyp["obj"] * 64, hyp["shear"])


@calm
@every_hyp
def test_yolov5_and_yolov7_read_all_of_their_keys_and_no_other(hyp):
    yolov5, yolov7 = read_yolo(write("yolov5", hyp), YOLOV5_KEYS), read_yolo(write("yolov7", hyp), YOLOV7_KEYS)
    shared = {name: value for name, value in hyp.items() if name != "label_smoothing"}
    assert yolov5 == {**shared, "iou_t": 0.2}
    assert yolov7 == {**yolov5, "paste_in": 0.15, "loss_ota": 1}


def test_anchors_are_written_only_where_they_were():
    hyp = {**load_space("yolov5").defaults(), "anchors": 3.6}
    dialect = FORMATS["yolov5"].dialect
    kept = FORMATS["yolov5"].write(translate(hyp, dialect, dialect).hyp, (), CONFIG)
    assert yaml.safe_load(kept) == hyp
    assert "anchors" not in write("yolov5", HYP)


@calm
@every_hyp
def test_ultralytics_accepts_every_argument(hyp):
    from_file = check_arguments(yaml.safe_load(write("ultralytics", hyp)))
    assert from_file == read_words(words_of(write("ultralytics-cli", hyp)))
    assert from_file["optimizer"] == "SGD", "auto would set lr0 and momentum aside"
    assert set(from_file) == set(ULTRALYTICS.values)
    for name in ("lr0", "momentum", "fliplr", "warmup_bias_lr"):
        assert from_file[name] == hyp[name]


def test_ultralytics_is_told_of_whole_numbers_as_such_and_of_none_that_it_refuses():
    write_it = FORMATS["ultralytics"].write
    assert yaml.safe_load(write_it({"close_mosaic": 10.0}, (), CONFIG)) == {"close_mosaic": 10}
    assert "close_mosaic: 10\n" in write_it({"close_mosaic": 10.0}, (), CONFIG)
    with pytest.raises(ConfigError, match=r"lr0 is 1\.5, which Ultralytics does not take: it has to lie in \[0, 1\]"):
        write_it({"lr0": 1.5}, (), CONFIG)
    with pytest.raises(ConfigError, match=r"close_mosaic is 2\.5; a whole number belongs there"):
        write_it({"close_mosaic": 2.5}, (), CONFIG)


@calm
@every_hyp
def test_json_is_an_object_of_the_hyp_as_it_is(hyp):
    assert json.loads(write("json", hyp)) == hyp


@pytest.mark.parametrize("name", READABLE)
@calm
@every_hyp
def test_what_is_written_is_read_again(tmp_path_factory, name, hyp):
    path = tmp_path_factory.getbasetemp() / FORMATS[name].file
    path.write_text(write(name, hyp), encoding="utf-8")
    words = (FORMATS[name].dialect or EVOLVE).words
    for known in (None, name):
        read = yaml.safe_load(import_hyp(path, known).text)
        assert {our: read[our] for our in words} == pytest.approx({our: hyp[our] for our in words}, rel=1e-12)


@pytest.mark.parametrize("name", READABLE)
def test_what_is_read_is_written_again(tmp_path, name):
    """Whatever else the file held is its own default, as it was."""
    known = FORMATS[name]
    read = read_hyp_file(GOLDEN / known.file)
    dialect = known.dialect or EVOLVE
    again = translate(translate(read.hyp, dialect, EVOLVE).hyp, EVOLVE, dialect, {"optimizer": "SGD"})
    assert list(again.hyp) == list(read.hyp)
    for its, value in again.hyp.items():
        assert value == (read.hyp[its] if isinstance(value, str) else pytest.approx(read.hyp[its], rel=1e-12)), its


@pytest.mark.parametrize("name", ["evolve", "yolov3", "yolov5", "yolov7", "ultralytics", "ultralytics-cli"])
def test_a_header_is_comments_whatever_it_says(name):
    wicked = ("lr0: 5\nmomentum: 7", "lr0=5", "0.5", "tab\t\x07 é")
    text = write(name, HYP, header=wicked)
    assert sum(line.startswith("#") for line in text.splitlines()) == 5
    if name == "yolov3":
        assert read_yolov3(text) == read_yolov3(write(name, HYP))
    elif name == "ultralytics-cli":
        assert words_of(text) == words_of(write(name, HYP))
    else:
        assert yaml.safe_load(text) == yaml.safe_load(write(name, HYP))


# fragments


@calm
@every_hyp
def test_the_config_for_mmdetection_is_data(hyp):
    config = read_config(write("mmdetection", hyp))
    assert set(config) == {
        "_base_",
        "train_cfg",
        "randomness",
        "optim_wrapper",
        "param_scheduler",
        "evolved_transforms",
    }
    wrapper, (warp, flip) = config["optim_wrapper"], config["evolved_transforms"]
    assert wrapper["optimizer"]["lr"] == hyp["lr0"]
    assert wrapper["optimizer"]["weight_decay"] == pytest.approx(hyp["weight_decay"] * CONFIG.batch / 64)
    assert warp["scaling_ratio_range"] == pytest.approx((1 - hyp["scale"], 1 + hyp["scale"]))
    assert sum(flip["prob"]) <= 1 and min(flip["prob"]) >= 0, "it asserts as much"
    across, down, both = flip["prob"]
    assert (across + both, down + both) == pytest.approx((hyp["fliplr"], hyp["flipud"]), abs=1e-11)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", {"type": "SGD", "momentum": 0.80313, "nesterov": True}),
        ("adam", {"type": "Adam", "betas": (0.80313, 0.999)}),
        ("adamw", {"type": "AdamW", "betas": (0.80313, 0.999)}),
    ],
)
def test_mmdetection_gets_the_optimizer(name, expected):
    found = read_config(write("mmdetection", HYP, EvolveConfig(optimizer=name)))["optim_wrapper"]["optimizer"]
    same = {"_delete_": True, "lr": HYP["lr0"], "weight_decay": pytest.approx(HYP["weight_decay"] / 8)}
    assert found == {**expected, **same}


def rate(schedulers: list[dict[str, Any]], epoch: float) -> float:
    """The factor of mmengine's LinearLR and CosineAnnealingLR, in closed form."""
    factor = 1.0
    for one in schedulers:
        assert one["by_epoch"] and one["convert_to_iter_based"]
        done = min(1.0, max(0.0, (epoch - one["begin"]) / (one["end"] - one["begin"])))
        if one["type"] == "LinearLR":
            end = one.get("end_factor", 1.0)
            factor *= one["start_factor"] + (end - one["start_factor"]) * done
        else:
            assert one["T_max"] == one["end"] - one["begin"]
            ratio = one["eta_min_ratio"]
            factor *= ratio + (1 - ratio) * (1 + np.cos(np.pi * done)) / 2
    return factor


@pytest.mark.parametrize("epochs", [10, 40])
@pytest.mark.parametrize("schedule", list(optimizer.SCHEDULES))
def test_mmdetection_gets_our_schedule_and_our_warmup(schedule, epochs):
    """It starts from a thousandth where we start from nothing."""
    found = read_config(write("mmdetection", HYP, EvolveConfig(schedule=schedule, epochs=epochs)))["param_scheduler"]
    warmup = optimizer.warmup_epochs(Recipe.from_hyp(HYP), epochs)
    for epoch in np.linspace(0, epochs, 50):
        ours = optimizer.SCHEDULES[schedule](epoch / epochs, HYP["lrf"]) * min(1.0, epoch / warmup)
        assert rate(found, epoch) == pytest.approx(ours, rel=1e-5, abs=0.001)
        if epoch > warmup:
            assert rate(found, epoch) == pytest.approx(ours, rel=1e-5)


def test_without_warmup_there_is_one_scheduler():
    assert len(read_config(write("mmdetection", {**HYP, "warmup_epochs": 0.0}))["param_scheduler"]) == 1


def test_a_fragment_says_nothing_of_what_it_was_not_told():
    few = {"momentum": 0.5}
    assert set(read_config(write("mmdetection", few))) == {"_base_", "train_cfg", "randomness"}
    assert words_of(write("torchvision", few)) == ["--opt", "sgd_nesterov", "--momentum", "0.5"]


@calm
@every_hyp
def test_torchvision_takes_every_flag(hyp):
    read = torchvision_parser().parse_args(words_of(write("torchvision", hyp)))
    assert (read.opt, read.lr, read.momentum) == ("sgd_nesterov", hyp["lr0"], hyp["momentum"])
    assert read.weight_decay == pytest.approx(hyp["weight_decay"] * CONFIG.batch / 64)
    assert read.norm_weight_decay == 0


def test_torchvisions_adamw_has_no_momentum_and_its_cosine_a_name():
    read = words_of(write("torchvision", HYP, EvolveConfig(optimizer="adamw", schedule="cosine")))
    assert "--momentum" not in read
    assert torchvision_parser().parse_args(read).lr_scheduler == "cosineannealinglr"


def test_the_fragments_have_the_cores_constants():
    for name in ("FLAT_SHARE", "NOMINAL_BATCH", "FULL_WARMUP_FROM_EPOCHS"):
        assert getattr(fragments, name) == getattr(optimizer, name)
    assert fragments.OPTIMIZERS.keys() == optimizer.OPTIMIZERS.keys()


# commands


def command(name: str, **settings: Any) -> str:
    told = translate(HYP, EVOLVE, FORMATS[name].dialect or EVOLVE)
    usual = {"data": "/sets/cells.yaml", "model": "nano", "imgsz": 160, "epochs": 20, "batch": 16, "seed": 7}
    return FORMATS[name].use("a file", EvolveConfig(**{**usual, "optimizer": "sgd", **settings}), told)


def test_yolov5_is_asked_for_optimizer_schedule_and_smoothing():
    words = shlex.split(command("yolov5", optimizer="adamw", schedule="cosine"))
    assert words[:4] == ["python", "YOLOV5_FOLDER/train.py", "--hyp", "a file"]
    assert words[words.index("--optimizer") + 1] == "AdamW"
    assert "--cos-lr" in words
    assert words[words.index("--label-smoothing") + 1] == "0.11663"
    assert words[words.index("--imgsz") + 1] == "160"


def test_yolov7_is_asked_for_what_it_has():
    words = shlex.split(command("yolov7", optimizer="adam", schedule="linear"))
    assert {"--adam", "--linear-lr"} <= set(words)
    assert words[words.index("--img-size") + 1 :][:2] == ["160", "160"]
    assert "--adam" not in command("yolov7", optimizer="adamw")


def test_yolov3_wants_the_file_beside_it():
    assert command("yolov3", data="/sets/cells.data") == (
        "cp 'a file' YOLOV3_FOLDER/hyp.txt && cd YOLOV3_FOLDER && "
        "python train.py --data /sets/cells.data --epochs 20 --img-size 160 --batch-size 16"
    )


@pytest.mark.parametrize(("name", "first"), [("ultralytics", ["cfg=a file"]), ("ultralytics-cli", [])])
def test_the_command_of_ultralytics_has_arguments_that_it_accepts(name, first):
    said, _, substitution = command(name, schedule="cosine").partition(" $(")
    words = shlex.split(said)
    assert words[:3] == ["yolo", "detect", "train"]
    assert words[3:][: len(first)] == first
    assert words.pop() == "cos_lr=True"
    arguments = read_words(words[3:])
    assert (arguments["data"], arguments["imgsz"], arguments["batch"]) == ("/sets/cells.yaml", 160, 16)
    assert bool(substitution) == (name == "ultralytics-cli")


def test_a_study_of_a_check_out_trains_there_as_it_did():
    words = shlex.split(
        command("yolov5", trainer="yolov5", repo="/yolov5", model="", weights="a.pt", command=("--optimizer", "Adam"))
    )
    assert words[:2] == ["python", "/yolov5/train.py"]
    assert words[words.index("--cfg") + 1] == "" and words[words.index("--weights") + 1] == "a.pt"
    assert words[words.index("--optimizer") + 1] == "Adam"
    assert "--cfg yolov5s.yaml --weights ''" in command("yolov5", trainer="yolov5", model="")
    assert "YOLOV7_FOLDER/train.py" in command("yolov7", trainer="yolov5", repo="/yolov5", model="")


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({}, ("adamw", "trapezoid")),
        ({"trainer": "toy:ToyTrainer", "optimizer": "SGD", "schedule": "linear"}, ("sgd", "linear")),
        ({"trainer": "ultralytics", "optimizer": "AdamW", "schedule": "cosine"}, ("adamw", "cosine")),
        ({"trainer": "yolov5"}, ("sgd", "linear")),
        ({"trainer": "yolov5", "command": ("--optimizer", "AdamW", "--cos-lr")}, ("adamw", "cosine")),
        ({"trainer": "yolov7", "command": ("--adam",)}, ("adam", "cosine")),
        ({"trainer": "yolov7", "command": ("--linear-lr",)}, ("sgd", "linear")),
        ({"trainer": "yolov3"}, ("sgd", "cosine")),
        ({"trainer": "command", "command": ("true", "{hyp}")}, ("", "")),
    ],
)
def test_the_optimizer_of_a_study_is_known_unless_its_program_alone_knows_it(settings, known):
    assert own_choices(EvolveConfig(**settings)) == known
    optimizer, schedule = known
    unsaid = FORMATS["mmdetection"].choices.unsaid(EvolveConfig(optimizer=optimizer, schedule=schedule))
    assert unsaid == []


def test_a_command_names_data_that_the_trainer_could_not_read_as_something_to_replace():
    assert "--data DATA.yaml" in command("yolov5", data="digits")
    assert "--data DATA.data" in command("yolov3")
    assert "model=yolo11n.pt" in command("ultralytics")
    assert "model=yolov8n.yaml" in command("ultralytics", model="yolov8n.yaml")


def test_our_own_command_leaves_out_what_stands_in_the_hyp():
    from evolve.dialects import Told

    config = EvolveConfig(model="nano", imgsz=160)
    assert "--model nano --epochs 10 --imgsz 160" in FORMATS["evolve"].use("hyp.yaml", config, Told({"lr0": 0.1}))
    assert "nano" not in FORMATS["evolve"].use("hyp.yaml", config, Told({"model": "pico"}))


def test_what_a_trainer_does_not_have_is_known():
    unsaid = {name: known.choices.unsaid(EvolveConfig()) for name, known in FORMATS.items()}
    assert unsaid["yolov7"] == ["optimizer adamw", "schedule trapezoid"]
    assert unsaid["yolov5"] == unsaid["ultralytics"] == ["schedule trapezoid"]
    assert unsaid["evolve"] == unsaid["mmdetection"] == []


# what is written about formats


def test_the_documents_name_every_format_and_every_hyp():
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows if row.split("`")[1] in FORMATS] == list(FORMATS)
    assert {name for name in SPACE.order if not any(f"`{name}`" in row.split("|")[1] for row in rows)} == set()
    for name in FORMATS:
        assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


COLUMNS = {"yolov3": 2, "yolov5": 3, "ultralytics": 4, "mmdetection": 5, "torchvision": 6}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_table_of_the_documents_tells_what_is_translated(name):
    """'-' where there is no equivalent, with the value in brackets that is as good as none."""
    dialect = FORMATS[name].dialect
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        names = [word.strip("`, ") for word in cells[1].split()] if len(cells) == 8 else []
        if not names or names[0] not in SPACE.order:
            continue
        cell = cells[COLUMNS[name]]
        values = [dialect.lacks[our] for our in names if our in dialect.lacks]
        if not cell.startswith("-"):
            assert not values, names
            continue
        assert len(values) == len(names), names
        told = [float(part) for part in cell.strip("-() ").replace(" ", "").split(",") if part]
        told = told * len(values) if len(told) == 1 else told
        assert told == [value for value in values if value == value], names


def test_a_format_that_is_none_gets_a_guess():
    with pytest.raises(ConfigError, match=r"unknown format 'yolov6' \(did you mean 'yolov\d'\?\)"):
        format_named("yolov6")


def test_the_hyp_of_the_golden_files_is_one_of_ours():
    assert dump_hyp(HYP).count("\n") == len(SPACE.order) == len(HYP)
