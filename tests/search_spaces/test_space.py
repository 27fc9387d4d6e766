"""Param and Space: bounds, kinds, the unit interval, and every way to narrow a space."""

import json
import math
import pickle
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Param, Space, SpaceError, load_space
from search_spaces.space import as_number, round_significant

calm = settings(deadline=None)  # a busy machine is no failure

LR0 = Param("lr0", 0.01, 1e-5, 0.1, log=True)
MOMENTUM = Param("momentum", 0.937, 0.6, 0.98, gain=0.3)
FLIPLR = Param("fliplr", 0.5, 0, 1, gain=0)
CLOSE_MOSAIC = Param("close_mosaic", 10, 0, 10, step=1)
OPTIMIZER = Param("optimizer", "SGD", choices=("SGD", "AdamW", "Lion"))
SPACE = Space(
    "small",
    (LR0, MOMENTUM, FLIPLR, CLOSE_MOSAIC, OPTIMIZER),
    {"epochs": 3},
    order=("lr0", "epochs", "momentum", "fliplr", "close_mosaic", "optimizer"),
)


@st.composite
def float_params(draw: st.DrawFn) -> Param:
    log = draw(st.booleans())
    low = draw(st.floats(1e-6, 1e3) if log else st.floats(-1e3, 1e3))
    high = low + draw(st.floats(0, 1e3))
    return Param("x", low, low, high, log=log)


@st.composite
def int_params(draw: st.DrawFn) -> Param:
    step = draw(st.integers(1, 4))
    log = step == 1 and draw(st.booleans())
    low = draw(st.integers(1 if log else -50, 50))
    return Param("n", low, low, low + step * draw(st.integers(0, 60)), step=step, log=log)


def categorical_params() -> st.SearchStrategy[Param]:
    choices = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True)
    return choices.map(lambda choices: Param("c", choices[0], choices=tuple(choices)))


params = st.one_of(float_params(), int_params(), categorical_params())


@calm
@given(params, st.floats(-2, 3))
def test_every_place_in_the_unit_interval_is_an_allowed_value_and_a_rounded_one(param: Param, u: float) -> None:
    value = param.from_unit(u)
    assert param.accept(value) == value
    assert param.round_value(value) == value


@calm
@given(params, st.floats(0, 1))
def test_a_value_keeps_its_place_in_the_unit_interval(param: Param, u: float) -> None:
    value = param.from_unit(u)
    assert 0 <= param.to_unit(value) <= 1
    again = param.from_unit(param.to_unit(value))
    if param.kind == "float":
        span = abs(float(value)) if param.log else max(map(abs, param.bounds))
        assert again == pytest.approx(value, abs=2e-5 * span)
    else:
        assert again == value


@calm
@given(params, st.floats(0, 1), st.floats(0, 1))
def test_from_unit_never_turns_the_order_round(param: Param, u: float, v: float) -> None:
    u, v = sorted((u, v))
    if param.choices:
        assert param.choices.index(param.from_unit(u)) <= param.choices.index(param.from_unit(v))
    else:
        assert param.from_unit(u) <= param.from_unit(v)


@calm
@given(float_params(), st.floats(-1e9, 1e9))
def test_rounding_stays_within_the_bounds_and_changes_nothing_twice(param: Param, value: float) -> None:
    rounded = param.round_value(value)
    assert param.accept(rounded) == rounded == param.round_value(rounded)


def test_the_ends_of_the_unit_interval_are_the_bounds() -> None:
    assert (LR0.from_unit(0), LR0.from_unit(1)) == (1e-5, 0.1)
    assert (LR0.to_unit(1e-5), LR0.to_unit(0.1)) == (0, 1)
    assert (CLOSE_MOSAIC.from_unit(0), CLOSE_MOSAIC.from_unit(1)) == (0, 10)


def test_log_measures_by_ratios() -> None:
    assert LR0.from_unit(0.5) == 1e-3
    assert LR0.to_unit(0.02) - LR0.to_unit(0.01) == pytest.approx(LR0.to_unit(2e-4) - LR0.to_unit(1e-4))


