"""A storage's password: given in a way that nobody else sees, and written down and shown nowhere."""

import time
from pathlib import Path

import pytest
from servers import PASSWORD
from small_world import World, wait_for

from evolve.cli import ASKED_WRONGLY, PASSWORD_SHOWN

SHORT = ("--epochs", "3", "--generations", "3", "--race", "0")


def command_lines():
    """Those of all processes, as anybody can read them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue  # it has ended


def finish(process):
    """The exit code and all that was printed; whatever ran meanwhile must not have shown the password."""
    while process.poll() is None:
        assert not any(PASSWORD.encode() in line for line in command_lines())
        time.sleep(0.2)
    output, errors = process.communicate(timeout=240)
    return process.returncode, output + errors


def assert_kept(world, *texts):
    files = [path for path in world.folder.rglob("*") if path.is_file() and path.name != ".pgpass"]
    assert len(files) > 5
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    assert not any(PASSWORD in text for text in texts)


@pytest.mark.parametrize(("server", "jobs"), [("postgres", "2"), ("redis", "1")])
def test_a_password_in_the_environment_stands_in_no_process_list_output_or_file(
    world: World, request, monkeypatch, server, jobs
):
    database = request.getfixturevalue(server)
    monkeypatch.setenv("EVOLVE_STORAGE", database.url)
    code, printed = finish(world.start(*SHORT, "--jobs", jobs))
    assert code == 0, printed
    code, again = finish(world.start("--config", "runs/points/evolve.yaml", "--generations", "4"))
    assert code == 0, again
    code, best = finish(world.start_command("best"))
    assert code == 0, best
    database.stop()
    code, refused = finish(world.start(*SHORT))
    assert code == ASKED_WRONGLY
    assert "refused" in refused
    assert_kept(world, printed, again, best, refused)


def test_without_it_the_configuration_asks_for_it(world: World, postgres, monkeypatch):
    monkeypatch.setenv("EVOLVE_STORAGE", postgres.url)
    assert world.run().exit_code == 0
    monkeypatch.delenv("EVOLVE_STORAGE")
    result = world.evolve("run", "--config", "runs/points/evolve.yaml")
    assert (result.exit_code, len(result.stderr.splitlines())) == (ASKED_WRONGLY, 1)
    assert "lacks its password: give the URL with --storage or EVOLVE_STORAGE" in result.stderr


@pytest.mark.parametrize("kept_in", ["PGPASSWORD", "~/.pgpass"])
def test_postgresqls_own_ways_to_give_a_password_work(world: World, postgres, monkeypatch, kept_in):
    url = postgres.url.replace(f":{PASSWORD}", "")
    if kept_in == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    else:
        monkeypatch.setenv("HOME", str(world.folder))
        passwords = world.folder / ".pgpass"
        passwords.write_text(f"127.0.0.1:*:*:evolve:{PASSWORD}\n")
        passwords.chmod(0o600)
    code, printed = finish(world.start(*SHORT, "--storage", url))
    assert code == 0, printed
    assert PASSWORD_SHOWN not in printed
    code, again = finish(world.start("--config", "runs/points/evolve.yaml", "--generations", "4"))
    assert code == 0, again
    assert f"storage: {url}" in (world.run_folder / "evolve.yaml").read_text()
    assert_kept(world, printed, again)


def test_a_password_on_the_command_line_is_warned_of_once_and_works(world: World, postgres):
    result = world.run("--storage", postgres.url)
    assert result.exit_code == 0
    assert result.stderr == f"evolve: warning: {PASSWORD_SHOWN}\n"
    best = world.evolve("best", "--storage", postgres.url)
    assert best.stderr == f"evolve: warning: {PASSWORD_SHOWN}\n"
    assert_kept(world, result.output, best.output)


def test_what_runs_is_told_of_a_database_that_is_away_without_its_password(world: World, postgres, monkeypatch):
    monkeypatch.setenv("EVOLVE_STORAGE", postgres.url)
    process = world.start("--epochs", "3", "--generations", "500", "--race", "0")
    wait_for((world.run_folder / "trials" / "00002").exists)
    postgres.stop()
    wait_for(lambda: "does not answer" in process.stderr.readline())
    postgres.start()
    wait_for(lambda: "answers again" in process.stderr.readline())
    process.terminate()
    output, errors = process.communicate(timeout=240)
    assert PASSWORD not in output + errors


WEIGHTS = f"https://me:{PASSWORD}@example.org/w.pt"


def test_a_password_in_the_url_of_the_weights_stands_in_no_output_or_file(world: World):
    first = world.run("--weights", WEIGHTS)
    assert first.exit_code == 0, first.output
    goes_on = ("run", "--config", "runs/points/evolve.yaml", "--generations", "4")
    again = world.evolve(*goes_on)
    assert (again.exit_code, "give the URL with --weights" in again.stderr) == (ASKED_WRONGLY, True)
    resumed = world.evolve(*goes_on, "--weights", WEIGHTS)
    assert resumed.exit_code == 0, resumed.output
    reported = world.evolve("report")
    assert reported.exit_code == 0, reported.output
    replayed = world.evolve("replay", "1")
    assert (replayed.exit_code, "it cannot be trained again" in replayed.stderr) == (ASKED_WRONGLY, True)
    storage = ("--storage", f"sqlite:///{world.run_folder}/study.db", "--study", "points")
    joined = world.evolve("worker", *storage)
    assert (joined.exit_code, "give the URL with --weights" in joined.stderr) == (ASKED_WRONGLY, True)
    assert "https://me:***@example.org/w.pt" in (world.run_folder / "report.html").read_text()
    texts = [result.output + result.stderr for result in (first, again, resumed, reported, replayed, joined)]
    assert_kept(world, *texts)


LEAKING = f"""
from toy import ToyTrainer
from trainer import TrainerError

WHY = "no answer from postgresql://me:{PASSWORD}@db/x"

class Leaking(ToyTrainer):
    def train(self, job):
        print(WHY)
        raise TrainerError(WHY)
        yield
"""


def test_what_a_training_fails_with_shows_no_password_to_anybody(world: World):
    (world.folder / "leaking.py").write_text(LEAKING)
    trainer = (
        "--trainer",
        "leaking:Leaking",
        "--max-failures",
        "2",
        "--log-to",
        f"mlflow:sqlite:///{world.folder}/ml.db",
    )
    ran = world.run(*trainer)
    told = world.run(*trainer, "--json")
    replayed = world.evolve("replay", "0", "--json")
    assert (ran.exit_code, told.exit_code, replayed.exit_code) == (1, 1, 0), ran.output + replayed.output
    shown = "no answer from postgresql://me:***@db/x"
    texts = [result.output + result.stderr for result in (ran, told, replayed)]
    assert all(shown in text for text in texts)
    assert "train.log ends with" in texts[0]
    for path in world.folder.rglob("train*.log"):
        path.unlink()  # of the training, which says what it likes
    (world.folder / "leaking.py").unlink()
    assert_kept(world, *texts)
