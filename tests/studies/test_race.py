"""Who runs in a race and under which seeds, and that these are as many as its budget pays for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.race import Heat, Race, Round, Run, cost, due_heats, first_seed, rank, rounds_for, rounds_within

RACE = Race((7, 4, 9), (Round(3, 2), Round(1, 1)), first_seed=100)


def run_through(race, fitness):
    """All heats of a race in order, and their runs; `fitness` is of entrant and seed."""
    runs = []
    while due := due_heats(race, runs):
        heat = due[0]
        runs.append(Run(heat, fitness(heat.entrant, heat.seed)))
    return [run.heat for run in runs], runs


@given(st.integers(0, 500), st.integers(0, 20))
def test_a_race_never_costs_more_than_its_budget_and_always_has_three_seeds(trainings, most):
    rounds = rounds_within(trainings, most)
    assert cost(rounds) <= trainings
    if rounds:
        assert sum(round.seeds for round in rounds) >= 3
        assert [round.challengers for round in rounds] == sorted((r.challengers for r in rounds), reverse=True)
        assert rounds[0].challengers <= most


@pytest.mark.parametrize(
    ("trainings", "rounds"),
    [
        (5, []),
        (6, [(1, 3)]),
        (8, [(2, 2), (1, 1)]),
        (12, [(3, 2), (1, 2)]),
        (30, [(7, 2), (2, 4)]),
        (200, [(10, 2), (3, 6)]),
    ],
)
def test_a_small_budget_has_fewer_challengers_rather_than_fewer_seeds(trainings, rounds):
    assert [(round.challengers, round.seeds) for round in rounds_within(trainings)] == rounds


def test_ten_challengers_get_two_seeds_and_the_best_three_two_more():
    assert rounds_for(10) == (Round(10, 2), Round(3, 2))
    assert cost(rounds_for(10)) == 30
    assert rounds_for(1) == (Round(1, 4),)
    assert rounds_for(6, seeds=2) == (Round(6, 2),)
    assert rounds_for(0) == ()


def test_every_heat_has_its_seed_in_common_with_the_base_and_the_best_go_on():
    values = {None: 0.1, 7: 0.5, 4: 0.6, 9: 0.4}
    heats, _ = run_through(RACE, lambda entrant, seed: values[entrant] + seed / 1e6)
    first = [Heat(entrant, seed, 1) for seed in (100, 101) for entrant in (None, 7, 4, 9)]
    assert heats == [*first, Heat(None, 102, 2), Heat(4, 102, 2)]
    assert list(RACE.seeds) == [100, 101, 102]


def test_a_hyp_that_failed_goes_no_further():
    heats, runs = run_through(RACE, lambda entrant, seed: None if (entrant, seed) == (4, 101) else 0.1 * (entrant or 0))
    assert heats[-1] == Heat(9, 102, 2)
    assert rank((7, 4, 9), runs) == [9, 7]


def test_of_equals_the_one_that_the_study_put_first_goes_on():
    assert rank((7, 4, 9), run_through(RACE, lambda entrant, seed: 0.5)[1], round=2) == [7, 4, 9]


def test_no_seed_of_a_race_is_one_of_the_study_or_of_another_race():
    study = set(range(5, 5 + 10_000))
    races = [set(range(first_seed(5, number), first_seed(5, number) + 100)) for number in (1, 2, 3)]
    assert all(not one & other for one in [study, *races] for other in [study, *races] if one is not other)