def test_each_int_and_each_choice_owns_an_equal_part_of_the_unit_interval() -> None:
    middles = (np.arange(1100) + 0.5) / 1100
    for param in (CLOSE_MOSAIC, OPTIMIZER):
        values = [param.from_unit(u) for u in middles]
        counts = [values.count(value) for value in dict.fromkeys(values)]
        assert len(counts) == param.levels
        assert max(counts) - min(counts) <= 1


def test_floats_keep_five_significant_digits_however_small() -> None:
    assert round_significant(1.23456789e-5) == 1.2346e-5
    assert LR0.round_value(0.0123456) == 0.012346
    assert Param("x", 0.1, 0, 0.123456).round_value(0.1234559) == 0.123456  # 0.12346 would lie outside


def test_an_int_hyp_stays_an_int() -> None:
    for value in (
        CLOSE_MOSAIC.accept(3.0),
        CLOSE_MOSAIC.clip(3.4),
        CLOSE_MOSAIC.from_unit(0.3),
        CLOSE_MOSAIC.accept("3"),
    ):
        assert value == 3
        assert type(value) is int


def test_a_float_hyp_stays_a_float() -> None:
    assert type(MOMENTUM.accept(np.float32(0.75))) is float
    assert type(Param("degrees", 0, 0, 45).default) is float
    assert type(Param("degrees", 0, 0, 45).clip(90)) is float


def test_steps_count_from_low() -> None:
    imgsz = Param("imgsz", 96, 64, 160, step=32)
    assert [imgsz.from_unit(u) for u in (0, 0.3, 0.6, 1)] == [64, 96, 128, 160]
    assert imgsz.clip(100) == 96
    with pytest.raises(SpaceError, match="imgsz: 100 is not low 64 plus a whole number of steps of 32"):
        imgsz.accept(100)


