"""The benchmarks' own arithmetic and judgement: what they would print if a figure, or the study itself, were wrong."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from benchmarks.arms import Arm, Trained
from benchmarks.base_vs_best import best_of_search
from benchmarks.core_choices import OURS, arms_of
from benchmarks.kill_and_resume import draw_targets, judge_hyp
from benchmarks.pruning_saved import saved
from benchmarks.rank_agreement import agreement, compare, draw_hyps, identify, train
from benchmarks.report import Difference, header, table
from benchmarks.short_run import Measured, show
from benchmarks.stored import StoredStudy, first_difference
from evolve.paths import RunPaths
from search_spaces import load_space
from trainer import EpochMetrics, TrainOptions

BEGAN = datetime(2025, 1, 1)


def trial(number, lr0, value=None, state=TrialState.COMPLETE, **attributes):
    made = create_trial(
        state=state,
        value=value,
        params={"lr0": lr0},
        distributions={"lr0": FloatDistribution(0, 1)},
        user_attrs=attributes,
        intermediate_values={1: 0.1, 2: value if value is not None else 0.2},
    )
    made.number = number
    made.datetime_start, made.datetime_complete = BEGAN, BEGAN + timedelta(seconds=number + 1)
    return made


def study(*trials):
    return StoredStudy({"lr0": 0.1, "momentum": 0.9}, trials)


def test_a_difference_has_the_error_of_two_means_and_that_of_pairs():
    found = Difference.of([3.0, 5.0, 7.0], [1.0, 2.0, 3.0])
    assert found.mean == 3.0
    assert found.error == pytest.approx(math.sqrt(4 / 3 + 1 / 3))  # variances 4 and 1, three values each
    assert found.paired_error == pytest.approx(math.sqrt(1 / 3))  # of 2, 3, 4
    assert found.ratio == pytest.approx(3 / math.sqrt(5 / 3))


def test_a_difference_of_single_runs_has_no_error():
    assert math.isnan(Difference.of([0.3], [0.2]).ratio)


def test_numbers_stand_to_the_right_and_text_to_the_left():
    assert table(("arm", "score"), [("a", 0.5), ("longer", 10.25)]).splitlines() == [
        "| arm    |   score |",
        "| ------ | ------: |",
        "| a      |  0.5000 |",
        "| longer | 10.2500 |",
    ]


def test_the_header_is_one_line_that_holds_the_command():
    line = header("short_run.py", ["--data", "my data.yaml"], [0, 1])
    assert "\n" not in line
    assert line.endswith("seeds 0, 1 | python -m benchmarks.short_run --data 'my data.yaml'")


def test_a_training_is_judged_by_its_last_epoch():
    run = tuple(EpochMetrics(epoch, 0.0, 0.0, 0.0, score, seconds=epoch) for epoch, score in ((1, 0.9), (2, 0.4)))
    assert Trained(Arm("one", {}, TrainOptions()), (0,), (run,)).last("map50_95") == [0.4]


def test_every_arm_of_the_core_changes_one_thing():
    hyp = {"lr0": 0.01, "box": 0.05, "obj": 1.0, "cls": 0.5, "mosaic": 1.0}
    ours, *others = arms_of(hyp, TrainOptions(imgsz=160, batch=16, optimizer="sgd"))
    assert (ours.name, ours.hyp) == (OURS, hyp)
    by_name = {arm.name: arm for arm in others}
    assert by_name["box scale 1"].hyp == {**hyp, "box": 0.025}
    assert by_name["obj scale imgsz/640"].hyp == {**hyp, "obj": 4.0}
    assert by_name["obj scale 1"].hyp == {**hyp, "obj": 16.0}
    assert by_name["cosine"].options.schedule == "cosine"
    assert by_name["cls scale nc/80"].hyp == {**hyp, "cls": 0.125}
    assert by_name["batch 8"].options.batch == 8
    assert by_name["adamw"].options.optimizer == "adamw"
    assert by_name["mosaic 0"].hyp == {**hyp, "mosaic": 0.0}
    assert all((arm.hyp, arm.options) != (hyp, ours.options) for arm in others)


def test_the_base_is_held_against_the_best_of_the_search_even_where_it_was_not_confirmed(tmp_path):
    paths = RunPaths(tmp_path)
    assert best_of_search(paths) == paths.best_hyp
    paths.unconfirmed.parent.mkdir()
    paths.unconfirmed.touch()
    assert best_of_search(paths) == paths.unconfirmed


def test_what_a_pruned_trial_did_not_run_is_saved():
    pruned = trial(1, 0.3, state=TrialState.PRUNED, epochs=2)
    assert saved([trial(0, 0.1, 0.5, epochs=10), pruned], 10) == "12 epochs run, 20 without pruning: 60.0%, 40.0% saved"


@pytest.mark.parametrize(
    ("lr0", "judged"), [(0.3, "best"), (0.2, "one behind"), (0.1, "best/hyp.yaml is not trial 2"), (None, "one behind")]
)
def test_the_hyp_file_may_lag_behind_by_the_newest_trial_alone(tmp_path, lr0, judged):
    trials = [trial(1, 0.2, 0.5), trial(2, 0.3, 0.6)]
    if lr0 is None:  # no file yet, as the only trial has just been stored
        trials = trials[:1]
    else:
        (tmp_path / "hyp.yaml").write_text(f"lr0: {lr0}\nmomentum: 0.9\n")
    assert judge_hyp(tmp_path / "hyp.yaml", study(*trials)) == judged


def test_a_hyp_file_cut_short_is_told(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: [0.3")
    assert "does not parse" in judge_hyp(tmp_path / "hyp.yaml", study(trial(0, 0.3, 0.5)))


def test_a_hyp_file_that_is_gone_is_told(tmp_path):
    judged = judge_hyp(tmp_path / "hyp.yaml", study(trial(0, 0.3, 0.5), trial(1, 0.2, 0.4)))
    assert judged == "best/hyp.yaml is not trial 0"


def test_a_study_with_lost_trials_equals_one_without():
    lost = trial(1, 0.2, state=TrialState.FAIL, lost="killed")
    killed = study(trial(0, 0.1, 0.5), lost, trial(2, 0.2, 0.6, retry_of=1), trial(3, 0.3, 0.7))
    straight = study(trial(0, 0.1, 0.5), trial(1, 0.2, 0.6), trial(2, 0.3, 0.7))
    assert first_difference(killed, straight) is None


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (trial(1, 0.2, 0.6), None),
        (trial(1, 0.25, 0.6), "generation 2 differs in hyp lr0: 0.2 and 0.25"),
        (trial(1, 0.2, 0.7), "generation 2 differs in value: 0.6 and 0.7"),
        (trial(1, 0.2, state=TrialState.PRUNED), "generation 2 differs in state: COMPLETE and PRUNED"),
    ],
)
def test_the_first_difference_of_two_studies_is_named(last, told):
    assert first_difference(study(trial(0, 0.1, 0.5), trial(1, 0.2, 0.6)), study(trial(0, 0.1, 0.5), last)) == told


def test_a_generation_that_is_missing_is_named():
    one, two = study(trial(0, 0.1, 0.5)), study(trial(0, 0.1, 0.5), trial(1, 0.2, 0.6))
    assert first_difference(one, two) == "generation 2 is missing in the first"


def test_every_target_is_killed_about_equally_often():
    drawn = draw_targets(20, np.random.default_rng(0))
    assert sorted(drawn.count(target) for target in ("parent", "worker", "both")) == [6, 7, 7]


def test_a_short_run_is_told_by_length_and_who_with_its_spread_and_its_ratio_to_ours():
    def measured(name, seed, score, epoch_s):
        return Measured(name, 10, seed, score, 2 * score, epoch_s, 10 * epoch_s, 0.1, 500.0)

    runs = [
        measured("evolve nano", 0, 0.2, 1.0),
        measured("yolov8n", 0, 0.1, 4.0),
        measured("evolve nano", 1, 0.4, 1.0),
        measured("yolov8n", 1, 0.1, 4.0),
    ]
    head, _, ours, theirs = ([cell.strip() for cell in line.split("|")[1:-1]] for line in show(runs, 200).splitlines())
    assert dict(zip(head, ours, strict=True)) | {"sd": ""} == {
        "epochs": "10", "who": "evolve nano", "map50_95 by seed": "0.200, 0.400", "mean": "0.3000", "sd": "",
        "sd / mean": "0.47", "map50": "0.6000", "s/epoch": "1.000", "ours / theirs": "1.00", "pictures/s": "200",
        "s in all": "10.0", "set-up s": "0.10", "map50_95 a minute": "1.800", "peak MiB": "500",
    }  # fmt: skip
    assert theirs[head.index("ours / theirs")] == "0.25"


def test_ranks_that_agree_and_ranks_that_are_reversed():
    long = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    rho, low, high, place = agreement(long**2, long)
    assert (rho, low, high, place) == (pytest.approx(1), pytest.approx(1), pytest.approx(1), 1)
    assert agreement(-long, long)[0] == pytest.approx(-1)
    assert agreement(-long, long)[3] == 5


def test_ranks_of_few_hyps_have_a_wide_interval():
    rng = np.random.default_rng(0)
    long = rng.random(16)
    rho, low, high, _ = agreement(long + 0.2 * rng.standard_normal(16), long)
    assert low < rho < high and high - low > 0.2


def test_hyps_stand_around_the_base_within_their_bounds_and_are_drawn_again_alike():
    space = load_space("detection")
    base, *others = draw_hyps(space, 8, 6, np.random.default_rng(0))
    assert base == space.defaults()
    assert [base, *others] == draw_hyps(space, 8, 6, np.random.default_rng(0))
    assert all(param.low <= hyp[param.name] <= param.high for hyp in others for param in space.evolving)
    assert all(sum(hyp[name] != base[name] for name in base) > 5 for hyp in others)


def test_a_training_that_was_stored_is_read_and_not_run(tmp_path):
    hyp, options = {"lr0": 0.01}, TrainOptions(data="no such data", epochs=2)
    (tmp_path / f"{identify(hyp, options)}.json").write_text('{"fitness": [0.1, 0.2]}')
    assert train(None, hyp, options, tmp_path, tmp_path) == [0.1, 0.2]
    assert identify(hyp, options) != identify({"lr0": 0.02}, options) != identify(hyp, TrainOptions(epochs=3))


def test_the_table_of_ranks_compares_each_epoch_with_the_end_of_the_long_run():
    brief, full = [[0.3, 0.1], [0.2, 0.2], [0.1, 0.3]], [[0.0, 0.1], [0.0, 0.2], [0.0, 0.3]]
    options = TrainOptions(epochs=2)
    lines = compare(options, TrainOptions(epochs=4), brief, full, [1]).splitlines()
    assert next(line for line in lines if line.startswith("| 1 of 2")).split("|")[2].strip() == "-1.0000"
    assert next(line for line in lines if line.startswith("| 2 of 2")).split("|")[2].strip() == "1.0000"
