"""Pruners: who is stopped at which epoch, and who never."""

import math
import time

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from studies import PRUNERS, AshaPruner, EvolvePruner, StudyError, build_pruner
from studies.pruner import rungs

NEVER = None


@pytest.mark.parametrize(
    ("epochs", "warmup_epochs", "expected"),
    [
        (12, 0, (2, 4, 8)),
        (12, 2, (2, 4, 8)),
        (10, 5 / 3, (2, 4, 8)),
        (30, 5, (5, 10, 20)),  # the warm-up has just ended then
        (10, 2.5, (3, 6)),  # epoch 3 ends after a warm-up of two and a half
        (100, 3, (10, 20, 40, 80)),
        (8, 0, (1, 2, 4)),  # not 8: at the end there is nothing to save
        (3, 3, ()),
        (1, 0, ()),
    ],
)
def test_rungs_begin_at_a_tenth_but_not_within_the_warm_up_and_double(epochs, warmup_epochs, expected):
    assert rungs(epochs, warmup_epochs) == expected


def study_of(*curves, base=0.5, direction="maximize", state=TrialState.COMPLETE):
    """A study whose trial 0 is the base at 0.5 throughout, and whose others have these curves."""
    study = optuna.create_study(study_name="curves", direction=direction)  # Hyperband picks brackets by the name too
    for curve in ([base] * 8, *curves):
        study.add_trial(trial_of(curve, state))
    return study


def trial_of(curve, state=TrialState.COMPLETE, **user_attrs):
    values = dict(enumerate(curve, start=1))
    value = curve[-1] if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, intermediate_values=values, user_attrs=user_attrs)


def pruned_at(study, curve, pruner=None, **user_attrs):
    """The epoch after which a new trial with this curve is pruned."""
    trial = study.ask()
    for key, value in user_attrs.items():
        trial.set_user_attr(key, value)
    study.pruner = pruner or AshaPruner(epochs=8)
    for epoch, value in enumerate(curve, start=1):
        trial.report(value, epoch)
        if trial.should_prune():
            return epoch
    return NEVER


def flat(value, n=8):
    return [value] * n


