"""NSGA-II in our studies: the base takes part, and a study that was killed goes on as if it had not been."""

import math

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from small_study import exit_code, fitness, history, identity_of, in_process, kill_me

from search_spaces import Param, Space
from studies import StudyError, build_sampler, claim, distribution, finished, open_study, suggest, trials_of
from studies.nsga import LARGE_POPULATION, LONG, POPULATION, BaseFirstNSGAII
from studies.stock import SAMPLERS_FOR_GOALS
from studies.trials import KNOWN, counts

GOALS = {"map50_95": "maximize", "params": "minimize"}
ROUND = "BaseFirstNSGAII:generation"


def open_goals(url, space, *, sampler="nsgaii", goals=GOALS):
    return open_study(
        "small",
        url,
        sampler=build_sampler(sampler, space, seed=7, goals=len(goals)),
        pruner=optuna.pruners.NopPruner(),
        identity=identity_of(space),
        base=space.defaults(),
        goals=goals,
        exclusive=True,
        retries=20,
    )


def run(study, space, total, at=lambda point, number: None):
    while finished(study) < total:
        trial = study.ask()
        at("asked", trial.number)
        claim(trial)
        trial.suggest_float("lr0", 1e-5, 0.1, log=True)
        at("half suggested", trial.number)
        hyp = suggest(trial, space)
        at("suggested", trial.number)
        score = fitness(hyp, 8)
        if math.isnan(score):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [score, float(hyp["layers"])][: len(study.directions)])
        at("told", trial.number)


def values(study):
    """As `history`, which cannot ask for the one value."""
    return {trial.number: (trial.params, trial.values) for trial in trials_of(study) if counts(trial)}


def in_order(study):
    return list(values(study).values())


def test_the_base_is_in_the_first_round_and_so_among_the_parents_of_the_second(space):
    study = open_goals("memory:", space)
    run(study, space, 60)
    rounds = [trial.system_attrs[ROUND] for trial in trials_of(study)]
    assert rounds[0] == 0
    complete = [trial for trial in trials_of(study) if trial.state == TrialState.COMPLETE]
    assert sum(trial.system_attrs[ROUND] == 0 for trial in complete) == POPULATION
    assert max(rounds) >= 2
    parents = study._storage.get_study_system_attrs(study._study_id)["BaseFirstNSGAII:parent:1"]
    assert trials_of(study)[0]._trial_id in parents


def test_the_first_round_is_the_base_with_some_hyps_drawn_anew(space):
    study = open_goals("memory:", space)
    run(study, space, POPULATION)
    base = {param.name: param.default for param in space.evolving}
    moved = [sum(trial.params[name] != value for name, value in base.items()) for trial in trials_of(study)]
    assert moved[0] == 0
    assert moved.count(1) > 3, "one"
    assert max(moved) >= len(base) - 1, "or nearly all"
    assert {name for trial in trials_of(study) for name in base if trial.params[name] != base[name]} == base.keys()


def test_what_was_known_from_elsewhere_is_among_the_parents_of_the_second_round(space):
    study = open_goals("memory:", space)
    hyp = {**{param.name: param.default for param in space.params}, "degrees": 12.0, "layers": 6}
    study.add_trial(
        create_trial(
            values=[2.0, 1.0],
            params=hyp,
            distributions={param.name: distribution(param) for param in space.params},
            user_attrs={KNOWN: "trial 3 of another"},
        )
    )
    run(study, space, 40)
    parents = study._storage.get_study_system_attrs(study._study_id)["BaseFirstNSGAII:parent:1"]
    assert {trial.number for trial in trials_of(study) if trial._trial_id in parents} >= {1}


def test_with_one_goal_it_serves_as_any_other_sampler(space):
    study = open_goals("memory:", space, goals={"fitness": "maximize"})
    run(study, space, 60)
    scores = [trial.value or 0.0 for trial in trials_of(study)]
    assert max(scores[POPULATION:]) > max(scores[:POPULATION])


def die(url, space, point, number):
    run(open_goals(url, space), space, 99, at=lambda here, trial: here == point and trial >= number and kill_me())


@pytest.mark.parametrize(
    "deaths",
    [
        [("asked", 0), ("half suggested", 4), ("suggested", 9), ("told", 12)],
        # where a round begins and its parents are chosen; trials have failed before
        [("half suggested", number) for number in range(20, 30)],
    ],
)
def test_a_study_with_several_goals_that_was_killed_goes_on_as_if_it_had_not_been(url, space, deaths):
    straight = open_goals("memory:", space)
    run(straight, space, 34)
    for point, number in deaths:
        assert exit_code(in_process(die, url, space, point, number)) == -9
    resumed = open_goals(url, space)
    run(resumed, space, 34)
    assert in_order(resumed) == in_order(straight)
    assert any(not counts(trial) for trial in trials_of(resumed))
    assert max(trial.system_attrs[ROUND] for trial in trials_of(resumed)) == 1


@pytest.mark.parametrize("sampler", SAMPLERS_FOR_GOALS)
def test_every_sampler_that_is_named_for_several_goals_pursues_them(space, sampler):
    study = open_goals("memory:", space, sampler=sampler)
    run(study, space, 14)
    assert finished(study) == 14
    resumed = open_goals("memory:", space, sampler=sampler)
    run(resumed, space, 14)
    assert in_order(resumed) == in_order(study)


def test_genetic_is_nsgaii_for_several_goals_and_what_pursues_one_is_refused(space):
    assert "BaseFirstNSGAII" in str(build_sampler("genetic", space, seed=0, goals=2))
    for name in ("yolo", "cmaes"):
        with pytest.raises(StudyError, match=f"sampler '{name}' pursues one goal only; for several: .*nsgaii"):
            build_sampler(name, space, seed=0, goals=2)


def test_in_a_long_study_rounds_become_larger():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=BaseFirstNSGAII(seed=0))
    line = Space("line", (Param("x", 0.0, 0.0, 1.0),))
    last = LONG // POPULATION - 1  # of the small rounds, which is filled up
    for number in range(LONG - POPULATION + 3 * LARGE_POPULATION):
        trial = study.ask()
        x = suggest(trial, line)["x"]
        study.tell(trial, [x, number / 1000 + x])
    rounds = [trial.system_attrs[ROUND] for trial in trials_of(study)]
    assert [rounds.count(n) for n in range(last + 3)] == [POPULATION] * last + [LARGE_POPULATION] * 3


def test_goals_are_what_makes_a_study_the_same(url, space):
    open_goals(url, space)
    with pytest.raises(StudyError, match='goals is "maximize map50_95, minimize params" there, missing here'):
        open_goals(url, space, goals={"fitness": "maximize"})
    with pytest.raises(StudyError, match="minimize latency_ms"):
        open_goals(url, space, goals={"map50_95": "maximize", "latency_ms": "minimize"})
    assert history(open_goals(url, space)) == []
