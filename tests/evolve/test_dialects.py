"""What a hyp says to another trainer: nothing that both have is changed, and nothing else is lost in silence."""

from __future__ import annotations

import pytest
from format_golden import HYP
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.config import ConfigError
from evolve.dialects import (
    DIALECTS,
    EVOLVE,
    MMDETECTION,
    TORCHVISION,
    ULTRALYTICS,
    YOLOV3,
    YOLOV5,
    YOLOV7,
    Dialect,
    ours,
    pairs,
    recognise,
    translate,
)
from search_spaces import Space, load_space
from trainer.detection.recipe import HYPS, UNREAD, Recipe
from trainer.detection.recipe import translate as read_by_core

calm = settings(deadline=None)  # a busy machine is no failure
WITH_FILES = (YOLOV3, YOLOV5, YOLOV7, ULTRALYTICS)
SPACE = load_space("detection")
BASE = SPACE.defaults()


def hyps_of(space: Space) -> st.SearchStrategy[dict[str, object]]:
    """Any hyp of a space, its numbers anywhere within the bounds."""
    drawn = {
        param.name: st.integers(int(param.bounds[0]), int(param.bounds[1]))
        if param.kind == "int"
        else st.floats(*param.bounds)
        for param in space.params
    }
    return st.fixed_dictionaries(drawn).map(lambda values: {**space.defaults(), **values})


@pytest.mark.parametrize("dialect", WITH_FILES, ids=lambda dialect: dialect.name)
@calm
@given(hyp=hyps_of(SPACE))
def test_what_another_trainer_has_too_comes_back_as_it_was(dialect: Dialect, hyp: dict[str, object]) -> None:
    told = translate(hyp, EVOLVE, dialect)
    back = translate({**told.hyp, **told.flags}, dialect, EVOLVE).hyp
    shared = {*dialect.words, *told.flags}
    assert shared == set(hyp) - told.lost.keys() - told.idle.keys() - (dialect.flags - told.flags.keys())
    assert {name: back[name] for name in shared} == pytest.approx({name: hyp[name] for name in shared}, rel=1e-12)


@pytest.mark.parametrize("dialect", WITH_FILES, ids=lambda dialect: dialect.name)
@calm
@given(data=st.data())
def test_a_hyp_of_another_trainer_comes_back_as_it_was(dialect: Dialect, data: st.DataObject) -> None:
    hyp = data.draw(hyps_of(load_space(dialect.space)))
    there = translate(hyp, dialect, EVOLVE)
    back = translate(there.hyp, EVOLVE, dialect)
    kept = hyp.keys() - there.lost.keys() - there.idle.keys()
    assert {name: back.hyp[name] for name in kept} == pytest.approx({name: hyp[name] for name in kept}, rel=1e-12)
    assert kept == {its for its, _ in dialect.words.values()} & hyp.keys()


@pytest.mark.parametrize("dialect", WITH_FILES, ids=lambda dialect: dialect.name)
@calm
@given(hyp=hyps_of(SPACE))
def test_every_hyp_is_said_told_as_a_flag_lost_or_of_no_effect_and_never_two_of_these(dialect, hyp) -> None:
    told = translate(hyp, EVOLVE, dialect)
    said = {our for our, (its, _) in dialect.words.items() if its in told.said}
    silent = {name for name in dialect.flags if not hyp[name]}
    groups = [said, set(told.flags), silent, set(told.lost), set(told.idle)]
    assert set().union(*groups) == set(hyp)
    assert sum(map(len, groups)) == len(hyp)


@pytest.mark.parametrize("dialect", WITH_FILES, ids=lambda dialect: dialect.name)
def test_a_hyp_for_another_trainer_is_whole_and_in_the_order_of_its_files(dialect):
    for hyp in (BASE, {"lr0": 0.02}, {}):
        assert list(translate(hyp, EVOLVE, dialect).hyp) == list(dialect.values)
    assert translate({"lr0": 0.02}, EVOLVE, dialect).said == {"lr0": 0.02}


def test_the_key_sets_are_those_of_the_trainers():
    assert [len(dialect.values) for dialect in (YOLOV3, YOLOV5, YOLOV7)] == [18, 28, 30]
    assert set(ULTRALYTICS.values) == {*load_space("ultralytics").names, "optimizer", "warmup_bias_lr"}
    assert "anchors" not in {*YOLOV5.values, *YOLOV7.values}


