"""What `evolve insight` and the end of `evolve run` say of a study's hyps."""

import json
import re

import pytest

from search_spaces import load_space


@pytest.fixture
def searched(world):
    """A study in which lr0 alone matters, and all of the best are at its upper bound; and what its run printed."""
    narrow = (world.folder / "space.yaml").read_text().replace("log: true}", "log: true, needs: momentum}")
    (world.folder / "space.yaml").write_text(narrow)
    result = world.run("--trainer", "steep:Steep", "--pruner", "none", "--generations", "40", "--epochs", "1")
    assert result.exit_code == 0, result.output
    return world, result.output


def test_insight_shows_each_hyp_beside_chance_and_what_follows(searched):
    world, output = searched
    shown = world.evolve("insight", "points").output
    assert "points: 40 trials with a fitness; the good hyps are the best " in shown
    assert re.search(r"fitness varies by 0\.\d{4} from hyp to hyp, by 0\.\d{4} from seed to seed", shown)
    assert re.search(r"^lr0 +\d+\.\d % +\d+\.\d$", shown, re.MULTILINE)
    assert re.search(
        r"lr0: \d+ % of the good hyps sit at its high bound, 0.5; with room beyond it is\n    lr0: {low:", shown
    )
    assert output.splitlines()[-3].startswith("what mattered most: lr0 (")
    assert output.splitlines()[-2:] == [
        "the best sit at a bound: lr0 (high 0.5)",
        "`evolve insight points` tells what follows from it",
    ]
    told = json.loads(world.evolve("insight", "points", "--json").output)
    assert (told["study"], told["completed"], told["goal"]) == ("points", 40, "fitness")
    assert told["importances"][0]["name"] == "lr0"
    assert "log: true, needs: momentum}" in shown
    assert (told["binding"][0]["bound"], told["binding"][0]["wider"]["high"]) == (0.5, 4.2)
    if told["idle"]:
        assert f"--freeze {','.join(told['idle'])}" in shown


def test_the_space_is_printed_with_its_bounds_widened_where_they_bind_and_can_be_searched(searched):
    world, _ = searched
    (world.folder / "wider.yaml").write_text(world.evolve("insight", "points", "--yaml").output)
    wider, narrow = load_space(world.folder / "wider.yaml"), load_space(world.folder / "space.yaml")
    assert [param.name for param in narrow.params if param.bounds != wider[param.name].bounds] == ["lr0"]
    command = re.search(r"; evolve run (.+?) --from points", world.evolve("insight").output)[1].split()
    result = world.evolve("run", *command, "--from", "points", "--generations", "1")
    assert "from points: 40 known trials and 1 hyp to train" in result.output
    assert (world.folder / "runs" / "points-2").is_dir()


def test_too_few_trials_are_told_and_none_is_an_error(faulty):
    result = faulty.run("--generations", "3", "--pruner", "none", "--freeze", "fault")
    assert "evolve insight" not in result.output
    assert "too few trials to say what matters: that takes 25 with a fitness" in faulty.evolve("insight").output
    faulty.run("--generations", "1", "--study", "failed", "--set", "fault=NaN")
    result = faulty.evolve("insight", "failed")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no trial of failed has completed yet" in result.stderr


def test_what_is_dead_is_told_with_its_reason(world):
    (world.folder / "dead.json").write_text('{"momentum": "one class"}')
    assert world.run("--trainer", "resumable:Resumable").exit_code == 0
    assert "can have no effect here: momentum (one class)" in world.evolve("insight").output
