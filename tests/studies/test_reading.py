"""Trials are read from a database as Optuna reads them, and reading holds up nobody who writes."""

import threading
from dataclasses import replace

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event, make_url
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


def test_texts_that_are_sorted_in_different_ways_are_read_too(mariadb):
    database = make_url(mariadb.url).database
    mariadb.server.execute(f"ALTER DATABASE {database} COLLATE utf8mb4_unicode_ci")  # a connection has another
    study = study_of(mariadb.url, 12)
    study.ask().set_user_attr("note", "ä")
    check(study, *ALL)
    mariadb.server.execute(
        f"ALTER TABLE {database}.trial_user_attributes CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    )
    check(study, *ALL)


def test_a_study_is_read_through_it_and_its_cache(study):
    assert type(backend(study))._get_trials is not RDBStorage._get_trials
    loaded = optuna.load_study(study_name="digits", storage=open_storage(backend(study).url))
    trials_of(loaded)
    study.tell(study.ask(), [0.1, 0.2])
    assert list(map(fields, trials_of(loaded))) == list(map(fields, trials_of(study)))


def test_a_study_that_is_not_there_is_a_key_error(study):
    with pytest.raises(KeyError):
        read_trials(backend(study), 4711, *ALL)


def test_one_trial_and_the_notes_of_a_study_are_read_as_optuna_reads_them(study):
    storage = backend(study)
    study.set_user_attr("note", {"list": [1, None, "ä"]})
    for trial in trials_of(study):
        theirs = RDBStorage.get_trial(storage, trial._trial_id)
        assert fields(storage.get_trial(trial._trial_id)) == fields(theirs)
    assert storage.get_study_user_attrs(study._study_id) == {"note": {"list": [1, None, "ä"]}}
    assert storage.get_study_user_attrs(study._study_id + 1) == {}
    for read in (storage.get_trial, storage.get_study_user_attrs):
        with pytest.raises(KeyError):
            read(4711)


def test_what_is_set_of_a_running_trial_is_set_as_by_optuna(study):
    """Reports and system attributes: again, of infinite and no numbers, and of a trial that has ended or is none."""
    storage, trial = backend(study), study.ask()
    running, ended = trial._trial_id, trials_of(study)[0]._trial_id
    asked = []
    event.listen(storage.engine, "before_cursor_execute", lambda *about: asked.append(about[2]))
    theirs = study.ask()._trial_id
    for method, sets in (
        ("set_trial_intermediate_value", ((1, 0.5), (2, float("inf")), (3, float("nan")), (1, -0.25))),
        ("set_trial_system_attr", (("a", {"x": [1, None]}), ("b", "ä"), ("a", 2))),
    ):
        asked.clear()
        getattr(storage, method)(running, *sets[0])
        assert [query[:6] for query in asked if not query.startswith("BEGIN")] == ["INSERT"]
        for key, value in sets:
            getattr(storage, method)(running, key, value)
            getattr(RDBStorage, method)(storage, theirs, key, value)
        for trial_id, error in ((ended, UpdateFinishedTrialError), (4711, KeyError)):
            with pytest.raises(error):
                getattr(storage, method)(trial_id, *sets[0])
    mine, other = storage.get_trial(running), storage.get_trial(theirs)
    assert repr(mine.intermediate_values) == repr(other.intermediate_values)
    for found in (mine, other):
        assert {key: found.system_attrs[key] for key in ("a", "b")} == {"a": 2, "b": "ä"}


def test_the_params_of_a_trial_that_has_all_of_them_are_read_once(study, monkeypatch):
    mine = optuna.create_study(study_name="mine", storage=study._storage)
    other = optuna.load_study(study_name="mine", storage=open_storage(backend(study).url))
    read, param_of = [], reading._param_of
    monkeypatch.setattr(reading, "_param_of", lambda *stored: [read.append(stored), param_of(*stored)][1])

    def reads_params():
        read.clear()
        found = trials_of(other)
        count = len(read)
        assert list(map(fields, found)) == list(map(fields, trials_of(mine)))
        return count > 0

    for x in (0.25, 0.5):
        mine.enqueue_trial({"x": x})
    whole, more = mine.ask(), mine.ask()
    assert not reads_params()  # there are none
    for trial in (whole, more):
        trial.suggest_float("x", 0, 1)
    assert reads_params()
    assert not reads_params()
    mine.tell(whole, 0.5)
    assert not reads_params()
    assert trials_of(other)[0].params == {"x": 0.25}
    more.suggest_float("y", 0, 1)  # which nobody has queued
    mine.tell(more, 0.5)
    assert reads_params()
    assert set(trials_of(other)[1].params) == {"x", "y"}


def test_a_deleted_studys_params_are_not_those_of_the_next(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    for x in (0.25, 0.75):  # the trials of both have the same id
        study = optuna.create_study(study_name="again", storage=storage)
        study.enqueue_trial({"x": x})
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        assert [found.params for found in trials_of(study)] == [{"x": x}]
        optuna.delete_study(study_name="again", storage=storage)


def test_who_reads_a_study_that_was_deleted_elsewhere_does_not_read_the_next(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    optuna.create_study(study_name="kept", storage=storage)
    for name in ("deleted", "next"):
        study = optuna.create_study(study_name=name, storage=storage)
        for _ in range(2):
            study.ask()
        if name == "deleted":
            reader = optuna.load_study(study_name=name, storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
            storage.set_trial_state_values(trials_of(study)[1]._trial_id, TrialState.FAIL)
            old = [trial._trial_id for trial in trials_of(reader)]
            optuna.delete_study(study_name=name, storage=storage)
            optuna.create_study(study_name="between", storage=storage)  # has its id
    assert [trial._trial_id for trial in trials_of(study)] == old, "it would prove nothing"
    assert study._study_id != reader._study_id
    assert read_trials(storage, reader._study_id, None, old, max(old)) == []


def test_of_very_many_unfinished_trials_all_are_read(study, monkeypatch):
    ids = check(study, *ALL)
    for queries in ("BY_LIST", "BY_ARRAY"):
        monkeypatch.setattr(reading, queries, replace(getattr(reading, queries), most=2))
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
