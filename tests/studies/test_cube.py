"""The unit cube of a space: hyps in and out of it, what snapping does, and genes that change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from test_genetics import spaces

from search_spaces import Param, Space, load_space
from studies.cube import Cube, cube_of, reflect

DETECTION = load_space("detection")
LOG_INT = Param("width", 8, 1, 100, step=1, log=True)
KINDS = Space(
    "kinds",
    (
        Param("lr0", 0.01, 1e-5, 0.1, log=True),
        Param("degrees", 5.0, 0.0, 45.0),
        Param("layers", 3, 1, 9, step=2),
        LOG_INT,
        Param("optimizer", "sgd", choices=("sgd", "adam", "lion")),
        Param("pinned", 0.5, 0.0, 2.0, gain=0.0),
    ),
    {"epochs": 3},
)


def settled(cube: Cube, **hyp: object) -> dict[str, object]:
    """A hyp of these values, and else the base's, as it is once its dead genes have settled."""
    [point] = cube.settle(cube.place(hyp)[None])
    return cube.hyp_at(point)


def test_a_strength_that_is_off_at_first_is_measured_by_its_root_and_its_first_steps_are_small() -> None:
    params = (
        Param("degrees", 0.0, 0.0, 40.0),
        Param("translate", 0.1, 0.0, 0.4),  # on at first
        Param("shear", 0.0, -10.0, 10.0),  # 0 is its middle
        Param("shifts", 0, 0, 4, step=1),
    )
    cube = Cube(Space("strengths", params))
    point = cube.place({"degrees": 10.0, "translate": 0.1, "shear": 0.0, "shifts": 0})
    assert point == pytest.approx([0.5, 0.25, 0.5, 0.1])
    assert cube.hyp_at(point)["degrees"] == 10.0
    assert cube.base[0] == 0
    assert cube.hyp_at(cube.base + 0.1)["degrees"] == pytest.approx(0.4)


@pytest.mark.parametrize("space", [DETECTION, KINDS], ids=["detection", "kinds"])
def test_a_place_is_the_params_own_to_the_last_bit(space: Space) -> None:
    rng, cube = default_rng(0), Cube(space)
    from_zero = [p.kind == "float" and not p.log and p.low == p.default == 0 for p in cube.params]
    for value in (*rng.uniform(-2, 3, 50).tolist(), *rng.uniform(0, 0.1, 50).tolist(), 0.0, 1.0, 0, 1, -7, 10**6):
        hyp = {p.name: p.choices[0] if p.choices else value for p in cube.params}
        units = np.array([p.to_unit(hyp[p.name]) for p in cube.params])
        assert list(cube.place(hyp)) == list(units ** (1 / np.where(from_zero, 2.0, 1.0)))


def test_what_a_hyp_lacks_has_the_bases_place() -> None:
    one = Space("one", (Param("degrees", 5.0, 0.0, 45.0),))
    assert list(Cube(one).place({})) == list(Cube(one).base)
    cube = Cube(KINDS)
    assert list(cube.place({"degrees": 5.0, "unknown": 1})) == list(cube.base)