def test_true_is_no_number_and_one_is_no_bool() -> None:
    ota = Param("ota", True, choices=(True, False))
    assert ota.accept(True) is True
    with pytest.raises(SpaceError, match="ota: 1 is not one of True, False"):
        ota.accept(1)
    with pytest.raises(SpaceError, match="lr0 must be a number, got True"):
        LR0.accept(True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 0.2, "high": 0.1, "default": 0.1}, "x: low 0.2 is greater than high 0.1"),
        ({"low": 0, "high": 1, "default": 2}, "x: default 2 lies outside [0.0, 1.0]"),
        ({"low": 0, "high": 1, "default": "many"}, "x: default must be a number, got 'many'"),
        ({"low": 0, "high": 1, "default": True}, "x: default must be a number, got True"),
        ({"low": False, "high": 1, "default": 1}, "x: low must be a number, got False"),
        ({"low": 0, "high": math.inf, "default": 1}, "x: high must be finite, got inf"),
        ({"low": 0, "high": 1, "default": math.nan}, "x: default must be finite, got nan"),
        ({"low": 0, "high": 10**400, "default": 1}, "x: high must be finite"),
        ({"low": -1.7e308, "high": 1.7e308, "default": 1}, "lie too far apart"),
        ({"low": 0, "high": 1, "default": 0.5, "log": True}, "x: low 0.0 is not positive, which log needs"),
        ({"low": 0, "high": 1, "default": 0.5, "log": 1}, "x: log must be true or false, got 1"),
        ({"low": 0, "high": 1, "default": 0.5, "gain": -1}, "x: gain -1.0 is negative"),
        ({"low": 0, "high": 1, "default": 0.5, "gain": "big"}, "x: gain must be a number, got 'big'"),
        ({"low": 0, "high": 1, "default": 0.5, "step": 1}, "x: default must be a whole number, got 0.5"),
        ({"low": 0, "high": 10, "default": 0, "step": 0}, "x: step 0 is not positive"),
        ({"low": 0, "high": 10, "default": 0, "step": 3}, "x: high 10 is not low 0 plus a whole number of steps of 3"),
        ({"low": 1, "high": 9, "default": 1, "step": 2, "log": True}, "x: step 2 does not go with log"),
        ({"high": 1, "default": 0.5}, "x: low is missing"),
        ({"low": 0, "high": 1}, "x: default is missing"),
        ({"low": 0, "high": 1, "defualt": 1}, "x: unknown field 'defualt' (did you mean 'default'?)"),
        ({"choices": [], "default": 1}, "x: choices must be a list of values, got []"),
        ({"choices": "SGD", "default": "SGD"}, "x: choices must be a list of values, got 'SGD'"),
        ({"choices": [1, 1.0], "default": 1}, "x: choice 1.0 stands there twice"),
        ({"choices": ["SGD", "AdamW"], "default": "Adam"}, "x: default 'Adam' is not one of SGD, AdamW (did you"),
        ({"choices": ["SGD"], "default": "SGD", "low": 0}, "x: low does not go with choices"),
        ({"choices": ["SGD"], "default": "SGD", "log": True}, "x: log does not go with choices"),
        ({"choices": [["SGD"]], "default": "SGD"}, "x: choice must be a number, text, true or false, got ['SGD']"),
    ],
)  # fmt: skip
def test_a_param_that_does_not_hold_together_is_refused_in_one_sentence(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(SpaceError) as error:
        Param.from_dict("x", fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_may_come_as_text() -> None:
    assert Param.from_dict("lr0", {"low": "1e-5", "high": "1E-1", "default": ".01"}).bounds == (1e-5, 0.1)
    assert as_number(" -3 ") == -3
    for no_number in ("nan", "inf", "1_000", "0x10", "", "1e", "١", None, True):
        assert as_number(no_number) is None


def test_defaults_stand_in_the_order_of_the_file() -> None:
    assert list(SPACE.defaults()) == ["lr0", "epochs", "momentum", "fliplr", "close_mosaic", "optimizer"]


def test_what_evolves_has_a_gain_and_more_than_one_value() -> None:
    flat = Param("flat", 1, 1, 1)
    alone = Param("alone", "SGD", choices=("SGD",))
    space = Space("pins", (LR0, FLIPLR, flat, alone))
    assert space.evolving == (LR0,)
    assert space.names == ("lr0", "fliplr", "flat", "alone")


def test_a_base_replaces_defaults_and_fixed_values_and_leaves_the_rest() -> None:
    started = SPACE.with_base({"epochs": 5, "lr0": "2e-3", "optimizer": "Lion"})
    assert started.defaults() == {**SPACE.defaults(), "epochs": 5, "lr0": 0.002, "optimizer": "Lion"}
    assert SPACE.defaults()["lr0"] == 0.01


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"momentun": 0.9}, "unknown hyp 'momentun' in space 'small' (did you mean 'momentum'?)"),
        ({"lr0": 0.2}, "lr0: 0.2 lies outside [1e-05, 0.1]"),
        ({"lr0": "fast"}, "lr0 must be a number, got 'fast'"),
        ({"lr0": math.nan}, "lr0 must be finite, got nan"),
        ({"lr0": [0.01]}, "lr0 must be a number, got [0.01]"),
        ({"close_mosaic": 2.5}, "close_mosaic must be a whole number, got 2.5"),
        ({"optimizer": "adamw"}, "optimizer: 'adamw' is not one of SGD, AdamW, Lion (did you mean 'AdamW'?)"),
        ({"epochs": "three"}, "epochs must be a number, got 'three'"),
    ],
)
def test_a_base_that_does_not_fit_is_refused_by_name(base: dict[str, object], message: str) -> None:
    for refuse in (SPACE.with_base, SPACE.check, SPACE.with_values):
        with pytest.raises(SpaceError) as error:
            refuse(base)  # type: ignore[arg-type, operator]
        assert str(error.value) == message


