"""The Pareto front: against its definition, and as it is left on disk."""

import csv
import math
import warnings

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial

from search_spaces import Param, Space
from studies import best_front_of, best_of, save_front
from studies.trials import COSTS, METRICS

NAMES = ("map50_95", "params")
LINE = Space("line", (Param("x", 0.0, 0.0, 1.0),))

values = st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf, -math.inf])
outcomes = st.lists(
    st.tuples(st.sampled_from([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]), st.tuples(values, values)),
    max_size=12,
)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def study_of(outcomes, directions=("maximize", "minimize"), names=(), **attributes):
    study = optuna.create_study(directions=list(directions))
    if names:
        study.set_metric_names(list(names))
    for i, (state, values) in enumerate(outcomes):
        trial = create_trial(
            state=state,
            values=list(values) if state == TrialState.COMPLETE else None,
            params={"x": i / 100},
            distributions={"x": FloatDistribution(0, 1)},
            user_attrs=attributes,
        )
        study.add_trial(trial)
    return study


@given(outcomes, st.sampled_from([("maximize", "minimize"), ("minimize", "minimize"), ("maximize", "maximize")]))
def test_the_front_is_what_no_other_finite_complete_trial_beats(outcomes, directions):
    study = study_of(outcomes, directions)
    signs = [-1 if direction == "maximize" else 1 for direction in directions]
    points = {
        number: tuple(sign * value for sign, value in zip(signs, values, strict=True))
        for number, (state, values) in enumerate(outcomes)
        if state == TrialState.COMPLETE and all(map(math.isfinite, values))
    }
    expected = {
        number
        for number, point in points.items()
        if not any(
            all(a <= b for a, b in zip(rival, point, strict=True)) and (rival != point or other < number)
            for other, rival in points.items()
            if other != number
        )
    }
    front = [best.number for best in best_front_of(study, LINE)]
    assert set(front) == expected
    assert [points[number] for number in front] == sorted(points[number] for number in front)


def test_with_several_goals_the_best_is_that_of_the_front_which_is_best_in_the_first():
    complete = TrialState.COMPLETE
    study = study_of(
        [(complete, (0.5, 9.0)), (complete, (0.7, 9.0)), (complete, (0.7, 5.0)), (complete, (0.4, 5.0))], names=NAMES
    )
    best = best_of(study, LINE)
    assert (best.number, best.fitness, best.base_fitness) == (2, 0.7, 0.5)
    assert best.goals == {"map50_95": 0.7, "params": 5.0}
    assert best.base_goals == {"map50_95": 0.5, "params": 9.0}


def test_the_front_on_disk_is_a_table_and_a_hyp_file_for_each_and_follows_the_study(tmp_path):
    complete = TrialState.COMPLETE
    told = {METRICS: {"map50": 0.4}, COSTS: {"params": 9.0, "latency_ms": 1.5}}
    study = study_of([(complete, (0.5, 9.0)), (complete, (0.3, 5.0))], names=NAMES, **told)

    def save():
        files = {tmp_path / "front" / f"{best.number:05d}.yaml": best for best in best_front_of(study, LINE)}
        save_front(tmp_path / "front.csv", files, lambda path: {"command": f"train {path.name}"})
        rows = list(csv.DictReader((tmp_path / "front.csv").open()))
        assert {f"{int(row['trial']):05d}.yaml" for row in rows} == {
            path.name for path in (tmp_path / "front").iterdir()
        }
        return rows

    first, second = save()
    assert list(first)[:6] == ["trial", "generation", "seeds", "map50_95", "params", "precision"]
    assert (first["trial"], first["map50_95"], first["params"], first["x"]) == ("0", "0.5", "9.0", "0.0")
    assert (second["map50"], second["latency_ms"], second["recall"]) == ("0.4", "1.5", "")
    text = (tmp_path / "front" / "00001.yaml").read_text()
    assert yaml.safe_load(text) == {"x": 0.01}
    assert "# map50_95  0.3 (base 0.5, difference -0.2)\n# params    5 (base 9, difference -4)\n" in text
    assert "# command   train 00001.yaml\n" in text
    study.add_trial(create_trial(values=[0.6, 5.0], params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}))
    assert [row["trial"] for row in save()] == ["2"]


def test_a_hyp_that_was_trained_under_several_seeds_counts_with_its_means():
    study = study_of([], names=NAMES)
    for x, values in ((0.1, (0.5, 9.0)), (0.1, (0.9, 11.0)), (0.2, (0.6, 10.0)), (0.3, (0.8, 10.5))):
        study.add_trial(create_trial(values=values, params={"x": x}, distributions={"x": FloatDistribution(0, 1)}))
    best, other = best_front_of(study, LINE)
    assert (best.number, best.goals, best.seeds) == (3, {"map50_95": 0.8, "params": 10.5}, 1)
    assert (other.number, other.goals, other.seeds) == (0, {"map50_95": 0.7, "params": 10.0}, 2)
    assert best.base_goals == other.goals


def test_with_one_goal_the_front_is_the_best():
    complete = TrialState.COMPLETE
    study = study_of([(complete, (0.5,)), (complete, (0.7,)), (complete, (0.7,))], ["maximize"])
    assert [best.number for best in best_front_of(study, LINE)] == [1]
    assert best_of(study, LINE).goals == {}


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_a_study_in_which_nothing_completed_has_no_front(directions):
    assert best_front_of(optuna.create_study(directions=directions), LINE) == []
