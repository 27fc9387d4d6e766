"""The noise floor: what it is made of, and what it leaves out."""

import math
import statistics

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from studies import noise_floor, trials_of
from studies.noise import note_noise
from studies.trials import KNOWN, LOST

ONE = {"x": FloatDistribution(0, 10)}


def trial(x, value, state=TrialState.COMPLETE, **noted):
    return create_trial(state=state, value=value, params={"x": x}, distributions=ONE, user_attrs=noted)


def test_it_is_the_standard_deviation_of_the_one_hyp_that_was_repeated():
    floor = noise_floor([trial(1, 0.3), trial(2, 0.9), trial(1, 0.4), trial(1, 0.2)])
    assert floor.sd == pytest.approx(statistics.stdev([0.3, 0.4, 0.2]))
    assert floor.degrees == 2


def test_hyps_are_pooled_by_their_degrees_of_freedom():
    floor = noise_floor([trial(1, 0.0), trial(1, 0.2), trial(2, 0.5), trial(2, 0.5), trial(2, 0.5)])
    assert floor.sd == pytest.approx(math.sqrt(0.02 / 3))
    assert floor.degrees == 3


@pytest.mark.parametrize(
    "other",
    [
        trial(1, 0.9, TrialState.PRUNED),
        trial(1, None, TrialState.FAIL, **{LOST: "killed"}),
        trial(1, math.inf),
        trial(1, 0.9, **{KNOWN: "another study"}),
        trial(2, 0.9),
    ],
    ids=["pruned", "lost", "infinite", "known from elsewhere", "another hyp"],
)
def test_what_measured_nothing_here_is_left_out(other):
    assert noise_floor([trial(1, 0.3), other]) is None


def test_nothing_that_was_trained_twice_is_no_noise_floor():
    assert noise_floor([]) is None


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(-100, 100))
def test_neither_the_order_nor_the_level_of_the_values_matters(values, level):
    floor = noise_floor([trial(1, value) for value in values])
    moved = noise_floor([trial(1, value + level) for value in reversed(values)])
    assert moved.sd == pytest.approx(floor.sd, abs=1e-9)
    assert moved.degrees == floor.degrees == len(values) - 1


def test_the_study_says_what_it_is_as_soon_as_it_is_known():
    study = optuna.create_study()
    study.add_trial(trial(1, 0.25))
    note_noise(study)
    assert "noise" not in study.user_attrs
    for value in (0.75, 0.5):
        study.add_trial(trial(1, value))
        note_noise(study)
        floor = noise_floor(trials_of(study))
        assert study.user_attrs["noise"] == {"sd": floor.sd, "degrees": floor.degrees}
    assert floor.degrees == 2
