"""The best hyp and the table of trials on disk: always whole, always what the study says."""

import math
import os
import resource
import signal
import statistics
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from small_study import exit_code, fork, in_process, open_small, run

from search_spaces import Param, Space, load_hyp
from studies import (
    BestHyp,
    Score,
    abandon,
    append_rows,
    best_of,
    claim,
    rewrite_csv,
    save_best,
    suggest,
    trials_of,
    write_atomically,
)
from studies.trials import KNOWN, counts, generation_of, hyp_of

LINE = Space("line", (Param("x", 0.0, 0.0, 1.0),))


# the best


def test_a_study_without_a_complete_trial_has_no_best(space):
    study = open_small("memory:", space)
    study.tell(study.ask(), state=TrialState.FAIL)
    trial = study.ask()
    trial.report(0.9, 1)
    study.tell(trial, state=TrialState.PRUNED)
    assert best_of(study, space) is None


outcomes = st.lists(
    st.tuples(
        st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
        st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.5000001, 1.0, math.inf, -math.inf]),
    ),
    max_size=12,
)


@given(outcomes, st.sampled_from(["maximize", "minimize"]))
def test_the_best_is_the_earliest_of_the_fittest_complete_trials(outcomes, direction):
    study = optuna.create_study(direction=direction)
    for i, (state, value) in enumerate(outcomes):
        study.add_trial(
            create_trial(
                state=state,
                value=None if state == TrialState.FAIL else value,
                params={"x": i / 100},
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            )
        )
    complete = [(value, i) for i, (state, value) in enumerate(outcomes) if state == TrialState.COMPLETE]
    finite = [(value if direction == "minimize" else -value, i) for value, i in complete if math.isfinite(value)]
    best = best_of(study, LINE)
    if not finite:
        assert best is None
    else:
        _, number = min(finite)
        assert best == BestHyp(
            {"x": number / 100}, outcomes[number][1], {}, number, number, study.study_name, base=base_score(outcomes)
        )


def base_score(outcomes):
    state, value = outcomes[0]
    return Score(value) if state == TrialState.COMPLETE and math.isfinite(value) else None


SHORT = Space("short", (Param("x", 0, 0, 4, step=1),))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 100), st.booleans()), max_size=12))
def test_a_hyp_that_was_trained_again_counts_with_the_mean_of_all_of_its_trainings(trainings):
    """Whatever the order, and whoever else was trained between; what is known from elsewhere does not count."""
    study = optuna.create_study(direction="maximize")
    values = {}
    for i, (x, value, known) in enumerate([(0, 50, False), *trainings]):
        noted = {KNOWN: "elsewhere"} if known else {"base": True} if i == 0 else {}
        study.add_trial(
            create_trial(
                value=value,
                params={"x": x},
                distributions={"x": optuna.distributions.IntDistribution(0, 4)},
                user_attrs={**noted, "metrics": {"map50": value / 2}},
            )
        )
        if not known:
            values.setdefault(x, {})[i] = value
    means = {x: statistics.fmean(found.values()) for x, found in values.items()}
    best = best_of(study, SHORT)
    x = max(means, key=lambda x: (means[x], -min(values[x])))
    assert best.hyp == {"x": x}
    assert (best.fitness, best.seeds, best.number) == (means[x], len(values[x]), min(values[x]))
    assert best.metrics["map50"] == pytest.approx(means[x] / 2)
    assert best.base.fitness == best.base_fitness == means[0]
    assert best.base.seeds == len(values[0])
    if len(values[0]) > 1:
        assert best.base.sd == pytest.approx(statistics.stdev(values[0].values()))


def test_a_lucky_best_that_disappoints_when_trained_again_makes_way_in_the_file(tmp_path):
    study = optuna.create_study(direction="maximize")
    path = tmp_path / "hyp.yaml"
    held = []
    for x, value in ((0, 0.3), (1, 0.5), (2, 0.9), (2, 0.4), (2, 0.1)):
        distributions = {"x": optuna.distributions.IntDistribution(0, 4)}
        study.add_trial(create_trial(value=value, params={"x": x}, distributions=distributions))
        save_best(path, best_of(study, SHORT), {})
        held.append(load_hyp(path)["x"])
    assert held == [0, 1, 2, 2, 1]


