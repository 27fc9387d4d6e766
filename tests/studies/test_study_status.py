"""How a study stands: who works, how fast, what failed, what is best, what is left."""

import os
from datetime import UTC, datetime

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from studies import open_storage
from studies.calls import Call, call
from studies.status import Counts, Failure, Pace, counts_of, failures_of, pace_of, status_of
from studies.worker import this_worker

NOW = 1_800_000_000.0
HERE, THERE = this_worker(), {"host": "elsewhere", "pid": 7, "started": None}


@pytest.fixture(params=["memory:", "sqlite:///{}/study.db", "journal:{}/journal.log"])
def study(request, tmp_path):
    storage = open_storage(request.param.format(tmp_path))
    return optuna.create_study(study_name="digits", storage=storage, direction="maximize")


def add(study, state, start=None, end=None, value=None, reports=(), **noted):
    """A trial that started and ended so many seconds before now."""
    trial = create_trial(
        state=state,
        value=value,
        intermediate_values=dict(enumerate(reports, start=1)),
        user_attrs={key: given for key, given in noted.items() if given is not None},
    )
    trial.datetime_start = None if start is None else datetime.fromtimestamp(NOW - start)
    trial.datetime_complete = None if end is None else datetime.fromtimestamp(NOW - end)
    study.add_trial(trial)


def complete(study, start, end, value=0.5, **noted):
    add(study, TrialState.COMPLETE, start, end, value, **{"epochs": 10, **noted})


def test_trials_are_counted_by_kind_and_what_was_not_trained_here_is_none():
    study = optuna.create_study()
    for value in (0.1, 0.2, 0.3):
        complete(study, 90, 80, value)
    complete(study, 90, 80, known="from first")
    add(study, TrialState.PRUNED, 90, 80, reports=[0.1])
    add(study, TrialState.FAIL, 90, 80, failure="no memory")
    add(study, TrialState.FAIL, 90, 80, lost="its process ended")
    add(study, TrialState.FAIL, 90, 80, surplus=True)
    add(study, TrialState.RUNNING, 9)
    add(study, TrialState.WAITING)
    found = counts_of(study.trials)
    assert found == Counts(complete=3, pruned=1, failed=1, lost=1, queued=1, running=1)
    assert found.finished == 5


def test_whoever_is_at_a_trial_is_known_by_it(study):
    complete(study, 300, 200, worker=THERE)
    add(study, TrialState.RUNNING, 100, reports=[0.1, 0.3], worker=THERE, beat=[9, round(NOW) - 4])
    add(study, TrialState.RUNNING, 200, worker={**THERE, "pid": 8}, beat=[3, round(NOW) - 170])
    add(study, TrialState.RUNNING, 90, worker={**THERE, "pid": 9}, epochs=4)
    add(study, TrialState.RUNNING, 1)
    unclaimed, first, silent, never = status_of(study, now=NOW).workers
    assert (first.host, first.pid, first.trial, first.done, first.life) == ("elsewhere", 7, 1, 1, "alive")
    assert (first.epochs, first.fitness, first.sign_s) == (2, 0.3, 4.0)
    assert first.joined == datetime.fromtimestamp(NOW - 300, UTC)
    assert first.since == datetime.fromtimestamp(NOW - 100, UTC)
    assert (silent.pid, silent.life, silent.sign_s, silent.fitness) == (8, "silent", 170.0, None)
    assert (never.pid, never.life, never.sign_s, never.epochs) == (9, "silent", 90.0, 4), (
        "noted where none are reported"
    )
    assert (unclaimed.host, unclaimed.pid, unclaimed.trial, unclaimed.life) == (None, None, 4, "alive")


def test_a_process_of_this_machine_that_is_gone_is_seen_to_have_ended(study):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    add(study, TrialState.RUNNING, 5, worker={**HERE, "pid": child, "started": None})
    add(study, TrialState.RUNNING, 5, worker=HERE)
    lives = {one.pid: one.life for one in status_of(study, now=NOW).workers}
    assert lives == {child: "ended", os.getpid(): "alive"}


def test_the_pace_leaves_out_the_time_in_which_nothing_ran():
    study = optuna.create_study()
    for start, end in ((9000, 8100), (9000, 8100), (1800, 900), (1200, 0)):  # two at once; a pause; two that overlap
        complete(study, start, end)
    add(study, TrialState.RUNNING, 100, worker=THERE)  # without a beat it may have died at once
    add(study, TrialState.FAIL, 8000, 2000, lost="its process ended")
    assert pace_of(study.trials, 0.0, NOW) == Pace(4 / 0.75, 40 / 0.75, 0.75, 4)
    assert pace_of(study.trials, NOW - 3600, NOW) == Pace(4.0, 40.0, 0.5, 2)
    assert pace_of([], 0.0, NOW) == Pace(0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("lately", "generations", "left_s"),
    [(6, 46, 30 * 60.0), (4, 44, 30 * (10 * 90 + 4 * 60) / 14), (6, 16, 0.0), (6, None, None)],
)
def test_what_is_left_goes_by_the_last_hour_if_enough_has_ended_in_it(lately, generations, left_s):
    study = optuna.create_study()
    for number in range(10):  # a minute and a half each, long ago
        complete(study, 50_000 - 90 * number, 50_000 - 90 * (number + 1))
    for number in range(lately):  # a minute each
        complete(study, 600 - 60 * number, 600 - 60 * (number + 1))
    add(study, TrialState.RUNNING, 600 - 60 * lately, worker=THERE)
    found = status_of(study, generations, now=NOW).left_s
    assert found == (None if left_s is None else pytest.approx(left_s))


def test_nothing_can_be_told_of_what_is_left_while_nobody_works():
    study = optuna.create_study()
    complete(study, 60, 0)
    assert status_of(study, 10, now=NOW).left_s is None


def test_failures_are_told_by_reason_the_most_frequent_first():
    study = optuna.create_study()
    for reason in ("no file", "the loss of epoch 3 is nan", "the loss of epoch 12 is nan", None):
        add(study, TrialState.FAIL, 9, 8, failure=reason)
    add(study, TrialState.FAIL, 9, 8, lost="its process ended")
    assert failures_of(study.trials) == (
        Failure("the loss of epoch 3 is nan", 2, 1),
        Failure("no file", 1, 0),
        Failure("no reason is noted", 1, 3),
    )


def test_the_last_call_is_told(study):
    assert status_of(study).call is None
    said = Call("epoch", "interrupted", "a run")
    call(study, said)
    assert status_of(study).call == said
