"""What trials that were stopped early would have come to."""

import numpy as np
import pytest

from studies.expectation import FARTHEST, LEAST, expect
from studies.genetics import Scored, Tried

CURVES = {0.3: {1: 0.1, 2: 0.2}, 0.4: {1: 0.1, 2: 0.3}, 0.5: {1: 0.1, 2: 0.4}}


def complete(curves=CURVES):
    return [Scored({}, fitness, number, curve) for number, (fitness, curve) in enumerate(curves.items())]


def expected(*last, curves=CURVES):
    return expect(complete(curves), [Tried({}, 10 + i, one) for i, one in enumerate(last)]).tolist()


def test_whoever_was_behind_is_expected_to_end_behind():
    assert expected((2, 0.25), (2, 0.1), (2, 0.0)) == pytest.approx([0.35, 0.2, 0.1])


def test_nobody_who_was_stopped_is_expected_to_be_better_than_the_median():
    assert expected((2, 0.3), (2, 0.35), (2, 9.0)) == pytest.approx([0.4, 0.4, 0.4])


def test_where_differences_grow_towards_the_end_a_small_one_counts_for_more():
    curves = {fitness: {1: fitness / 100} for fitness in CURVES}
    assert expected((1, 0.003), (1, 0.002), curves=curves) == pytest.approx([0.3, 0.2])


def test_where_all_were_alike_whoever_was_not_is_far_behind_but_not_infinitely():
    assert expected((1, 0.1), (1, 0.05)) == pytest.approx([0.4, 0.4 - FARTHEST * np.std(list(CURVES))])


@pytest.mark.parametrize("last", [None, (1, float("nan")), (1, float("-inf")), (3, 0.9)])
def test_whoever_failed_or_cannot_be_judged_is_as_bad_as_the_worst(last):
    assert expected(last) == [0.3]
    assert expected((2, 0.1), last) == pytest.approx([0.2, 0.2])


def test_fewer_than_three_complete_trials_judge_nobody():
    few = dict(list(CURVES.items())[: LEAST - 1])
    assert expected((2, 0.0), curves=few) == [0.3]


def test_of_no_trials_nothing_is_expected():
    assert expect(complete(), []).shape == (0,)


def test_units_and_origin_of_the_fitness_do_not_matter():
    rng = np.random.default_rng(0)
    ends, then, last = rng.random(9), rng.random(9), rng.random(20)

    def moved(by, times):
        rows = [
            Scored({}, by + times * f, i, {4: by + times * v}) for i, (f, v) in enumerate(zip(ends, then, strict=True))
        ]
        return expect(rows, [Tried({}, i, (4, by + times * v)) for i, v in enumerate(last)])

    assert moved(-5, 7) == pytest.approx(-5 + 7 * moved(0, 1))
