"""`evolve list`, `show`, `compare` and `replay`: what they tell of studies, to people and to programs."""

import json
import re
import shutil
from pathlib import Path

import optuna
import pytest
import yaml
from asked import TOY, ask, make_studies, told

from evolve.comparing import compare_studies
from evolve.repeating import differences_of
from evolve.tables import sparkline
from studies.study import CONFIG


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        make_studies(folder)
    return folder


@pytest.fixture(autouse=True)
def _there(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy for each test, which may break it."""
    monkeypatch.syspath_prepend(TOY)
    shutil.copytree(made / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


def stored(study: str) -> optuna.Study:
    return optuna.load_study(study_name=study, storage=f"sqlite:///runs/{study}/study.db")


def test_the_list_tells_how_each_study_stands():
    listed = {one["study"]: one for one in told("list")}
    assert list(listed) == ["broken", "one", "two"]
    assert [(one["state"], one["finished"], one["generations"]) for one in listed.values()] == [
        ("done", 2, 2),
        ("done", 6, 6),
        ("done", 6, 6),
    ]
    best = max(trial.value for trial in stored("one").trials if trial.value is not None)
    assert listed["one"]["best"]["fitness"] >= best - 0.2
    assert (listed["broken"]["best"], listed["broken"]["problem"]) == (None, "")
    lines = ask("list").output.splitlines()
    assert lines[0].split() == ["study", "state", "generations", "best", "base", "gain", "last", "trial"]
    assert max(map(len, lines)) <= 80


def test_a_study_that_cannot_be_read_is_listed_with_the_reason():
    Path("runs/one/study.db").unlink()
    found = {one["study"]: one for one in told("list")}
    assert found["one"]["state"] == "unreadable"
    assert "study.db is gone" in found["one"]["problem"]
    assert found["two"]["state"] == "done"


def test_a_storage_lists_its_studies_without_any_folder():
    shutil.move("runs", "elsewhere")
    assert [one["study"] for one in told("list", "--storage", "sqlite:///elsewhere/one/study.db")] == ["one"]


def test_a_study_of_another_version_does_not_hide_the_others_of_its_storage():
    shutil.move("runs", "elsewhere")
    url = "sqlite:///elsewhere/one/study.db"
    optuna.copy_study(from_study_name="one", from_storage=url, to_storage=url, to_study_name="later")
    later = optuna.load_study(study_name="later", storage=url)
    later.set_user_attr(CONFIG, later.user_attrs[CONFIG] + "unheard_of: 1\n")
    found = {one["study"]: one for one in told("list", "--storage", url)}
    assert (found["one"]["state"], found["later"]["state"]) == ("done", "unreadable")
    assert "unknown key 'unheard_of' in the study later" in found["later"]["problem"]


def test_a_folder_without_a_study_says_how_to_make_one():
    shutil.rmtree("runs")
    assert ask("list").output == "there is no study in runs: `evolve run` makes one, --runs looks elsewhere\n"
    assert told("list") == []


def test_a_trial_is_shown_with_its_parents_and_what_changed():
    child = next(trial for trial in stored("one").trials if trial.user_attrs.get("parents"))
    shown = told("show", str(child.number), "one")
    parent = stored("one").trials[shown["parents"][0]]
    assert (shown["trial"], shown["study"], shown["seed"]) == (child.number, "one", child.user_attrs["seed"])
    assert shown["hyp"] == child.params
    assert shown["changes"] == {
        name: [parent.params[name], value] for name, value in child.params.items() if parent.params[name] != value
    }
    assert list(shown["curve"].values()) == list(child.intermediate_values.values())
    text = ask("show", str(child.number), "one").output
    assert f"one, trial {child.number}: {shown['state']}, fitness " in text
    assert re.search(rf"^its hyp: of trials? {parent.number}\b", text, re.MULTILINE)
    for name, (_, value) in shown["changes"].items():
        assert any(line.split()[0] == name and f"{value:.5g}" in line for line in text.splitlines() if line)


def test_best_names_the_best_trial_and_the_base_has_no_parents():
    best = told("list")[1]["best"]["trial"]
    assert told("show", "best", "one")["trial"] == best
    base = told("show", "0", "one")
    assert (base["source"], base["parents"], base["changes"]) == ("the base", [], {})


def test_a_failed_trial_is_shown_with_its_failure_and_the_end_of_its_log():
    with Path("runs/broken/trials/00000/train.log").open("a") as log:
        log.write("\n".join(f"line {n}" for n in range(30)) + "\nat postgresql://me:secret@db/x\n")
    shown = told("show", "0", "broken")
    assert (shown["state"], shown["fitness"], shown["epochs"]) == ("failed", shown["curve"]["1"], 1)
    assert shown["failure"].startswith("the toy is out of order")
    assert shown["log"][-2:] == ["line 29", "at postgresql://me:***@db/x"]
    assert len(shown["log"]) == 10
    text = ask("show", "0", "broken").output
    assert "failed with: the toy is out of order" in text
    assert "its log ends with:\n    line 21\n" in text


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["show", "99", "one"], 2, "there is no trial '99': one has the trials 0 to"),
        (["show", "x", "one"], 2, "there is no trial 'x'"),
        (["show", "best", "broken"], 1, "no trial of broken has completed yet"),
        (["show", "0", "none"], 2, "there is no study 'none' in runs"),
        (["compare", "one", "tow"], 2, "there is no study 'tow' in runs (did you mean 'two'?)"),
        (["replay", "99", "one"], 2, "there is no trial '99'"),
    ],
)
def test_what_is_not_there_is_one_sentence(arguments, code, sentence):
    result = ask(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_two_studies_are_compared_by_the_noise_that_both_have():
    found = told("compare", "one", "two")
    first, second = found["first"], found["second"]
    assert found["settings"] == {"seed": [0, 7]}
    assert found["difference"] == second["best"] - first["best"]
    assert found["error"] == pytest.approx(
        (first["noise"] ** 2 / first["seeds"] + second["noise"] ** 2 / second["seeds"]) ** 0.5
    )
    assert found["told_apart"] == (abs(found["difference"]) > 2 * found["error"])
    text = ask("compare", "one", "two").output
    assert text.startswith(found["sentence"])
    assert "seed    0" in text


def test_a_study_beside_itself_is_equal_and_one_without_a_fitness_is_nothing_to_compare():
    assert told("compare", "one", "one")["sentence"].startswith("their bests are equal")
    assert "no trial of broken has completed" in told("compare", "one", "broken")["sentence"]


def test_fitnesses_of_other_weights_are_not_compared():
    result = ask(
        *("run", "--trainer", "toy:ToyTrainer", "--data", "points", "--epochs", "3", "--race", "0"),
        *("--space", yaml.safe_load(Path("runs/one/evolve.yaml").read_text())["space"]),
        *("--study", "other", "--generations", "2", "--fitness", "map50=1"),
    )
    assert result.exit_code == 0, result.output
    found = told("compare", "one", "other")
    assert (found["unlike"], found["difference"]) == (["the weights of the fitness"], None)
    assert found["sentence"] == "what they measured cannot be compared: they differ in the weights of the fitness"


def test_a_trial_that_is_trained_again_is_equal_to_the_last_digit():
    trials = stored("one").trials
    for number in (0, max(trial.number for trial in trials if trial.value is not None)):
        result = ask("replay", str(number), "one", "--json")
        found = json.loads(result.stdout)
        assert (result.exit_code, found["equal"], found["differences"]) == (0, True, [])
        assert found["epochs"] == len(trials[number].intermediate_values)
    assert f"trial {number} of one under seed {found['seed']}: all 3 epochs are as they were" in result.stderr
    assert len(stored("one").trials) == len(trials), "the study is as it was"


def test_a_trial_that_comes_out_otherwise_says_where():
    metrics = Path("runs/one/trials/00000/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows[1]["map50"] += 1e-12
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = ask("replay", "0", "one", "--json")
    assert result.exit_code == 1
    (difference,) = json.loads(result.stdout)["differences"]
    assert (difference["epoch"], difference["name"], difference["before"]) == (2, "map50", rows[1]["map50"])
    assert "trial 0 of one came out otherwise: map50 of epoch 2" in result.stderr


def test_a_failed_trial_fails_again():
    result = ask("replay", "0", "broken")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("trial 0 of broken under seed 0: it failed again\n")


def test_without_the_file_of_its_epochs_a_trial_is_held_against_what_the_storage_knows():
    shutil.rmtree("runs/one/trials")
    assert told("replay", "0", "one")["equal"]


def test_an_epoch_that_one_of_them_lacks_is_a_difference():
    row = {"epoch": 1, "fitness": 0.5, "losses": {"box": 1.0}, "seconds": 3.0}
    assert differences_of([row], [{**row, "seconds": 9.0}]) == []
    (missing,) = differences_of([row], [row, {**row, "epoch": 2}])
    assert (missing.epoch, missing.before, missing.now) == (2, None, 0.5)
    assert {one.name for one in differences_of([row], [])} == {"fitness", "loss box"}


def test_a_comparison_reads_the_studies_alone():
    found = compare_studies(stored("one"), stored("two"))
    assert found.first.counts.finished == found.second.counts.finished == 6


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 5, ""),
        ([0.3], 5, "▁"),
        ([1, 1], 5, "▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 9, 1, 2], 2, "█▁"),
    ],
)
def test_a_sparkline_has_a_bar_a_value_and_the_best_of_each_few(values, width, drawn):
    assert sparkline(values, width) == drawn
