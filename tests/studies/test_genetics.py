"""The genetic kernel: laws that every operator keeps, the classic rule's statistics, and steps alike in every range."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from search_spaces import Hyp, Param, Space, SpaceError, Value, load_space
from studies.genetics import (
    Operator,
    Population,
    Scored,
    SpaceExhausted,
    choose_parent,
    multiply,
    normalised,
    reflect,
    vary_alone,
    yolo,
    yolo_factors,
)
from studies.sampler import OPERATORS

DETECTION = load_space("detection")
YOLOV5 = load_space("yolov5")
each = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


def population(parents: Sequence[Scored] = (), taken: Sequence[Hyp] = ()) -> Population:
    return Population(scored=parents, taken=taken)


def scored(*hyps: dict[str, Value], fitness: Sequence[float] = ()) -> list[Scored]:
    return [Scored(hyp, fitness[i] if fitness else 0.1 * i, number=i) for i, hyp in enumerate(hyps)]


def family(operator: Operator, space: Space, n: int, seed: int = 0) -> list[Scored]:
    """The defaults and n children, each bred from all before it, with random fitness."""
    history = scored(space.defaults())
    for number in range(1, n + 1):
        rng = default_rng([seed, number])
        child = operator(population(history, [one.hyp for one in history]), space, rng)
        history.append(Scored(child.hyp, float(rng.normal()), number))
    return history


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """One to six params of every kind, their defaults anywhere in their bounds, at least one float that evolves."""
    params = [Param("first", draw(st.floats(0.001, 1)), 0.001, 1, log=draw(st.booleans()))]
    for i in range(draw(st.integers(0, 5))):
        gain = draw(st.sampled_from([0, 0.3, 1, 2]))
        low, span, u = draw(st.integers(-5, 5)), draw(st.integers(0, 8)), draw(st.floats(0, 1))
        unset = draw(
            st.sampled_from(
                [
                    Param(f"p{i}", low, low, low + span, gain=gain),
                    Param(f"p{i}", low, low, low + span, gain=gain, step=1),
                    Param(f"p{i}", "a", gain=gain, choices=("a", "b", "c")),
                    Param(f"p{i}", 1e-4, 1e-4, 1e-4 * 10 ** abs(low), gain=gain, log=True),
                ]
            )
        )
        params.append(Param.from_dict(f"p{i}", unset.to_dict() | {"default": unset.from_unit(u)}))
    return Space("drawn", tuple(params), {"seed": 3})


@each
@given(space=spaces(), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_children_lie_in_bounds_differ_from_all_before_and_keep_what_is_pinned(
    operator: Operator, space: Space, seed: int
) -> None:
    history = family(operator, space, 5, seed)
    evolving = {param.name for param in space.evolving}
    for i, one in enumerate(history):
        space.check(one.hyp)
        assert list(one.hyp) == list(space.order)
        assert one.hyp not in [other.hyp for other in history[:i]]
        assert {k: v for k, v in one.hyp.items() if k not in evolving} == {
            k: v for k, v in space.defaults().items() if k not in evolving
        }


@each
def test_three_hundred_generations_never_repeat_themselves(operator: Operator) -> None:
    genomes = {tuple(one.hyp.values()) for one in family(operator, YOLOV5, 300)}
    assert len(genomes) == 301


@each
def test_pinned_genes_of_yolov5_never_move(operator: Operator) -> None:
    for one in family(operator, YOLOV5, 40):
        assert (one.hyp["iou_t"], one.hyp["fl_gamma"], one.hyp["perspective"], one.hyp["fliplr"]) == (0.2, 0, 0, 0.5)


@each
def test_the_same_generator_gives_the_same_child(operator: Operator) -> None:
    history = family(operator, DETECTION, 8)
    children = [
        operator(population(history, [one.hyp for one in history]), DETECTION, default_rng([7, 9])) for _ in range(2)
    ]
    assert children[0] == children[1]
    assert children[0] != operator(population(history, [one.hyp for one in history]), DETECTION, default_rng([7, 10]))


@each
def test_the_order_in_which_trials_are_listed_does_not_matter(operator: Operator) -> None:
    history = family(operator, DETECTION, 12)
    one_way = operator(population(history, [one.hyp for one in history]), DETECTION, default_rng(1))
    assert operator(population(history[::-1], [one.hyp for one in history]), DETECTION, default_rng(1)) == one_way


@each
@pytest.mark.parametrize("fitness", [(0, 0, 0), (-3, -2, -1), (0.5, 0.5, 0.5), (1e-9, 0, 1e12)])
def test_any_finite_fitness_makes_a_parent(operator: Operator, fitness: tuple[float, ...]) -> None:
    hyps = [one.hyp for one in family(operator, DETECTION, 2)]
    child = operator(population(scored(*hyps, fitness=fitness), hyps), DETECTION, default_rng(0))
    assert child.parents[0] in (0, 1, 2)


@each
def test_with_nothing_scored_the_defaults_are_the_parent(operator: Operator) -> None:
    child = operator(population([], []), DETECTION, default_rng(0))
    assert child.parents == ()
    assert child.hyp != DETECTION.defaults()


@each
def test_a_child_tells_its_parent_its_operator_and_how_far_each_gene_moved(operator: Operator) -> None:
    parent = DETECTION.defaults()
    child = operator(population(scored(parent), [parent]), DETECTION, default_rng(3))
    assert child.parents == (0,)
    assert child.operator == ("yolo" if operator is yolo else "normalised")  # there is nothing yet to model
    assert set(child.step) == {name for name in parent if child.hyp[name] != parent[name]}
    for name, step in child.step.items():
        param = DETECTION[name]
        if operator is yolo:
            assert step == pytest.approx(child.hyp[name] / parent[name])
        else:
            assert step == pytest.approx(param.to_unit(child.hyp[name]) - param.to_unit(parent[name]))


@each
def test_a_space_where_nothing_can_evolve_is_refused(operator: Operator) -> None:
    pinned = Space("pinned", (Param("a", 1, 0, 2, gain=0), Param("b", 1, 1, 1)), {"c": 3})
    with pytest.raises(SpaceError, match="nothing can evolve in space 'pinned'"):
        operator(population([], []), pinned, default_rng(0))


@each
def test_a_small_space_is_tried_out_and_then_refused(operator: Operator) -> None:
    space = Space("tiny", (Param("n", 1, 1, 3, step=1), Param("c", "a", choices=("a", "b"))))
    history = family(operator, space, 5)
    assert len({tuple(one.hyp.items()) for one in history}) == 6
    with pytest.raises(SpaceExhausted, match="no new hyp was found in space 'tiny'"):
        operator(population(history, [one.hyp for one in history]), space, default_rng(0))


@each
def test_a_choice_changes_seldom_but_does_change(operator: Operator) -> None:
    space = Space("s", (*DETECTION.params, Param("optimizer", "SGD", choices=("SGD", "AdamW", "Lion"))))
    start = scored(space.defaults())
    drawn = [operator(population(start, []), space, default_rng(i)).hyp["optimizer"] for i in range(500)]
    assert 0.01 < 1 - drawn.count("SGD") / 500 < 0.3
    assert {"AdamW", "Lion"} <= set(drawn)


@each
def test_a_child_is_found_although_its_parent_was_not_rounded(operator: Operator) -> None:
    space = Space("s", (Param("lr0", 0.0123456789, 0, 0.1),))
    child = operator(population(scored(space.defaults()), [space.defaults()]), space, default_rng(0))
    assert child.hyp["lr0"] == float(f"{child.hyp['lr0']:.5g}")


# choose_parent


def test_parents_come_from_the_n_fittest_only() -> None:
    pool = [Scored({}, fitness, i) for i, fitness in enumerate([0.1, 0.9, 0.3, 0.8, 0.2])]
    rng = default_rng(0)
    drawn = [choose_parent(pool, 3, rng).number for _ in range(2000)]
    assert set(drawn) <= {1, 3, 2}
    assert drawn.count(1) / 2000 == pytest.approx(0.6 / 1.1, abs=0.04)  # leads .6, .5 and 0 over the least of the three
    assert drawn.count(3) / 2000 == pytest.approx(0.5 / 1.1, abs=0.04)


def test_equal_parents_are_drawn_alike() -> None:
    rng = default_rng(0)
    drawn = [choose_parent([Scored({}, 0.4, i) for i in range(4)], 4, rng).number for _ in range(2000)]
    assert all(drawn.count(i) / 2000 == pytest.approx(0.25, abs=0.04) for i in range(4))


def test_what_is_not_finite_is_no_parent() -> None:
    pool = [Scored({}, math.nan, 0), Scored({}, math.inf, 1), Scored({}, 0.2, 2)]
    assert all(choose_parent(pool, 5, default_rng(i)).number == 2 for i in range(20))
    with pytest.raises(ValueError, match="no finite fitness"):
        choose_parent(pool[:2], 5, default_rng(0))


# yolo


def factors(n: int, gains: np.ndarray) -> np.ndarray:
    rng = default_rng(0)
    return np.array([yolo_factors(gains, rng) for _ in range(n)])


def test_yolo_factors_have_the_statistics_of_v7_0() -> None:
    """sd .104, 23.6 % beyond 10 %, 7.6 % beyond 20 %, 19.8 % unmoved (0.2 less the redraws), of 29 genes."""
    v = factors(8000, np.ones(29))
    assert v.std() == pytest.approx(0.104, abs=0.002)
    assert (abs(v - 1) > 0.1).mean() == pytest.approx(0.236, abs=0.006)
    assert (abs(v - 1) > 0.2).mean() == pytest.approx(0.076, abs=0.004)
    assert (v == 1).mean() == pytest.approx(0.198, abs=0.005)
    assert v.min() >= 0.3
    assert v.max() <= 3


def test_one_uniform_number_scales_a_whole_yolo_genome() -> None:
    """With U drawn per gene, |v - 1| of two genes would not correlate; sharing it makes them do so."""
    v = abs(factors(8000, np.ones(2)) - 1)
    moved = v[(v > 0).all(axis=1)]
    assert np.corrcoef(moved.T)[0, 1] > 0.2


def test_yolo_factors_always_move_something_that_has_a_gain() -> None:
    v = factors(500, np.array([0.0, 1.0]))
    assert (v[:, 0] == 1).all()
    assert (v[:, 1] != 1).all()
    assert (yolo_factors(np.zeros(3), default_rng(0)) == 1).all()


def test_a_gain_scales_the_yolo_step() -> None:
    v = factors(8000, np.array([1.0, 0.3]))
    assert v[:, 1].std() / v[:, 0].std() == pytest.approx(0.3, abs=0.02)


def test_yolo_multiplies_clips_and_rounds_to_five_decimals() -> None:
    parent = DETECTION.defaults()
    child = multiply(parent, DETECTION.evolving, default_rng(5))
    v = yolo_factors(np.array([param.gain for param in DETECTION.evolving]), default_rng(5))
    for param, factor in zip(DETECTION.evolving, v, strict=True):
        low, high = param.bounds
        assert child[param.name] == round(min(max(parent[param.name] * factor, low), high), 5)


def test_zero_never_leaves_zero_under_yolo() -> None:
    zeros = [name for name, value in DETECTION.defaults().items() if value == 0]
    assert {"degrees", "shear", "perspective", "flipud", "mixup"} <= set(zeros)
    for one in family(yolo, DETECTION, 100):
        assert [one.hyp[name] for name in zeros] == [0] * len(zeros)


def test_a_genome_of_zeros_is_helped_out_by_the_unit_cube_and_says_so() -> None:
    space = DETECTION.only(["degrees", "shear"])
    child = yolo(population(scored(space.defaults()), [space.defaults()]), space, default_rng(0))
    assert child.operator == "normalised"
    assert child.hyp["degrees"] > 0 or child.hyp["shear"] > 0


def test_yolo_stays_in_bounds_that_five_decimals_cannot_tell_apart() -> None:
    space = Space("s", (Param("tiny", 2e-6, 1e-6, 4e-6), Param("lr0", 0.01, 1e-5, 0.1)))
    for one in family(yolo, space, 30):
        space.check(one.hyp)


# normalised


def steps(name: str, children: int, space: Space = DETECTION, start: Value | None = None) -> np.ndarray:
    """The unit steps that gene `name` took, from the middle of its range, where it moved in so many children."""
    base = space.with_base({name: space[name].from_unit(0.5) if start is None else start})
    parent = scored(base.defaults())
    drawn = [normalised(population(parent, []), base, default_rng(i)) for i in range(children)]
    return np.array([child.step[name] for child in drawn if name in child.step])


def test_steps_of_perspective_and_degrees_are_alike_in_their_range() -> None:
    perspective, degrees = steps("perspective", 1000), steps("degrees", 1000)
    assert min(len(perspective), len(degrees)) > 150
    assert perspective.std() / degrees.std() == pytest.approx(1, abs=0.25)
    assert np.median(abs(perspective)) / np.median(abs(degrees)) == pytest.approx(1, abs=0.3)


def test_alone_with_the_same_generator_every_gene_takes_the_same_step() -> None:
    reference = steps("perspective", 100, DETECTION.only(["perspective"]))
    assert len(reference) == 100
    for name in ("degrees", "lr0", "box", "mosaic"):  # lr0 and box by ratios
        assert steps(name, 100, DETECTION.only([name])) == pytest.approx(reference, abs=1e-3)


def test_zero_leaves_zero_in_the_unit_cube() -> None:
    moved = {name for one in family(normalised, DETECTION, 60) for name, value in one.hyp.items() if value}
    assert moved == set(DETECTION.names)


def test_bounds_reflect_and_do_not_swallow_the_step() -> None:
    alone = DETECTION.only(["degrees"])
    at_the_bound, in_the_middle = steps("degrees", 100, alone, start=0.0), steps("degrees", 100, alone)
    inside = at_the_bound < 0.5  # the one or other longer step met the opposite bound from the middle
    assert inside.mean() > 0.95
    assert at_the_bound[inside] == pytest.approx(abs(in_the_middle[inside]), abs=1e-3)


def test_a_gain_scales_the_step_in_the_unit_cube() -> None:
    pair = Space("pair", tuple(Param(f"x{g}", 0.5, 0, 1, gain=g) for g in (0.3, 1.0)))
    small, large = (steps(name, 1200, pair) for name in ("x0.3", "x1.0"))
    assert small.std() / large.std() == pytest.approx(0.3, abs=0.05)


def test_as_many_genes_move_in_a_space_of_27_as_in_one_of_13() -> None:
    narrow = DETECTION.only(DETECTION.names[:13])
    moved = [
        np.mean([len(normalised(population([], []), space, default_rng(i)).step) for i in range(400)])
        for space in (DETECTION, narrow)
    ]
    assert moved[0] == pytest.approx(moved[1], rel=0.15)
    assert 4 < moved[0] < 9


def test_an_int_of_few_values_moves_however_small_its_gain() -> None:
    space = Space("s", (Param("close_mosaic", 10, 0, 10, step=1, gain=0.01),))
    values = {normalised(population([], []), space, default_rng(i)).hyp["close_mosaic"] for i in range(200)}
    assert {8, 9} <= values
    assert all(type(value) is int for value in values)


def test_every_float_is_left_as_it_will_be_saved() -> None:
    for one in family(normalised, DETECTION, 40)[1:]:
        for param in DETECTION.params:
            assert param.round_value(one.hyp[param.name]) == one.hyp[param.name]


@given(space=spaces(), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_a_param_by_itself_stays_in_bounds_wherever_its_parent_lies(space: Space, seed: int) -> None:
    for param in space.evolving:
        parent = "b" if param.choices else 1e6
        space.check({param.name: vary_alone(scored({param.name: parent}), param, default_rng(seed))})


def test_a_param_by_itself_is_drawn_uniformly_kept_or_stepped_from_the_fittest() -> None:
    param, parents = Param("x", 0.0, 0.0, 1.0), scored({"x": 0.1}, {"x": 0.7}, fitness=(0.0, 1.0))
    drawn = [vary_alone(parents, param, default_rng(seed)) for seed in range(400)]
    assert 70 < drawn.count(0.7) < 130
    assert drawn.count(0.1) < 5
    assert sum(abs(float(x) - 0.7) < 0.2 for x in drawn) > 220
    assert min(drawn) < 0.05


@given(st.floats(-50, 50))
def test_reflection_folds_into_the_unit_interval(u: float) -> None:
    assert 0 <= reflect(u) <= 1
    assert reflect(-u) == reflect(u)


def test_reflection_leaves_the_inside_alone() -> None:
    assert [reflect(u) for u in (0, 0.25, 1, 1.25, -0.25, 2.25)] == [0, 0.25, 1, 0.75, 0.25, 0.25]


@each
def test_nothing_global_is_touched(operator: Operator) -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    family(operator, DETECTION, 3)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