def test_a_hyp_may_need_another_that_evolves_or_is_fixed() -> None:
    mixup = Param.from_dict("mixup", {"low": 0, "high": 1, "default": 0.1, "needs": "mosaic"})
    assert mixup.to_dict() == {"low": 0.0, "high": 1.0, "default": 0.1, "needs": "mosaic"}
    assert "needs" not in LR0.to_dict()
    for space in (Space("x", (mixup, Param("mosaic", 1, 0, 1))), Space("x", (mixup,), {"mosaic": 1.0})):
        assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
        assert pickle.loads(pickle.dumps(space))["mixup"].needs == "mosaic"
        assert space.with_base({"mixup": 0.2})["mixup"].needs == "mosaic"
        assert space.freeze(["mosaic"])["mixup"].needs == "mosaic"
    assert Space("x", (mixup,), {"mosaic": 1.0}) != Space("x", (Param("mixup", 0.1, 0, 1),), {"mosaic": 1.0})


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ("mosiac", "mixup: needs 'mosiac', which is no hyp of space 'x' (did you mean 'mosaic'?)"),
        ("mixup", "mixup: needs itself; needs is the name of another hyp"),
        (0, "mixup: needs must be the name of a hyp, got 0"),
        (["mosaic"], "mixup: needs must be the name of a hyp, got ['mosaic']"),
    ],
)
def test_what_is_needed_has_to_be_another_hyp_of_the_space(needs: object, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        Space.from_hyps("x", {"mixup": {"low": 0, "high": 1, "default": 0, "needs": needs}, "mosaic": 1.0})
    assert str(error.value) == message


def test_clip_moves_every_value_to_the_nearest_that_is_allowed() -> None:
    wild = {"momentum": 7, "close_mosaic": -3.2, "lr0": 0.0, "epochs": 99}
    assert SPACE.clip(wild) == {"momentum": 0.98, "close_mosaic": 0, "lr0": 1e-5, "epochs": 99}
    with pytest.raises(SpaceError, match="unknown hyp 'lr1'"):
        SPACE.clip({"lr1": 0})


def test_frozen_hyps_keep_their_default_and_their_place() -> None:
    frozen = SPACE.freeze(["momentum", "optimizer", "epochs"])
    assert frozen.names == ("lr0", "fliplr", "close_mosaic")
    assert frozen.defaults() == SPACE.defaults()
    assert list(frozen.defaults()) == list(SPACE.defaults())


def test_only_freezes_all_the_others() -> None:
    assert SPACE.only(["momentum", "lr0"]).names == ("lr0", "momentum")
    with pytest.raises(SpaceError, match="epochs is fixed in space 'small' and cannot evolve"):
        SPACE.only(["epochs"])


def test_a_set_value_is_fixed_and_held_to_the_bounds() -> None:
    space = SPACE.with_values({"lr0": "0.02", "epochs": 7})
    assert "lr0" not in space.names
    assert dict(space.fixed) == {"epochs": 7, "lr0": 0.02}


@pytest.mark.parametrize("narrow", [SPACE.freeze, SPACE.only])
def test_unknown_names_are_refused_with_a_guess(narrow: Callable[[list[str]], Space]) -> None:
    with pytest.raises(SpaceError, match=r"unknown hyp 'momentm' in space 'small' \(did you mean 'momentum'\?\)"):
        narrow(["momentm"])


def test_a_hyp_cannot_stand_twice() -> None:
    with pytest.raises(SpaceError, match="lr0 stands twice in space 'x'"):
        Space("x", (LR0,), {"lr0": 0.01})


def test_a_space_cannot_be_changed_by_whoever_made_it() -> None:
    fixed = {"epochs": 3}
    space = Space("x", (LR0,), fixed)
    fixed["epochs"] = 4
    assert space.fixed["epochs"] == 3
    with pytest.raises(TypeError):
        space.fixed["epochs"] = 4  # type: ignore[index]


def test_a_space_comes_back_from_json_and_from_pickle() -> None:
    for space in (SPACE, load_space("ultralytics")):
        assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
        assert pickle.loads(pickle.dumps(space)) == space
        assert hash(pickle.loads(pickle.dumps(space))) == hash(space)


def test_the_identity_of_a_space_is_its_values_and_no_comment() -> None:
    with_comment = Space("x", (Param("lr0", 0.01, 1e-5, 0.1, comment="learning rate"),))
    without = Space("x", (Param("lr0", "1e-2", "1e-5", 0.1),))
    assert with_comment == without
    assert with_comment.to_dict() == without.to_dict()


def test_many_hyps_and_many_choices_take_no_longer_than_reading_them() -> None:
    """Comparing each with all before it would take a minute."""
    many = 40_000
    began = time.process_time()
    space = Space.from_hyps("large", {f"k{i}": i for i in range(many)})
    param = Param("o", default=1, choices=tuple(range(many)))
    assert len(space.order) == param.levels == many
    assert time.process_time() - began < 10
