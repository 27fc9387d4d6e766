"""A worker's claim on a trial: renewed while it lives, and taken over only by whoever has heard nothing for long."""

import time

import pytest
from small_study import attrs, backdate, exit_code, fork, in_process, open_small, states

from studies import claim, suggest, trials_of
from studies.lease import BEAT, RUN_BEAT, Listener, Pulse
from studies.study import requeue_lost

ELSEWHERE = {"host": "elsewhere", "pid": 1, "started": "x"}


class Clock:
    """A clock that only goes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def listener(clock):
    return Listener(60, clock)


@pytest.fixture
def study(url, space):
    return open_small(url, space, exclusive=False)


def taken_elsewhere(study):
    trial = study.ask()
    trial.set_user_attr("worker", ELSEWHERE)
    return trial


def silent(listener, study, after_s=0):
    """The numbers of the silent trials after so many seconds, in which the listener looked every five seconds."""
    listener.silent(trials_of(study))
    for _ in range(after_s // 5):
        listener.clock.now += 5
        listener.silent(trials_of(study))
    listener.clock.now += after_s % 5
    return [trial.number for trial in listener.silent(trials_of(study))]


def test_who_gives_no_sign_for_a_while_is_silent_by_the_listeners_own_clock(study, listener, clock):
    trial = taken_elsewhere(study)
    assert silent(listener, study) == []
    assert silent(listener, study, 59) == []
    trial.set_user_attr(BEAT, [1, 0])
    assert silent(listener, study, 3) == [], "a new beat counts from when it is heard"
    assert silent(listener, study, 56) == []
    assert silent(listener, study, 1) == [trial.number]


@pytest.mark.parametrize("sign", ["a beat", "an epoch", "an attribute"])
def test_any_sign_of_life_will_do(study, listener, clock, sign):
    trial = taken_elsewhere(study)
    silent(listener, study, 59)
    if sign == "a beat":
        trial.set_user_attr(BEAT, [7, 0])
    elif sign == "an epoch":
        trial.report(0.5, 1)
    else:
        trial.set_user_attr("seed", 3)
    assert silent(listener, study, 4) == []
    assert silent(listener, study, 60) == [trial.number]


def test_nobody_is_silent_before_it_was_listened_to(study, clock):
    """However long the trial has been there: whoever opens a study knows of nobody's silence yet."""
    taken_elsewhere(study)
    for _ in range(3):
        clock.now += 1e6
        assert silent(Listener(60, clock), study) == []


def test_what_has_ended_is_not_silent(study, listener, clock):
    trial = taken_elsewhere(study)
    assert silent(listener, study, 60) == [trial.number]
    study.tell(trial, 0.5)
    assert silent(listener, study) == []


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_the_time_that_a_beat_tells_is_believed_by_nobody(study, listener, clock, jump_s):
    trial = taken_elsewhere(study)
    for beat in range(1, 30):
        trial.set_user_attr(BEAT, [beat, time.time() + jump_s * (beat % 2)])
        assert silent(listener, study, 30) == []
    assert silent(listener, study, 60) == [trial.number]


def test_a_silent_trial_of_another_host_is_lost_and_its_hyp_queued_again(study, space, listener, clock):
    trial = taken_elsewhere(study)
    hyp = suggest(trial, space)
    silent(listener, study, 59)
    assert requeue_lost(study, listener=listener) == []
    clock.now += 1
    assert requeue_lost(study, listener=listener) == [0]
    assert states(study) == ["FAIL", "WAITING"]
    assert suggest(study.ask(), space) == hyp


def test_a_silent_trial_of_a_living_process_of_this_host_is_left_to_it(study, listener, clock):
    claim(study.ask())
    assert silent(listener, study, 1000) == [0]
    assert requeue_lost(study, listener=listener) == []


def test_a_trial_that_nobody_has_claimed_is_lost_when_it_is_silent_whatever_the_time(url, study, listener, clock):
    study.ask()
    backdate(url, "datetime_start", 1e6)  # as if the clock had jumped in between
    assert requeue_lost(study, listener=listener) == []
    silent(listener, study, 59)
    clock.now += 1
    assert requeue_lost(study, listener=listener) == [0]


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
    assert [trial.number for trial in listener.silent(trials_of(study))] == [0]


def missed(listener, run, noted, after_s=0):
    """Whether the run is missed after so many seconds, in which the listener looked every five seconds."""
    for _ in range(after_s // 5):
        listener.misses(run, noted)
        listener.clock.now += 5
    return listener.misses(run, noted)


def test_a_run_is_missed_when_it_has_given_no_sign_for_a_while(listener):
    assert not missed(listener, "a", {RUN_BEAT: ["a", 7]}, 55)
    assert not missed(listener, "a", {RUN_BEAT: ["a", 8]}, 55), "a new sign"
    assert missed(listener, "a", {RUN_BEAT: ["a", 8]}, 10)


def test_a_run_whose_study_another_has_taken_over_is_missed(listener):
    assert not missed(listener, "a", {RUN_BEAT: ["a", 7]})
    found = [missed(listener, "a", {RUN_BEAT: ["b", beats]}, 10) for beats in range(7)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (False, True)


@pytest.mark.parametrize("noted", [{}, {RUN_BEAT: ["of long ago", 7]}])
def test_a_run_that_gives_no_signs_is_not_missed(listener, noted):
    assert not missed(listener, "a", noted, 1000)


# whoever works


def beat_and_wait(url, space, until):
    study = open_small(url, space, exclusive=False)
    trial = study.ask()
    with Pulse(study, every_s=0.05) as pulse:
        pulse.of(trial._trial_id)
        until.wait(30)
        pulse.of(None)
        before, _ = attrs(study, trial.number)[BEAT]
        time.sleep(0.5)
        after, _ = attrs(study, trial.number)[BEAT]
    assert after <= before + 1, "one may have been under way; nothing is renewed that nobody works on"


def test_a_pulse_counts_up_while_the_trial_is_worked_on(url, space, study):
    until = fork.Event()
    process = in_process(beat_and_wait, url, space, until)
    beats = set()
    deadline = time.monotonic() + 240
    while len(beats) < 4 and time.monotonic() < deadline:
        beats |= {trial.user_attrs[BEAT][0] for trial in trials_of(study) if BEAT in trial.user_attrs}
    until.set()
    assert exit_code(process) == 0
    assert beats == set(range(min(beats), max(beats) + 1)), "one by one"
    assert len(beats) >= 4


def test_a_pulse_outlives_a_storage_that_does_not_answer(study, monkeypatch):
    trial, calls = study.ask(), []

    def away(*args):
        calls.append(args)
        raise OSError("the database is away")

    monkeypatch.setattr(study._storage, "set_trial_user_attr", away)
    with Pulse(study, every_s=0.02) as pulse:
        pulse.of(trial._trial_id)
        deadline = time.monotonic() + 240
        while len(calls) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(calls) >= 3


def test_a_pulse_calls_what_it_was_given_even_without_a_trial(study):
    calls = []
    with Pulse(study, also=lambda: calls.append(1), every_s=0.02):
        deadline = time.monotonic() + 240
        while len(calls) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(calls) >= 3


def test_the_pulse_of_a_run_says_at_once_and_then_again_that_it_is_there(url, space, study):
    seen = []
    with Pulse(study, run="a", every_s=0.05):
        deadline = time.monotonic() + 240
        while len(seen) < 3 and time.monotonic() < deadline:
            noted = study.user_attrs.get(RUN_BEAT)
            seen += [noted] if noted and noted not in seen else []
    assert [run for run, _ in seen] == ["a"] * 3
    assert seen[0][1] == 1
