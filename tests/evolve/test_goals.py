"""Several goals: what may be asked for, what a study with them leaves, and that it goes on like any other."""

import csv
import math
import signal

import pytest
import yaml
from small_world import World, wait_for

from evolve.config import ConfigError, EvolveConfig, read_config
from evolve.goals import Goals, settle_goals
from search_spaces import load_hyp
from studies.trials import generations
from trainer import EpochMetrics, TrainerError

GOALS = ("--trainer", "frugal:Frugal", "--objective", "map50_95,params")
EPOCH = EpochMetrics(2, 0.1, 0.2, 0.3, 0.4, costs={"params": 7.0, "latency_ms": 1.5})


@pytest.fixture
def frugal(world: World, monkeypatch) -> World:
    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    return world


# what may be asked for


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("fitness,params", {"fitness": 0.9, "params": 7.0}),
        ("map, latency_ms", {"map50_95": 0.4, "latency_ms": 1.5}),
        ("recall,precision,params", {"recall": 0.2, "precision": 0.1, "params": 7.0}),
    ],
)
def test_goals_are_scores_to_raise_and_costs_to_lower(text, reached):
    goals = Goals.parse(text)
    assert goals(EPOCH, 0.9) == reached
    costs = {"params", "latency_ms"}
    assert goals.directions == {name: "minimize" if name in costs else "maximize" for name in reached}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("map50_95,latency", "unknown goal 'latency' (did you mean 'latency_ms'?)"),
        ("map50,params,map50", "map50 is given twice in 'map50,params,map50'"),
        ("map50,fitness", "fitness has to come first, not as in 'map50,fitness'"),
        ("params,map50", "'params,map50' has to begin with a score, as in map50_95,params: fitness, precision, "),
        ("params", "'params' has to begin with a score"),
        (",", "',' has to begin with a score"),
        ("map50", "map50 is a single goal, which is given as --fitness map50=1"),
    ],
)
def test_what_cannot_be_pursued_is_refused_with_what_could_be(text, told):
    with pytest.raises(ConfigError) as error:
        Goals.parse(text)
    assert str(error.value).startswith(f"objective: {told}")


@pytest.mark.parametrize("cost", [None, math.nan, math.inf])
def test_a_goal_without_a_number_fails_the_training(cost):
    told = EpochMetrics(3, 0.1, 0.2, 0.3, 0.4, costs={} if cost is None else {"params": cost})
    with pytest.raises(TrainerError, match="the trainer told no params for epoch 3, which is a goal"):
        Goals.parse("map50,params")(told, 0.9)


def test_the_first_goal_is_the_fitness_nothing_prunes_and_nsga_takes_the_place_of_the_usual_sampler():
    settled = settle_goals(EvolveConfig(objective="map50,params"))
    assert (settled.fitness, settled.pruner, settled.sampler) == ("map50=1", "none", "nsgaii")
    assert settle_goals(settled) == settled
    assert settle_goals(EvolveConfig(objective="map50,params", sampler="tpe")).sampler == "tpe"
    weighted = EvolveConfig(objective="fitness,params", fitness="recall=1")
    assert settle_goals(weighted).fitness == "recall=1"
    assert settle_goals(EvolveConfig()) == EvolveConfig()
    for stop in ({"target": 0.5}, {"patience": 3}):
        with pytest.raises(ConfigError, match=f"--{next(iter(stop))} goes by one number"):
            settle_goals(EvolveConfig(objective="map50,params", **stop))
    with pytest.raises(ConfigError, match="--fitness recall=1 is no goal of --objective map50,params"):
        settle_goals(EvolveConfig(objective="map50,params", fitness="recall=1"))


# what is refused before anything is trained


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--objective", "map50,params"),
            "the trainer toy:ToyTrainer does not tell params of its models, no costs at all",
        ),
        (
            (*GOALS, "--objective", "map50,latency_ms"),
            "the trainer frugal:Frugal does not tell latency_ms of its models, only params",
        ),
        ((*GOALS, "--sampler", "yolo"), "sampler 'yolo' pursues one goal only; for several: "),
    ],
)
def test_a_study_that_could_not_pursue_its_goals_is_not_begun(frugal, flags, told):
    result = frugal.run(*flags)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (frugal.run_folder / "evolve.yaml").exists()