def test_our_names_are_those_of_the_core():
    assert set(ours()) == HYPS - UNREAD - {"giou"}
    for dialect in DIALECTS.values():
        assert dialect.lacks.keys() <= set(ours()), dialect.name


LOST = {
    "yolov3": {"lrf", "warmup_momentum", "anchor_t"},
    "yolov5": set(),
    "yolov7": set(),
    "ultralytics": {"obj", "anchor_t"},
    "mmdetection": {"warmup_momentum", "warmup_bias_lr", "box", "cls", "obj", "anchor_t", "hsv_h", "hsv_s", "hsv_v"}
    | {"mosaic"},
    "torchvision": {"lrf", "warmup_epochs", "warmup_momentum", "warmup_bias_lr", "box", "cls", "obj", "anchor_t"}
    | {"hsv_h", "hsv_s", "hsv_v", "mosaic", "translate", "scale"},
}


@pytest.mark.parametrize("name", LOST)
def test_what_the_base_loses(name):
    assert translate(BASE, EVOLVE, DIALECTS[name]).lost.keys() == LOST[name]


MORE_LOST = {
    "yolov3": {"warmup_epochs", "warmup_bias_lr", "label_smoothing", "perspective", "flipud", "fliplr", "mosaic"}
    | {"mixup"},
    "ultralytics": {"cls_pw", "obj_pw", "label_smoothing"},
}


@pytest.mark.parametrize("name", MORE_LOST)
def test_what_has_no_equivalent_is_lost_once_it_changes_the_training(name):
    assert translate(HYP, EVOLVE, DIALECTS[name]).lost.keys() == LOST[name] | MORE_LOST[name]


def test_yolov5_gets_its_own_hyps_from_the_base():
    """data/hyps/hyp.scratch-low.yaml of v7.0, which the base is."""
    told = translate(BASE, EVOLVE, YOLOV5)
    assert told.hyp == load_space("yolov5").defaults()
    assert told.filled == {"iou_t": 0.2}
    assert (told.lost, told.idle, told.flags) == ({}, {}, {})


def test_label_smoothing_is_a_flag_of_yolov5():
    assert translate(HYP, EVOLVE, YOLOV5).flags == {"label_smoothing": 0.11663}
    assert "label_smoothing" not in translate(HYP, EVOLVE, YOLOV5).hyp


def test_the_loss_weights_of_yolov3_are_64_times_ours():
    """As the core reads them, which holds the formula."""
    theirs = load_space("yolov3").defaults()
    there = translate(theirs, YOLOV3, EVOLVE)
    assert there.hyp == read_by_core(theirs)
    assert Recipe.from_hyp(theirs).box == there.hyp["box"] == 3.54 / 64
    assert there.lost == {"iou_t": 0.2}, "by which YOLOv3 matches boxes, and nothing here"
    assert there.idle == {"lrf": 0.0005}
    back = translate(there.hyp, EVOLVE, YOLOV3)
    assert (back.hyp["giou"], back.hyp["obj"], back.hyp["cls"]) == (3.54, 64.3, 37.4)
    assert back.lost == {}, "its cosine ends at 5 % and its warm-up begins at 0.9, whatever the hyp says"


def test_the_losses_of_ultralytics_are_as_far_from_its_defaults_as_from_yolov5s():
    told = translate({**BASE, "box": 0.1, "cls": 0.25}, EVOLVE, ULTRALYTICS)
    assert (told.hyp["box"], told.hyp["cls"]) == (15.0, 0.25)
    assert translate(BASE, EVOLVE, ULTRALYTICS).hyp["box"] == load_space("ultralytics").defaults()["box"]


def test_ultralytics_keeps_mosaic_to_the_end_and_hears_which_optimizer_the_hyps_are_for():
    told = translate(BASE, EVOLVE, ULTRALYTICS, {"optimizer": "SGD"})
    assert told.hyp["optimizer"] == "SGD"
    assert told.filled == {"cls_pw": 0.0, "dfl": 1.5, "bgr": 0.0, "cutmix": 0.0, "close_mosaic": 0}


