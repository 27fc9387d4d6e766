"""`evolve run --json`: an object a line, under names that stay, and nothing else on standard output."""

import json
from pathlib import Path

import pytest
from small_world import World

EVENTS = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8").partition("| event |")[2]
RACERS = "speed: {low: 0.1, high: 0.9, default: 0.3}\ncolour: {low: 0.0, high: 1.0, default: 0.5}\n"


def documented() -> dict[str, set[str]]:
    """Event -> fields, from the table in the docs."""
    rows = [line.split("|") for line in EVENTS.splitlines() if line.startswith("| `")]
    return {row[1].strip(" `"): {name.strip(" `") for name in row[3].split(",") if name.strip()} for row in rows}


def events_of(result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_event_is_an_object_on_a_line_with_the_fields_that_are_documented(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (world.folder / "space.yaml").write_text(RACERS)
    run = ("run", "--trainer", "racers:Racer", "--data", "racers", "--space", "space.yaml", "--epochs", "2")
    result = world.evolve(*run, "--generations", "12", "--race", "1", "--base-seeds", "2", "--json")
    events = events_of(result)
    names = [event["event"] for event in events]
    assert names[:2] == ["preparing", "opened"]
    assert names[-1] == "ended"
    assert names.count("finished") == 12
    assert names.count("raced") == 8
    known = documented()
    for event in events:
        assert {name for name in event if name not in ("event", "time")} == known[event["event"]], event["event"]
    assert set(known) - set(names) <= {"warned", "leaving", "progress"}
    finished = [event for event in events if event["event"] == "finished"]
    assert [event["done"] for event in finished] == list(range(1, 13))
    assert {event["state"] for event in finished} <= {"complete", "pruned", "failed"}
    assert events[-1]["hyp_file"].endswith("best/hyp.yaml")


def test_what_is_no_number_is_null_and_warnings_have_no_passwords(world: World):
    result = world.run("--generations", "1", "--json")
    assert "NaN" not in result.stdout
    warned = [event for event in events_of(result) if event["event"] == "warned"]
    assert [event["warning"] for event in warned] == ["a toy"]


def test_quiet_prints_no_event(world: World):
    assert world.run("--generations", "1", "--json", "--quiet").output == ""