@given(space=spaces(), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_a_snapped_point_is_the_place_of_its_hyp(space: Space, seed: int) -> None:
    space = Space("with a log int", (*space.params, LOG_INT))
    cube = Cube(space)
    for point in cube.snap(default_rng(seed).random((5, cube.d))):
        hyp = cube.hyp_at(point)
        space.check(hyp)
        assert tuple(hyp) == cube.names
        assert cube.place(hyp) == pytest.approx(point, abs=1e-4)  # a float is rounded
        for name, value in cube.hyp_at(cube.place(hyp)).items():
            if space[name].kind == "float":
                assert value == pytest.approx(hyp[name], rel=1e-4, abs=1e-12)
            else:
                assert value == hyp[name]


@given(space=spaces(), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_snapping_moves_what_has_levels_and_nothing_else_and_changes_no_hyp(space: Space, seed: int) -> None:
    cube = Cube(Space("with a log int", (*space.params, LOG_INT)))
    points = default_rng(seed).random((5, cube.d))
    snapped = cube.snap(points)
    floats = cube.levels == 0
    assert (snapped[:, floats] == points[:, floats]).all()
    assert np.array_equal(cube.snap(snapped), snapped)
    assert [cube.hyp_at(point) for point in snapped] == [cube.hyp_at(point) for point in points]


def test_the_faces_of_the_cube_are_the_bounds() -> None:
    cube = Cube(KINDS)
    low, high = (cube.hyp_at(point) for point in cube.snap(np.array([np.zeros(cube.d), np.ones(cube.d)])))
    assert low == {"lr0": 1e-5, "degrees": 0.0, "layers": 1, "width": 1, "optimizer": "sgd"}
    assert high == {"lr0": 0.1, "degrees": 45.0, "layers": 9, "width": 100, "optimizer": "lion"}


def test_what_a_hyp_lacks_has_the_bases_place_and_what_does_not_evolve_has_none() -> None:
    cube = Cube(KINDS)
    assert cube.names == ("lr0", "degrees", "layers", "width", "optimizer")
    assert np.array_equal(cube.place({}), cube.base)
    assert np.array_equal(cube.place({"pinned": 1.0, "epochs": 9}), cube.base)
    moved = cube.place({"degrees": 45.0})
    assert moved[1] == 1
    assert cube.steps(cube.base, moved) == {"degrees": pytest.approx(1 - 5 / 45)}
    assert cube.places([]).shape == (0, 5)


def test_a_model_sees_every_choice_as_a_column_and_all_choices_equally_far_apart() -> None:
    cube = Cube(KINDS)
    seen = cube.features(cube.places({"optimizer": choice} for choice in ("sgd", "adam", "lion")))
    assert seen.shape == (3, 4 + 3)
    assert (seen[:, :4] == cube.base[:4]).all()
    assert seen[:, 4:] == pytest.approx(np.eye(3) / np.sqrt(2))  # of length 1, as from one end of a param to the other
    assert np.linalg.norm(seen[0] - seen[1]) == pytest.approx(1)
    assert (cube.features(np.ones((1, 5)))[0, 4:] > 0).tolist() == [False, False, True]


def test_a_cube_is_made_once_for_equal_spaces() -> None:
    assert cube_of(load_space("detection")) is cube_of(load_space("detection"))
    assert cube_of(DETECTION) is not cube_of(DETECTION.freeze(["lr0"]))


# genes that change nothing


def test_what_needs_a_hyp_that_is_0_settles_at_the_base() -> None:
    cube = Cube(DETECTION)
    [dead] = cube.dead(cube.place({"warmup_epochs": 0.0, "mosaic": 0.0})[None])
    assert {name for name, is_dead in zip(cube.names, dead, strict=True) if is_dead} == {
        "warmup_momentum", "warmup_bias_lr", "mixup"
    }  # fmt: skip
    off = settled(cube, warmup_epochs=0.0, warmup_momentum=0.3, warmup_bias_lr=0.2, degrees=9.0)
    assert off == DETECTION.defaults() | {"warmup_epochs": 0.0, "degrees": 9.0}
    on = settled(cube, warmup_epochs=1e-3, warmup_momentum=0.3)
    assert on == DETECTION.defaults() | {"warmup_epochs": 1e-3, "warmup_momentum": 0.3}


@pytest.mark.parametrize(
    ("needed", "zero", "others"),
    [
        (Param("n", 1.0, 0.0, 2.0), 0.0, (1e-4, 2.0)),
        (Param("n", 1.0, -1.0, 2.0), 0.0, (-1.0, -1e-4, 1e-4)),
        (Param("n", 1, -2, 4, step=1), 0, (-2, -1, 1, 4)),
        (Param("n", 2, 0, 4, step=2), 0, (2, 4)),
        (Param("n", True, choices=(True, False)), False, (True,)),
        (Param("n", 8, choices=(8, 4, 0)), 0, (8, 4)),
    ],
)
def test_a_gene_is_dead_where_what_it_needs_is_0_or_false_and_nowhere_else(
    needed: Param, zero: object, others: tuple[object, ...]
) -> None:
    cube = Cube(Space("s", (Param("x", 0.5, 0, 1, needs="n"), needed)))
    assert settled(cube, x=0.1, n=zero) == {"x": 0.5, "n": zero}
    for value in others:
        assert settled(cube, x=0.1, n=value) == {"x": 0.1, "n": value}


@pytest.mark.parametrize(
    "needed",
    [
        Param("n", 1, -3, 3, step=2),  # -3, -1, 1, 3
        Param("n", 0.1, 0.1, 2),
        Param("n", 1e-3, 1e-9, 1, log=True),
        Param("n", "0", choices=("0", "off")),
    ],
)
def test_what_needs_a_hyp_that_cannot_be_0_is_never_dead(needed: Param) -> None:
    cube = Cube(Space("s", (Param("x", 0.5, 0, 1, needs="n"), needed)))
    assert not cube.dead(cube.snap(default_rng(0).random((50, 2)))).any()
    assert not cube.dead(np.array([[0.5, 0.0], [0.5, 1.0]])).any()


@pytest.mark.parametrize(("value", "is_dead"), [(0, True), (0.0, True), (False, True), (1, False), ("off", False)])
def test_a_fixed_hyp_may_be_needed_too(value: object, is_dead: bool) -> None:
    cube = Cube(Space("s", (Param("x", 0.5, 0, 1, needs="n"),), {"n": value}))
    assert cube.dead(np.array([[0.2]])).tolist() == [[is_dead]]
    pinned = Cube(Space("s", (Param("x", 0.5, 0, 1, needs="n"), Param("n", 0, 0, 1, gain=0))))
    assert pinned.dead(np.array([[0.2]])).tolist() == [[True]]


def test_of_two_that_need_each_other_one_stays_at_0() -> None:
    """Rotated never, by up to 9 degrees, is rotated always by none; neither is the base."""
    space = Space("s", (Param("rate", 0.5, 0, 1, needs="degrees"), Param("degrees", 5, 0, 10, needs="rate")))
    cube = Cube(space)
    assert settled(cube, rate=0.0, degrees=9.0) == {"rate": 0.0, "degrees": 5.0}
    assert settled(cube, rate=0.9, degrees=0.0) == {"rate": 0.5, "degrees": 0.0}
    assert 0 in settled(cube, rate=0.0, degrees=0.0).values()


def test_settling_leaves_its_argument_alone() -> None:
    cube = Cube(DETECTION)
    points = cube.places([{"mosaic": 0.0, "mixup": 0.7}])
    before = points.copy()
    cube.settle(points)
    assert np.array_equal(points, before)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_reflection_folds_points_as_it_folds_numbers(values: list[float]) -> None:
    from studies.genetics import reflect as fold

    assert reflect(np.array(values)).tolist() == [fold(value) for value in values]
