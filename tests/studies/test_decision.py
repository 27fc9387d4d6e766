"""What a race has decided, said in one sentence for each way that it can end."""

import math

import numpy as np
import pytest
from test_verdict import run as judged

from studies.decision import Decision
from studies.race import Race, Round

ROUNDS = (Round(1, 3),)


def decision(scores):
    verdict = judged(ROUNDS, np.array(scores))
    hyps = {None: {"lr0": 0.01}, 1: {"lr0": 0.02}}
    return Decision("digits", "digits.race", Race((1,), ROUNDS, 0), 10, (), verdict, hyps, {None: 0.4, 1: 0.5})


@pytest.mark.parametrize(
    ("base", "challenger", "said"),
    [
        ([0.4, 0.41, 0.4], [0.6, 0.61, 0.6], "confirmed: trial 1 beats the base by 0.2000 (95 % interval 0.2000 to"),
        ([0.4, 0.5, 0.4], [0.6, 0.5, 0.5], "the base stays: trial 1 is ahead by 0.1000 (95 % interval -0."),
        ([0.4, 0.5, 0.4], [0.6, 0.5, 0.5], "3 seeds), which is not confirmed; about 10 seeds would settle it"),
        ([0.4, 0.5, 0.4], [0.2, 0.71, 0.4], "not even 1000 seeds would settle it"),
        ([0.4, 0.5, 0.4], [0.3, 0.4, 0.5], "no challenger is ahead of it, not even trial 1: -0.0333 (95 % interval"),
        ([0.4, 0.5, 0.4], [math.nan] * 3, "no challenger has come through all of its trainings beside it"),
    ],
)
def test_the_sentence_says_who_is_best_and_how_surely(base, challenger, said):
    assert said in decision([base, challenger]).sentence()


def test_the_hyp_is_the_winners_or_the_bases():
    assert decision([[0.4, 0.41, 0.4], [0.6, 0.61, 0.6]]).hyp == {"lr0": 0.02}
    assert decision([[0.4, 0.5, 0.4], [0.3, 0.4, 0.5]]).hyp == {"lr0": 0.01}


def test_a_file_of_the_base_says_nothing_of_luck():
    facts = decision([[0.4, 0.5, 0.4], [0.3, 0.4, 0.5]]).facts()
    assert facts["fitness"] == "0.433333, mean of 3 seeds"
    assert facts["trial"] == "the base"
