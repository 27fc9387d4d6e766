"""What a study is opened with, held to the built-in space."""

import pytest
from optuna.storages import InMemoryStorage

from evolve.config import EvolveConfig, resolve_config
from evolve.fitness import Fitness
from evolve.opening import SAME, SAME_IF_GIVEN, identity_of, longest_warmup, space_of, without_effect
from search_spaces import SpaceError, load_space
from studies import AshaPruner
from trainer import Prepared, TrainOptions
from trainer.detection.recipe import Recipe


def test_the_default_space_holds_the_built_in_trainers_hyps_and_starts_from_its_defaults():
    assert load_space("detection").defaults() == vars(Recipe())


def longest(epochs, **settings):
    return longest_warmup(space_of(EvolveConfig(**settings)), epochs)


@pytest.mark.parametrize(
    ("epochs", "warmup", "rungs"),
    [
        (10, 5 / 3, (2, 4, 8)),
        (12, 2.0, (2, 4, 8)),
        (30, 5.0, (5, 10, 20)),
        (100, 5.0, (10, 20, 40, 80)),
    ],
)
def test_nobody_is_judged_within_the_longest_warm_up_that_may_be_drawn(epochs, warmup, rungs):
    """It evolves up to 5 epochs of 30, from 3."""
    assert longest(epochs) == pytest.approx(warmup)
    assert AshaPruner(epochs, longest(epochs)).rungs == rungs


def test_a_warm_up_that_does_not_evolve_is_as_long_as_it_is():
    assert longest(30, freeze=("warmup_epochs",)) == 3.0
    assert longest(30, set={"warmup_epochs": 1.5}) == 1.5


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("warmup_epochs: {choices: [1, 4, 2], default: 1}", 4.0),
        ("warmup_epochs: {choices: [none, short], default: none}", 0.0),
        ("warmup_epochs: long", 0.0),
        ("", 0.0),
    ],
)
def test_a_space_of_ones_own_may_say_it_in_any_way_or_not_at_all(tmp_path, line, expected):
    (tmp_path / "space.yaml").write_text(f"lr0: {{low: 0.1, high: 1, default: 0.5}}\n{line}\n")
    assert longest(30, space=str(tmp_path / "space.yaml")) == expected


@pytest.mark.parametrize("epochs", [1, 7, 10, 30, 100])
def test_the_built_in_trainer_warms_up_as_long_as_its_pruner_believes(epochs):
    from trainer.detection.optimizer import warmup_epochs  # loads torch, which opening a study must not

    longest_hyp = Recipe(warmup_epochs=load_space("detection")["warmup_epochs"].high)
    assert longest(epochs) == pytest.approx(warmup_epochs(longest_hyp, epochs))


def identity(**settings):
    config = EvolveConfig(**settings)
    return identity_of(config, space_of(config), Fitness.parse(config.fitness), Prepared("digest", "summary"), {})


def test_the_identity_of_usual_settings_is_that_of_the_first_studies_so_that_they_still_open():
    first = {
        "space",
        "fitness",
        "data",
        "model",
        "epochs",
        "imgsz",
        "batch",
        "optimizer",
        "schedule",
        "trainer",
        "seed",
    }
    assert identity().keys() == first


OTHER = {bool: True, int: 3, str: "other"}


@pytest.mark.parametrize("name", [*SAME, *SAME_IF_GIVEN, "weights", "model"])
def test_what_changes_the_measure_of_a_trial_changes_the_identity(name):
    other = OTHER[type(getattr(TrainOptions(), name, ""))]
    changed = identity(**{name: other})
    assert {key for key in changed if changed[key] != identity().get(key)} == {name}


@pytest.mark.parametrize("setting", [{"cache": "none"}, {"notest": True}, {"device": "0"}, {"threads": 2}])
def test_what_changes_only_the_pace_or_what_is_told_does_not(setting):
    assert identity(**setting) == identity()


def test_weights_are_known_by_their_content_wherever_they_lie(tmp_path):
    (tmp_path / "there").mkdir()
    here, there = tmp_path / "a.pt", tmp_path / "there" / "a.pt"
    here.write_bytes(b"1")
    there.write_bytes(b"1")
    assert identity(weights=str(here)) == identity(weights=str(there))
    there.write_bytes(b"2")
    assert identity(weights=str(here)) != identity(weights=str(there))


