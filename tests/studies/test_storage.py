"""Storages: opened by URL, safe to share, and clear about why they cannot be had."""

import os
import resource
import shutil
import signal
import sqlite3

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from small_study import exit_code, fork, history, in_process, open_small, run
from sqlalchemy import event, text

from studies import StudyError, make_durable, open_storage, sqlite_url, storage_errors, suggest, trials_of
from studies.trials import at_once


def test_sqlite_is_opened_for_many_readers_and_patient_writers(tmp_path):
    storage = open_storage(sqlite_url(tmp_path / "new" / "folder" / "study.db"))
    with storage.engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 60_000}


@pytest.mark.parametrize("name", ["a b.db", "100%41.db", "what?.db", "#1 {x}.db", "épreuve.db", "a&b=c;d:e@f.db"])
def test_a_path_may_have_any_characters(tmp_path, name):
    open_storage(sqlite_url(tmp_path / name))
    assert (tmp_path / name).exists()
    assert {path.name.removeprefix(name) for path in tmp_path.iterdir()} <= {"", "-wal", "-shm"}


def test_the_params_of_a_trial_are_stored_in_one_transaction(tmp_path, space):
    study = open_small(sqlite_url(tmp_path / "study.db"), space)
    run(study, space, 2)
    trial, statements = study.ask(), []
    engine = study._storage._backend.engine
    event.listen(engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    hyp = suggest(trial, space)
    assert sum("INSERT INTO trial_params" in statement for statement in statements) == 1
    stored = open_small(sqlite_url(tmp_path / "study.db"), space, exclusive=False).trials[trial.number]
    assert stored.params == {param.name: hyp[param.name] for param in space.params}
    assert suggest(trial, space) == hyp, "what is asked again is as it was"


def test_notes_that_are_set_at_once_replace_those_that_are_there(tmp_path, space):
    study = open_small(sqlite_url(tmp_path / "study.db"), space)
    run(study, space, 1)
    trial, other = study.ask(), study.ask()
    trial.set_user_attr("old", 1)
    with at_once(trial):
        trial.set_user_attr("old", 2)
        trial.set_user_attr("new", {"list": [1, None]})
        other.set_user_attr("of another", True)
        stored = trials_of(study)
        assert (stored[-2].user_attrs["old"], stored[-1].user_attrs["of another"]) == (1, True)
    assert trials_of(study)[-2].user_attrs.items() >= {"old": 2, "new": {"list": [1, None]}}.items()
    study.tell(trial, 0.5)
    with pytest.raises(UpdateFinishedTrialError), at_once(trial):
        trial.set_user_attr("late", True)
    assert "late" not in trials_of(study)[-2].user_attrs


def test_of_what_another_has_set_meanwhile_params_stay_and_notes_are_replaced(tmp_path, space):
    url = sqlite_url(tmp_path / "study.db")
    study = open_small(url, space)
    run(study, space, 2)
    trial = study.ask()
    with at_once(trial):
        trial.suggest_float("lr0", 1e-5, 0.1, log=True)
        trial.suggest_float("degrees", 0.0, 45.0)
        trial.set_user_attr("note", "mine")
        again = optuna.load_study(study_name="small", storage=open_storage(url))
        trials_of(again)
        theirs = optuna.Trial(again, trial._trial_id)
        theirs.set_user_attr("note", "theirs")
        there = theirs.suggest_float("degrees", 0.0, 45.0)
    stored = trials_of(study)[trial.number]
    assert stored.params == {"lr0": trial.params["lr0"], "degrees": there}
    assert stored.user_attrs["note"] == "mine"


def test_what_a_process_asks_for_first_is_stored_at_once_too(tmp_path, space):
    url = sqlite_url(tmp_path / "study.db")
    run(open_small(url, space), space, 1)
    study, reader = (optuna.load_study(study_name="small", storage=open_storage(url)) for _ in range(2))
    trial = study.ask()
    with at_once(trial):
        trial.suggest_float("lr0", 1e-5, 0.1, log=True)
        trial.suggest_float("new", 0.0, 1.0)
        assert trials_of(reader)[trial.number].params == {}
    assert trials_of(reader)[trial.number].params == trial.params
    another = optuna.load_study(study_name="small", storage=open_storage(url)).ask()
    with pytest.raises(ValueError, match="distribution"), at_once(another):
        another.suggest_categorical("lr0", ["high", "low"])
    assert trials_of(reader)[another.number].params == {}


def test_a_trial_whose_hyp_could_not_be_drawn_has_no_params(tmp_path, space):
    study = open_small(sqlite_url(tmp_path / "study.db"), space)
    run(study, space, 2)
    trial = study.ask()

    def draw_half() -> None:
        with at_once(trial):
            trial.suggest_float("lr0", 1e-5, 0.1, log=True)
            trial.suggest_float("degrees", 45.0, 0.0)

    with pytest.raises(ValueError, match="low"):
        draw_half()
    assert trials_of(study)[trial.number].params == {}


def test_memory_is_for_this_process_only():
    assert isinstance(open_storage("memory:"), InMemoryStorage)


@pytest.mark.parametrize("scheme", ["sqlite:///", "journal:"])
def test_a_study_written_to_a_file_is_read_back_as_it_was(tmp_path, space, scheme):
    url = f"{scheme}{tmp_path}/study"
    study = open_small(url, space)
    run(study, space, 4)
    again = optuna.load_study(study_name="small", storage=open_storage(url))
    assert history(again) == history(study)


@pytest.mark.parametrize("name", ["study.db", "100%41 what?.db", "#1 {x}&mode=rw.db"])
def test_who_only_reads_sees_everything_and_can_write_nothing(tmp_path, space, name):
    url = sqlite_url(tmp_path / name)
    study = open_small(url, space)
    run(study, space, 2)
    reader = optuna.load_study(study_name="small", storage=open_storage(url, read_only=True))
    run(study, space, 3)
    assert history(reader) == history(study)
    with pytest.raises(StudyError, match="it cannot be written to"), storage_errors(url):
        reader.set_user_attr("key", "value")


def test_who_only_reads_makes_no_file(tmp_path):
    with pytest.raises(StudyError, match="folder: No such file or directory"):
        open_storage(sqlite_url(tmp_path / "folder" / "study.db"), read_only=True)
    assert list(tmp_path.iterdir()) == []


def states_after_a_power_cut(url, folder):
    """The trials in the database file alone, without the log that the disk may not hold yet; None: not even tables."""
    shutil.copy(url.removeprefix("sqlite:///"), folder / "left.db")
    with sqlite3.connect(folder / "left.db") as database:
        if not database.execute("SELECT name FROM sqlite_master WHERE name = 'trials'").fetchall():
            return None
        return [state for (state,) in database.execute("SELECT state FROM trials ORDER BY number")]


def test_what_was_made_durable_outlives_a_power_cut(url, space, tmp_path):
    study = open_small(url, space)
    run(study, space, 2)
    states = [trial.state.name for trial in trials_of(study)]
    assert states_after_a_power_cut(url, tmp_path) != states, "it would prove nothing"
    make_durable(study)
    assert states_after_a_power_cut(url, tmp_path) == states


@pytest.mark.parametrize("scheme", ["memory:", "journal:", "sqlite:///:memory:"])
def test_other_storages_are_left_to_what_they_do_themselves(tmp_path, space, scheme):
    study = open_small(f"{scheme}{tmp_path}/study" if scheme == "journal:" else scheme, space)
    run(study, space, 1)
    make_durable(study)
    assert len(history(study)) == 1


def open_when_ready(url, ready):
    ready.wait()
    open_storage(url)


def test_processes_may_create_the_same_file_at_the_same_moment(url):
    ready = fork.Barrier(5)
    processes = [in_process(open_when_ready, url, ready) for _ in range(5)]
    assert [exit_code(process) for process in processes] == [0] * 5
    study = optuna.create_study(storage=open_storage(url))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


# what cannot be had


def test_a_file_that_is_no_database_is_not_touched(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 100)
    for url in (sqlite_url(path), f"journal:{path}"):
        with pytest.raises(StudyError, match=r"notes\.txt cannot be used: the file is no (SQLite database|journal)"):
            open_storage(url)
    assert path.read_text() == "not a database\n" * 100


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "",
            "'' is no storage; give sqlite:///PATH, journal:PATH, postgresql://..., mysql://..., redis://... or",
        ),
        ("study.db", "'study.db' is no storage; give sqlite:///PATH"),
        ("sqlit:///study.db", "'sqlit:///study.db' is no storage; give sqlite:///PATH"),
        ("journal:", "'journal:' is no storage"),
        ("postgresql://me:secret@db:port/x", "'postgresql://me:***@db:port/x' is no storage"),
        ("sqlite:///{tmp}", "storage sqlite:///{tmp} cannot be used: the file cannot be opened"),
        ("journal:{tmp}", "storage journal:{tmp} cannot be used: {tmp}: Is a directory"),
        (
            "sqlite:///{tmp}/file/study.db",
            "storage sqlite:///{tmp}/file/study.db cannot be used: {tmp}/file is no folder",
        ),
        ("journal:{tmp}/file/study", "storage journal:{tmp}/file/study cannot be used: {tmp}/file is no folder"),
        ("sqlite:////proc/study.db", "storage sqlite:////proc/study.db cannot be used: the file cannot be opened"),
        ("journal:/proc/study", "storage journal:/proc/study cannot be used: /proc/study: No such file or directory"),
        (
            "mysql+nosuchdriver://me:se@cret@db/x?password=secret",
            "'mysql+nosuchdriver://me:***@db/x' is no storage; give sqlite:///PATH",
        ),
    ],
)
def test_a_storage_that_cannot_be_had_is_refused_in_one_sentence(tmp_path, url, sentence):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError) as error:
        open_storage(url.replace("{tmp}", str(tmp_path)))
    assert str(error.value).startswith(sentence.replace("{tmp}", str(tmp_path)))
    assert "\n" not in str(error.value)
    assert "cret" not in str(error.value)


