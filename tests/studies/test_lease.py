"""Who has fallen silent: only whoever could have been heard."""

import pytest
from small_study import open_small

from studies import trials_of
from studies.lease import BEAT, Listener


@pytest.fixture
def study(url, space):
    return open_small(url, space)


def numbers(trials):
    return [trial.number for trial in trials]


def test_a_trial_that_beats_is_never_silent_and_one_that_does_not_is_after_a_minute(study):
    now = 0.0
    listener = Listener(clock=lambda: now)
    beating, _ = study.ask(), study.ask()
    silent_at = {}
    for second in range(100):
        now = float(second)
        beating.set_user_attr(BEAT, [second, 0])
        for number in numbers(listener.silent(trials_of(study))):
            silent_at.setdefault(number, second)
    assert silent_at == {1: 60}


@pytest.mark.parametrize("gap_s", [61, 600, 86_400])
def test_while_the_storage_is_away_or_nobody_looks_nobody_falls_silent(study, gap_s):
    now = 0.0
    listener = Listener(clock=lambda: now)
    study.ask()
    listener.silent(trials_of(study))
    now += gap_s
    assert listener.silent(trials_of(study)) == []
    for _ in range(49):
        now += 1
        assert listener.silent(trials_of(study)) == []
    now += 1
    assert numbers(listener.silent(trials_of(study))) == [0]
