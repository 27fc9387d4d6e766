"""Database servers: a study on one outlives its being stopped, killed, full, silent, and away for a minute."""

import inspect
import logging
import re
import secrets
import threading
import time
import warnings

import optuna
import pytest
from lossy import Lossy
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from servers import PASSWORD
from small_study import exit_code, fork, history, in_process, open_small, run
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from studies import StudyError, database, open_storage, patience, storage_errors, trials_of
from studies.database import Database, ServerStorage, parse
from studies.trials import at_once

WITH_TABLES = ["postgres", "mariadb"]


@pytest.fixture(params=[*WITH_TABLES, "redis"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=WITH_TABLES, name="database")
def with_tables(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def undisturbed(url, space):
    """What a study of six trials comes to."""
    study = open_small(url, space)
    run(study, space, 6)
    return history(study)


def test_a_study_on_a_server_equals_one_in_a_file(server, space, undisturbed):
    study = open_small(server.url, space, exclusive=False)
    run(study, space, 6)
    assert history(study) == undisturbed


def work(url, space, total, pause_s):
    study = open_small(url, space, exclusive=False)
    run(study, space, total, at=lambda point, number: time.sleep(pause_s))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_is_restarted_again_and_again_costs_nothing(server, space, undisturbed, end):
    worker = in_process(work, server.url, space, 6, 0.02)
    for _ in range(4):
        time.sleep(0.7)
        getattr(server, end)()
        time.sleep(0.3)
        server.start()
    assert exit_code(worker) == 0
    assert history(open_small(server.url, space, exclusive=False)) == undisturbed


def test_a_database_that_is_away_for_a_minute_costs_nothing(postgres, space, undisturbed):
    worker = in_process(work, postgres.url, space, 6, 0.02)
    time.sleep(1)
    postgres.stop()
    time.sleep(60)
    assert worker.is_alive()
    postgres.start()
    assert exit_code(worker) == 0
    assert history(open_small(postgres.url, space, exclusive=False)) == undisturbed


def test_the_user_is_told_once_that_it_is_away_and_once_that_it_is_back(server, space, caplog):
    study = open_small(server.url, space, exclusive=False)
    server.stop()
    reader = threading.Thread(target=trials_of, args=(study,))
    reader.start()
    deadline = time.monotonic() + 240
    while not told(caplog) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # it could be told again
    server.start()
    reader.join()
    away, back = told(caplog)
    assert re.fullmatch(r"storage \w+://.*:\*\*\*@.* does not answer; waiting up to 120 seconds for it", away)
    assert re.fullmatch(r"storage \w+://.*:\*\*\*@.* answers again, after \d+ seconds", back)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# an answer that gets lost


def through(lossy, url):
    return re.sub(r"@127.0.0.1:\d+", f"@127.0.0.1:{lossy.port}", url)


def test_whichever_answer_gets_lost_every_call_takes_effect_once(server, monkeypatch):
    """Each call loses the line before its first answer, then, in the next round, before its second, and so on."""
    lossy, number = Lossy(server.server.port), 0
    study = optuna.create_study(storage=open_storage(through(lossy, server.url)))
    make_call = patience.Patience.__call__

    def make_call_and_lose(self, call):
        lossy.lose(number)
        return make_call(self, call)

    monkeypatch.setattr(patience.Patience, "__call__", make_call_and_lose)
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    while number == 0 or lossy.lost:
        number, lossy.lost = number + 1, 0
        study.enqueue_trial({"x": 0.25}, user_attrs={"queued": number})
        for _ in range(2):  # one is popped from the queue, one is created
            trial = study.ask()
            trial.set_user_attr("asked", number)
            with at_once(trial):
                trial.set_user_attr("drawn", number)
                x = trial.suggest_float("x", 0, 1)
            trial.report(x, 1)
            study.tell(trial, 0.5)
        assert [trial.number for trial in trials_of(study)] == list(range(2 * number))
        queued, created = trials_of(study)[-2:]
        for trial in (queued, created):
            assert (trial.state, trial.value, list(trial.intermediate_values)) == (TrialState.COMPLETE, 0.5, [1])
            assert trial.user_attrs["asked"] == trial.user_attrs["drawn"] == number
            assert list(trial.params) == ["x"]
        assert (queued.params, queued.user_attrs["queued"]) == ({"x": 0.25}, number)
        assert "queued" not in created.user_attrs
    assert number > 2, "it would prove nothing"
    lossy.close()


def test_every_call_of_optunas_that_reads_or_writes_a_database_is_made_again():
    def is_patient(name):
        method = getattr(ServerStorage, name)
        if method not in (getattr(RDBStorage, name), getattr(Database, name)):
            return True
        return not re.search(r"scoped_session\(|reading\(|read_\w+\(", inspect.getsource(method))

    calls = [name for name, _ in inspect.getmembers(RDBStorage, inspect.isfunction) if not name.startswith("__")]
    calls += [name for name in vars(Database) if not name.startswith("__") and hasattr(RDBStorage, name)]
    assert len(calls) > 30
    assert [name for name in calls if not is_patient(name)] == []


def test_a_connection_that_broke_while_it_lay_idle_is_replaced_unnoticed(postgres, monkeypatch):
    study = optuna.create_study(storage=open_storage(postgres.url))
    engine = study._storage._backend.engine
    monkeypatch.setattr(patience.Patience, "__call__", lambda self, call: call())  # nothing is made again

    def break_it():
        with create_engine(parse(postgres.url)).connect() as other:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            other.exec_driver_sql(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")

    assert engine.pool.checkedin() == 1
    break_it()
    with pytest.raises(DBAPIError):
        trials_of(study)
    trials_of(study)
    break_it()
    monkeypatch.setattr(database, "IDLE_S", 0)
    assert trials_of(study) == []


# what cannot be waited for


def test_a_server_that_stays_away_is_given_up_with_one_sentence(server, space, monkeypatch):
    monkeypatch.setattr(patience, "RETRY_S", 4)
    study = open_small(server.url, space, exclusive=False)
    server.stop()
    began = time.monotonic()
    with (
        pytest.raises(StudyError, match=r"storage \w+://.* cannot be used: .*refused") as error,
        storage_errors(server.url),
    ):
        trials_of(study)
    assert 1 < time.monotonic() - began < 60
    assert PASSWORD not in str(error.value)
    began = time.monotonic()
    with pytest.raises(StudyError), storage_errors():
        trials_of(study)
    assert time.monotonic() - began < 1, "whoever cleans up then does not wait again"
    server.start()
    assert trials_of(study)


def test_a_wrong_address_is_told_at_once(server):
    server.stop()
    began = time.monotonic()
    with pytest.raises(StudyError, match="refused") as error:
        open_storage(server.url)
    assert time.monotonic() - began < 60
    assert PASSWORD not in str(error.value)


def test_a_wrong_password_is_told_at_once_by_who_is_patient_too(server):
    began = time.monotonic()
    with pytest.raises(StudyError, match="cannot be used") as error:
        open_storage(server.url.replace(PASSWORD, "wr0ng"), patient=True)
    assert time.monotonic() - began < 60
    assert "wr0ng" not in str(error.value)


def test_who_is_patient_waits_for_a_server_that_has_not_begun(server):
    server.stop()
    opener = in_process(open_storage, server.url)
    patient = fork.Process(target=open_storage, args=(server.url,), kwargs={"patient": True})
    patient.start()
    assert exit_code(opener) == 1
    time.sleep(1)
    server.start()
    assert exit_code(patient) == 0


def test_a_disk_of_the_server_that_is_full_is_one_sentence_and_loses_no_finished_trial(postgres, space):
    run(open_small(postgres.url, space, exclusive=False), space, 2)
    postgres.stop()
    postgres.server.largest_file = 1 << 24
    postgres.start()
    study = open_small(postgres.url, space, exclusive=False)
    with pytest.raises(StudyError, match="cannot be used: the disk is full"), storage_errors(postgres.url):
        study.set_user_attr("filler", secrets.token_hex(1 << 25))
    postgres.stop()
    postgres.server.largest_file = None
    postgres.start()
    study = open_small(postgres.url, space, exclusive=False)
    assert [trial.state.name for trial in trials_of(study)][:1] == ["COMPLETE"]
    run(study, space, 4)


def test_a_server_that_would_forget_is_told_of(redis, caplog):
    open_storage(redis.url)
    assert "forgets" not in caplog.text
    redis.server.client.config_set("appendonly", "no")
    open_storage(redis.url)
    redis.server.client.config_set("appendonly", "yes")
    assert "forgets when it restarts: set appendonly to yes" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_server_that_has_forgotten_is_found_out(redis, space):
    study = open_small(redis.url, space, exclusive=False)
    redis.server.clear()
    with (
        pytest.raises(StudyError, match=r"the server has lost .* of the study's .* records"),
        storage_errors(redis.url),
    ):
        trials_of(study)


# sharing


def test_processes_may_create_the_same_tables_at_the_same_moment(database, space):
    ready = fork.Barrier(5)
    processes = [in_process(open_when_ready, database.url, ready) for _ in range(5)]
    assert [exit_code(process) for process in processes] == [0] * 5
    run(open_small(database.url, space, exclusive=False), space, 1)


def open_when_ready(url, ready):
    ready.wait()
    open_storage(url)


def work_when_ready(ready, url, space, total, pause_s):
    ready.wait()
    work(url, space, total, pause_s)


def test_workers_that_share_a_study_get_different_trials(server, space):
    open_small(server.url, space, exclusive=False)
    ready = fork.Barrier(4)
    workers = [in_process(work_when_ready, ready, server.url, space, 12, 0.1) for _ in range(4)]
    assert [exit_code(worker) for worker in workers] == [0] * 4
    trials = trials_of(open_small(server.url, space, exclusive=False))
    assert 12 <= len(trials) <= 15
    assert len({trial.user_attrs["worker"]["pid"] for trial in trials}) == 4
    assert {trial.state.is_finished() for trial in trials} == {True}


def test_who_only_reads_creates_no_tables(database):
    with pytest.raises(StudyError, match="no study has been stored in it yet"):
        open_storage(database.url, read_only=True)


# Optuna's heartbeat


def test_optunas_own_tools_see_who_is_alive_and_asking_fails_nobody(database, space):
    study = open_small(database.url, space, exclusive=False)
    backend = study._storage._backend
    backend.grace_period = 1
    trial = study.ask()
    backend.record_heartbeat(trial._trial_id)
    assert backend._get_stale_trial_ids(study._study_id) == []
    time.sleep(2.1)
    assert backend._get_stale_trial_ids(study._study_id) == [trial._trial_id]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")  # as the storage has it, see below
        study.tell(study.ask(), 0.5)
    assert trials_of(study)[trial.number].state == TrialState.RUNNING
    backend.record_heartbeat(trial._trial_id)
    assert backend._get_stale_trial_ids(study._study_id) == []
