"""Our PED-ANOVA gives the numbers of Optuna's, which is slower and brings scikit-learn with it."""

import warnings

import numpy as np
import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from search_spaces import Param, Space
from studies import distribution
from studies.importance import column_of, good_ones, importance

SPACE = Space(
    "of every kind",
    (
        Param("log", 0.01, 1e-5, 0.1, log=True),
        Param("linear", 0.5, -1.0, 2.0),
        Param("few", 3, 1, 9, step=1),
        Param("many", 30, 0, 300, step=2),
        Param("whole log", 8, 1, 512, log=True, step=1),
        Param("named", "b", choices=("a", "b", "c", "d")),
        Param("switch", False, choices=(False, True)),
    ),
)


def draw(trials, seed, still=()):
    """Hyps and losses to which some of the hyps have something to do."""
    rng = np.random.default_rng(seed)
    hyps = [{param.name: param.from_unit(rng.beta(2, 3)) for param in SPACE.params} for _ in range(trials)]
    hyps = [{**hyp, **{name: SPACE[name].default for name in still}} for hyp in hyps]
    units = np.array([[param.to_unit(hyp[param.name]) for param in SPACE.params] for hyp in hyps])
    return hyps, (units[:, 0] - 0.3) ** 2 + 0.3 * units[:, 2] + 0.2 * units[:, 5] + 0.05 * rng.standard_normal(trials)


def of_optuna(hyps, losses, share):
    study = optuna.create_study()
    distributions = {param.name: distribution(param) for param in SPACE.params}
    study.add_trials(
        create_trial(value=loss, params=hyp, distributions=distributions)
        for hyp, loss in zip(hyps, losses.tolist(), strict=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study)


def ours(hyps, losses, share):
    good = good_ones(losses, share)
    return {p.name: importance(column_of(p, [hyp[p.name] for hyp in hyps]), good) for p in SPACE.params}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("trials", "share"), [(25, 0.2), (120, 0.1), (400, 0.05)])
def test_both_give_the_same(trials, share, seed):
    hyps, losses = draw(trials, seed)
    assert ours(hyps, losses, share) == pytest.approx(of_optuna(hyps, losses, share), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_both_give_the_same_where_fitnesses_are_equal(levels):
    hyps, losses = draw(60, 0)
    losses = np.floor(losses * levels)
    assert ours(hyps, losses, 0.1) == pytest.approx(of_optuna(hyps, losses, 0.1), rel=1e-6, abs=1e-10)


def test_both_give_the_same_of_what_never_moves():
    hyps, losses = draw(80, 1, still=("linear", "few", "named"))
    assert ours(hyps, losses, 0.1) == pytest.approx(of_optuna(hyps, losses, 0.1), rel=1e-6, abs=1e-10)


def test_the_best_share_holds_whatever_is_as_good_as_its_last():
    losses = np.array([3.0, 1.0, 2.0, 2.0, 5.0])
    assert good_ones(losses, 0.4).tolist() == [False, True, True, True, False]
    assert good_ones(losses, 0.01).tolist() == [False, True, False, False, False]
    assert good_ones(losses, 1.0).all()
