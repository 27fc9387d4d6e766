"""`evolve dashboard` as a command, and as a person sees it: started, opened in a browser, ended."""

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import errors_in, open_browser, resize, take_picture
from made_study import make_study
from servers import PASSWORD
from small_world import RUN, World, wait_for
from test_passwords import command_lines

from evolve.serving import IDLE_S
from studies.trials import counts

LACKING = "import sys; sys.modules['optuna_dashboard'] = None\n" + RUN
CHINESE = "一个研究"


def started(world: World, *arguments: str) -> tuple[Any, str]:
    """The process of a dashboard at a free port, and the address that it tells."""
    process = world.start_command("dashboard", *arguments, "--port", "0")
    line = process.stdout.readline()
    assert "http://" in line, (line, process.stderr.read())
    return process, re.search(r"http://\S+", line)[0]


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return json.loads(answer.read())


def api(url: str, path: str = "/1") -> str:
    return f"{url.partition('/dashboard')[0]}/api/studies{path}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_its_address_answers_and_ends_at_once_and_cleanly(world: World, number):
    make_study(world.folder / "runs", 5, name=CHINESE)
    process, url = started(world)
    assert process.stdout.readline() == "it is for reading only; Ctrl-C ends it\n"
    assert url.endswith("/dashboard/studies/1")
    assert read(api(url))["name"] == CHINESE
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(api(url), method="DELETE"))
    address = re.search(r"//([^:/]+):(\d+)", url)
    waiting = socket.create_connection((address[1], int(address[2])))  # who asks nothing holds up nobody
    process.send_signal(number)
    output, errors = process.communicate(timeout=IDLE_S - 10)
    waiting.close()
    assert (process.returncode, output, errors) == (0, "", "")


def test_it_follows_a_study_that_runs_and_the_study_does_not_mind(world: World):
    # nobody reads what it says: after some 500 trials it would stand still, and of short ones that is in 15 seconds
    run = world.start("--epochs", "60", "--generations", "3000", "--race", "0", "--pruner", "none")
    wait_for((world.run_folder / "evolve.yaml").exists)
    _, url = started(world, "points")
    seen = set()
    wait_for(lambda: seen.add(len(read(api(url))["trials"])) or len(seen) > 4, 300)
    run.send_signal(signal.SIGINT)  # between two trials it leaves without a word
    output, errors = run.communicate(timeout=240)
    assert (run.returncode, errors) == (130, ""), output
    done = [trial for trial in world.trials() if counts(trial)]  # of many hyps some diverge, and fail
    assert len(world.trials()) >= max(seen), "no trial may have begun since"

    def is_up_to_date() -> bool:
        told = read(api(url))
        has_note = f"\n{len(done)} of 3000 gen" in told["note"]["body"]
        return has_note and len(told["trials"]) == len(world.trials())

    wait_for(is_up_to_date)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pionts"], "there is no study 'pionts' in runs (did you mean 'points'?)"),
        (["sqlite:///none.db"], "none.db: No such file or directory"),
        (["memory:"], "a study in memory: is seen by nobody but the process that runs it"),
        (["--storage", "sqlite:///runs/points/study.db", "theirs"], "there is no study theirs in its storage"),
        (["--port", "70000"], "--port is 70000; it has to be one of 1 to 65535, or 0 for any that is free"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address of this machine"),
        (["nonsense://x"], "is no storage; give sqlite:///PATH"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(world: World, arguments, sentence):
    make_study(world.folder / "runs", 2)
    result = world.evolve("dashboard", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken_and_a_package_that_is_missing_are_one_sentence(world: World):
    make_study(world.folder / "runs", 2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = world.evolve("dashboard", "--port", str(taken.getsockname()[1]))
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r".*cannot listen on port \d+ of 127.0.0.1: it is taken; --port 0 takes any\n", result.stderr)
    process = world.start_command("dashboard", program=LACKING)
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, output) == (2, "")
    assert errors == (
        "evolve: error: evolve dashboard needs a package that is not installed: pip install 'evolve-hyp[dashboard]'\n"
    )


def test_whom_others_reach_it_warns_and_nothing_tells_a_password(world: World, postgres, monkeypatch):
    make_study(world.folder / "runs", 3, storage=postgres.url)
    monkeypatch.setenv("EVOLVE_STORAGE", postgres.url)
    process, url = started(world, "points", "--host", "0.0.0.0")
    assert not any(PASSWORD.encode() in line for line in command_lines())
    url = url.replace("0.0.0.0", "127.0.0.1")
    assert PASSWORD not in json.dumps([read(api(url)), read(api(url, ""))])
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=240)
    assert re.fullmatch(r"evolve: warning: whoever reaches port \d+ of 0.0.0.0 can read this\n", errors)
    assert PASSWORD not in output
    monkeypatch.delenv("EVOLVE_STORAGE")
    typed = world.start_command("dashboard", postgres.url.replace("points", ""), "--port", "70000")
    assert (
        "the password in --storage is there for everybody on this machine to see" in typed.communicate(timeout=240)[1]
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as driver:
        yield driver


DRAWN = """
return [...document.querySelectorAll('[id^="user-defined-plot:"]')].map((plot) => [
    plot.id.split(':')[1], plot.querySelectorAll('.main-svg').length, plot.getBoundingClientRect().width]);
"""
NAMES = ["history", "curves", "hyps", "importances", "lineage", "parallel", "workers"]


@pytest.mark.parametrize("trials", [0, 1, 40, 1000])
def test_our_pictures_are_drawn_on_a_page_without_errors(world: World, browser, trials):
    make_study(world.folder / "runs", trials, name=CHINESE)
    _, url = started(world)
    read(api(url))  # what it takes to draw them is not the browser's
    browser.get("about:blank")  # the page of another test asks on, whoever is there
    errors_in(browser)
    for width in (1400, 420):
        resize(browser, width)
        browser.get(url)
        wait_for(lambda: sum(count > 0 for _, count, _ in browser.execute_script(DRAWN)) == len(NAMES))
        drawn = browser.execute_script(DRAWN)
        assert [name for name, _, _ in drawn] == NAMES
        assert all(wide > 0.7 * (width - 64) for _, _, wide in drawn), drawn
        assert CHINESE in browser.execute_script("return document.body.innerText")
        assert errors_in(browser) == []
        if folder := os.environ.get("EVOLVE_SCREENSHOTS"):
            height = browser.execute_script("return document.documentElement.scrollHeight")
            take_picture(browser, Path(folder) / f"dashboard-{trials}-{width}.png", height)
    browser.get(f"{url}/note")
    wait_for(lambda: "How it was started" in browser.execute_script("return document.body.innerText"))
    assert errors_in(browser) == []