def test_cls_pw_is_another_thing_in_ultralytics():
    assert translate({"cls_pw": 1.5}, EVOLVE, ULTRALYTICS).lost == {"cls_pw": 1.5}
    assert translate({"cls_pw": 0.25, "dfl": 1.5}, ULTRALYTICS, EVOLVE).lost == {"cls_pw": 0.25, "dfl": 1.5}
    assert translate({"cls_pw": 0.0}, ULTRALYTICS, EVOLVE).idle == {"cls_pw": 0.0}


def test_yolov5_up_to_v3_called_box_giou():
    hyp = {"lr0": 0.01, "giou": 0.04, "anchor_t": 4.0}
    assert recognise(hyp)[0] is YOLOV5
    assert translate(hyp, YOLOV5, EVOLVE).hyp == {"lr0": 0.01, "box": 0.04, "anchor_t": 4.0}


def test_anchors_and_unknown_hyps_are_lost_by_name_and_stay_where_they_are_known():
    hyp = {**load_space("yolov5").defaults(), "anchors": 3.6, "mine": 1.0}
    assert translate(hyp, YOLOV5, EVOLVE).lost == {"anchors": 3.6, "mine": 1.0}
    kept = translate(hyp, YOLOV5, YOLOV5)
    assert kept.hyp == {name: value for name, value in hyp.items() if name != "mine"}
    assert kept.lost == {"mine": 1.0}


def test_a_hyp_of_ultralytics_is_for_ultralytics_as_it_is():
    """Whoever trained with it took all of it, and what it does not say is Ultralytics' own."""
    hyp = {"lr0": 0.002, "dfl": 2.0, "erasing": 0.3}
    told = translate(hyp, ULTRALYTICS, ULTRALYTICS, {"optimizer": "SGD"})
    assert told.hyp == {**hyp, "optimizer": "SGD"}
    assert (told.lost, told.filled) == ({}, {})


def test_from_one_foreign_trainer_to_another():
    told = translate(load_space("yolov7").defaults(), YOLOV7, ULTRALYTICS)
    assert told.lost == {"paste_in": 0.15, "loss_ota": 1, "obj": 0.7, "anchor_t": 4.0}
    assert (told.hyp["box"], told.hyp["scale"]) == (7.5, 0.9)


def test_trainers_that_share_little_get_what_they_have():
    assert list(translate(BASE, EVOLVE, TORCHVISION).hyp) == ["lr0", "momentum", "weight_decay"]
    shared = {*ours()} - MMDETECTION.lacks.keys()
    assert set(translate(BASE, EVOLVE, MMDETECTION).hyp) == shared
    assert {"lr0", "lrf", "warmup_epochs", "degrees", "fliplr"} <= shared


@pytest.mark.parametrize(
    ("names", "dialect", "mark"),
    [
        (load_space("ultralytics").order, ULTRALYTICS, "dfl"),
        ([*load_space("yolov5").order, "dfl"], ULTRALYTICS, "dfl"),  # its first releases had fl_gamma too
        (load_space("yolov7").order, YOLOV7, "paste_in"),
        (load_space("yolov3").order, YOLOV3, "giou"),
        (load_space("yolov5").order, YOLOV5, "iou_t"),
        (load_space("detection").order, EVOLVE, "label_smoothing"),
    ],
)
def test_a_hyp_is_recognised_by_a_name_that_others_do_not_have(names, dialect, mark):
    assert recognise(names) == (dialect, mark)


def test_names_that_all_have_tell_nothing():
    assert recognise(["lr0", "momentum", "box", "cls", "mosaic"]) is None


def test_a_text_cannot_be_scaled():
    with pytest.raises(ConfigError, match="box is 'wide'; a number belongs there"):
        translate({"box": "wide"}, EVOLVE, ULTRALYTICS)
    with pytest.raises(ConfigError, match="lr0 is True; a number belongs there"):
        translate({"giou": 3.54, "lr0": True}, YOLOV3, EVOLVE)


def test_hyps_are_named_with_their_values_and_not_without_end():
    assert pairs({"lr0": 0.01, "optimizer": "SGD", "epochs": 3}) == "lr0 0.01, optimizer SGD, epochs 3"
    assert pairs({f"k{i}": i for i in range(100)}).endswith("k59 59 and 40 more")
    assert len(pairs({"k" * 5000: "v" * 5000})) < 300
