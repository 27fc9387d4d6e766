"""Recipes: what hyps are known, what their values may be, and what the hyps of older trainers mean."""

from __future__ import annotations

import math

import pytest

from search_spaces import load_space
from trainer.api import TrainerError, Value
from trainer.detection.recipe import HYPS, LIMITS, UNREAD, Recipe


def test_every_hyp_has_a_default_within_its_limits() -> None:
    defaults = vars(Recipe())
    assert set(defaults) | UNREAD | {"giou"} == HYPS
    assert set(LIMITS) <= HYPS
    assert Recipe.from_hyp(defaults) == Recipe()


@pytest.mark.parametrize("space", ["detection", "yolov3", "yolov5"])
def test_every_hyp_of_the_spaces_for_this_core_is_known(space: str) -> None:
    assert set(load_space(space).defaults()) <= HYPS


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_value_beyond_its_limits_is_refused(name: str) -> None:
    low, high = LIMITS[name]
    for value in (low - 1e-6, high + 1e-6):
        if math.isfinite(value):
            with pytest.raises(TrainerError, match=rf"^{name}: .* lies outside \["):
                Recipe.from_hyp({name: value})


@pytest.mark.parametrize("value", [True, "0.1", math.nan, math.inf, 10**400])
def test_a_value_that_is_no_finite_number_is_refused(value: Value) -> None:
    with pytest.raises(TrainerError, match="lr0: expected a finite number"):
        Recipe.from_hyp({"lr0": value})


def test_an_unknown_name_is_refused_with_the_likely_one() -> None:
    with pytest.raises(TrainerError, match=r"knows no hyp 'mossaic' \(did you mean 'mosaic'\?\)"):
        Recipe.from_hyp({"mossaic": 1.0})


def test_iou_t_is_known_and_changes_nothing() -> None:
    assert Recipe.from_hyp({"iou_t": 0.6}) == Recipe()


def test_the_hyps_of_the_yolov3_archive_are_about_those_of_yolov5_on_another_scale() -> None:
    recipe = Recipe.from_hyp(load_space("yolov3").defaults())
    modern = Recipe()
    for name in ("box", "obj", "cls"):
        assert getattr(recipe, name) == pytest.approx(getattr(modern, name), rel=0.17), name
    same = {"lr0", "momentum", "weight_decay", "warmup_epochs", "warmup_bias_lr", "cls_pw", "obj_pw", "anchor_t"}
    same |= {"fl_gamma", "mosaic", "mixup", "fliplr", "flipud", "degrees", "shear", "copy_paste"}
    assert {name for name in same if getattr(recipe, name) != getattr(modern, name)} == set()
    assert (recipe.scale, recipe.translate) == (0.0, 0.0)  # its file multiplies them by 0


def test_what_yolov3_never_read_is_as_its_code_has_it() -> None:
    for lrf in (0.0005, 1.0):
        recipe = Recipe.from_hyp({"giou": 3.54, "lrf": lrf})
        assert (recipe.lrf, recipe.warmup_momentum) == (0.05, 0.9)
    assert Recipe.from_hyp({"giou": 3.54, "warmup_momentum": 0.5}).warmup_momentum == 0.5


def test_yolov3s_gains_are_64_times_as_large() -> None:
    recipe = Recipe.from_hyp({"giou": 6.4, "obj": 64.0, "cls": 32.0})
    assert (recipe.box, recipe.obj, recipe.cls) == (0.1, 1.0, 0.5)
    assert Recipe.from_hyp({"giou": 3.2}).obj == Recipe().obj


def test_in_a_hyp_of_yolov5_v1_to_v3_giou_is_only_another_name() -> None:
    recipe = Recipe.from_hyp({"giou": 0.05, "obj": 1.0, "cls": 0.58, "anchor_t": 4.0, "iou_t": 0.2})
    assert recipe == Recipe(cls=0.58)


def test_box_and_giou_together_are_refused_in_one_sentence() -> None:
    with pytest.raises(TrainerError, match=r"^'box' and 'giou' are the same weight") as refused:
        Recipe.from_hyp({"giou": 3.54, "box": 0.05})
    assert "\n" not in str(refused.value)