def test_a_trainer_that_does_not_keep_its_promise_fails(frugal):
    result = frugal.run(*GOALS, "--trainer", "frugal:Forgetful", "--max-failures", "2")
    assert result.exit_code == 1
    assert "the trainer told no params for epoch 1, which is a goal" in result.stderr


# what a study leaves


def test_a_study_with_several_goals_leaves_its_front(frugal):
    result = frugal.run(*GOALS, "--generations", "12")
    assert result.exit_code == 0, result.output
    trials = frugal.trials()
    assert {trial.state.name for trial in trials} == {"COMPLETE"}, "nothing is pruned"
    assert [trial.values[1] for trial in trials] == [100 + round(1000 * trial.params["momentum"]) for trial in trials]
    beaten = {
        one.number
        for one in trials
        for other in trials
        if other.values[0] >= one.values[0] and other.values[1] <= one.values[1] and other.values != one.values
    }
    best = frugal.run_folder / "best"
    rows = {int(row["trial"]): row for row in csv.DictReader((best / "front.csv").open())}
    assert rows.keys() == {trial.number for trial in trials} - beaten
    assert len(rows) > 1
    for number, row in rows.items():
        assert [float(row["map50_95"]), float(row["params"])] == trials[number].values
        assert float(row["lr0"]) == trials[number].params["lr0"]
        assert load_hyp(best / "front" / f"{number:05d}.yaml") == trials[number].params
    assert len(list((best / "front").iterdir())) == len(rows)
    first = max(rows, key=lambda number: float(rows[number]["map50_95"]))
    text = (best / "hyp.yaml").read_text()
    assert yaml.safe_load(text) == trials[first].params
    assert "# chosen for its map50_95; front.csv tells of all" in [" ".join(line.split()) for line in text.splitlines()]
    table = list(csv.DictReader((frugal.run_folder / "evolve.csv").open()))
    assert [float(row["params"]) for row in table] == [trial.values[1] for trial in trials]
    assert read_config(frugal.run_folder / "evolve.yaml")["sampler"] == "nsgaii"


def test_what_is_pursued_and_what_was_found_is_told(frugal):
    result = frugal.run(*GOALS, "--generations", "8")
    lines = result.output.splitlines()
    assert "goals: more map50_95, less params (weights, as the toy counts)" in lines
    assert "nsgaii proposes; nothing is pruned, since Optuna cannot prune where there is more than one goal" in lines
    shown = frugal.evolve("best")
    assert shown.exit_code == 0, shown.output
    for output in (result.output, shown.output):
        assert "the front, which nothing beats in all of map50_95, params: " in output
        assert "hyps of all: runs/points/best/front\n" in output
    assert yaml.safe_load(frugal.evolve("best", "--yaml").output) == load_hyp(frugal.run_folder / "best" / "hyp.yaml")


def test_a_hyp_of_the_front_trains_by_the_command_that_stands_in_it(frugal):
    frugal.run(*GOALS, "--generations", "4")
    member = min((frugal.run_folder / "best" / "front").iterdir())
    (command,) = (line.split(maxsplit=2)[2] for line in member.read_text().splitlines() if line.startswith("# command"))
    result = frugal.evolve(*command.split()[1:])
    assert result.exit_code == 0, result.output
    assert f"--hyp runs/points/best/front/{member.name} " in command


def test_the_settings_that_were_written_down_go_on_with_the_study(frugal):
    frugal.run(*GOALS, "--generations", "2")
    result = frugal.evolve("run", "--config", str(frugal.run_folder / "evolve.yaml"), "--generations", "4")
    assert result.exit_code == 0, result.output
    assert len(frugal.trials()) == 4
    refused = frugal.run("--trainer", "frugal:Frugal", "--generations", "4")
    assert refused.exit_code == 2
    assert 'goals is "maximize map50_95, minimize params" there, missing here' in refused.stderr


