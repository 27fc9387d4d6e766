"""A made-up study in which it is known what matters, what a bound keeps in, and what has not moved."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search_spaces import Param, Space
from studies import distribution, trials_of
from studies.insight import LEAST_TRIALS, insight_of, widened
from studies.trials import BASE, KNOWN

SPACE = Space(
    "made-up",
    (
        Param("lr0", 0.01, 1e-4, 0.1, log=True),
        Param("momentum", 0.5, 0.0, 0.95),
        Param("layers", 3, 1, 9, step=1),
        Param("optimizer", "sgd", choices=("sgd", "adam", "lion")),
        *(Param(f"idle{i}", 0.5, 0.0, 1.0) for i in range(6)),
        Param("still", 0.25, 0.0, 1.0),
        Param("pinned", 0.5, 0.0, 1.0, gain=0.0),
    ),
)
LIMITS = {"momentum": (0.0, 0.9999), "layers": (1.0, np.inf)}


def fitness(hyp):
    """lr0 and optimizer matter; of lr0, more than its bound would be better still. `still` must not be touched."""
    height = 0.3 * SPACE["lr0"].to_unit(hyp["lr0"]) + 0.2 * (hyp["optimizer"] == "adam")
    return height - 0.5 * (hyp["still"] != 0.25)


def made_up(trials, *, noise=0.01, seed=0, direction="maximize", stay=("still",), known=0):
    """A study of trials drawn uniformly, but that `stay` has the base's value in nine of ten; trial 0 is the base."""
    study = optuna.create_study(direction=direction)
    study.set_user_attr(BASE, SPACE.defaults())
    rng = np.random.default_rng(seed)
    for number in range(trials):
        hyp = {param.name: param.from_unit(rng.random()) for param in SPACE.evolving}
        hyp |= {name: SPACE[name].default for name in stay if rng.random() < 0.9}
        hyp = SPACE.defaults() | (hyp if number else {})
        value = fitness(hyp) + noise * rng.standard_normal()
        study.add_trial(trial_of(hyp, value if direction == "maximize" else -value, known=number >= trials - known))
    return study


def trial_of(hyp, value, *, state=TrialState.COMPLETE, known=False):
    names = [param.name for param in SPACE.params]
    return create_trial(
        state=state,
        value=value,
        params={name: hyp[name] for name in names},
        distributions={name: distribution(SPACE[name]) for name in names},
        user_attrs={KNOWN: "another study"} if known else {},
    )


def insight(study, dead=None):
    return insight_of(study, SPACE, LIMITS, dead or {})


@pytest.mark.parametrize(
    "how", [{}, {"direction": "minimize", "known": 60}, {"seed": 1}], ids=["", "minimised, some known", "other seed"]
)
def test_what_matters_is_told_from_chance_and_what_does_not_is_not(how):
    found = insight(made_up(250, **how))
    assert found.importances[0].name == "lr0"
    told = {one.name for one in found.importances if one.told_from_chance}
    assert {"lr0", "optimizer"} <= told
    assert len([name for name in found.idle if name.startswith("idle")]) >= 5, "one of 20 is above chance by chance"
    assert sum(one.share for one in found.importances) == pytest.approx(1)
    assert "pinned" not in {one.name for one in found.importances}


def test_where_all_is_noise_hardly_anything_is_told_from_chance():
    """Of 11 hyps in each of five studies, about one in twenty is."""
    told = 0
    for seed in range(5):
        study = made_up(60, seed=seed, stay=())
        shuffled = optuna.create_study(direction="maximize")
        shuffled.set_user_attr(BASE, SPACE.defaults())
        rng = np.random.default_rng(seed)
        for trial in trials_of(study):
            shuffled.add_trial(trial_of(trial.params, rng.random()))
        told += sum(one.told_from_chance for one in insight(shuffled).importances)
    assert told <= 3 * 5 * 11 / 20


def test_too_few_trials_tell_no_importance_and_that_is_no_error():
    few = insight(made_up(LEAST_TRIALS - 1))
    assert (few.importances, few.idle, few.completed) == ((), [], LEAST_TRIALS - 1)
    assert insight(made_up(LEAST_TRIALS)).importances
    assert insight(made_up(0)).good == insight(made_up(1)).good == 0


def test_the_good_are_the_best_tenth_or_what_the_noise_does_not_tell_apart_but_no_more_than_half():
    assert insight(made_up(200)).good == 20
    assert insight(made_up(8)).good == 4
    study = made_up(100)
    for value in (0.1, 0.3):
        study.add_trial(trial_of(SPACE.defaults() | {"momentum": 0.1}, value))
    assert insight(study).noise.sd == pytest.approx(0.2 / np.sqrt(2))
    assert 10 < insight(study).good <= 51


