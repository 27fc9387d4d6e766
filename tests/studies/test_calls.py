"""What is called to the workers of a study is heard by those who are meant, until it is taken back."""

import pytest
from small_study import exit_code, in_process, open_small

from studies.calls import Call, call, heard


@pytest.mark.parametrize(
    ("meant", "run", "is_heard"), [("", "", True), ("", "this", True), ("this", "this", True), ("this", "other", False)]
)
def test_a_call_is_for_everybody_or_for_the_workers_of_one_run(url, space, meant, run, is_heard):
    study, said = open_small(url, space), Call("epoch", "interrupted", meant)
    assert heard(study.user_attrs, run) is None
    call(study, said)
    assert heard(study.user_attrs, run) == (said if is_heard else None)


def listen(url, space):
    said = heard(open_small(url, space, exclusive=False).user_attrs, "any")
    assert said == Call("trial", "12 of 12 generations are done", reached=True), said


def test_a_call_is_heard_by_other_processes_until_it_is_taken_back(url, space):
    study = open_small(url, space)
    call(study, Call("trial", "12 of 12 generations are done", reached=True))
    assert exit_code(in_process(listen, url, space)) == 0
    call(study, None)
    assert heard(study.user_attrs, "any") is None


def test_the_last_call_is_the_one_that_is_heard(url, space):
    study = open_small(url, space)
    for how in ("trial", "epoch", "now"):
        call(study, Call(how, "interrupted"))
    assert heard(study.user_attrs, "") == Call("now", "interrupted")
