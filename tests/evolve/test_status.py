"""`evolve status`: how a study stands, from its storage alone, while it runs and when it has ended."""

import json
import re
import signal
from pathlib import Path

import optuna
import pytest
from small_world import World, wait_for

from studies import open_storage
from studies.calls import Call, call

RACERS = "speed: {low: 0.1, high: 0.9, default: 0.3}\ncolour: {low: 0.0, high: 1.0, default: 0.5}\n"


def told(world: World, *arguments: str):
    result = world.evolve("status", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def stored(world: World, study: str = "points"):
    return optuna.load_study(study_name=study, storage=open_storage(f"sqlite:///{world.folder}/runs/{study}/study.db"))


def test_a_study_that_has_ended_tells_what_came_of_it(world: World):
    world.run("--generations", "4", "--pruner", "none")
    database = world.run_folder / "study.db"
    before = database.read_bytes()
    shown = world.evolve("status", "points").output
    assert database.read_bytes() == before
    found = told(world)
    best = max((trial for trial in world.trials() if trial.value is not None), key=lambda trial: trial.value)
    assert (found["study"], found["generations"], found["epochs"], found["left_s"]) == ("points", 4, 3, 0)
    assert found["counts"]["complete"] + found["counts"]["failed"] == 4
    assert (found["best"]["trial"], found["best"]["fitness"]) == (best.number, best.value)
    assert (found["workers"], found["race"]) == ([], None)
    assert found["overall"]["trials"] == 4
    assert found["call"]["reached"] is True
    for line in (
        r"points: 4 of 4 generations are done: \d complete, 0 pruned, \d failed; 0 lost, 0 queued",
        r"over 0:\d\d of work [\d.,]+ trials and [\d.,]+ epochs an hour",
        r"nothing is left to train",
        rf"best {best.value:.4f} \(trial {best.number}\), base .+; not confirmed by a race",
        r"all workers were called to leave after their trials: 4 of 4 generations are done",
        r"no trial is running",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE), shown


def test_workers_are_seen_from_the_storage_alone_while_they_work(faulty: World):
    storage = f"sqlite:///{faulty.folder}/shared.db"
    nap = ("--set", "fault=sleep", "--set", "fault_epoch=3")
    process = faulty.start("--storage", storage, "--jobs", "2", "--epochs", "5", "--generations", "9", *nap)
    wait_for(lambda: len(list(faulty.run_folder.glob("trials/*/asleep"))) == 2 or process.poll())
    process.send_signal(signal.SIGSTOP)
    faulty.run_folder.rename(faulty.folder / "elsewhere")
    found = told(faulty, "--storage", storage, "--study", "points")
    (one, other) = found["workers"]
    assert {one["trial"], other["trial"]} == {0, 1}
    assert one["pid"] != other["pid"] != process.pid
    assert {worker["life"] for worker in found["workers"]} == {"alive"}
    assert {(worker["epochs"], worker["done"], worker["study"]) for worker in found["workers"]} == {(2, 0, "points")}
    assert all(0 < worker["fitness"] < 1 and worker["sign_s"] < 60 for worker in found["workers"])
    assert (found["generations"], found["counts"]["running"], found["left_s"]) == (9, 2, None)
    shown = faulty.evolve("status", "--storage", storage).output
    assert "no trial has ended yet\ntime left: too little has ended to tell\n" in shown
    assert re.search(
        rf"^\S+ +{one['pid']} +0:\d\d +0 +{one['trial']} +0:\d\d +2/5 +0\.\d{{4}} +\d+ s ago$", shown, re.M
    )
    (faulty.folder / "elsewhere").rename(faulty.run_folder)
    process.kill()
    process.wait()
    wait_for(lambda: {worker["life"] for worker in told(faulty)["workers"]} == {"ended"})
    assert "has ended" in faulty.evolve("status").output


def test_failures_are_told_with_their_reasons_and_without_passwords(faulty: World):
    faulty.run("--generations", "2", "--set", "fault=NaN", "--max-failures", "9")
    study = stored(faulty)
    trial = study.ask()
    trial.set_user_attr("failure", "no answer from postgresql://me:secret@db/digits")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    call(study, Call("now", "lost postgresql://me:secret@db/digits"))
    shown = faulty.evolve("status", "points").output
    reason = faulty.trials()[0].user_attrs["failure"]
    assert re.search(rf"^ +2 +0  {re.escape(reason[:50])}", shown, re.MULTILINE), shown
    assert re.search(r"^ +1 +2  no answer from postgresql://me:\*\*\*@db/digits", shown, re.MULTILINE)
    assert "secret" not in shown + json.dumps(told(faulty, "points"))
    assert "all workers were called to leave at once: lost postgresql://me:***@db" in shown


def test_what_a_race_has_decided_stands_there(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (world.folder / "space.yaml").write_text(RACERS)
    run = ("run", "--trainer", "racers:Racer", "--data", "racers", "--space", "space.yaml", "--epochs", "2")
    assert world.evolve(*run, "--generations", "12", "--race", "1", "--base-seeds", "2").exit_code == 0
    found = told(world, "racers")
    assert found["race"] == {"name": "racers.race", "done": 8, "trainings": 8}
    verdict = json.loads((world.folder / "runs" / "racers" / "race.json").read_text())
    assert (found["best"]["verdict"], found["best"]["confirmed"]) == (verdict["verdict"], verdict["confirmed"])
    shown = world.evolve("status").output
    assert "race racers.race has ended: 8 of 8 trainings are done" in shown
    assert verdict["verdict"] in shown
    world.evolve(*run, "--generations", "13", "--race", "0", "--base-seeds", "2")
    assert told(world)["best"]["verdict"] is None, "that was about another state of the study"


def test_the_front_of_several_goals_is_told(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    world.run("--trainer", "frugal:Frugal", "--objective", "map50_95,params", "--generations", "6")
    found = told(world)["best"]
    assert list(found["goals"]) == ["map50_95", "params"]
    assert found["front"] >= 1
    assert (
        f"the front has {found['front']} hyps; that of the best first goal is trial {found['trial']}: map50_95 0."
        in (world.evolve("status").output)
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pionts"], "there is no study 'pionts' in runs (did you mean 'points'?)"),
        (
            ["--storage", "sqlite:///runs/points/study.db", "--study", "digits"],
            "there is no study digits in its storage",
        ),
        (["--storage", "sqlite:///none.db", "--study", "points"], "none.db: No such file or directory"),
        (["--storage", "journal:none.log", "--study", "points"], "none.log: No such file or directory"),
        (["--storage", "sqlite:///two.db"], "there are several studies in this storage, say which: one, two"),
        (["--storage", "sqlite:///theirs.db"], "there is no study of evolve in this storage"),
        (["--storage", "sqlite:///theirs.db", "--study", "theirs"], "the study theirs was not made by evolve"),
    ],
)
def test_a_study_that_is_not_there_is_one_sentence(world: World, arguments, sentence):
    world.run("--generations", "1")
    for name in ("one", "two"):
        world.run("--generations", "1", "--storage", "sqlite:///two.db", "--study", name)
    optuna.create_study(study_name="theirs", storage="sqlite:///theirs.db")
    files = files_in(world.folder)
    result = world.evolve("status", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_in(world.folder) == files, "nothing is created"


def files_in(folder: Path) -> list[Path]:
    """But for what SQLite needs beside a database while it is read."""
    return sorted(path for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm")))
