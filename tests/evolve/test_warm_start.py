"""Studies that start from earlier ones: what becomes a known trial, what is trained again, and what is said of it."""

import csv
import os
import signal

import optuna
import pytest
import yaml
from small_world import SPACE

from evolve.config import ConfigError, EvolveConfig
from evolve.opening import space_of
from evolve.warm_start import BEST_OF_EACH, Source, offer_of, take_over
from search_spaces import load_hyp, load_space
from studies import PRUNERS, build_pruner, build_sampler, open_study, trials_of
from studies.earlier import Earlier
from studies.trials import KNOWN, SOURCE, counts, generations, hyp_of, is_base


def lines_from(output):
    return [line for line in output.splitlines() if line.startswith("from ")]


def run(world, *arguments):
    result = world.run("--pruner", "none", *arguments)
    assert result.exit_code == 0, result.output
    return result


def known(trials):
    return [trial for trial in trials if KNOWN in trial.user_attrs]


def taken(trials):
    return [trial for trial in trials if SOURCE in trial.user_attrs]


def told(trials):
    """What makes a study: all but numbers and times."""
    kept = (KNOWN, SOURCE, "base", "seed", "parents", "operator")
    return [(t.state.name, t.params, t.values, {k: t.user_attrs[k] for k in kept if k in t.user_attrs}) for t in trials]


def test_results_that_were_measured_alike_are_known_trials(world):
    run(world, "--generations", "4", "--study", "first")
    result = run(world, "--generations", "4", "--study", "second", "--from", "first", "--seed", "7")
    first, second = world.trials("first"), world.trials("second")
    assert lines_from(result.output) == ["from first: 4 known trials and 1 hyp to train"]
    assert [(trial.params, trial.value) for trial in known(second)] == [(trial.params, trial.value) for trial in first]
    assert [trial.user_attrs[KNOWN] for trial in known(second)] == [f"trial {n} of first" for n in range(4)]
    assert all(trial.user_attrs["metrics"] and trial.user_attrs["epochs"] == 3 for trial in known(second))
    best = max(first[1:], key=lambda trial: trial.value)
    assert [trial.params for trial in taken(second)] == [best.params], "the best that is no base is trained again"


def test_known_trials_count_for_nothing_but_the_search(world):
    run(world, "--generations", "6", "--study", "first", "--epochs", "6")
    run(world, "--generations", "6", "--study", "first", "--epochs", "6")
    result = run(world, "--generations", "5", "--study", "second", "--from", "first", "--epochs", "6", "--seed", "9")
    trials = world.trials("second")
    trained = [trial for trial in trials if counts(trial)]
    assert (len(known(trials)), len(trained)) == (6, 5)
    assert "5 complete, 0 pruned, 0 failed" in result.output
    assert [generations(trials)[trial.number] for trial in trained] == [0, 1, 2, 3, 4]
    assert [trial.user_attrs["seed"] for trial in trained] == [9, 10, 11, 12, 13]
    assert is_base(trials[0])
    rows = list(csv.DictReader((world.folder / "runs" / "second" / "evolve.csv").open()))
    assert [int(row["trial"]) for row in rows] == [trial.number for trial in trained]
    parents = {number for trial in trained for number in trial.user_attrs.get("parents", ())}
    assert parents & {trial.number for trial in known(trials)}, "they are bred from"


