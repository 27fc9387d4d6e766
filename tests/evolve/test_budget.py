"""Where a study stands after each trial, and when it ends."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from evolve.budget import Budget, say_duration, seconds_of
from evolve.outcomes import stale_of
from evolve.standing import Outcome, Standing
from studies import BestHyp


def complete(number, fitness):
    return Outcome(number, "complete", epochs=4, fitness=fitness)


def failed(number, reason="the loss was no longer finite"):
    return Outcome(number, "failed", epochs=1, failure=reason)


def test_complete_pruned_and_failed_trials_all_count_as_generations():
    standing = Standing().after(complete(0, 0.3)).after(Outcome(1, "pruned", 2, 0.1)).after(failed(2))
    assert standing.finished == 3
    assert Budget(generations=3, max_failures=9).stop(standing).reached
    assert Budget(generations=4, max_failures=9).stop(standing) is None


def test_the_epochs_of_a_failed_trial_count_neither_as_run_nor_as_saved():
    assert Standing().after(complete(0, 0.3)).after(failed(1)).epochs_run == 4


def test_failures_in_a_row_stop_a_study_with_the_last_reason():
    standing = Standing().after(failed(0)).after(failed(1, "CUDA is out of memory"))
    stop = Budget(generations=300, max_failures=2).stop(standing)
    assert not stop.reached
    assert "2 trials in a row failed" in stop.reason
    assert "CUDA is out of memory" in stop.reason


def test_one_success_forgives_the_failures_before_it():
    standing = Standing().after(failed(0)).after(complete(1, 0.1)).after(failed(2))
    assert Budget(generations=300, max_failures=2).stop(standing) is None


def test_what_was_failing_when_the_time_ran_out_is_told_as_failing():
    standing = Standing().after(failed(0)).after(failed(1))
    assert not Budget(generations=300, max_failures=2, seconds=10).stop(standing, 10).reached


# time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8h", 28_800),
        ("90m", 5_400),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("45s", 45),
        ("1.5h", 5_400),
        ("2d12h", 216_000),
        *((wrong, None) for wrong in ("8", "", "0h", "h", "-1h", "1h30", "30m1h", "8 hours", "1e3s", "nan s", "8H")),
    ],
)
def test_a_duration_has_units_from_the_largest_to_the_smallest(text, seconds):
    assert seconds_of(text) == seconds


@given(st.integers(1, 10**7))
def test_a_duration_is_said_as_it_is_read(seconds):
    assert seconds_of(say_duration(seconds)) == seconds


def test_a_study_ends_when_its_time_is_over_and_not_before():
    budget = Budget(generations=300, max_failures=2, seconds=5_400)
    assert budget.stop(Standing(), 5_399) is None
    assert budget.stop(Standing(), 5_400).reached
    assert budget.stop(Standing(), 5_400).reason == "the 1h30m of this run are over"


def test_a_study_ends_in_time_for_its_race_but_not_before_half_of_its_time():
    budget = Budget(generations=300, max_failures=2, seconds=5_400)
    assert budget.stop(Standing(), 4_499, race_s=900) is None
    stop = budget.stop(Standing(), 4_500, race_s=900)
    assert (stop.reached, stop.reason) == (True, "the race needs what is left of the 1h30m of this run")
    assert budget.stop(Standing(), 2_699, race_s=1e6) is None
    assert budget.stop(Standing(), 2_700, race_s=1e6).reached


# a target


def test_a_study_ends_when_the_best_hyp_reaches_the_target():
    budget = Budget(generations=300, max_failures=2, target=0.4)
    assert budget.stop(Standing()) is None
    best = BestHyp({}, 0.3999, {}, 0, 0, "study")
    assert budget.stop(Standing(complete=1, best=best)) is None
    stop = budget.stop(Standing(complete=1, best=BestHyp({}, 0.4, {}, 0, 0, "study")))
    assert (stop.reached, stop.reason) == (True, "the target of 0.4 is reached: 0.4000")


def test_what_may_end_a_study_early_is_one_phrase():
    assert Budget(300, 10).earlier == ""
    assert Budget(300, 10, seconds=28_800).earlier == "after 8h of this run"
    everything = "after 8h of this run, or after 50 generations without gain beyond the noise, or at a fitness of 0.5"
    assert Budget(300, 10, 28_800, 50, 0.5).earlier == everything


# patience


def study_of(*trials):
    """Each trial is (x, fitness), fitness None for a pruned one; x is 0 for the base."""
    study = optuna.create_study(direction="maximize")
    for x, fitness in trials:
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if fitness is None else TrialState.COMPLETE,
                value=fitness,
                params={"x": x},
                distributions={"x": IntDistribution(0, 99)},
                user_attrs={"base": True} if x == 0 else {},
            )
        )
    return study


BASES = ((0, 0.30), (0, 0.32), (0, 0.31))  # mean 0.31, standard deviation 0.01


@pytest.mark.parametrize(
    ("then", "stale"),
    [
        ([], 0),
        ([(1, 0.20)], 1),
        ([(1, 0.315)], 1),  # better, but within the noise
        ([(1, 0.33)], 0),
        ([(1, 0.33), (2, 0.335), (3, None), (4, 0.1)], 3),
        ([(1, 0.33), (2, 0.335), (3, 0.341), (4, 0.1)], 2),  # the second is nearly as good as the third
        ([(1, 0.33), (1, 0.31), (2, 0.2)], 3),  # what seemed a gain was luck
    ],
)
def test_generations_are_stale_since_the_first_hyp_that_the_best_is_not_ahead_of_by_the_noise(then, stale):
    assert stale_of(study_of(*BASES, *then)) == stale


def test_without_a_noise_floor_any_gain_counts():
    assert stale_of(study_of((0, 0.3), (1, 0.3), (2, 0.3001), (3, 0.2))) == 1


def test_a_study_in_which_nothing_completed_is_not_stale():
    assert stale_of(study_of((1, None), (2, None))) == 0


def test_patience_ends_a_study_when_so_many_generations_are_stale():
    budget = Budget(generations=300, max_failures=2, patience=5)
    assert budget.stop(Standing(complete=9, stale=4)) is None
    stop = budget.stop(Standing(complete=9, stale=5))
    assert (stop.reached, stop.reason) == (True, "5 generations have brought nothing beyond the noise floor")
