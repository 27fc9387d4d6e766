"""Signals end a study between two thoughts, not within one."""

import os
import signal
import threading

import pytest

from evolve.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_whoever_waits(number):
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_is_held_be_finished(number):
    written = []

    def write() -> None:
        with Interrupts() as interrupts:
            with interrupts.held():
                with interrupts.held():
                    os.kill(os.getpid(), number)
                    written.append("a line")
                written.append("another")
            written.append("too late")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written == ["a line", "another"]


def test_an_error_in_what_is_held_is_told_and_not_the_signal():
    def fail() -> None:
        with Interrupts() as interrupts, interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()


def test_a_second_ctrl_c_interrupts_the_cleaning_up():
    with Interrupts() as interrupts:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt), interrupts.held():
                os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_are_as_they_were_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Interrupts():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_that_is_ignored_as_under_nohup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_it_does_nothing():
    entered = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.held():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


# where the first signal waits


def test_the_first_signal_is_noted_and_raises_when_what_was_patient_is_over():
    told, seen = [], []

    def work() -> None:
        with Interrupts(lambda: told.append(threading.current_thread().name)) as interrupts:
            with interrupts.patient():
                os.kill(os.getpid(), signal.SIGTERM)
                seen.append(interrupts.leaving)
            seen.append("too late")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == [True]
    assert told == ["leaving"], "once, and where it may print"


def test_who_is_patient_may_leave_where_it_suits():
    reached = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.patient():
            for step in range(3):
                interrupts.check()
                reached.append(step)
                if step == 1:
                    os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [0, 1]


def test_the_second_signal_raises_at_once():
    reached = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.patient():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(1)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [1]


def test_the_second_signal_waits_for_what_is_held():
    reached = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.patient():
            with interrupts.held():
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                reached.append("held")
            reached.append("after it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["held"]


def test_leaving_works_as_a_first_signal_from_any_thread_and_is_told_once():
    told = []

    def work() -> None:
        with Interrupts(lambda: told.append(1)) as interrupts, interrupts.patient():
            for _ in range(2):
                thread = threading.Thread(target=interrupts.leave)
                thread.start()
                thread.join()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert told == [1]
