"""The default operator: what it breeds, what its model is told, and that both together find what there is to find.

The laws that every operator keeps stand in test_genetics.py.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.random import default_rng

from search_spaces import Hyp, Param, Space, load_space
from studies import modern as module
from studies import surrogate
from studies.cube import Cube, cube_of
from studies.genetics import Operator, Population, Scored, Tried, normalised
from studies.modern import (
    FITTED,
    SEEN,
    SOURCES,
    Modern,
    Scale,
    bounded,
    breed,
    leap,
    masks,
    model_of,
    modern,
    rank_weights,
    shares,
    stride,
)

DETECTION = load_space("detection")
SQUARE = Space("square", tuple(Param(f"x{i}", 0.5, 0, 1) for i in range(6)))
MIXED = Space(
    "mixed",
    (
        Param("lr0", 0.01, 1e-5, 0.1, log=True),
        Param("degrees", 10.0, 0.0, 45.0),
        Param("layers", 3, 1, 9, step=1),
        Param("optimizer", "sgd", choices=("sgd", "adam", "lion")),
        Param("mosaic", 1.0, 0.0, 1.0),
        Param("mixup", 0.1, 0.0, 1.0, needs="mosaic"),
    ),
)


def scattered(space: Space, n: int, seed: int = 0, start: int = 0) -> list[Tried]:
    cube = cube_of(space)
    points = default_rng([seed, n]).random((n, cube.d))
    return [Tried(space.defaults() | cube.hyp_at(point), start + i) for i, point in enumerate(points)]


def scored(tried: Sequence[Tried], fitness: Callable[[Hyp], float]) -> list[Scored]:
    return [Scored(one.hyp, fitness(one.hyp), one.number) for one in tried]


def noisy(hyp: Hyp) -> float:
    """No hyp is better than another."""
    return float(default_rng(zlib.crc32(repr([*hyp.values()]).encode())).normal())


def population(scored: Sequence[Scored], hopeless: Sequence[Tried] = (), running: Sequence[Tried] = ()) -> Population:
    return Population(scored, hopeless, running, [one.hyp for one in (*scored, *hopeless, *running)])


def search(
    operator: Operator, space: Space, fitness: Callable[[Hyp], float], n: int, *, seed: int = 0, noise: float = 0.0
) -> list[Scored]:
    """n trials from the base on, one after the other; in order."""
    trials: list[Scored] = []
    hyp: Hyp = space.defaults()
    for number in range(n):
        if number:
            told = replace(population(trials), base_fitness=trials[0].fitness)
            hyp = operator(told, space, default_rng([seed, number])).hyp
        trials.append(Scored(hyp, fitness(hyp) + noise * float(default_rng([seed, number, 1]).normal()), number))
    return trials


def best(trials: Sequence[Scored]) -> Hyp:
    return max(trials, key=lambda one: one.fitness).hyp


# what it breeds


def test_fewer_than_five_trials_are_left_to_the_simple_rule() -> None:
    for n in (0, 1, 4):
        told = population(scored(scattered(MIXED, n), noisy))
        assert modern(told, MIXED, default_rng(3)) == normalised(told, MIXED, default_rng(3))
    told = population(scored(scattered(MIXED, 5), noisy))
    assert modern(told, MIXED, default_rng(3)).operator in SOURCES


def test_a_child_tells_its_parents_its_source_and_its_step_from_the_first_parent_or_the_base() -> None:
    trials = scored(scattered(MIXED, 30), noisy)
    hyps = {one.number: one.hyp for one in trials}
    cube, told = cube_of(MIXED), population(trials)
    found = set()
    for seed in range(60):
        child = modern(told, MIXED, default_rng(seed))
        found.add(child.operator)
        assert len(child.parents) == len(set(child.parents))
        assert set(child.parents) <= set(hyps)
        assert bool(child.parents) == (child.operator not in ("base", "uniform"))
        start = hyps[child.parents[0]] if child.parents else MIXED.defaults()
        assert child.step == {
            name: pytest.approx(cube.place(child.hyp)[i] - cube.place(start)[i], abs=1e-9)
            for i, name in enumerate(cube.names)
            if child.hyp[name] != start[name]
        }
    assert len(found) >= 4


def test_each_source_starts_where_it_says() -> None:
    """Little of a child has moved: the typical gene is still where the source starts."""
    trials = scored(scattered(MIXED, 40), lambda hyp: float(hyp["degrees"]))
    cube = cube_of(MIXED)
    brood = breed(population(trials), cube, 3000, default_rng(0))
    optimizer, degrees = cube.names.index("optimizer"), cube.names.index("degrees")
    places = {one.number: cube.place(one.hyp) for one in trials}
    ranked = sorted(trials, key=lambda one: -one.fitness)
    for source, name in enumerate(SOURCES):
        points, parents = brood.points[brood.sources == source], brood.parents[brood.sources == source]
        of_base = np.mean(points[:, optimizer] == cube.base[optimizer])
        of_fittest = np.mean(points[:, optimizer] == places[ranked[0].number][optimizer])
        if name in ("step", "difference"):
            mothers = np.array([places[number] for number in parents[:, 0]])
            assert np.mean(points[:, optimizer] == mothers[:, optimizer]) > 0.85
        if name == "base":
            assert of_base > 0.85
            assert np.median(points[:, degrees]) == pytest.approx(cube.base[degrees])
            assert (parents == -1).all()
        if name == "mean":
            assert of_fittest > 0.85
            assert (parents >= 0).all()
            assert np.median(points[:, degrees]) > 0.75  # the fittest fifth lies there
        if name == "uniform":
            assert np.bincount((points[:, optimizer] * 3).astype(int)) / len(points) == pytest.approx(1 / 3, abs=0.12)
            assert np.histogram(points[:, degrees], 4, (0, 1))[0] / len(points) == pytest.approx(1 / 4, abs=0.12)


def test_parents_are_of_the_fittest_fifth_and_the_fitter_the_more() -> None:
    trials = [Scored(one.hyp, float(one.number), one.number) for one in scattered(SQUARE, 100)]
    mothers = breed(population(trials), cube_of(SQUARE), 4000, default_rng(0)).parents[:, 0]
    drawn = np.bincount(mothers[mothers >= 0], minlength=100) / np.sum(mothers >= 0)
    assert (drawn[:80] == 0).all()
    assert drawn[:79:-1] == pytest.approx(rank_weights(20), abs=0.03)


def test_a_hyp_that_was_trained_more_than_once_ranks_by_its_mean() -> None:
    one, other = scattered(SQUARE, 2)
    trials = [Scored(one.hyp, 0.9, 0), Scored(one.hyp, 0.1, 1), Scored(other.hyp, 0.6, 2)]
    assert [(ranked.number, ranked.fitness) for ranked in population(trials).ranked()] == [(2, 0.6), (0, 0.5)]


def test_rank_weights_are_those_of_cma_es() -> None:
    n = 12
    raw = [math.log(n + 0.5) - math.log(i) for i in range(1, n + 1)]
    assert rank_weights(n) == pytest.approx([weight / sum(raw) for weight in raw])
    assert rank_weights(1) == pytest.approx([1])


def test_draws_around_the_base_become_fewer_with_every_trial_that_beats_it() -> None:
    trials = [Scored(one.hyp, 0.1 * one.number, one.number) for one in scattered(SQUARE, 30)]
    found = [shares(replace(population(trials), base_fitness=base)) for base in (None, 9.0, 2.5, 1.05, -1.0)]
    assert [share.sum() for share in found] == pytest.approx([1] * 5)
    from_base = [share[SOURCES.index("base")] for share in found]
    assert from_base == pytest.approx([0.3, 0.3, 0.3 * 5 / 9, 0.3 * 5 / 24, 0.3 * 5 / 35])
    counts = [
        np.mean(
            breed(replace(population(trials), base_fitness=base), cube_of(SQUARE), 2000, default_rng(0)).sources == 3
        )
        for base in (9.0, 1.05)
    ]
    assert counts == pytest.approx([from_base[1], from_base[3]], abs=0.03)


@pytest.mark.parametrize("d", [1, 2, 7, 28])
def test_some_gene_of_every_child_moves_and_now_and_then_all_do(d: int) -> None:
    hit = masks(4000, d, 2, default_rng(0))
    counts = hit.sum(axis=1)
    assert counts.min() == (1 if d > 1 else d)
    assert counts.max() == d
    if d == 28:
        assert np.quantile(counts, 0.1) <= 3
        assert hit.mean(axis=0) == pytest.approx(hit.mean(), abs=0.04)  # none is preferred


def test_a_point_beyond_a_bound_is_reflected_or_stays_there() -> None:
    found = bounded(np.full((500, 2), -0.2), default_rng(0))
    assert set(np.round(found, 9).ravel()) == {0.0, 0.2}
    assert (found[:, 0] == found[:, 1]).all()
    assert 0.15 < np.mean(found[:, 0] == 0) < 0.25


def test_a_step_goes_as_far_with_all_genes_as_with_two() -> None:
    cube = cube_of(SQUARE)
    few, all_of_them = (np.tile(np.arange(6) < hits, (4000, 1)) for hits in (2, 6))
    for lengths in ((0.1, 0.1), (0.4, 0.4)):
        for hit in (few, all_of_them):
            moved = stride(lengths, hit, cube, default_rng(0))
            assert np.sqrt(np.mean(np.square(moved).sum(axis=1))) == pytest.approx(lengths[0], rel=0.05)
            assert not moved[~hit].any()


def test_a_child_drawn_at_random_is_trained_unseen_by_the_model_only() -> None:
    told = population(scored(scattered(SQUARE, 40), noisy))
    made = {
        unseen: {Modern(unseen=unseen)(told, SQUARE, default_rng(seed)).operator for seed in range(150)}
        for unseen in (0.0, 1.0)
    }
    assert "uniform" not in made[0.0]
    assert "uniform" in made[1.0]


def test_a_choice_leaps_or_stays() -> None:
    cube = cube_of(MIXED)
    at = cube.names.index("optimizer")
    start = np.tile(cube.base, (2000, 1))
    moved = leap(start + 0.01, start, np.ones(start.shape, dtype=bool), cube, default_rng(0))
    assert (np.delete(moved, at, axis=1) == np.delete(start + 0.01, at, axis=1)).all()
    assert np.mean(moved[:, at] != start[:, at]) == pytest.approx(0.2, abs=0.03)
    assert (
        leap(start + 0.01, start, np.zeros(start.shape, dtype=bool), cube, default_rng(0))[:, at] == cube.base[at]
    ).all()


def test_uncensored_it_knows_of_pruned_trials_only_that_they_are_taken() -> None:
    tried = scattered(MIXED, 60)
    trials = scored(tried[:30], noisy)
    told, untold = population(trials, tried[30:]), population(trials)
    children = [Modern(censored=False)(told, MIXED, default_rng(seed)) for seed in range(6)]
    assert children == [modern(untold, MIXED, default_rng(seed)) for seed in range(6)]
    assert children != [modern(told, MIXED, default_rng(seed)) for seed in range(6)]


# genes that change nothing


@pytest.mark.parametrize("n", [0, 1, 3, 12, 40])
def test_a_dead_gene_is_never_mutated_alone(n: int) -> None:
    space = MIXED.with_base({"mosaic": 0.0})
    trials = [Scored({**one.hyp, "mosaic": 0.0}, noisy(one.hyp), one.number) for one in scattered(space, n)]
    told = population(trials)
    cube = cube_of(space)
    known = {tuple(row) for row in cube.settle(np.array([cube.base, *(cube.place(one.hyp) for one in trials)]))}
    for seed in range(150):
        child = modern(told, space, default_rng(seed))
        assert tuple(cube.settle(cube.place(child.hyp)[None])[0]) not in known


def test_a_dead_gene_stays_where_its_source_starts() -> None:
    space = MIXED.with_base({"mosaic": 0.3})
    trials = [
        Scored({**one.hyp, "mosaic": 0.0} if one.number % 2 else one.hyp, noisy(one.hyp), one.number)
        for one in scattered(space, 40)
    ]
    cube = cube_of(space)
    mixup = cube.names.index("mixup")
    brood = breed(population(trials), cube, 2000, default_rng(0))
    starts = {one.number: cube.place(one.hyp)[mixup] for one in trials} | {-1: cube.base[mixup]}
    of_one = np.isin(brood.sources, [SOURCES.index(name) for name in ("step", "difference", "base")])
    dead = cube.dead(brood.points)[:, mixup] & of_one
    moved = brood.points[:, mixup] != [starts[number] for number in brood.parents[:, 0]]
    assert dead.sum() > 50
    assert not moved[dead].any()
    assert moved[~dead & of_one].mean() > 0.3


def test_where_every_gene_is_dead_there_is_a_child_nevertheless() -> None:
    space = MIXED.with_values({"mosaic": 0.0}).only(["mixup"])
    for n in (0, 8):
        told = population(scored(scattered(space, n), noisy))
        assert modern(told, space, default_rng(0)).hyp not in told.taken


# what the model is told


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
@example(fitness=[0.0, 2.2250738585e-313], asked=[0.0, 1.0])
def test_a_scale_keeps_the_order_and_draws_failures_near(fitness: list[float], asked: list[float]) -> None:
    scale = Scale.of(np.array(fitness))
    z = scale.of_fitness(np.sort(asked))
    assert scale.span > 0
    assert (np.diff(z) >= 0).all()
    assert np.isfinite(z).all()


def test_a_scale_is_0_at_the_median_and_1_at_the_ninth_decile() -> None:
    fitness = np.array([-1e3, *np.linspace(0, 1, 11)[1:]])
    scale = Scale.of(fitness)
    assert scale.of_fitness(np.quantile(fitness, [0.5, 0.9])) == pytest.approx([0, 1])
    z = scale.of_fitness(fitness)
    assert -5 < z[0] < -2


def test_trials_without_a_fitness_enter_as_the_worst_and_running_ones_as_the_median() -> None:
    tried = scattered(SQUARE, 40)
    trials = scored(tried[:21], lambda hyp: float(hyp["x0"]))
    told = population(trials, tried[21:30], tried[30:])
    scale = Scale.of(np.array([one.fitness for one in trials]))
    points, values = module._told(told, scale, cube_of(SQUARE))
    assert points.tolist() == [list(one.hyp.values()) for one in tried]
    assert values[:21] == pytest.approx(scale.of_fitness(np.array([one.fitness for one in trials])))
    assert (values[21:30] == values[:21].min()).all()
    assert (values[30:] == 0).all()
    assert np.median(values[:21]) == pytest.approx(0)


def test_the_model_sees_no_more_trials_than_it_may_and_the_fittest_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    fit = module.fit_kernel
    monkeypatch.setattr(module, "fit_kernel", lambda points, values: fitted.append(len(points)) or fit(points, values))
    tried = scattered(SQUARE, 800)
    told = population(scored(tried[:500], noisy), tried[500:700], tried[700:])
    model = model_of(told, cube_of(SQUARE))
    assert model is not None
    assert len(model.points) == SEEN
    assert fitted == [FITTED]
    seen = module._seen(told, SEEN)
    assert len(seen.running) == SEEN // 5
    fittest = {one.number for one in told.ranked()[: 2 * SEEN // 5]}
    assert fittest <= {one.number for one in seen.scored}
    rest = [one.number for one in (*seen.scored, *seen.hopeless) if one.number not in fittest]
    others = [number for number in range(700) if number not in fittest]
    assert sorted(rest) == others[-2 * SEEN // 5 :]
    few = population(scored(tried[:60], noisy), tried[60:70], tried[70:80])
    assert module._seen(few, SEEN) == few


def test_the_kernel_is_fitted_anew_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    climbs: list[int] = []
    climb = surrogate._climb
    monkeypatch.setattr(surrogate, "_climb", lambda *told: climbs.append(len(told[0])) or climb(*told))
    tried = scattered(SQUARE, 300, seed=9)
    trials = scored(tried, noisy)
    for n in [*range(10, 50), *range(270, 300)]:
        model_of(population(trials[:n]), cube_of(SQUARE))
    assert climbs == [8, 16, 24, 32, 40, 48, FITTED, FITTED, FITTED]  # strides of 8, then 16 to 18
    climbs.clear()
    for running in range(10):  # who waits changes no scale
        model_of(population(trials[:48], running=tried[48 : 48 + running]), cube_of(SQUARE))
    assert climbs in ([], [48])


def test_where_all_fitness_is_equal_there_is_no_model_and_yet_a_child() -> None:
    tried = scattered(MIXED, 40)
    told = population([Scored(one.hyp, 0.3, one.number) for one in tried[:20]], tried[20:])
    assert model_of(told, cube_of(MIXED)) is None
    hyps = [modern(told, MIXED, default_rng(seed)).hyp for seed in range(10)]
    assert len({tuple(hyp.values()) for hyp in hyps}) == 10


@pytest.mark.parametrize("fitness", [1e-300, 1e12, -1e12, 1e150])
def test_whatever_the_size_of_fitness_there_is_a_child(fitness: float) -> None:
    tried = scattered(MIXED, 12)
    trials = [
        Scored(one.hyp, fitness * (one.number % 5 == 0) + 1e-3 * fitness * one.number, i) for i, one in enumerate(tried)
    ]
    assert model_of(population(trials), cube_of(MIXED)) is not None
    MIXED.check(modern(population(trials), MIXED, default_rng(0)).hyp)


def test_where_the_model_breaks_down_children_are_trained_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = population(scored(scattered(MIXED, 20), noisy))
    broken = surrogate.Kernel(np.ones(Cube(MIXED).d + 2), noise=-2.0)
    monkeypatch.setattr(module, "fit_kernel", lambda points, values: broken)
    assert model_of(told, cube_of(MIXED)) is None
    MIXED.check(modern(told, MIXED, default_rng(0)).hyp)


def test_one_child_in_five_is_not_chosen_by_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    choose = module.select
    monkeypatch.setattr(module, "select", lambda *told: chosen.append(1) or choose(*told))
    told = population(scored(scattered(SQUARE, 8), noisy))
    for seed in range(300):
        modern(told, SQUARE, default_rng(seed))
    assert len(chosen) / 300 == pytest.approx(0.8, abs=0.06)


def test_in_whatever_order_trials_without_a_fitness_are_listed_the_child_is_the_same() -> None:
    tried = scattered(MIXED, 60)
    told = population(scored(tried[:30], noisy), tried[30:50], tried[50:])
    turned = replace(
        told, scored=told.scored[::-1], hopeless=told.hopeless[::-1], running=told.running[::-1], taken=told.taken[::-1]
    )
    for seed in range(10):
        assert modern(told, MIXED, default_rng(seed)) == modern(turned, MIXED, default_rng(seed))


# what comes of it


def test_where_trials_were_pruned_or_failed_fewer_are_tried() -> None:
    """More of x0 was better as far as it went, but where it is more than half, all trials came to nothing."""
    tried = scattered(SQUARE, 80)
    low = [one for one in tried if float(one.hyp["x0"]) < 0.5]
    high = [one for one in tried if float(one.hyp["x0"]) >= 0.5]

    def share_of_high(hopeless: Sequence[Tried]) -> float:
        told = population(scored(low, lambda hyp: float(hyp["x0"])), hopeless)
        children = [modern(told, SQUARE, default_rng(seed)) for seed in range(120)]
        return float(np.mean([float(child.hyp["x0"]) > 0.5 for child in children]))

    unwarned, warned = share_of_high([]), share_of_high(high)
    assert unwarned > 0.6
    assert warned < unwarned / 2


def test_the_model_tells_those_pruned_far_behind_from_those_that_were_nearly_as_good() -> None:
    tried = scattered(SQUARE, 12)
    trials = [Scored(one.hyp, noisy(one.hyp), one.number, {4: 0.5 + 0.02 * noisy(one.hyp)}) for one in tried]
    cube, near = cube_of(SQUARE), scattered(SQUARE, 60, start=100)
    is_low = [float(one.hyp["x0"]) < 0.5 for one in near]
    pruned = [replace(one, last=(4, 0.01 if low else 0.49)) for one, low in zip(near, is_low, strict=True)]
    model = model_of(population(trials, pruned), cube)
    assert model is not None
    mean, _ = model.predict(cube.features(cube.places(one.hyp for one in near)))
    assert np.quantile(mean[is_low], 0.9) < np.quantile(mean[np.invert(is_low)], 0.1)


def test_those_in_training_keep_others_from_trying_nearly_the_same() -> None:
    tried = scattered(SQUARE, 30)
    trials = scored(tried, lambda hyp: -sum((float(x) - 0.7) ** 2 for x in hyp.values()))
    cube = cube_of(SQUARE)

    def asked(tell: bool) -> np.ndarray:
        """16 hyps in a row, none of which has ended."""
        running: list[Tried] = []
        for number in range(30, 46):
            told = population(trials, running=running)
            child = modern(told if tell else replace(told, running=()), SQUARE, default_rng(number))
            running.append(Tried(child.hyp, number))
        return cube.places(one.hyp for one in running)

    def nearest(points: np.ndarray) -> float:
        distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(len(points))
        return float(np.median(distances.min(axis=1)))

    told, untold = asked(True), asked(False)
    assert len({tuple(point) for point in told}) == 16
    assert nearest(told) > 1.2 * nearest(untold)


def test_ints_and_choices_evolve() -> None:
    def fitness(hyp: Hyp) -> float:
        return -abs(int(hyp["layers"]) - 8) - 2 * (hyp["optimizer"] != "lion") - abs(float(hyp["degrees"]) - 30) / 45

    for seed in range(3):
        found = best(search(modern, MIXED, fitness, 60, seed=seed))
        assert (found["layers"], found["optimizer"]) == (8, "lion")


def test_a_best_value_at_a_bound_is_reached_exactly() -> None:
    def fitness(hyp: Hyp) -> float:
        return math.log10(float(hyp["lr0"])) - float(hyp["degrees"]) / 45 - abs(float(hyp["mosaic"]) - 0.5)

    for seed in range(3):
        found = best(search(modern, MIXED, fitness, 80, seed=seed))
        assert (found["lr0"], found["degrees"]) == (0.1, 0.0)


def test_choices_alone_are_searched_too() -> None:
    space = Space("choices", tuple(Param(f"c{i}", "a", choices=("a", "b", "c", "d")) for i in range(6)))
    wanted = dict(zip(space.names, "bcdabd", strict=True))
    for seed in range(3):  # of 4096
        trials = search(
            modern, space, lambda hyp: sum(hyp[name] == value for name, value in wanted.items()), 80, seed=seed
        )
        assert len({tuple(one.hyp.values()) for one in trials}) == 80
        assert best(trials) == wanted


def test_on_a_noisy_sphere_of_20_hyps_it_comes_far_nearer_than_the_simple_rule() -> None:
    space = Space("sphere", tuple(Param(f"x{i:02}", 0.5, 0, 1) for i in range(20)))
    optimum = 0.5 + 0.15 * default_rng(5).choice([-1, 1], 20)
    default_distance = float(np.sum((0.5 - optimum) ** 2))

    def loss(hyp: Hyp) -> float:
        return float(np.sum((np.array([*hyp.values()]) - optimum) ** 2)) / default_distance

    left = {
        operator: np.mean(
            [
                loss(best(search(operator, space, lambda hyp: -loss(hyp), 300, seed=seed, noise=0.05)))
                for seed in range(2)
            ]
        )
        for operator in (modern, normalised)
    }
    assert left[modern] < 0.4 * left[normalised] < 0.4
