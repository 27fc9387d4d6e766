"""Journals in a file: whoever is killed while writing, and wherever that leaves the file, the study goes on."""

import json
import logging
import os
import resource
import signal
import threading
import time

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from small_study import attrs, exit_code, fork, history, in_process, open_small, run

from studies import StudyError, open_storage, storage_errors, trials_of
from studies.journal_file import LOCK_GRACE_S, JournalFile

RECORD = b'{"op_code":8,"worker_id":"w","trial_id":0,"user_attr":{"key":"value"}}'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.journal"


@pytest.fixture
def warnings_of(caplog):
    return lambda: [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def tear(path, piece=RECORD[:30]):
    """Leave what a process leaves that is killed while it appends."""
    with path.open("ab") as file:
        file.write(piece)


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_journal_cut_anywhere_is_opened_with_what_was_whole(tmp_path, path, space, warnings_of):
    run(open_small(f"journal:{path}", space), space, 2)
    content = path.read_bytes()
    cuts = [*range(len(content) - 300, len(content)), *range(0, len(content), 997)]
    for cut in cuts:
        left = tmp_path / "left.journal"
        left.write_bytes(content[:cut])
        whole = content[:cut].rfind(b"\n") + 1
        before = len(warnings_of())
        open_storage(f"journal:{left}")
        assert left.read_bytes() == content[:whole]
        told = [f"journal {left} ended within a line: cut off {cut - whole} bytes of a killed process"]
        assert warnings_of()[before:] == (told if cut > whole else [])


def test_a_torn_study_goes_on_as_if_nothing_had_happened(path, url, space):
    run(open_small(f"journal:{path}", space), space, 3)
    tear(path)
    torn, whole = open_small(f"journal:{path}", space), open_small(url, space)
    for study in (torn, whole):
        run(study, space, 6)
    assert history(torn) == history(whole)


def test_a_line_torn_while_others_work_harms_neither_who_reads_nor_who_appends(path, space, warnings_of):
    one, other = (open_small(f"journal:{path}", space, exclusive=False) for _ in range(2))
    for number in range(20):
        tear(path, RECORD[: 1 + 3 * number])
        assert "number" not in one.user_attrs or one.user_attrs["number"] == number - 1
        other.set_user_attr("number", number)
        assert one.user_attrs["number"] == other.user_attrs["number"] == number
    assert len(warnings_of()) == 20
    assert lines_of(path)


def test_it_may_be_opened_while_others_write(path, space):
    open_small(f"journal:{path}", space, exclusive=False)
    workers = [in_process(work, path, space, 8) for _ in range(2)]
    while any(worker.is_alive() for worker in workers):
        tear(path)
        optuna.load_study(study_name="small", storage=open_storage(f"journal:{path}"))
    assert [exit_code(worker) for worker in workers] == [0, 0]
    assert len({trial.number for trial in trials_of(open_small(f"journal:{path}", space))}) >= 8


def work(path, space, total):
    run(open_small(f"journal:{path}", space, exclusive=False), space, total)


# real kills


def append_large(path, space, number):
    study = open_small(f"journal:{path}", space, exclusive=False)
    while True:
        study.set_user_attr(f"large {number}", "x" * 40_000_000)


def test_a_process_killed_in_the_middle_of_its_line_costs_the_others_nothing(path, space, caplog):
    """Appending 40 MB takes a while, in which the file grows: then the kill comes."""
    study, torn = open_small(f"journal:{path}", space, exclusive=False), 0
    for number in range(8):
        size = path.stat().st_size
        worker = in_process(append_large, path, space, number)
        while path.stat().st_size < size + 100_000:
            pass
        os.kill(worker.pid, signal.SIGKILL)
        exit_code(worker)
        torn += not path.read_bytes().endswith(b"\n")
        began = time.monotonic()
        study.set_user_attr("after", number)
        assert time.monotonic() - began < LOCK_GRACE_S, "the lock of the dead is not waited for"
        assert study.user_attrs["after"] == number
        fresh = optuna.load_study(study_name="small", storage=open_storage(f"journal:{path}"))
        assert fresh.user_attrs["after"] == number
    assert torn > 0, "it would prove nothing"
    assert caplog.text.count("ended within a line") == torn
    assert lines_of(path)


def note_what_is_acknowledged(path, space, name, noted):
    study = open_small(f"journal:{path}", space, exclusive=False)
    for number in range(10_000):
        study.set_user_attr(name, number)
        os.write(noted, f"{number}\n".encode())


def test_what_was_acknowledged_is_there_after_any_kill(tmp_path, path, space):
    open_small(f"journal:{path}", space, exclusive=False)
    for number in range(12):
        noted = [os.open(tmp_path / f"{number} {name}", os.O_CREAT | os.O_WRONLY) for name in "ab"]
        workers = [in_process(note_what_is_acknowledged, path, space, f"{number} {i}", noted[i]) for i in range(2)]
        time.sleep(0.2 + 0.03 * number)
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
            exit_code(worker)
        for i, name in enumerate("ab"):
            acknowledged = (tmp_path / f"{number} {name}").read_text().split()
            stored = [line["user_attr"][f"{number} {i}"] for line in lines_of_attr(path, f"{number} {i}")]
            assert stored[: len(acknowledged)] == [int(one) for one in acknowledged]
            assert len(stored) <= len(acknowledged) + 1
    assert open_small(f"journal:{path}", space).user_attrs


def lines_of_attr(path, key):
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return [line for line in map(json.loads, whole) if key in line.get("user_attr", {})]


# the lock


def count_up(path, name, ready):
    backend = JournalFile(path)
    ready.wait()
    for number in range(40):
        backend.append_logs([{"op_code": 2, "worker_id": name, "study_id": -1, "user_attr": {"number": number}}])


def test_those_who_append_at_once_all_do(path):
    names, ready = "abcd", fork.Barrier(4)
    processes = [in_process(count_up, path, name, ready) for name in names]
    assert [exit_code(process) for process in processes] == [0] * 4
    lines = lines_of(path)
    assert len(lines) == 160
    for name in names:
        assert [line["user_attr"]["number"] for line in lines if line["worker_id"] == name] == list(range(40))


@pytest.mark.parametrize("holder", ["dead", "elsewhere", "optuna"])
def test_a_lock_that_nobody_will_give_back_is_broken(path, space, monkeypatch, holder):
    study = open_small(f"journal:{path}", space)
    lock = path.with_name(f"{path.name}.lock")
    process = in_process(time.sleep, 0)
    exit_code(process)
    worker = {
        "host": "elsewhere" if holder == "elsewhere" else os.uname().nodename,
        "pid": process.pid,
        "started": None,
    }
    lock.symlink_to(str(path) if holder == "optuna" else json.dumps(worker))
    began = time.monotonic()
    if holder != "dead":
        monkeypatch.setattr("studies.journal_file.LOCK_GRACE_S", 2.5)
    study.set_user_attr("key", "value")
    assert (1 if holder == "dead" else 2.5) < time.monotonic() - began < LOCK_GRACE_S
    assert not lock.is_symlink()


def test_a_lock_that_is_held_is_waited_for(path, space):
    study = open_small(f"journal:{path}", space)
    begun, done = threading.Event(), threading.Event()

    def hold():
        with JournalFile(path)._locked():
            begun.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    writer = threading.Thread(target=study.set_user_attr, args=("key", "value"))
    writer.start()
    writer.join(2)
    assert writer.is_alive()
    done.set()
    writer.join(10)
    assert study.user_attrs["key"] == "value"


# what others have written


def test_optunas_own_backend_reads_ours_and_we_read_optunas(path, space):
    study = open_small(f"journal:{path}", space)
    run(study, space, 2)
    theirs = optuna.load_study(study_name="small", storage=JournalStorage(JournalFileBackend(str(path))))
    assert history(theirs) == history(study)
    theirs.set_user_attr("key", "value")
    assert study.user_attrs["key"] == "value"


def test_a_line_that_was_glued_to_a_torn_one_is_left_out(path, space, warnings_of):
    study = open_small(f"journal:{path}", space)
    tear(path)
    theirs = JournalFileBackend(str(path))
    theirs.append_logs([json.loads(RECORD)])
    study.set_user_attr("key", "value")
    run(study, space, 2)
    fresh = optuna.load_study(study_name="small", storage=open_storage(f"journal:{path}"))
    assert history(fresh) == history(study)
    assert fresh.user_attrs["key"] == "value"
    assert any("cannot read record" in warning for warning in warnings_of())


@pytest.mark.parametrize("content", ['{"lr0": 0.1}', '{\n  "lr0": 0.1\n}\n', "notes\n", "n", "\n"])
def test_a_file_that_is_no_journal_is_not_touched(path, content):
    path.write_text(content)
    with pytest.raises(StudyError, match="the file is no journal of Optuna"):
        open_storage(f"journal:{path}")
    assert path.read_text() == content


def test_who_only_reads_makes_no_file_and_cuts_nothing(tmp_path, path, space):
    with pytest.raises(StudyError, match="No such file or directory"):
        open_storage(f"journal:{path}", read_only=True)
    assert list(tmp_path.iterdir()) == []
    run(open_small(f"journal:{path}", space), space, 1)
    tear(path)
    content = path.read_bytes()
    reader = optuna.load_study(study_name="small", storage=open_storage(f"journal:{path}", read_only=True))
    assert len(history(reader)) == 1
    assert path.read_bytes() == content


# the disk


def fill_the_disk(path, space, sentences):
    study = open_small(f"journal:{path}", space, exclusive=False)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a disk that is full
    size = path.stat().st_size + 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        with storage_errors(f"journal:{path}"):
            study.set_user_attr("filler", "x" * 100_000)
    except StudyError as error:
        sentences.put(str(error))


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_no_torn_line(path, space):
    study, sentences = open_small(f"journal:{path}", space), fork.Queue()
    run(study, space, 2)
    content = path.read_bytes()
    assert exit_code(in_process(fill_the_disk, path, space, sentences)) == 0
    assert sentences.get(timeout=240) == f"storage journal:{path} cannot be used: {path}: File too large"
    assert path.read_bytes().startswith(content)
    assert lines_of(path)
    assert "filler" not in study.user_attrs
    run(study, space, 4)
    assert attrs(study, 0)
