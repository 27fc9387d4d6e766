"""Trials are read from a database as Optuna reads them, and reading holds up nobody who writes."""

import threading

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from test_glance import study_of

from studies import open_storage, reading, trials_of
from studies.reading import read_trials

ALL = (None, set(), -1)


def fields(trial):
    reports = repr(sorted(trial.intermediate_values.items()))  # a NaN equals nothing
    return {**vars(trial), "intermediate_values": reports, "order": (list(trial.params), list(trial.distributions))}


def backend(study):
    return study._storage._backend


def check(study, *asked):
    """What is read equals what Optuna reads."""
    storage = backend(study)
    states, included, newer = asked
    found = read_trials(storage, study._study_id, states, set(included), newer)
    theirs = RDBStorage._get_trials(storage, study._study_id, states, set(included), newer)
    assert list(map(fields, found)) == list(map(fields, theirs))
    return [trial._trial_id for trial in found]


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def study(request, tmp_path):
    on_server = request.param != "sqlite"
    url = request.getfixturevalue(request.param).url if on_server else f"sqlite:///{tmp_path}/s.db"
    study = study_of(url, 12)
    trial = study.ask()
    trial.set_user_attr("note", {"text": "ä \n 'quoted'", "list": [1, None, True]})
    study._storage.set_trial_intermediate_value(trial._trial_id, 3, float("nan"))
    study.enqueue_trial({"lr0": 0.3})
    return study


def test_what_is_read_is_what_optuna_reads(study):
    ids = check(study, *ALL)
    assert {trial.state for trial in trials_of(study)} == set(TrialState)
    assert len(ids) == len(trials_of(study))
    assert check(study, None, (), ids[5]) == ids[6:]
    assert check(study, None, (ids[1], ids[3], ids[9]), ids[5]) == [ids[1], ids[3], *ids[6:]]
    assert check(study, (TrialState.PRUNED,), (), -1)
    assert check(study, None, (), ids[-1]) == []


def test_a_study_is_read_through_it_and_its_cache(study):
    assert type(backend(study))._get_trials is not RDBStorage._get_trials
    loaded = optuna.load_study(study_name="digits", storage=open_storage(backend(study).url))
    trials_of(loaded)
    study.tell(study.ask(), [0.1, 0.2])
    assert list(map(fields, trials_of(loaded))) == list(map(fields, trials_of(study)))


def test_a_study_that_is_not_there_is_a_key_error(study):
    with pytest.raises(KeyError):
        read_trials(backend(study), 4711, *ALL)


def test_of_very_many_unfinished_trials_all_are_read(study, monkeypatch):
    ids = check(study, *ALL)
    monkeypatch.setattr(reading, "MOST_INCLUDED", 2)
    assert check(study, None, ids[:4], ids[5]) == [*ids[:4], *ids[6:]]


def test_whoever_reads_is_not_held_up_by_whoever_writes_nor_the_other_way_round(tmp_path):
    study = study_of(f"sqlite:///{tmp_path}/s.db", 3)
    engine, count = backend(study).engine, len(trials_of(study))
    with engine.begin() as writing:  # has the lock of the file
        writing.exec_driver_sql("UPDATE trials SET number = number")
        found = []
        reader = threading.Thread(target=lambda: found.extend(read_trials(backend(study), study._study_id, *ALL)))
        reader.start()
        reader.join(20)
        assert len(found) == count
    with reading.reading(backend(study)) as connection:
        connection.exec_driver_sql("SELECT * FROM trials").first()
        study.tell(study.ask(), [0.1, 0.2])