def test_only_what_was_trained_here_is_best(world):
    run(world, "--generations", "6", "--study", "first", "--epochs", "6")
    (world.folder / "worse.yaml").write_text("lr0: 0.3\nmomentum: 0.9\n")
    more = ("--generations", "1", "--study", "second", "--from", "first", "--epochs", "6", "--hyp", "worse.yaml")
    run(world, *more)
    worse = {"lr0": 0.3, "momentum": 0.9, "weight_decay": 0.0}
    assert load_hyp(world.folder / "runs" / "second" / "best" / "hyp.yaml") == worse
    assert max(trial.value for trial in known(world.trials("second"))) > world.trials("second")[0].value


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        (["--epochs", "4"], "epochs is 3 there, 4 here"),
        (["--fitness", "map50=1"], 'fitness is "map50=0.1,map50_95=0.9" there, "map50=1" here'),
        (["--batch", "4", "--imgsz", "32"], "imgsz is 320 there, 32 here; batch is 8 there, 4 here"),
    ],
)
def test_hyps_alone_are_taken_where_results_cannot_be_compared(world, settings, because):
    run(world, "--generations", "8", "--study", "first")
    result = run(world, "--study", "second", "--from", "first", *settings, "--generations", "7")
    trials = world.trials("second")
    assert lines_from(result.output) == [f"from first: 5 hyps to train; hyps alone, because {because}"]
    assert known(trials) == []
    best = sorted(world.trials("first")[1:], key=lambda trial: -trial.value)[:BEST_OF_EACH]
    assert [trial.params for trial in trials[1 : 1 + BEST_OF_EACH]] == [trial.params for trial in best]
    assert is_base(trials[0])
    assert "parents" not in trials[1].user_attrs
    assert "parents" in trials[6].user_attrs, "bred again, be it of the base"


def test_what_lies_outside_of_the_space_here_is_not_known(world):
    run(world, "--generations", "8", "--study", "first")
    limit = sorted(trial.params["lr0"] for trial in world.trials("first"))[4]
    narrow = SPACE.replace("high: 0.5", f"high: {limit}")
    (world.folder / "narrow.yaml").write_text(narrow)
    result = run(world, "--study", "second", "--from", "first", "--space", "narrow.yaml", "--generations", "2")
    assert "5 known trials and 1 hyp to train; 3 lie outside of the space here" in lines_from(result.output)[0]
    assert max(trial.params["lr0"] for trial in known(world.trials("second"))) == limit
    result = run(world, "--study", "third", "--from", "first", "--set", "momentum=0.123", "--generations", "1")
    assert "hyps alone, because they lie outside of the space here" in lines_from(result.output)[0]
    assert known(world.trials("third")) == []


def test_going_on_adds_nothing_twice_and_what_is_new_once(world):
    """The hyps of a file that was trained meanwhile, and the trials that the earlier study made meanwhile."""
    run(world, "--generations", "3", "--study", "first")
    (world.folder / "hyp.yaml").write_text("lr0: 0.2\n")
    arguments = ("--study", "second", "--from", "first", "--from", "hyp.yaml", "--seed", "5")
    run(world, *arguments, "--generations", "2")
    before = len(world.trials("second"))
    result = run(world, *arguments, "--generations", "2")
    assert len(world.trials("second")) == before
    nothing = "nothing that is not here already"
    assert [nothing in line for line in lines_from(result.output)] == [True, True]
    run(world, "--generations", "5", "--study", "first")
    (world.folder / "more.yaml").write_text("lr0: 0.3\n")
    result = run(world, *arguments, "--from", "more.yaml", "--generations", "2")
    assert [line.partition(";")[0] for line in lines_from(result.output)] == [
        lines_from(result.output)[0],
        f"from hyp.yaml: {nothing}",
        "from more.yaml: 1 hyp to train",
    ]
    assert lines_from(result.output)[0].startswith("from first: 2 known trials")
    assert len(known(world.trials("second"))) == 5
    result = run(world, "--study", "second", "--seed", "5", "--generations", "6")
    assert lines_from(result.output) == [], "what was taken over stays without being named again"


def test_a_study_that_was_killed_while_it_took_over_equals_one_that_was_not(world, monkeypatch):
    run(world, "--generations", "6", "--study", "first")
    (world.folder / "hyp.yaml").write_text("lr0: 0.2\n")
    arguments = ("--from", "first", "--from", "hyp.yaml", "--generations", "5", "--seed", "5")
    run(world, "--study", "whole", *arguments)

    def killed_after(calls):
        pid = os.fork()
        if pid == 0:
            add_trial, count = optuna.Study.add_trial, 0

            def add(study, trial):
                nonlocal count
                if count == calls:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                add_trial(study, trial)

            optuna.Study.add_trial = add
            world.run("--pruner", "none", "--study", "killed", *arguments)
            os._exit(0)
        return os.WTERMSIG(os.waitpid(pid, 0)[1])

    assert [killed_after(calls) for calls in (3, 4, 1)] == [signal.SIGKILL] * 3
    run(world, "--study", "killed", *arguments)
    assert told(world.trials("killed")) == told(world.trials("whole"))