def test_the_file_holds_the_best_trials_hyp_exactly_and_loads_as_hyp_and_as_yaml(tmp_path, space):
    study = open_small("memory:", space)
    path = tmp_path / "best" / "hyp.yaml"
    saved = None
    while len(trials_of(study)) < 25:
        run(study, space, len(trials_of(study)) + 1)
        best = best_of(study, space)
        if best != saved:
            save_best(path, best, {})
            saved = best
        trial = trials_of(study)[best.number]
        assert trial.value == study.best_value
        expected = {name: hyp_of(trial).get(name, space.fixed.get(name)) for name in space.order}
        for loaded in (load_hyp(path), yaml.safe_load(path.read_text())):
            assert loaded == expected
            assert [type(value) for value in loaded.values()] == [type(value) for value in expected.values()]
            assert list(loaded) == list(space.order)
    assert saved.number > 0


def test_the_header_says_where_the_hyp_comes_from(tmp_path, space):
    metrics = {"precision": 0.6, "recall": 0.51234, "map50": 0.7, "map50_95": 0.41}
    best = BestHyp(space.defaults(), 0.439, metrics, 17, 16, "digits", seed=16, base=Score(0.4))
    command = "evolve train --hyp runs/digits/best/hyp.yaml --data digits --epochs 12"
    save_best(tmp_path / "hyp.yaml", best, {"data": "my\n  data.yaml", "epochs": "12", "train with it": command})
    assert (tmp_path / "hyp.yaml").read_text().splitlines()[:10] == [
        "# The best hyp of an evolve study so far.",
        "# Not confirmed: the best of many noisy trainings looks better than it is.",
        "# fitness        0.439 (base 0.4, difference +0.039)",
        "# metrics        precision 0.6, recall 0.5123, map50 0.7, map50_95 0.41",
        "# trial          17 (training seed 16)",
        "# study          digits",
        "# data           my data.yaml",
        "# epochs         12",
        f"# train with it  {command}",
        "#",
    ]


def test_the_header_tells_over_how_many_seeds_both_were_measured(tmp_path):
    best = BestHyp({"x": 0.5}, 0.439, {}, 17, 16, "digits", seeds=2, base=Score(0.4, 3, 0.01234))
    save_best(tmp_path / "hyp.yaml", best, {})
    line = "# fitness  0.439 (mean of 2 seeds; base 0.4 ± 0.012 over 3 seeds, difference +0.039)"
    assert line in (tmp_path / "hyp.yaml").read_text().splitlines()


def test_the_header_has_the_date_of_the_trial_and_a_file_that_says_the_same_is_left_alone(tmp_path, space):
    study = open_small("memory:", space)
    run(study, space, 1)
    path, best = tmp_path / "hyp.yaml", best_of(study, space)
    save_best(path, best, {"version": "1"})
    ended = trials_of(study)[0].datetime_complete.timestamp()
    assert f"# date     {datetime.fromtimestamp(ended, UTC):%Y-%m-%d %H:%M} UTC" in path.read_text()
    whole = path.read_text()
    save_best(path, best, {"version": "2"})
    assert path.read_text() == whole


@pytest.mark.parametrize(
    "other",
    [
        {"fitness": 0.5},
        {"metrics": {"map50": 0.9}},
        {"number": 3},
        {"seed": 3},
        {"base": Score(0.3)},
        {"base": Score(0.2, 3, 0.01)},
        {"seeds": 2},
        {"hyp": {"x": 0.5}},
        {"found": datetime(2025, 1, 2, tzinfo=UTC)},
    ],
)
def test_a_file_that_says_anything_else_is_replaced(tmp_path, other):
    best = BestHyp({"x": 0.0}, 0.4, {"map50": 0.4}, 2, 2, "line", 2, 1, Score(0.2), datetime(2025, 1, 1, tzinfo=UTC))
    save_best(tmp_path / "hyp.yaml", best, {})
    before = (tmp_path / "hyp.yaml").read_text()
    save_best(tmp_path / "hyp.yaml", replace(best, **other), {})
    assert (tmp_path / "hyp.yaml").read_text() != before


@pytest.mark.parametrize("torn", ["", "# The best hyp", "x: [0", "\udcff"])
def test_a_file_that_is_torn_is_replaced(tmp_path, torn):
    best = BestHyp({"x": 0.0}, 0.4, {}, 2, 2, "line")
    (tmp_path / "hyp.yaml").write_bytes(torn.encode(errors="surrogateescape"))
    save_best(tmp_path / "hyp.yaml", best, {})
    assert load_hyp(tmp_path / "hyp.yaml") == {"x": 0.0}


# the table


def trained(study, space, state, *, report=()):
    trial = study.ask()
    claim(trial)
    suggest(trial, space)
    for epoch, value in enumerate(report, start=1):
        trial.report(value, epoch)
    if report:
        trial.set_user_attr("epochs", len(report))
        metrics = {"precision": 0.5, "recall": 0.25, "map50": 0.75, "map50_95": report[-1]}
        trial.set_user_attr("metrics", metrics)
    study.tell(trial, *([report[-1]] if state == TrialState.COMPLETE else []), state=state)
    return trial


