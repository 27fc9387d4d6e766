"""A glance at a database tells what a status needs as reading all of it would, by as few queries for many trials."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from studies import open_storage, trials_of
from studies.glance import NOTED, glance
from studies.noise import by_hyp

SPACE = {"lr0": FloatDistribution(1e-4, 1.0, log=True), "optimizer": CategoricalDistribution(["sgd", "adam"])}


def study_of(url, trials):
    """A study with trials of every state, some of equal hyps."""
    study = optuna.create_study(study_name="digits", storage=open_storage(url), directions=["maximize", "minimize"])
    optuna.create_study(study_name="another", storage=study._storage).add_trial(create_trial(value=1.0))
    study.enqueue_trial({"lr0": 0.1, "optimizer": "adam"}, user_attrs={"base": True})
    for number in range(trials):
        trial = study.ask(SPACE)
        trial.set_user_attr("worker", {"host": "a", "pid": number % 3, "started": None})
        trial.set_user_attr("metrics", {"map50": 0.5})
        kind = number % 4
        if kind == 3:
            study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.25)
            study._storage.set_trial_intermediate_value(trial._trial_id, 2, float("inf"))
            continue
        trial.set_user_attr("epochs", number)
        state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[kind]
        if state == TrialState.FAIL:
            trial.set_user_attr("failure", "no memory")
        study.tell(trial, [0.5, float("inf") if number == 4 else number] if kind == 0 else None, state)
    study.enqueue_trial({"lr0": 0.1, "optimizer": "adam"})
    study.tell(study.ask(SPACE), [0.7, 1.0])
    study.enqueue_trial({"lr0": 0.2})
    return study


@pytest.mark.parametrize("kind", ["sqlite:///{}/study.db", "journal:{}/journal.log", "memory:"])
def test_a_glance_tells_what_reading_all_trials_tells(tmp_path, kind):
    check(kind.format(tmp_path))


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_a_glance_at_a_server_tells_it_too(request, server):
    check(request.getfixturevalue(server).url)


def check(url):
    study = study_of(url, 12)
    seen, stored = glance(study), trials_of(study)
    assert {trial.state for trial in stored} == set(TrialState)
    for one, other in zip(seen, stored, strict=True):
        assert (one.number, one.state, one.values) == (other.number, other.state, other.values)
        assert (one.datetime_start, one.datetime_complete) == (other.datetime_start, other.datetime_complete)
        noted = {key: value for key, value in one.user_attrs.items() if key in NOTED}
        assert noted == {key: value for key, value in other.user_attrs.items() if key in NOTED}
        if one.state == TrialState.RUNNING:
            assert one.intermediate_values == other.intermediate_values == {1: 0.25, 2: float("inf")}
    groups = [[trial.number for trial in group] for group in by_hyp(stored)]
    assert [0, 12] in groups
    assert [[trial.number for trial in group] for group in by_hyp(seen)] == groups


def test_more_trials_take_no_more_queries(tmp_path):
    counts = []
    for trials in (4, 16):
        url = f"sqlite:///{tmp_path}/{trials}.db"
        study_of(url, trials)
        study = optuna.load_study(study_name="digits", storage=open_storage(url, read_only=True))
        queries = []
        engine = study._storage._backend.engine
        event.listen(engine, "before_cursor_execute", lambda *arguments, to=queries: to.append(arguments[2]))
        assert len(glance(study)) == trials + 2
        counts.append(len(queries))
    assert counts == [5, 5]