def test_a_lost_trial_from_elsewhere_is_done_again_as_what_it_was(world):
    (world.folder / "hyp.yaml").write_text("lr0: 0.2\n")
    run(world, "--from", "hyp.yaml", "--generations", "1")
    storage = optuna.storages.RDBStorage(f"sqlite:///{world.run_folder}/study.db")
    study = optuna.load_study(study_name="points", storage=storage)
    study.ask()
    storage.remove_session()
    run(world, "--from", "hyp.yaml", "--generations", "3")
    retry = next(trial for trial in world.trials() if "retry_of" in trial.user_attrs)
    assert (retry.params["lr0"], retry.user_attrs[SOURCE]) == (0.2, "hyp.yaml")
    assert len(taken(world.trials())) == 2


ALL = [*(("genetic", pruner) for pruner in PRUNERS), *((sampler, "none") for sampler in ("yolo", "tpe", "random"))]


@pytest.mark.parametrize(("sampler", "pruner"), ALL)
def test_known_trials_have_no_curve_and_trouble_no_pruner_and_no_sampler(world, sampler, pruner):
    run(world, "--generations", "3", "--study", "first")
    result = world.run(
        "--from", "first", "--sampler", sampler, "--pruner", pruner, "--generations", "6", "--epochs", "3"
    )
    assert result.exit_code == 0, result.output
    assert len(known(world.trials())) == 3
    assert all(not trial.intermediate_values for trial in known(world.trials()))


def test_a_source_may_be_a_folder_a_storage_or_a_study_in_one(world):
    run(world, "--generations", "2", "--study", "first", "--storage", "sqlite:///shared.db")
    folder, url = str(world.folder / "runs" / "first"), f"sqlite:///{world.folder}/shared.db"
    for study, source in (("a", folder), ("b", url), ("c", f"{url}#first")):
        assert lines_from(run(world, "--study", study, "--from", source).output) == [
            "from first: 2 known trials and 1 hyp to train"
        ]
    run(world, "--generations", "1", "--study", "other", "--storage", "sqlite:///shared.db")
    result = world.run("--study", "d", "--from", url)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "shared.db holds first, other: name one of them, as in sqlite:" in result.stderr
    assert yaml.safe_load((world.folder / "runs" / "a" / "evolve.yaml").read_text())["from"] == [folder]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pionts", "there is no study 'pionts' in"),
        ("points", "--from points is this study itself"),
        ("none.yaml", "--from none.yaml: there is no such file"),
        ("space.db", "there is no study 'space.db'"),
        ("broken.yaml", "broken.yaml is not YAML"),
        ("foreign.yaml", "--from foreign.yaml holds no hyp that could be trained in the space 'space'"),
        ("evolve.csv", "evolve.csv is no table"),
        ("sqlite:///none.db", "none.db: No such file or directory"),
        ("failed", "--from failed: no trial of it has completed yet"),
    ],
)
def test_what_cannot_be_taken_over_is_told_before_anything_is_made(faulty, source, said):
    world = faulty
    run(world, "--generations", "1")
    world.run("--generations", "1", "--study", "failed", "--set", "fault=NaN")
    (world.folder / "broken.yaml").write_text("lr0: [")
    (world.folder / "foreign.yaml").write_text("learning: 0.1\n")
    (world.folder / "evolve.csv").write_text("")
    result = world.run("--study", "points" if source == "points" else "new", "--from", source, "--generations", "9")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert said in result.stderr
    assert len(world.trials()) == 1
    assert not (world.folder / "runs" / "new" / "best").exists()