def test_the_table_has_a_row_for_each_trial_that_counts(tmp_path, space):
    study = open_small("memory:", space)
    path = tmp_path / "evolve.csv"
    trained(study, space, TrialState.COMPLETE, report=[0.1, 0.3])
    abandon(study, study.ask(), "interrupted")
    trained(study, space, TrialState.PRUNED, report=[0.2])
    trained(study, space, TrialState.FAIL)
    rewrite_csv(path, study, space)
    append_rows(path, study, [trained(study, space, TrialState.COMPLETE, report=[0.1, 0.4]).number], space)
    table = pd.read_csv(path)
    assert list(table.trial) == [0, 2, 3, 4]
    assert list(table.generation) == [0, 1, 2, 3]
    assert list(table.state) == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert list(table.fitness.fillna(-1)) == [0.3, -1, -1, 0.4]  # what a pruned trial had reached is no fitness
    assert list(table.epochs) == [2, 1, 0, 2]
    assert list(table.map50_95.fillna(-1)) == [0.3, 0.2, -1, 0.4]
    assert (table.seconds >= 0).all()
    assert list(table.parents.fillna(-1)) == [-1, 0, 0, 0]
    assert list(table.columns[-len(space.order) :]) == list(space.order)
    for row in table.to_dict("records"):
        assert {name: row[name] for name in space.names} == hyp_of(trials_of(study)[row["trial"]])
        assert row["generation"] == generation_of(study, trials_of(study)[row["trial"]])


def test_rows_appended_one_by_one_and_the_table_made_anew_are_the_same(tmp_path, space):
    study = open_small("memory:", space)
    rewrite_csv(tmp_path / "appended.csv", study, space)

    def append(point, number):
        if point == "told":
            append_rows(tmp_path / "appended.csv", study, [number], space)

    run(study, space, 12, at=append)
    rewrite_csv(tmp_path / "anew.csv", study, space)
    assert (tmp_path / "appended.csv").read_bytes() == (tmp_path / "anew.csv").read_bytes()


def test_a_torn_row_is_healed_when_the_table_is_made_anew(tmp_path, space):
    study = open_small("memory:", space)
    run(study, space, 4)
    path = tmp_path / "evolve.csv"
    rewrite_csv(path, study, space)
    whole = path.read_bytes()
    path.write_bytes(whole[:-17])
    rewrite_csv(path, study, space)
    assert path.read_bytes() == whole
    assert len(pd.read_csv(path)) == sum(map(counts, trials_of(study))) == 4


def test_text_with_commas_quotes_and_line_breaks_is_one_cell(tmp_path):
    text = 'a, "b"\nc'
    space = Space("text", LINE.params, {"note": text})
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    rewrite_csv(tmp_path / "evolve.csv", study, space)
    assert list(pd.read_csv(tmp_path / "evolve.csv").note) == [text, text]


# writing


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new folder" / "file.txt"
    for text in ("first\n", "zweitens: é\n", ""):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
        assert os.listdir(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_until_killed(path):
    for i in range(100_000):
        write_atomically(path, f"{i}\n" * 5_000)


def test_whoever_is_killed_while_writing_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "hyp.yaml"
    for _ in range(5):
        process = in_process(write_until_killed, path)
        while not path.exists():
            assert process.is_alive()
        for _ in range(20):
            lines = path.read_text().splitlines()
            assert len(lines) == 5_000
            assert len(set(lines)) == 1
        os.kill(process.pid, signal.SIGKILL)
        assert exit_code(process) == -9
        assert len(set(path.read_text().splitlines())) == 1
        path.unlink()
    for leftover in tmp_path.iterdir():
        os.utime(leftover, (0, 0))
    write_atomically(path, "after\n")
    assert os.listdir(tmp_path) == ["hyp.yaml"]


def write_to_a_full_disk(path, errors):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_atomically(path, "x" * 2000)
    except OSError as error:
        errors.put(error.strerror)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "hyp.yaml"
    write_atomically(path, "old\n")
    errors = fork.Queue()
    assert exit_code(in_process(write_to_a_full_disk, path, errors)) == 0
    assert errors.get(timeout=240) == "File too large"
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["hyp.yaml"]


def test_a_folder_that_cannot_be_written_to_is_the_systems_error():
    with pytest.raises(OSError, match="No such file or directory"):
        write_atomically(Path("/proc/hyp.yaml"), "text")