def test_models_and_image_sizes_of_the_built_in_trainer_evolve(world, monkeypatch):
    monkeypatch.setenv("EVOLVE_CACHE", str(world.folder / "cache"))
    (world.folder / "sizes.yaml").write_text(
        "model: {choices: [pico, nano], default: pico}\n"
        "imgsz: {low: 32, high: 64, step: 32, default: 32}\n"
        "fliplr: {low: 0.0, high: 1.0, default: 0.5}\n"
    )
    asked = ("--data", "digits", "--space", "sizes.yaml", "--objective", "map50,params", "--epochs", "1")
    result = world.evolve("run", *asked, "--sampler", "random", "--generations", "3", "--batch", "32")
    assert result.exit_code == 0, result.output
    sizes = {"pico": set(), "nano": set()}
    for trial in world.trials("digits"):
        sizes[trial.params["model"]].add(trial.values[1])
    assert [len(found) for found in sizes.values()] == [1, 1], "both were trained"
    assert max(sizes["pico"]) < min(sizes["nano"])
    (member, *_) = sorted((world.folder / "runs" / "digits" / "best" / "front").iterdir())
    hyp = load_hyp(member)
    again = world.evolve(
        "train", "--hyp", str(member), "--data", "digits", "--epochs", "1", "--batch", "32", "--noplots"
    )
    assert again.exit_code == 0, again.output
    trained = yaml.safe_load((world.folder / "runs" / "train" / "exp" / "args.yaml").read_text())
    assert (trained["model"], trained["imgsz"]) == (hyp["model"], hyp["imgsz"])
    other = world.evolve("train", "--hyp", str(member), "--data", "digits", "--epochs", "1", "--imgsz", "96")
    assert (other.exit_code, "--imgsz 96 contradicts" in other.stderr) == (2, True)


def test_a_size_that_a_model_cannot_take_is_told_before_the_first_trial(world, monkeypatch):
    monkeypatch.setenv("EVOLVE_CACHE", str(world.folder / "cache"))
    (world.folder / "sizes.yaml").write_text(
        "model: {choices: [pico, nano], default: pico}\nimgsz: {low: 32, high: 64, step: 16, default: 32}\n"
    )
    result = world.evolve("run", "--data", "digits", "--space", "sizes.yaml", "--epochs", "1", "--generations", "2")
    assert result.exit_code == 2
    assert "imgsz must be a multiple of 32 for nano, got 48" in result.stderr
    assert not (world.folder / "runs" / "digits" / "evolve.yaml").exists()


# how it goes on


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_with_several_goals_that_was_stopped_goes_on_as_if_it_had_not_been(frugal, number):
    settings = (*GOALS, "--epochs", "25", "--generations", "8", "--seed", "3")
    stopped = frugal.start(*settings)
    wait_for(lambda: (frugal.run_folder / "trials" / "00004" / "metrics.jsonl").exists() or stopped.poll())
    stopped.send_signal(number)
    stopped.communicate()
    assert frugal.run(*settings).exit_code == 0
    assert frugal.run(*settings, "--study", "whole").exit_code == 0
    assert by_generation(frugal.trials()) == by_generation(frugal.trials("whole"))
    left, whole = (frugal.folder / "runs" / name / "best" / "front.csv" for name in ("points", "whole"))
    assert without_trials(left) == without_trials(whole)


def by_generation(trials):
    return {
        generation: (trial.params, trial.user_attrs["seed"], trial.state, trial.values)
        for generation, trial in zip(generations(trials), trials, strict=True)
        if "lost" not in trial.user_attrs
    }


def without_trials(table):
    return [{**row, "trial": ""} for row in csv.DictReader(table.open())]


def test_failed_trials_are_no_points(frugal):
    space = frugal.folder / "space.yaml"
    space.write_text(space.read_text() + 'fault: {choices: ["", "TrainerError"], default: ""}\n')
    result = frugal.run(*GOALS, "--sampler", "random", "--generations", "8", "--seed", "1")
    assert result.exit_code == 0, result.output
    failed = [trial for trial in frugal.trials() if trial.state.name == "FAIL"]
    assert 0 < len(failed) < 8
    rows = list(csv.DictReader((frugal.run_folder / "best" / "front.csv").open()))
    assert not {int(row["trial"]) for row in rows} & {trial.number for trial in failed}
    assert {row["fault"] for row in rows} == {""}