def test_a_missing_driver_is_named_with_the_command_that_installs_it():
    with pytest.raises(StudyError, match=r"storage oracle://me:\*\*\*@db/x needs a driver.*: pip install \w+"):
        open_storage("oracle://me:secret@db/x")


def test_tables_of_another_version_of_optuna_are_refused_with_what_converts_them(url):
    open_storage(url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.a'")
    database.close()
    with pytest.raises(StudyError, match="another version of Optuna made it; 'optuna storage upgrade"):
        open_storage(url)


def fill_the_disk(url, space, sentences):
    study = open_small(url, space)
    run(study, space, 2)
    size = os.path.getsize(url.removeprefix("sqlite:///") + "-wal")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a disk that is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        with storage_errors(url):
            study._storage.set_study_user_attr(study._study_id, "filler", "x" * 100_000)
    except StudyError as error:
        sentences.put(str(error))


def test_a_disk_that_fills_up_is_one_sentence_and_loses_no_finished_trial(url, space):
    sentences = fork.Queue()
    assert exit_code(in_process(fill_the_disk, url, space, sentences)) == 0
    assert "the disk" in sentences.get(timeout=240)
    study = open_small(url, space)
    assert [trial.state.name for trial in trials_of(study)][:1] == ["COMPLETE"]
    run(study, space, 4)
