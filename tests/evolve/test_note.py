"""What a study says of itself in Optuna's dashboard."""

import optuna
import pytest
from optuna_dashboard import get_note, save_note
from small_world import World

from evolve.config import parse_config, resolve_config
from evolve.describing import describe, run_command
from studies.note import PIECE_LENGTH, leave_note


def stored(world: World, name: str = "points") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{world.folder}/runs/{name}/study.db")


def test_a_run_leaves_a_note_that_says_what_it_is_what_came_of_it_and_how_it_was_started(world: World):
    assert world.run("--generations", "4", "--set", "momentum=0.25", "--seed", "7").exit_code == 0
    note = get_note(stored(world))
    assert note == describe(stored(world))
    assert note.startswith("# points\n")
    assert "2 hyps evolve, the goal is `map50=0.1,map50_95=0.9`" in note
    assert "**Best " in note
    assert "4 of 4 generations are done: " in note
    assert (
        "evolve run --data points --epochs 3 --seed 7 --generations 4 --base-seeds 1 --trainer toy:ToyTrainer" in note
    )
    assert "--set momentum=0.25" in note


def test_the_command_of_a_note_asks_for_the_same(world: World):
    flags = {"trainer": "toy:ToyTrainer", "data": "points", "space": "space.yaml", "generations": 4, "race": 0}
    more = {
        "set": {"momentum": 0.25},
        "from_": ("a.yaml", "b.yaml"),
        "log_to": ("tensorboard", "mlflow:http://h:5000"),
        "freeze": ("lr0",),
        "checkpoint": True,
    }
    asked = resolve_config({**flags, **more, "budget": "8h", "study": "其他 study"})
    command = run_command(asked)
    from evolve.cli import cli

    context = cli.commands["run"].make_context("run", command[2:])
    given = {name: value for name, value in context.params.items() if name in vars(asked)}
    assert resolve_config(given) == asked


@pytest.mark.parametrize("kind", ["sqlite:///{}/study.db", "journal:{}/study.log", "memory:"])
def test_a_note_of_any_length_comes_back_as_it_was_and_that_of_a_person_stays(tmp_path, kind):
    from studies import open_storage

    study = optuna.create_study(storage=open_storage(kind.format(tmp_path)))
    for text in ("short", "lang und schön 中文\n" * PIECE_LENGTH, "short again", ""):
        leave_note(study, text)
        assert get_note(study) == text
    leave_note(study, "ours")
    save_note(study, "theirs")
    leave_note(study, "ours again")
    assert get_note(study) == "theirs"
    save_note(study, "")
    leave_note(study, "who empties it gets ours")
    assert get_note(study) == "who empties it gets ours"


def test_what_is_there_already_is_not_written_again(tmp_path):
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    leave_note(study, "the same")
    before = study._storage.get_study_system_attrs(study._study_id)
    leave_note(study, "the same")
    assert study._storage.get_study_system_attrs(study._study_id) == before


def test_no_password_stands_in_a_note(world: World):
    text = "storage: postgresql://me:secret@db/digits\nbucket: s3://key:secret@bucket/x\ndata: points\n"
    asked = resolve_config({"data": "points"}).__class__(**parse_config(text, "here"))
    assert "secret" not in " ".join(run_command(asked))