def test_a_bound_binds_where_half_of_the_good_sit_at_it():
    study = made_up(0)
    for number in range(40):
        at_bound = {"lr0": 0.1, "momentum": 0.95, "layers": 9, "idle0": 1.0, "idle1": 0.0}
        hyp = SPACE.defaults() | (at_bound if number % 2 else {"momentum": number / 50, "idle2": number / 50})
        study.add_trial(trial_of(hyp | {"idle3": number / 100}, number % 2 + number / 1000))
    found = {binding.name: binding for binding in insight(study).binding}
    assert set(found) == {"lr0", "momentum", "layers"}, "0 and 1 are where a share ends"
    assert {name: (one.side, one.bound, one.share) for name, one in found.items()} == {
        "lr0": ("high", 0.1, 1.0),
        "momentum": ("high", 0.95, 1.0),
        "layers": ("high", 9, 1.0),
    }
    space = widened(SPACE, insight(study))
    assert (space["lr0"].bounds, space["momentum"].bounds) == ((1e-4, 0.56), (0.0, 0.9999))
    assert space["layers"].bounds == (1, 13)
    assert [param for param in space.params if param.name not in found] == [
        param for param in SPACE.params if param.name not in found
    ]


@pytest.mark.parametrize(
    ("param", "limits", "bounds"),
    [
        (Param("x", 0.5, 0.1, 1.0, log=True), {}, (0.056, 1.0)),
        (Param("x", 5, 2, 8), {"x": (1.0, np.inf)}, (1.0, 8.0)),
        (Param("x", 0.0, -2.0, 2.0), {}, (-4.0, 2.0)),
        (Param("x", 8, 4, 16, step=4), {}, (0, 16)),
        (Param("x", 2, 1, 4, step=1, log=True), {}, None),
        (Param("x", 5.0, 0.0, 10.0), {}, None),
        (Param("x", 0.5, 0.2, 0.7), {"x": (0.2, 1.0)}, None),
    ],
)
def test_a_low_bound_is_widened_to_where_it_still_means_something(param, limits, bounds):
    space = Space("one", (param,))
    study = optuna.create_study(direction="maximize")
    for number in range(10):
        value = param.bounds[0] if number < 5 else param.bounds[1]
        found = distribution(param)
        study.add_trial(create_trial(value=-number, params={"x": value}, distributions={"x": found}))
        study.add_trial(create_trial(value=-number, params={"x": param.bounds[0]}, distributions={"x": found}))
    binding = [one for one in insight_of(study, space, limits, {}).binding if one.side == "low"]
    assert [one.wider.bounds for one in binding] == ([bounds] if bounds else [])


def test_a_bound_at_which_the_base_sits_does_not_bind_what_has_never_left_it():
    space = Space("one", (Param("x", 0.1, 0.1, 1.0, log=True), Param("y", 0.5, 0.0, 1.0)))
    study = optuna.create_study(direction="maximize")
    for number in range(10):
        params = {"x": 0.1, "y": number / 10}
        study.add_trial(
            create_trial(
                value=number, params=params, distributions={param.name: distribution(param) for param in space.params}
            )
        )
    assert insight_of(study, space, {}, {}).binding == []


def test_what_has_the_bases_value_in_all_of_the_good_has_not_moved():
    found = insight(made_up(150), dead={"cls": "one class"})
    (still,) = found.unmoved
    assert (still.name, still.value) == ("still", 0.25)
    assert 5 <= still.tried <= 25, "a tenth of the trials moved it, to no avail"
    assert found.dead == {"cls": "one class"}


def test_what_was_settled_early_is_not_to_be_frozen_though_importances_do_not_tell_it_from_chance():
    study, rng = made_up(0), np.random.default_rng(0)
    for number in range(120):
        hyp = {param.name: param.from_unit(rng.random()) for param in SPACE.evolving}
        hyp |= {"lr0": 0.001 if number < 3 else 0.05, "still": 0.25}
        study.add_trial(trial_of(SPACE.defaults() | hyp, fitness(hyp)))
    found = insight(study)
    (lr0,) = (one for one in found.importances if one.name == "lr0")
    assert not lr0.told_from_chance
    assert "lr0" in found.shifted
    assert "lr0" not in found.idle
    assert found.idle


def test_insight_changes_nothing():
    study = made_up(60)
    before = [(trial.value, trial.params, trial.user_attrs) for trial in study.trials], study.user_attrs
    insight(study)
    assert ([(trial.value, trial.params, trial.user_attrs) for trial in study.trials], study.user_attrs) == before


def test_trials_without_a_finite_fitness_and_without_a_hyp_are_left_out():
    study = made_up(60)
    study.add_trial(trial_of(SPACE.defaults() | {"lr0": 0.02}, float("inf")))
    study.add_trial(trial_of(SPACE.defaults() | {"lr0": 0.03}, None, state=TrialState.FAIL))
    study.enqueue_trial({"lr0": 0.04})
    found = insight(study)
    assert found.completed == 60
    assert np.isfinite([one.share for one in found.importances]).all()