@pytest.mark.parametrize(
    ("others", "curve", "expected"),
    [
        ([], flat(0.1), NEVER),  # nobody to compare with but the base
        ([flat(0.6)], flat(0.1), NEVER),  # three in all
        ([flat(0.6), flat(0.7)], flat(0.1), 1),  # four: two are kept
        ([flat(0.6), flat(0.7)], flat(0.65), NEVER),  # second of four
        ([flat(0.6), flat(0.7)], flat(0.6), NEVER),  # ties stay: one is better, one equal
        ([flat(0.6), flat(0.7)], flat(0.55), 1),  # third of four
        ([flat(0.6), flat(0.7), flat(0.4)], flat(0.6), NEVER),  # five: two are kept
        ([flat(0.6), flat(0.7), flat(0.4)], flat(0.5), 1),  # five: third, with the base
        ([flat(0.6), flat(0.7)], [0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 4),  # not before a rung, and smoothed
        ([flat(0.6), flat(0.7)], [0.9, 0.3, *flat(0.9, 6)], NEVER),  # one bad epoch is no reason
        ([flat(0.6, 2), flat(0.7, 2), flat(0.8, 2)], [0.9, 0.9, *flat(0.1, 6)], NEVER),  # only two have reached epoch 4
        ([flat(0.6), flat(0.7)], [0.9] * 7 + [0.0], NEVER),  # at the end there is nothing to save
        ([flat(0.6), flat(0.7)], flat(math.nan), 1),
        ([[*flat(math.nan, 7), 0.9]] * 2, flat(0.5), NEVER),
    ],
)
def test_a_trial_stays_while_it_is_among_the_better_half_of_those_that_got_as_far(others, curve, expected):
    assert pruned_at(study_of(*others), curve) == expected


def test_where_less_is_better_less_is_better():
    study = study_of(flat(0.4), flat(0.3), direction="minimize")
    assert pruned_at(study, flat(0.9)) == 1
    assert pruned_at(study, flat(0.2)) is NEVER


def test_a_larger_eta_keeps_fewer():
    study = study_of(*(flat(value) for value in (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8)))
    assert pruned_at(study, flat(0.65)) is NEVER  # third of eight
    assert pruned_at(study, flat(0.65), AshaPruner(epochs=8, eta=4)) == 1
    assert pruned_at(study, flat(0.75), AshaPruner(epochs=8, eta=4)) is NEVER


def test_reports_within_the_warm_up_are_neither_judged_nor_averaged():
    pruner = AshaPruner(epochs=12, warmup_epochs=3)  # rungs 3 and 6
    study = study_of(flat(0.6), flat(0.7))
    assert pruned_at(study, [0.0, 0.0, *flat(0.9, 10)], pruner) is NEVER
    assert pruned_at(study, [0.9, 0.9, 0.1, *flat(0.9, 9)], pruner) == 3


@pytest.mark.parametrize("warmup_epochs", [0, 0.3, 1, 1.5, 2, 5, 12, 29.5, 30])
def test_the_first_rung_has_a_report_to_judge_by_however_long_the_warm_up_is(warmup_epochs):
    pruner = AshaPruner(epochs=30, warmup_epochs=warmup_epochs)
    study = study_of(*[flat(0.6, 30)] * 4)
    assert pruned_at(study, flat(0.1, 30), pruner) == next(iter(pruner.rungs), NEVER)


def test_a_trainer_that_leaves_epochs_out_is_judged_at_its_first_report_past_a_rung():
    study = study_of(flat(0.6), flat(0.7))
    study.pruner = AshaPruner(epochs=12)  # rungs 2, 4 and 8
    trial = study.ask()
    verdicts = {}
    for epoch, value in ((3, 0.9), (6, 0.1), (7, 0.1)):
        trial.report(value, epoch)
        verdicts[epoch] = trial.should_prune()
    assert verdicts == {3: False, 6: True, 7: False}


@pytest.mark.parametrize("privilege", [{"base": True}, {"base": True, "retry_of": 0}])
@pytest.mark.parametrize("name", PRUNERS)
def test_the_base_is_never_pruned(name, privilege):
    study = study_of(*(flat(0.9, 12) for _ in range(12)))
    pruner = build_pruner(name, epochs=12)
    assert pruned_at(study, [0.2, *flat(0.0, 11)], pruner, **privilege) is NEVER


@pytest.mark.parametrize("name", [name for name in PRUNERS if name not in ("none", "nop", "patient")])
def test_every_pruner_stops_what_is_hopeless_but_not_what_is_best(name):
    study = study_of(*(flat(0.3 + 0.05 * i, 12) for i in range(12)))
    assert pruned_at(study, flat(0.95, 12), build_pruner(name, epochs=12)) is NEVER
    for _ in range(3):  # Hyperband starts some trials in a bracket that is judged late
        trial = pruned_at(study, flat(0.0, 12), build_pruner(name, epochs=12))
        if trial is not NEVER:
            break
    assert trial in range(1, 12)


def test_patience_stops_what_no_longer_improves_and_is_below_the_median():
    study = study_of(*(flat(0.5, 12) for _ in range(12)))
    patient = build_pruner("patient", epochs=12)
    assert pruned_at(study, [0.1 * i for i in range(1, 13)], patient) is NEVER
    assert pruned_at(study, [0.4, *flat(0.1, 11)], patient) in range(4, 12)


def test_failed_and_younger_trials_are_no_competitors():
    study = study_of(flat(0.8), flat(0.9), state=TrialState.FAIL)
    study.add_trial(trial_of(flat(0.6)))
    older, younger, youngest = (study.ask() for _ in range(3))
    study.pruner = AshaPruner(epochs=8)
    for value, trial in ((0.3, youngest), (0.2, younger), (0.1, older)):
        trial.report(value, 1)
    assert not younger.should_prune()  # beside it only the complete trial and the older one
    study.add_trial(trial_of(flat(0.7)))
    assert [trial.should_prune() for trial in (older, younger, youngest)] == [False, True, True]


def low_base(*curves, **options):
    """A study whose base is at 0.01 throughout."""
    return study_of(*curves, base=0.01, **options)


def evolve_pruner(**options):
    """Asks from epoch 1 of 8 on; the share is its own until epoch 2, a quarter of it at epoch 4."""
    usual = {"share": 0.25, "plateau": 0.25, "elite": 3, "startup": 5, "doubt": 1.0, "ranked_from": 1}
    return EvolvePruner(8, **{**usual, **options})


def rising(*ends):
    """Curves that rise evenly to these ends, so that every epoch ranks them alike."""
    return [[end * epoch / 8 for epoch in range(1, 9)] for end in ends]


@pytest.mark.parametrize(
    ("others", "curve", "expected"),
    [
        (rising(0.1, 0.2, 0.3), flat(0.0), 1),  # at 0 where others are not
        (rising(0.1, 0.2, 0.3), rising(0.005)[0], NEVER),  # four with the base: nothing to learn from yet
        ([flat(0.0), flat(0.0)], flat(0.0), NEVER),  # most others are at 0, too
        (rising(*[0.1] * 9, 0.9), rising(0.5)[0], NEVER),  # among the best two
        (rising(0.9, 0.8, 0.7, 0.6), rising(0.55)[0], 1),  # behind the three best, with more than two before it
        (rising(0.9, 0.8, 0.7, 0.6), rising(0.7)[0], NEVER),  # ties stay
        (rising(0.9, 0.8, 0.7, *[0.1] * 9), rising(0.65)[0], 3),  # fourth of 14: in the best quarter until epoch 2
        (rising(0.9, 0.8, 0.7, *[0.1] * 9), [*rising(0.65)[0][:2], *flat(0.9, 6)], NEVER),
        ([*rising(0.9, 0.8), [0.0] * 4 + [0.7] * 4, *rising(0.6, 0.5)], rising(0.4)[0], 5),  # one of the best was low
        (rising(0.9, 0.8, 0.7, 0.6), flat(math.nan), 1),
        ([[*flat(math.nan, 7), 0.9]] * 5, rising(0.1)[0], NEVER),
        (rising(0.9, 0.8, 0.7, 0.6), [0.9] * 7 + [0.0], NEVER),  # at the end there is nothing to save
    ],
)
def test_a_trial_stays_in_the_best_share_or_while_it_is_no_worse_than_the_best_were(others, curve, expected):
    assert pruned_at(low_base(*others), curve, evolve_pruner()) == expected


def test_the_share_shrinks_with_the_square_of_the_epoch_once_its_plateau_is_over():
    pruner = EvolvePruner(40, share=0.2, plateau=0.25)
    assert [pruner.share_at(epoch) for epoch in (4, 10, 20, 40)] == pytest.approx([0.2, 0.2, 0.05, 0.0125])


@pytest.mark.parametrize(
    ("epochs", "warmup_epochs", "first"),
    [(10, 0, 4), (10, 5 / 3, 4), (51, 0, 5), (30, 5, 5), (5, 0, 2), (3, 0, 2), (3, 3, 3)],
)
def test_a_trial_may_end_from_a_tenth_of_its_epochs_on_but_not_within_the_warm_up_nor_the_first_epochs(
    epochs, warmup_epochs, first
):
    pruner = EvolvePruner(epochs, warmup_epochs)
    assert pruner.first_epoch == first
    study = study_of(*[flat(0.6, epochs)] * 8)
    assert pruned_at(study, flat(0.1, epochs), pruner) == (first if first < epochs else NEVER)


def test_a_trial_that_was_stopped_counts_as_worse_at_every_later_epoch():
    study = low_base(*rising(0.9, 0.8, 0.7))
    for _ in range(8):
        study.add_trial(trial_of([0.05], TrialState.PRUNED))
    assert pruned_at(study, rising(0.65)[0], evolve_pruner(elite=0)) == 3  # fourth of 13
    assert pruned_at(low_base(*rising(0.9, 0.8, 0.7, 0.6)), rising(0.65)[0], evolve_pruner(elite=0)) == 1


def test_only_the_last_rivals_count():
    study = study_of(*rising(*[0.9] * 6, *[0.3] * 6))
    assert pruned_at(study, rising(0.5)[0], evolve_pruner()) == 1
    assert pruned_at(study, rising(0.5)[0], evolve_pruner(history=6)) is NEVER


def test_less_than_the_base_differs_by_from_seed_to_seed_ends_no_trial():
    study = study_of(*map(flat, (0.9, 0.8, 0.7, 0.6)))
    assert pruned_at(study, flat(0.75), evolve_pruner(elite=0)) == 1
    for end in (0.4, 0.6):  # the base itself is at 0.5
        study.add_trial(trial_of(flat(end), base=True))  # a standard deviation of 0.1
    assert pruned_at(study, flat(0.75), evolve_pruner(elite=0)) is NEVER
    assert pruned_at(study, flat(0.65), evolve_pruner(elite=0, doubt=2.0)) is NEVER
    assert pruned_at(study, flat(0.55), evolve_pruner(elite=0)) == 1


def test_where_less_is_better_our_rule_turns_round():
    study = study_of(*rising(0.4, 0.3, 0.2, 0.1), direction="minimize")
    assert pruned_at(study, rising(0.5)[0], evolve_pruner()) == 1
    assert pruned_at(study, flat(0.0), evolve_pruner()) is NEVER  # 0 is the best there


def test_an_unknown_pruner_is_refused_with_the_one_that_was_meant():
    with pytest.raises(StudyError, match=r"unknown pruner 'ahsa' \(did you mean 'asha'\?\); known: evolve, asha, none"):
        build_pruner("ahsa", epochs=12)


@pytest.mark.parametrize("rule", [AshaPruner, EvolvePruner])
def test_pruning_is_quick_beside_10_000_trials(rule):
    study = optuna.create_study(direction="maximize")
    study.add_trials(trial_of([0.1, 0.2, 0.3, 0.4]) for _ in range(10_000))
    pruner, trial = rule(epochs=40), trial_of([0.05] * 4, TrialState.PRUNED)
    trial.number = 10_000
    start = time.process_time()
    assert pruner.prune(study, trial)
    assert time.process_time() - start < 1
