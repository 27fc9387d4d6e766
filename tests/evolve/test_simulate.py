"""`evolve simulate`: a study without pruning is replayed through pruners, in its own order and in others."""

import json
import re

import pytest


def rows(result):
    """The table's cells by pruner and column."""
    head, *lines = (line.split() for line in result.output.splitlines()[1:])
    return {line[0]: dict(zip(head[1:], line[1:], strict=False)) for line in lines if len(line) >= len(head) - 1}


@pytest.fixture
def study(world):
    done = world.run("--generations", "12", "--epochs", "8", "--pruner", "none", "--sampler", "random")
    assert done.exit_code == 0
    return world


def test_a_study_is_replayed_and_what_ran_to_its_end_costs_everything(study):
    result = study.evolve("simulate", "--curves", "points", "--pruner", "none", "--pruner", "asha")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "12 curves of 8 epochs, higher is better"
    found = rows(result)
    assert list(found)[:2] == ["none", "asha"]
    assert (found["none"]["epochs"], found["none"]["pruned"], found["none"]["kept"]) == ("96", "0", "yes")
    assert 0 < int(found["asha"]["pruned"]) < 12
    assert int(found["asha"]["epochs"]) < 96
    assert re.fullmatch(r"\d:\d\d:\d\d", found["asha"]["saved"])


def test_the_recorded_order_is_replayed_as_the_study_would_have_run(study):
    """The same hyps under the pruner, trained for real: as many epochs as the replay tells."""
    told = rows(study.evolve("simulate", "--curves", "points", "--pruner", "asha"))["asha"]
    study.run("--generations", "12", "--epochs", "8", "--pruner", "asha", "--sampler", "random", "--study", "real")
    ran = [len(file.read_text().splitlines()) for file in sorted(study.folder.glob("runs/real/trials/*/metrics.jsonl"))]
    assert sum(ran) == int(told["epochs"])
    assert sum(count < 8 for count in ran) == int(told["pruned"])


def test_all_pruners_are_replayed_where_none_is_named(study):
    found = rows(study.evolve("simulate", "--curves", str(study.run_folder)))
    assert {"evolve", "asha", "none", "median", "percentile", "patient", "sha", "hyperband", "threshold"} <= set(found)


def test_random_orders_are_averaged_and_drawn_by_the_seed(study):
    def told(*more):
        return study.evolve("simulate", "--curves", "points", "--pruner", "sha", "--orders", "4", *more).output

    assert re.search(r"\d of 4", told())
    assert told() == told() != told("--seed", "9")


def test_a_sampler_may_choose_the_order(study):
    result = study.evolve("simulate", "--curves", "points", "--pruner", "none", "--sampler", "tpe")
    assert rows(result)["none"]["epochs"] == "96"


def test_pruned_trials_are_left_out_and_told(world):
    world.run("--generations", "12", "--epochs", "8", "--pruner", "asha", "--sampler", "random")
    result = world.evolve("simulate", "--curves", "points", "--pruner", "none")
    told = re.match(
        r"(\d+) curves of 8 epochs, higher is better; left out, .*: (\d+) pruned$", result.output.splitlines()[0]
    )
    assert told, result.output
    assert int(told[1]) + int(told[2]) == 12
    assert int(told[2]) > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--curves", "nothing"], "there is no study 'nothing' in runs"),
        (["--curves", "a.jsonl", "--pruner", "ahsa"], "unknown pruner 'ahsa' (did you mean 'asha'?)"),
        (["--curves", "a.jsonl", "--sampler", "tpe"], "--sampler needs hyps and their bounds, which a study has"),
        (["--curves", "gone.csv"], "gone.csv: No such file or directory"),
    ],
)
def test_what_was_asked_wrongly_is_one_sentence(world, arguments, told):
    (world.folder / "a.jsonl").write_text("".join(json.dumps({"fitness": [0.1, 0.2 + i]}) + "\n" for i in range(3)))
    result = world.evolve("simulate", *arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert len(result.output.splitlines()) == 1


def test_an_unknown_sampler_is_told(study):
    result = study.evolve("simulate", "--curves", "points", "--sampler", "tpf")
    assert result.exit_code == 2
    assert "unknown sampler 'tpf' (did you mean 'tpe'?)" in result.output
