"""Where a study stands after each trial, and when it ends."""

from evolve.budget import Budget
from evolve.standing import Outcome, Standing


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