DEAD = '{"momentum": "one class", "cls": "one class", "weight_decay": "no weights"}'
NOT_EVOLVED = "not evolved, since they can have no effect here: momentum (one class), weight_decay (no weights)\n"


def run(world, *arguments):
    return world.run("--trainer", "resumable:Resumable", *arguments)


def evolved(world, study="points"):
    return [sorted(trial.params) for trial in world.trials(study)]


def test_hyps_that_can_have_no_effect_keep_the_bases_value_and_are_told_once(world):
    (world.folder / "dead.json").write_text(DEAD)
    (world.folder / "base.yaml").write_text("momentum: 0.25\n")
    result = run(world, "--hyp", "base.yaml")
    assert result.exit_code == 0, result.output
    assert result.output.count("not evolved") == result.output.count(NOT_EVOLVED) == 1
    assert evolved(world) == [["lr0"]] * 3
    text = (world.run_folder / "best" / "hyp.yaml").read_text()
    assert "momentum: 0.25\n" in text
    assert "# not evolved  momentum (one class), weight_decay (no weights)\n" in text
    again = run(world, "--hyp", "base.yaml", "--generations", "4")
    assert again.exit_code == 0, again.output
    assert NOT_EVOLVED in again.output


def test_what_does_not_evolve_anyway_is_not_told(world):
    (world.folder / "dead.json").write_text(DEAD)
    result = run(world, "--freeze", "momentum", "--set", "weight_decay=0.001")
    assert result.exit_code == 0
    assert "not evolved" not in result.output


def test_a_study_keeps_what_it_was_made_with_whatever_is_known_to_be_dead_by_now(world):
    """As one that an earlier version made."""
    dead = world.folder / "dead.json"
    assert run(world).exit_code == 0
    dead.write_text(DEAD)
    assert run(world, "--study", "later").exit_code == 0
    for study, hyps in (("points", ["lr0", "momentum", "weight_decay"]), ("later", ["lr0"])):
        result = run(world, "--generations", "5", "--study", study)
        assert result.exit_code == 0, result.output
        assert evolved(world, study) == [hyps] * 5
    dead.unlink()
    assert run(world, "--generations", "6", "--study", "later").exit_code == 0
    assert evolved(world, "later") == [["lr0"]] * 6


def test_where_only_dead_hyps_could_evolve_there_is_nothing_to_do(world):
    (world.folder / "dead.json").write_text(DEAD)
    result = run(world, "--only", "momentum,weight_decay")
    assert result.exit_code == 2
    assert "nothing is left to evolve in space 'space'" in result.stderr
    assert "or can have no effect here" in result.stderr
    assert run(world).exit_code == 0, "nothing is left that were in the way"


def test_a_study_may_start_from_the_hyp_file_of_a_yolo_trainer(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 0.02\niou_t: 0.2\nanchor_t: 4.0\n")
    assert space_of(resolve_config({"hyp": str(tmp_path / "hyp.yaml")})).defaults()["lr0"] == 0.02
    (tmp_path / "hyp.yaml").write_text("giou: 3.54\ncls: 37.4\nobj: 64.3\niou_t: 0.2\n")
    assert space_of(resolve_config({"hyp": str(tmp_path / "hyp.yaml")})).defaults()["box"] == pytest.approx(
        0.0553, abs=1e-4
    )


def test_layers_are_no_hyps():
    with pytest.raises(SpaceError, match="--freeze backbone names no hyp: layers are frozen by --freeze-layers"):
        space_of(resolve_config({"freeze": ("backbone",)}))


def test_a_hyp_that_needs_another_one_is_pinned_where_that_one_stays_at_0():
    def idle(**values):
        config = resolve_config({"set": values or None, "study": "new"})
        prepared = Prepared("", "", (), {"cls": "one class"}, {"mixup": "mosaic", "warmup_momentum": "warmup_epochs"})
        return without_effect(config, InMemoryStorage(), space_of(config), prepared)

    assert idle() == {"cls": "one class"}
    assert idle(mosaic=0.5) == {"cls": "one class"}
    assert idle(mosaic=0) == {"cls": "one class", "mixup": "mosaic is 0"}
    assert set(idle(mosaic=0.0, warmup_epochs=0)) == {"cls", "mixup", "warmup_momentum"}
