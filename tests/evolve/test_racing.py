"""The final race from the command line: who wins it, what is left of it, and that a kill changes nothing."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from small_world import World, interrupt, wait_for

from evolve.cli import ASKED_WRONGLY, INTERRUPTED, NOTHING_COMPLETED
from evolve.config import EvolveConfig
from evolve.racing import expected_race_s
from search_spaces import load_hyp
from studies.noise import by_hyp
from studies.race import cost, rounds_for
from studies.trials import generations

SPACE = """\
speed: {low: 0.1, high: 0.9, default: 0.3}
colour: {low: 0.0, high: 1.0, default: 0.5}
"""
BASE = {"speed": 0.3, "colour": 0.5}
FLAT = SPACE.replace("low: 0.1, high: 0.9", "low: 0.29, high: 0.31")  # with much noise


@pytest.fixture
def racers(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (world.folder / "space.yaml").write_text(SPACE)
    return world


def race(world, *arguments, trainer="Racer", generations="60"):
    settings = ("--trainer", f"racers:{trainer}", "--data", "racers", "--space", "space.yaml", "--study", "points")
    return world.evolve("run", *settings, "--epochs", "2", "--generations", generations, *arguments)


def header(path):
    lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    return lines[0], dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines[1:])


def heats(world, name="points.race"):
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{world.run_folder}/study.db")
    return study.get_trials(deepcopy=False)


def test_a_hyp_that_is_better_wins_and_the_file_tells_what_fresh_seeds_gave(racers):
    result = race(racers)
    assert result.exit_code == 0, result.output
    trials = heats(racers)
    assert [trial.user_attrs["entrant"] for trial in trials] == ["base", trials[1].user_attrs["entrant"]] * 3
    winner = racers.trials()[trials[1].user_attrs["entrant"]]
    assert [trial.user_attrs["seed"] for trial in trials] == [s for s in range(1_000_000, 1_000_003) for _ in "ab"]
    hyp_file = racers.run_folder / "best" / "hyp.yaml"
    assert load_hyp(hyp_file) == winner.params != BASE
    title, facts = header(hyp_file)
    mine, bases = ([trial.value for trial in trials[i::2]] for i in (1, 0))
    assert title == "The winner of an evolve study's final race: better than the base under fresh seeds."
    means = [f"{fmean(values):.6g}" for values in (mine, bases)]  # nobody was picked from one
    luck = f"({means[0]} without the luck of the pick)"
    assert facts["fitness"] == f"{means[0]}, mean of 3 seeds {luck}; base {means[1]}, mean of 3 seeds"
    assert facts["verdict"].startswith(
        f"confirmed: trial {winner.number} beats the base by {fmean(mine) - fmean(bases):.4f}"
    )
    assert facts["on test"].startswith(f"fitness {fmean(mine) / 2:.4g}, ")
    assert facts["seeds"] == "1000000 to 1000002, each for both"
    assert facts["verdict"] in " ".join(result.output.split())
    assert not (racers.run_folder / "best" / "unconfirmed.yaml").exists()
    assert "\nin the search: best 0." in result.output


def test_the_seeds_are_none_of_the_study_and_no_heat_is_pruned(racers):
    race(racers)
    used = {trial.user_attrs["seed"] for trial in racers.trials()}
    assert not used & {trial.user_attrs["seed"] for trial in heats(racers)}
    assert {len(trial.intermediate_values) for trial in heats(racers)} == {2}


def test_what_may_be_luck_leaves_the_base_and_the_best_of_the_search_stays_findable(racers):
    (racers.folder / "space.yaml").write_text(FLAT)
    result = race(racers, trainer="Noisy")
    assert result.exit_code == 0, result.output
    best = racers.run_folder / "best"
    assert load_hyp(best / "hyp.yaml") == BASE
    highest = max(by_hyp(racers.trials()), key=lambda group: fmean(trial.value for trial in group))
    assert load_hyp(best / "unconfirmed.yaml") == highest[0].params != BASE
    assert "Not confirmed" in (best / "unconfirmed.yaml").read_text()
    title, facts = header(best / "hyp.yaml")
    assert title == "The base of an evolve study: under fresh seeds no hyp was confirmed to be better."
    assert facts["verdict"].startswith("the base stays: ")
    assert facts["trial"] == "the base"
    assert "on test" not in facts, "this trainer scores no second split"
    assert "best/unconfirmed.yaml" in result.output


def test_race_json_tells_programs_all_of_it(racers):
    race(racers, "--race", "3", generations="20")
    told = json.loads((racers.run_folder / "race.json").read_text())
    assert told["confirmed"] is True
    assert told["race"] == "points.race"
    base, *challengers = told["results"]
    assert base["trial"] == "base" and base["hyp"] == BASE
    assert [row["n"] for row in (base, *challengers)] == [4, 4, 2, 2]
    assert challengers[0]["trial"] == told["winner"]
    assert challengers[0]["low"] > 0
    assert 0 < told["leader_expected"] <= challengers[0]["fitness"]
    assert challengers[0]["fitness"] == pytest.approx(fmean(run["fitness"] for run in challengers[0]["runs"]))
    assert challengers[0]["test"]["fitness"] == pytest.approx(challengers[0]["fitness"] / 2)


@pytest.mark.parametrize(("generations", "trainings"), [("59", "5"), ("3", "0")])
def test_a_study_too_small_for_a_race_says_so(racers, generations, trainings):
    result = race(racers, generations=generations)
    assert "\nbest 0." in result.output
    assert f"no race: a tenth of {generations} generations pays for {trainings} trainings" in result.output
    assert "Not confirmed" in (racers.run_folder / "best" / "hyp.yaml").read_text()
    assert not (racers.run_folder / "race.json").exists()


def test_a_race_can_be_asked_for_or_left_out(racers):
    assert "no race, as was asked for" in race(racers, "--race", "0").output
    assert "race: 1 challenger against the base, 8 trainings" in race(racers, "--race", "1").output
    assert race(racers, "--race", "-1").exit_code == ASKED_WRONGLY


def test_a_race_does_not_go_with_several_goals(racers):
    result = race(racers, "--race", "2", "--objective", "map50_95,params")
    assert result.exit_code == ASKED_WRONGLY
    assert "--race confirms the one best hyp" in result.stderr


def test_a_study_of_its_base_alone_has_no_race(racers):
    result = race(racers, "--race", "2", generations="1")
    assert "no race: no hyp but the base has been trained to the end" in result.output


def test_a_race_that_is_done_is_not_run_again_and_one_after_more_generations_is_another(racers):
    first = race(racers).output
    again = race(racers).output
    assert "race    1/6" in first and "race    1/6" not in again
    assert len(heats(racers)) == 6
    assert [line for line in again.splitlines() if line.startswith("confirmed")] == [
        line for line in first.splitlines() if line.startswith("confirmed")
    ]
    race(racers, generations="80")
    seeds = [{trial.user_attrs["seed"] for trial in heats(racers, name)} for name in ("points.race", "points.race2")]
    assert not seeds[0] & seeds[1]
    assert len(heats(racers, "points.race2")) == 8
    assert header(racers.run_folder / "best" / "hyp.yaml")[1]["study"] == "points, its race points.race2"


def test_while_a_study_goes_on_after_its_race_the_best_is_not_confirmed(racers):
    race(racers)
    race(racers, "--race", "0", generations="61")
    assert "Not confirmed" in (racers.run_folder / "best" / "hyp.yaml").read_text()


def test_how_long_a_race_will_take_is_known_from_the_trials_that_ended(racers):
    race(racers, "--race", "0", "--base-seeds", "2", "--pruner", "none", generations="6")
    study = optuna.load_study(study_name="points", storage=f"sqlite:///{racers.run_folder}/study.db")
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    each = fmean(trial.duration.total_seconds() for trial in complete)
    challengers = len(complete) - 2
    assert challengers == 4
    assert expected_race_s(study, EvolveConfig(race=0)) == 0
    assert expected_race_s(study, EvolveConfig(race=1)) == pytest.approx(8 * each)  # two hyps, four seeds
    all_of_them = cost(rounds_for(challengers))
    assert expected_race_s(study, EvolveConfig(race=challengers)) == pytest.approx(all_of_them * each)
    assert expected_race_s(study, EvolveConfig(race=1, objective="map50_95,params")) == 0


def test_there_is_no_race_to_leave_time_for_while_only_the_base_has_ended(racers):
    race(racers, "--race", "0", "--base-seeds", "2", generations="2")
    study = optuna.load_study(study_name="points", storage=f"sqlite:///{racers.run_folder}/study.db")
    assert expected_race_s(study, EvolveConfig(race=10)) == 0


def by_generation(trials):
    found = zip(generations(trials), trials, strict=True)
    return {
        number: (trial.params, trial.user_attrs["seed"], trial.user_attrs["entrant"], trial.value)
        for number, trial in found
        if "lost" not in trial.user_attrs
    }


def stop_race(world, number):
    """Run a study of 20 generations and stop it by a signal in the middle of its race of three."""
    (world.folder / "stop-at-seed").write_text("1000001")  # hangs there, once
    settings = ("--trainer", "racers:Racer", "--data", "racers", "--space", "space.yaml", "--study", "points")
    process = world.start_command("run", *settings, "--epochs", "2", "--generations", "20", "--race", "3")
    wait_for(lambda: list(world.run_folder.glob("races/*/trials/*/asleep")) or process.poll() is not None)
    if number == signal.SIGINT:
        interrupt(process)
    else:
        process.send_signal(number)
    process.communicate()
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_race_that_was_stopped_and_resumed_equals_one_that_never_was(racers, number):
    race(racers, "--race", "3", generations="20")
    whole, file = by_generation(heats(racers)), (racers.run_folder / "best" / "hyp.yaml").read_text()
    (racers.folder / "runs").rename(racers.folder / "whole")
    assert stop_race(racers, number) == (INTERRUPTED if number == signal.SIGINT else -signal.SIGKILL)
    assert "Not confirmed" in (racers.run_folder / "best" / "hyp.yaml").read_text()
    result = race(racers, "--race", "3", generations="20")
    assert result.exit_code == 0
    assert "resumed: 4 of 12 trainings of the race are already done" in result.output
    assert by_generation(heats(racers)) == whole
    same = [text for text in file.splitlines() if "date" not in text]
    assert same == [
        text for text in (racers.run_folder / "best" / "hyp.yaml").read_text().splitlines() if "date" not in text
    ]


@pytest.mark.parametrize("dies", ["nobody", "a worker"])
def test_workers_that_share_a_race_decide_what_one_process_does(racers, dies):
    race(racers, "--race", "0", generations="20")
    shutil.copytree(racers.folder / "runs", racers.folder / "before")
    race(racers, "--race", "3", generations="20")
    alone, told = by_generation(heats(racers)), json.loads((racers.run_folder / "race.json").read_text())
    (racers.folder / "runs").rename(racers.folder / "alone")
    (racers.folder / "before").rename(racers.folder / "runs")
    if dies == "a worker":
        (racers.folder / "stop-at-seed").write_text("1000001")  # hangs there, once
    settings = ("--trainer", "racers:Racer", "--data", "racers", "--space", "space.yaml", "--study", "points")
    process = racers.start_command(
        "run", *settings, "--epochs", "2", "--generations", "20", "--race", "3", "--jobs", "2"
    )
    if dies == "a worker":
        wait_for(lambda: list(racers.run_folder.glob("races/*/trials/*/asleep")) or process.poll() is not None)
        hangs = int(next(racers.run_folder.glob("races/*/trials/*/asleep")).parent.name)
        os.kill(heats(racers)[hangs].user_attrs["worker"]["pid"], signal.SIGKILL)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert by_generation(heats(racers)) == alone
    assert ("lost" in [key for trial in heats(racers) for key in trial.user_attrs]) == (dies == "a worker")
    assert process.pid not in {trial.user_attrs["worker"]["pid"] for trial in heats(racers)}
    assert json.loads((racers.run_folder / "race.json").read_text()) == told


def test_a_race_that_was_stopped_comes_first_where_a_new_budget_would_let_the_search_go_on(racers):
    stop_race(racers, signal.SIGKILL)
    result = race(racers, "--race", "3", "--budget", "1h", generations="25")
    assert "the race that was interrupted came first: " in result.output
    assert "resumed: 4 of 12 trainings of the race are already done" in result.output
    assert len(racers.trials()) == 20
    assert "25 of 25 generations" in race(racers, "--race", "3", "--budget", "1h", generations="25").output


def test_without_a_budget_more_generations_are_searched_before_another_race(racers):
    stop_race(racers, signal.SIGKILL)
    assert "25 of 25 generations are done" in race(racers, "--race", "3", generations="25").output
    assert len(heats(racers, "points.race2")) == 12


def test_a_challenger_whose_training_breaks_is_out_and_the_base_stays_where_nobody_is_left(racers):
    (racers.folder / "crash.json").write_text("[1000000]")
    result = race(racers)
    assert result.exit_code == 0
    told = "the base stays: no challenger has come through all of its trainings beside it"
    assert told in result.output
    assert load_hyp(racers.run_folder / "best" / "hyp.yaml") == BASE


def test_trainings_that_only_fail_end_a_race_with_the_reason_of_the_last(racers):
    (racers.folder / "crash.json").write_text("[1000000, 1000001, 1000002]")
    result = race(racers, "--max-failures", "4")
    assert result.exit_code == NOTHING_COMPLETED
    assert "4 trainings of the race in a row failed, the last one with: crashed" in result.stderr


def test_verify_races_again_at_another_length_and_says_how_ranks_carried_over(racers):
    race(racers, "--race", "0", generations="20")
    result = racers.evolve("verify", "points", "--epochs", "5", "--seeds", "3", "--candidates", "4")
    assert result.exit_code == 0, result.output
    trials = heats(racers)
    assert len(trials) == 5 * 2 + 2 * 1
    assert {len(trial.intermediate_values) for trial in trials} == {5}
    assert "the study's ranks of these 5 against the race's: Spearman's rho" in result.output
    title, facts = header(racers.run_folder / "best" / "hyp.yaml")
    assert title.startswith("The winner")
    assert facts["epochs"] == "5"
    assert "--epochs 5" in facts["command"]
    assert json.loads((racers.run_folder / "race.json").read_text())["rank_correlation"] > 0
    shown = racers.evolve("best", "points").output
    assert "race of 12 trainings of 5 epochs" in shown and facts["verdict"] in " ".join(shown.split())
    assert json.loads(json.dumps(load_hyp(racers.run_folder / "best" / "hyp.yaml"))) != BASE
    again = racers.evolve("verify", "points", "--epochs", "5", "--seeds", "3", "--candidates", "4")
    assert len(heats(racers)) == len(trials) and "race    1/" not in again.output


def test_verify_begins_with_the_leader_of_the_race_before(racers):
    (racers.folder / "space.yaml").write_text(FLAT)
    race(racers, trainer="Noisy")
    led = json.loads((racers.run_folder / "race.json").read_text())["results"][1]["trial"]
    racers.evolve("verify", "points", "--seeds", "2", "--candidates", "1")
    assert [trial.user_attrs["entrant"] for trial in heats(racers, "points.race2")] == ["base", led] * 2


def test_verify_needs_a_study_with_a_hyp_to_verify(racers):
    race(racers, generations="1")
    result = racers.evolve("verify", "points")
    assert result.exit_code == NOTHING_COMPLETED
    assert "there is nothing to verify" in result.stderr
    assert racers.evolve("verify", "nowhere").exit_code == ASKED_WRONGLY
    assert racers.evolve("verify", "points", "--seeds", "1").exit_code == ASKED_WRONGLY


def test_the_library_returns_the_winner_with_what_fresh_seeds_gave(racers):
    settings = {"trainer": "racers:Racer", "data": "racers", "study": "points"}
    best = racers.evolve_in_python(**settings, epochs=2, generations=60)
    assert best.hyp != BASE
    assert best.seeds == 3
    assert best.fitness == pytest.approx(fmean(trial.value for trial in heats(racers)[1::2]))
    assert best.base_fitness == pytest.approx(0.3, abs=0.03)