def take(hyps, **settings):
    """The line that is told, and the hyps that are queued, where a file holds these, each with its fitness."""
    space = space_of(EvolveConfig(**settings))
    offer = offer_of(Source("file", [Earlier(hyp, fitness, "file") for hyp, fitness in hyps]), space, "detection")
    sampler, pruner = build_sampler("random", space, seed=0), build_pruner("none", epochs=3)
    identity = {"space": space.to_dict()}
    study = open_study("new", "memory:", sampler=sampler, pruner=pruner, identity=identity, base=space.defaults())
    return take_over(study, offer, space, "detection"), [hyp_of(trial) for trial in taken(trials_of(study))]


def test_hyps_are_clipped_into_the_bounds_and_what_they_lack_is_the_bases():
    line, hyps = take([({"lr0": 0.3, "momentum": 0.8}, 0.5)], set={"mosaic": 0.5})
    base = {param.name: param.default for param in load_space("detection").params if param.name != "mosaic"}
    assert hyps == [{**base, "lr0": 0.1, "momentum": 0.8}]
    assert "1 hyp to train; hyps alone, because a file does not say how they were measured" in line
    assert "clipped into the bounds: lr0" in line


def test_hyps_of_other_trainers_are_translated_and_what_means_something_else_is_left_out():
    line, (yolov3,) = take([(load_space("yolov3").defaults(), 0.4)])
    assert yolov3["box"] == pytest.approx(3.54 / 64, rel=1e-3)
    assert line.endswith("left out, since it means nothing here or something else: iou_t")
    line, (ultralytics,) = take([({**load_space("ultralytics").defaults(), "lr0": 0.002}, 0.4)])
    assert (ultralytics["lr0"], ultralytics["box"]) == (0.002, 0.05)
    assert "left out, since it means nothing here or something else: bgr, box, close_mosaic, cls" in line
    assert "clipped" not in line


def test_the_best_are_the_fittest_on_average_each_once_and_never_the_base():
    hyps = [({"lr0": 0.01}, 0.9), *(({"lr0": lr0 / 1000}, lr0 / 100) for lr0 in range(2, 9)), ({"lr0": 0.008}, 0.0001)]
    assert [hyp["lr0"] for hyp in take(hyps)[1]] == [0.007, 0.006, 0.005, 0.008, 0.004]


def test_a_hyp_that_nobody_scored_comes_first():
    assert [hyp["lr0"] for hyp in take([({"lr0": 0.03}, 0.9), ({"lr0": 0.02}, None)])[1]] == [0.02, 0.03]


def test_a_hyp_with_a_value_that_makes_no_sense_is_counted_and_left():
    line, hyps = take([({"lr0": "fast"}, 0.9), ({"lr0": -1.0}, 0.8), ({"lr0": 0.02}, 0.7)])
    assert [hyp["lr0"] for hyp in hyps] == [0.02]
    assert line.endswith("; 2 results could not be read")
    with pytest.raises(ConfigError, match="holds no hyp that could be trained"):
        take([({"lr0": "fast"}, 0.9)])


def test_a_password_in_a_source_is_not_written_down(world):
    from evolve.config import dump_config, resolve_config

    text = dump_config(EvolveConfig(from_=("postgresql://me:secret@host/db",)))
    assert "secret" not in text
    (world.folder / "evolve.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"give its URL with --from"):
        resolve_config({}, world.folder / "evolve.yaml")


def test_dead_hyps_do_not_tell_two_trainings_apart(world):
    (world.folder / "dead.json").write_text('{"momentum": "one class"}')
    run(world, "--trainer", "resumable:Resumable", "--generations", "3", "--study", "first")
    (world.folder / "base.yaml").write_text("momentum: 0.25\n")
    again = ("--trainer", "resumable:Resumable", "--study", "second", "--from", "first", "--hyp", "base.yaml")
    assert lines_from(run(world, *again).output) == ["from first: 3 known trials and 1 hyp to train"]


def test_a_result_passed_on_twice_is_known_once(world):
    run(world, "--generations", "3", "--study", "a")
    run(world, "--generations", "1", "--study", "b", "--from", "a")
    run(world, "--generations", "1", "--study", "c", "--from", "a", "--from", "b")
    labels = [trial.user_attrs[KNOWN] for trial in known(world.trials("c"))]
    assert sorted(labels) == ["trial 0 of a", "trial 0 of b", "trial 1 of a", "trial 2 of a"]
