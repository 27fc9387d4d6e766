"""Where `evolve train` leaves what it made, and how it goes on there."""

import csv
import json
import multiprocessing
import signal
from pathlib import Path

import pytest
import yaml
from small_world import World, wait_for

from evolve.fitness import Fitness
from evolve.order import Order, claim_folder
from search_spaces import load_hyp
from trainer import TrainOptions

TOY = ("train", "--trainer", "resumable:Resumable", "--data", "points", "--epochs", "4")
EXP = Path("runs") / "train" / "exp"


def train(world: World, *arguments: str):
    return world.evolve(*TOY, *arguments)


def resume(world: World, *arguments: str, folder: Path = EXP):
    return world.evolve("train", "--resume", str(folder), *arguments)


def begin(world: World, hyp: str, *arguments: str):
    """A training of that hyp in a process of its own."""
    (world.folder / "hyp.yaml").write_text(hyp)
    return world.start_command(*TOY, "--hyp", "hyp.yaml", *arguments)


def rows(folder: Path):
    """What is known of each epoch, but for what a clock measured: as JSON, and as a table."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    table = list(csv.DictReader((folder / "results.csv").open()))
    untimed = [{**row, "seconds": 0, "costs": {**row.get("costs", {}), "latency_ms": 0}} for row in lines]
    return untimed, [{**row, "seconds": "0"} for row in table]


def epochs(folder: Path):
    lines, table = rows(folder)
    assert [row["epoch"] for row in lines] == [int(row["epoch"]) for row in table]
    return [row["epoch"] for row in lines]


def test_every_training_gets_a_folder_of_its_own_numbered_as_yolo_does(world: World):
    for _ in range(3):
        assert train(world).exit_code == 0
    assert train(world, "--name", "cells").output.endswith("results in runs/train/cells\n")
    assert train(world, "--runs", "elsewhere").output.endswith("results in elsewhere/exp\n")
    assert sorted(path.name for path in EXP.parent.iterdir()) == ["cells", "exp", "exp2", "exp3"]


def claim(runs: Path, _turn: int) -> str:
    options = TrainOptions()
    return claim_folder(Order(options, {}, "toy", Fitness.parse("map=1"), runs=runs)).name


def test_processes_that_begin_at_once_never_share_a_folder(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        claimed = pool.starmap(claim, [(tmp_path, turn) for turn in range(40)], chunksize=1)
    assert sorted(claimed) == sorted(["exp", *(f"exp{number}" for number in range(2, 41))])


def test_a_run_folder_holds_what_was_asked_for_the_hyp_the_results_and_the_weights(world: World):
    (world.folder / "hyp.yaml").write_text("lr0: 0.01\n")
    train(world, "--hyp", "hyp.yaml", "--freeze", "backbone", "--rect", "--seed", "3")
    there = {"args.yaml", "hyp.yaml", "last.pt", "metrics.jsonl", "results.csv", "train.log", "worker.log"}
    assert there <= {path.name for path in EXP.iterdir()}
    assert load_hyp(EXP / "hyp.yaml") == {"lr0": 0.01}
    args = yaml.safe_load((EXP / "args.yaml").read_text())
    told = {"trainer": "resumable:Resumable", "data": "points", "freeze_layers": "backbone", "rect": True, "seed": 3}
    assert args.items() >= told.items()
    assert epochs(EXP) == [1, 2, 3, 4]


def test_of_several_seeds_each_has_a_folder(world: World):
    assert train(world, "--out", "kept", "--seeds", "2").exit_code == 0
    assert epochs(Path("kept/seed-0")) == epochs(Path("kept/seed-1")) == [1, 2, 3, 4]
    assert not Path("kept/metrics.jsonl").exists()


def test_nosave_leaves_results_and_no_weights(world: World):
    assert train(world, "--nosave").exit_code == 0
    assert not (EXP / "last.pt").exists()
    assert epochs(EXP) == [1, 2, 3, 4]
    told = resume(world)
    assert told.exit_code == 2
    assert "last.pt does not exist, so there is nothing to go on with: it ran with --nosave" in told.stderr


def test_another_trainings_weights_are_not_replaced(world: World):
    train(world, "--out", "kept")
    weights = Path("kept/last.pt").read_bytes()
    result = train(world, "--out", "kept", "--epochs", "2")
    assert result.exit_code == 2
    assert "kept/last.pt is another training's: go on with that by --resume kept" in result.stderr
    assert (Path("kept/last.pt").read_bytes(), epochs(Path("kept"))) == (weights, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--trainer", "detectoin"], "unknown trainer 'detectoin'"),
        (["--hyp", "wrong.yaml"], "does not understand 'lr'"),
        (["--name", "../exp"], "--name ../exp cannot name a run folder"),
        (["--out", "kept", "--name", "exp"], "--out names the run folder itself: leave out --name and --runs"),
        (["--fitness", "map=0"], "weighs nothing"),
        (["--bucket", "runs"], "--bucket runs is not a URL"),
    ],
)
def test_what_is_asked_wrongly_leaves_no_folder(world: World, arguments, sentence):
    (world.folder / "wrong.yaml").write_text("lr: 1\n")
    result = train(world, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(world.folder.glob("runs/train/*")) == []
    assert not Path("kept").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_training_that_was_stopped_goes_on_as_if_it_never_had(world: World, number):
    stopped = begin(world, "lr0: 0.01\nfault: sleep\nfault_epoch: 3\n")
    wait_for(lambda: (EXP / "asleep").exists() or stopped.poll())
    assert epochs(EXP) == [1, 2]
    stopped.send_signal(number)
    output, _ = stopped.communicate()
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert output.endswith("go on with: evolve train --resume runs/train/exp\n")
    result = resume(world)
    assert result.exit_code == 0, result.output
    assert [line for line in result.output.splitlines() if "epoch 2/4" in line] == []
    (world.folder / "hyp.yaml").write_text("lr0: 0.01\n")
    train(world, "--hyp", "hyp.yaml")
    assert rows(EXP) == rows(EXP.parent / "exp2")


def test_a_training_that_was_stopped_before_its_first_epoch_had_ended_starts_over(world: World):
    sleeping = begin(world, "fault: sleep\nfault_epoch: 1\n")
    wait_for(lambda: (EXP / "asleep").exists() or sleeping.poll())
    sleeping.kill()
    sleeping.communicate()
    assert not (EXP / "last.pt").exists()
    (EXP / "hyp.yaml").write_text("lr0: 0.02\n")  # without the fault
    assert resume(world).exit_code == 0
    assert epochs(EXP) == [1, 2, 3, 4]


def test_a_folder_with_other_files_is_no_run_folder(world: World):
    (world.folder / "cells").mkdir()
    (world.folder / "cells" / "data.yaml").write_text("")
    told = train(world, "--out", "cells")
    assert told.exit_code == 2
    assert "cells is not empty (data.yaml): give --out a new folder" in told.stderr


def test_epochs_that_are_trained_again_stand_there_once(world: World):
    """A journal may be ahead of the state that is gone on from, and torn by what ended the training."""
    train(world)
    whole = rows(EXP)
    (EXP / "last.pt").write_text(json.dumps({"epoch": 1}))
    for name in ("metrics.jsonl", "results.csv"):
        path = EXP / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]) + '{"epoch": 4, "prec')
    assert resume(world).exit_code == 0
    assert rows(EXP) == whole


def test_what_is_done_is_not_done_again(world: World):
    first = train(world).output
    again = resume(world)
    assert again.exit_code == 0
    assert "seed 0  all 4 epochs are done" in again.output
    assert first.partition("on val:")[2] == again.output.partition("on val:")[2]


def test_the_state_itself_names_its_folder_as_well(world: World):
    train(world)
    assert "all 4 epochs are done" in resume(world, folder=EXP / "last.pt").output


def test_of_several_seeds_those_go_on_that_were_not_done(world: World):
    train(world, "--seeds", "3")
    whole = [rows(EXP / f"seed-{seed}") for seed in range(3)]
    (EXP / "seed-1" / "last.pt").write_text(json.dumps({"epoch": 2}))
    lines = (EXP / "seed-1" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (EXP / "seed-1" / "metrics.jsonl").write_text("".join(lines[:2]))
    for file in (EXP / "seed-2").iterdir():
        file.unlink()
    result = resume(world, "--seeds", "3")
    assert result.exit_code == 0, result.output
    trained = [line.split()[1:4:2] for line in result.output.splitlines() if " epoch " in line]
    assert trained == [["1", "3/4"], ["1", "4/4"], ["2", "1/4"], ["2", "2/4"], ["2", "3/4"], ["2", "4/4"]]
    assert [rows(EXP / f"seed-{seed}") for seed in range(3)] == whole


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--epochs", "9"],
            "--epochs 9 contradicts runs/train/exp, whose training began with --epochs 4",
        ),
        (["--data", "digits"], "--data digits contradicts runs/train/exp"),
        (["--rect"], "--rect contradicts runs/train/exp, whose training began without it"),
        (["--seeds", "2"], "--seeds 2 contradicts runs/train/exp"),
        (["--fitness", "map=1"], "--fitness map50_95=1 contradicts runs/train/exp"),
        (["--hyp", "other.yaml"], "--hyp holds other values than runs/train/exp/hyp.yaml"),
        (["--nosave"], "--nosave contradicts runs/train/exp, whose training keeps its weights"),
        (["--out", "kept"], "--out does not go with --resume"),
        (["--name", "exp"], "--name does not go with --resume"),
    ],
)
def test_flags_that_contradict_the_folder_are_told(world: World, arguments, sentence):
    (world.folder / "other.yaml").write_text("lr0: 0.02\n")
    train(world)
    result = resume(world, *arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_flags_that_say_the_same_or_change_no_result_are_taken(world: World):
    (world.folder / "hyp.yaml").write_text("lr0: 0.02\n")
    train(world, "--hyp", "hyp.yaml", "--seed", "2")
    same = ("--epochs", "4", "--data", "points", "--hyp", "hyp.yaml", "--fitness", "map50=0.1,map=0.9", "--seed", "2")
    assert resume(world, *same, "--threads", "2", "--cache", "none", "--noplots").exit_code == 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (None, "kept holds no training to go on with: it has no args.yaml"),
        ("epochs: many", "epochs in kept/args.yaml is 'many'; expected a whole number"),
        ("epoch: 3", "unknown key 'epoch' in kept/args.yaml"),
        ("epochs: 3", "kept/hyp.yaml does not exist"),
    ],
)
def test_a_folder_that_cannot_be_gone_on_in_is_told(world: World, args, sentence):
    Path("kept").mkdir()
    if args:
        Path("kept/args.yaml").write_text(args)
    result = resume(world, folder=Path("kept"))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert sentence in result.stderr


def test_a_run_folder_serves_one_training_at_a_time(world: World):
    sleeping = begin(world, "fault: sleep\nfault_epoch: 2\n")
    wait_for(lambda: (EXP / "asleep").exists() or sleeping.poll())
    result = resume(world)
    assert result.exit_code == 2
    assert "another `evolve train` works in runs/train/exp" in result.stderr


def test_what_the_hyp_file_sets_in_vain_is_noted_once(world: World):
    (world.folder / "hyp.yaml").write_text("lr0: 0.02\nmomentum: 0.3\n")
    assert "note:" not in train(world, "--hyp", "hyp.yaml").output
    (world.folder / "dead.json").write_text('{"momentum": "one class", "weight_decay": "no weights"}')
    line = "note: the hyp file sets what can have no effect here: momentum (one class)\n"
    assert train(world, "--hyp", "hyp.yaml").output.count(line) == 1
    (world.folder / "hyp.yaml").write_text("lr0: 0.02\n")
    assert "note:" not in train(world, "--hyp", "hyp.yaml").output


def test_the_built_in_trainer_goes_on_as_if_it_had_never_been_killed(world: World, monkeypatch):
    monkeypatch.setenv("EVOLVE_CACHE", str(world.folder / "cache"))
    command = ("train", "--data", "digits", "--epochs", "2", "--imgsz", "32", "--amp", "off", "--noplots")
    killed = world.start_command(*command)
    wait_for(lambda: (EXP / "metrics.jsonl").exists() or killed.poll())
    killed.kill()
    killed.communicate()
    first = (EXP / "metrics.jsonl").read_text().splitlines()[0]
    result = resume(world)
    assert result.exit_code == 0, result.output
    assert (EXP / "metrics.jsonl").read_text().splitlines()[0] == first  # with its seconds: it was not trained again
    assert world.evolve(*command).exit_code == 0
    assert rows(EXP) == rows(EXP.parent / "exp2")
    assert (EXP / "best.pt").exists()
