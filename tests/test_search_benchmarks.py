"""The benchmarks of the search: problems whose answer is known, rivals by their rules, and each program run small."""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import bbob, cost, pruner, real, results, sampler, selection, together
from benchmarks.search.ours import OURS
from benchmarks.search.problem import Problem
from benchmarks.search.results import Results, Run
from benchmarks.search.rivals import RIVALS, Arm, ultralytics
from search_spaces import Param, Space
from studies.genetics import Population, Scored

BOX = Space(
    "box",
    (
        Param("lr0", low=1e-5, high=1e-1, default=1e-2, log=True),
        Param("mixup", low=0, high=1, default=0),
        Param("units", low=1, high=9, default=5, step=1),
    ),
)


def scored(n, rng=None):
    rng = rng or np.random.default_rng(0)
    hyps = [{p.name: p.from_unit(u) for p, u in zip(BOX.params, rng.random(3), strict=True)} for _ in range(n)]
    return [Scored(hyp, float(number), number) for number, hyp in enumerate(hyps)]


@pytest.mark.parametrize("function", bbob.FUNCTIONS)
def test_a_default_on_the_optimum_of_bbob_has_no_regret(function):
    problem = bbob.problem(function, 1, 0.03, off=0)
    assert problem.regret(problem.fitness(problem.space.defaults())) < 0.05  # defaults have 5 digits


def test_random_hyps_of_bbob_have_a_regret_of_one_and_a_default_near_the_optimum_less():
    problem, rng = bbob.problem(8, 2, 0.03), np.random.default_rng(1)
    hyps = [{param.name: param.from_unit(rng.random()) for param in problem.space.params} for _ in range(500)]
    assert np.median([problem.regret(problem.fitness(hyp)) for hyp in hyps]) == pytest.approx(1, abs=0.05)
    assert problem.regret(problem.fitness(problem.space.defaults())) < 0.8


def test_an_instance_of_bbob_is_the_same_every_time_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, again, other = (bbob.problem(3, instance, 0.03) for instance in (4, 4, 5))
    assert one.space == again.space != other.space
    assert one.fitness(one.space.defaults()) == again.fitness(one.space.defaults())
    assert os.listdir(tmp_path) == []


def test_the_noise_of_a_trial_has_its_standard_deviation_and_is_the_same_for_every_sampler():
    problem = Problem("flat", BOX, lambda hyp: 5.0, noise=0.1, regret=lambda fitness: -fitness)
    seen = [problem.noisy({}, seed=3, number=number) for number in range(2000)]
    assert problem.noisy({}, seed=3, number=7) == seen[7] != problem.noisy({}, seed=4, number=7)
    assert np.mean(seen) == pytest.approx(5, abs=0.01)
    assert np.std(seen) == pytest.approx(0.1, rel=0.1)


def test_the_rule_of_ultralytics_moves_about_half_of_the_genes_by_a_fifth_of_their_range():
    wide = Space("wide", tuple(Param(f"x{i}", low=0, high=10, default=5) for i in range(20)))
    parent = [Scored(wide.defaults(), 1.0, 0)]
    children = [ultralytics(Population(scored=parent), wide, np.random.default_rng(seed)).hyp for seed in range(100)]
    steps = np.array([[value - 5 for value in child.values()] for child in children])
    assert np.mean(steps != 0) == pytest.approx(0.5, abs=0.04)
    assert np.std(steps[steps != 0]) == pytest.approx(2, rel=0.1)  # sigma 0.2; few steps reach a bound


def test_the_rule_of_ultralytics_steps_shorter_when_the_best_is_old():
    wide = Space("wide", tuple(Param(f"x{i}", low=0, high=10, default=5) for i in range(20)))
    best, worse = wide.defaults(), dict.fromkeys(wide.names, 9.0)
    stale = [Scored(best, 1.0, 0), *(Scored(worse, 0.0, number) for number in range(1, 29))]
    children = [ultralytics(Population(scored=stale), wide, np.random.default_rng(seed)).hyp for seed in range(100)]
    steps = np.array([[value - 5 for value in child.values()] for child in children])
    assert np.std(steps[steps != 0]) == pytest.approx(0.8 * 2, rel=0.1)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_rule_of_ultralytics_keeps_bounds_and_kinds_and_makes_nothing_twice(n):
    history = scored(n)
    taken = [one.hyp for one in history]
    for seed in range(50):
        child = ultralytics(Population(scored=history, taken=taken), BOX, np.random.default_rng(seed)).hyp
        BOX.check(child)
        assert child not in taken
        taken.append(child)


def test_a_run_cut_short_in_the_file_is_done_again_and_no_other(tmp_path):
    runs = [Run("one", "here", seed, 5) for seed in (0, 1)]
    kept = Results(tmp_path)
    for run in runs:
        kept.add(run, {"regret": [run.seed]})
    [file] = tmp_path.iterdir()
    file.write_text(file.read_text()[:-9])
    done = []
    results.run_all(runs, lambda run: done.append(run) or {"regret": [7]}, Results(tmp_path), 1)
    assert done == [runs[1]]


def test_an_arm_that_is_forgotten_leaves_the_others(tmp_path):
    kept = Results(tmp_path)
    kept.add(Run("one", "here", 0, 5), {})
    kept.add(Run("two", "here", 0, 5), {})
    kept.forget("one")
    for held in (kept, Results(tmp_path)):
        assert Run("one", "here", 0, 5) not in held
        assert Run("two", "here", 0, 5) in held


def test_every_arm_tries_the_default_first_as_often_as_it_is_said_to():
    problem = bbob.problem(1, 1, 0.03)
    for name, arm in {**RIVALS, "normalised": OURS["normalised"], "twice": Arm(RIVALS["random"].make, bases=2)}.items():
        study = sampler.new_study(problem.space, arm, seed=0)
        for _ in range(arm.bases + 1):
            study.tell(trial := study.ask(), sum(sampler.suggest(trial, problem.space).values()))
        of_default = [trial.params == problem.space.defaults() for trial in study.trials]
        assert of_default == [True] * arm.bases + [False], name


def test_the_sampler_table_is_printed_and_printed_again_without_running(tmp_path, capsys):
    command = ["--problems", "bbob 0.03", "--most", "1", "--seeds", "2", "--trials", "6"]
    command += ["--arms", "yolo,random", "--results", str(tmp_path)]
    sampler.main(command)
    first = capsys.readouterr()
    sampler.main(command)
    second = capsys.readouterr()
    assert first.out.splitlines()[1:] == second.out.splitlines()[1:]
    assert (first.err.count("\n"), second.err) == (4, "")
    rows = [line for line in first.out.splitlines() if line.startswith(("| yolo", "| random"))]
    assert len(rows) == 2 and all("±" in row for row in rows)


class Hill:
    """Learning curves that rise to minus the distance of mixup from 0.5; a stand-in for the surrogate."""

    def problem(self, task):
        return Problem(task, BOX, lambda hyp: -abs(hyp["mixup"] - 0.5), 0.05, lambda fitness: -fitness)

    def curves(self, hyps, task):
        heights = np.array([-abs(hyp["mixup"] - 0.5) for hyp in hyps])
        return heights[:, None] - 1 / np.arange(1, together.EPOCHS + 1)


def test_a_noisy_curve_ends_with_the_noise_of_a_full_training():
    hyp = BOX.defaults()
    curves = np.array([together.noisy_curve(Hill(), "hill", hyp, 0.2, 0, number) for number in range(2000)])
    deviations = curves - Hill().curves([hyp], "hill")
    assert np.std(deviations, axis=0) == pytest.approx(0.2, rel=0.1)
    assert np.corrcoef(deviations[:, 0], deviations[:, -1])[0, 1] == pytest.approx(together.OFFSET_SHARE, abs=0.05)


@pytest.mark.parametrize("name", ["yolo", "tpe + sha", "tpe + hyperband", "ultralytics + sha", "normalised + evolve"])
def test_no_pair_uses_more_epochs_than_it_has(name):
    found = together.compete(Hill(), "hill", together.PAIRS[name], seed=0, trainings=20)
    used = [epochs for epochs, _ in found["curve"]]
    assert used == sorted(used)
    assert used[-1] <= 20 * together.EPOCHS
    assert (found["trials"] > 20) == (name != "yolo")
    assert found["curve"][0] == [together.EPOCHS, 0.5]  # the default, in full


def test_the_regret_at_a_budget_is_that_of_the_last_trial_within_it():
    found = {"curve": [[52, 0.5], [104, 0.3], [160, 0.1]]}
    assert [together.regret_at(found, epochs) for epochs in (10, 52, 103, 104, 500)] == [0.5, 0.5, 0.5, 0.3, 0.1]


def test_what_ours_needs_to_equal_the_classic_rule_is_told_in_epochs():
    kept = Results(None)
    kept.add(Run("normalised + evolve", "hill", 0, 10), curve([[52, 0.5], [104, 0.3], [260, 0.1]]))
    kept.add(Run("yolo", "hill", 0, 10), curve([[52, 0.5], [520, 0.2]]))
    told = together.show(["normalised + evolve", "yolo"], ["hill"], [0], kept, 10).splitlines()
    assert told[-1].startswith("yolo ends at 0.200 after 10 full trainings (520 epochs); normalised + evolve is there")
    assert "after 260 epochs, 1/2.0 of them" in told[-1]


def curve(points):
    return {"curve": points, "chosen": None, "trials": len(points), "ms": 1.0}


def test_the_cost_table_has_a_row_for_each_sampler_and_storage(capsys):
    cost.main(["--arms", "random,normalised", "--sizes", "4,6", "--times", "1"])
    rows = [line for line in capsys.readouterr().out.splitlines() if "random" in line or "normalised" in line]
    assert [row.split("|")[1].strip() for row in rows[1:]] == [name for name in cost.STORAGES for _ in range(2)]


def test_a_sampler_that_is_too_slow_is_left_out_of_larger_studies(capsys):
    cost.main(["--arms", "random", "--sizes", "4,6", "--times", "1", "--storages", "memory", "--limit-s", "0"])
    *_, row = capsys.readouterr().out.splitlines()
    assert row.split("|")[3].count("/") == 1
    assert row.split("|")[4].strip() == "-"


def test_an_uplift_is_that_of_pairs_with_the_interval_of_student():
    assert real.uplift([0.3, 0.4, 0.5], [0.2, 0.2, 0.2]) == "+0.200 [-0.048, +0.448]"  # 4.303 * 0.1 / sqrt(3)
    assert real.uplift([0.3], [0.2]) == "+0.100"


def test_the_table_of_real_searches_shows_what_its_folder_holds(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, values in (("base", [0.1, 0.3]), ("classic", [0.2, 0.4])):
        (folder / f"{name}-again.json").write_text(json.dumps({"val": values, "test": None}))
    searched = {"seconds": 20.4, "trials": 9, "complete": 5, "epochs": 40}
    (folder / "classic-search.json").write_text(json.dumps(searched))
    head, _, base, classic = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in real.show(tmp_path).splitlines()
    )
    assert (base[1], classic[1:5]) == ("base", ["classic", "20", "9 (5 complete)", "40"])
    assert classic[head.index("val")] == "0.300 ± 0.100"
    assert classic[head.index("val, uplift [95 %]")].startswith("+0.100 [")
    assert classic[head.index("test")] == ""


def test_a_step_that_is_done_is_not_done_again(tmp_path):
    for value in (1, 2):
        real.once(tmp_path / "a.json", lambda: {"value": value})  # noqa: B023
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 1}


def test_a_real_search_is_trained_again_and_shown(tmp_path, monkeypatch, capsys):
    toy = Path(__file__).parent / "trainer"
    monkeypatch.setenv("PYTHONPATH", str(toy))
    monkeypatch.syspath_prepend(toy)
    space = tmp_path / "space.yaml"
    space.write_text("lr0: {low: 1.0e-4, high: 0.5, default: 0.0005, log: true}\n")
    command = ["--data", "points", "--trainer", "toy:ToyTrainer", "--space", str(space), "--generations", "3"]
    command += ["--epochs", "2", "--seeds", "2", "--arms", "classic", "--results", str(tmp_path / "found")]
    real.main(command)
    base, classic = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| points"))
    assert base.split("|")[2].strip() == "base"
    assert classic.split("|")[4].strip() == "3 (3 complete)"
    assert classic.split("|")[7].strip()[0] in "+-"


def test_a_mean_of_runs_has_its_interval():
    assert results.interval([0.1, 0.3]) == f"0.200 ± {1.96 * 0.1:.3f}"
    assert not math.isnan(float(results.interval([0.5])))


@pytest.fixture
def taskset(tmp_path):
    """A table of 40 losses that fall to 0.3 .. 2.0 within 51 epochs, the sooner the lower; one diverges to NaN."""
    ends = np.linspace(0.3, 2, 40)
    table = ends[:, None] + (3 - ends[:, None]) * np.exp(-np.arange(51)[None, :] / (4 * ends[:, None]))
    table[7, 20:] = np.nan
    np.savez(tmp_path / "one.npz", valid_loss=table.astype(np.float32))
    return tmp_path


def test_a_table_is_read_without_what_diverged_and_cut_at_twice_its_median(taskset):
    curves = pruner.read_table(taskset / "one.npz").curves
    ends = pruner.ends(curves)
    assert len(curves) == 39
    assert max(max(curve.fitness.values()) for curve in curves) == pytest.approx(2 * np.median(ends))


@pytest.mark.parametrize("order", pruner.ORDERS)
def test_an_order_holds_no_curve_twice_and_is_drawn_again_alike(taskset, order):
    curves = pruner.read_table(taskset / "one.npz").curves
    drawn = pruner.draw(curves, order, np.random.default_rng(0), count=8)
    assert len({curve.number for curve in drawn}) == len(drawn) > 6
    assert drawn == pruner.draw(curves, order, np.random.default_rng(0), count=8)
    if order == "near":
        assert max(pruner.ends(drawn)) <= np.quantile(pruner.ends(curves), 0.2)


def test_the_improving_order_improves(taskset):
    curves = pruner.read_table(taskset / "one.npz").curves
    drawn = [pruner.ends(pruner.draw(curves, "improving", np.random.default_rng(seed), count=10)) for seed in range(20)]
    assert np.mean([run[:3].mean() for run in drawn]) > np.mean([run[-3:].mean() for run in drawn]) + 0.2


def test_pruners_are_told_by_order_with_their_share_and_regret(taskset, capsys):
    assert pruner.main([str(taskset), "--pruners", "none,evolve,sha 5 2", "--orders", "random", "--seeds", "2"]) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 6}
    assert rows["none"] == ["random", "1.000", "0.0000 ± 0.0000", "0.000", "100%"]
    assert 0.1 < float(rows["evolve"][1]) < 0.6
    assert rows["evolve"][4] == "100%"  # these curves never cross


def test_an_unknown_pruner_is_told(taskset):
    with pytest.raises(SystemExit, match="unknown name 'asaha'"):
        pruner.main([str(taskset), "--pruners", "asaha"])


@pytest.fixture
def seeds_folder(tmp_path):
    """Two tables of 600 hyps under 5 seeds each: scores around 0.5, 0.7 and so on of a hyp, with noise of 0.05."""
    rng = np.random.default_rng(0)
    worth = rng.normal(0.5, 0.1, 600)
    for name in ("one", "two"):
        scores = worth[:, None] + rng.normal(0, 0.05, (600, 5))
        table = {f"{number:05}": {"val_acc": list(map(float, row))} for number, row in enumerate(scores)}
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(table))
    return tmp_path


@pytest.mark.parametrize("truth", selection.TRUTHS)
def test_a_race_chooses_better_than_the_arg_max_and_says_more_truly_how_good_it_is(seeds_folder, truth, capsys):
    asked = ["--tables", str(seeds_folder), "--data-sets", "one,two", "--repetitions", "60", "--truth", truth]
    assert selection.main(asked) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 6}
    highest, race = rows["arg-max of one seed"], rows["race: 10 with 2 seeds, 3 with 1"]
    assert highest[2] == "100 % (100 to 100)"
    assert race[0] == str(11 * 2 + 4 * 1)
    assert float(race[1].split()[0]) < 0.7 * float(highest[1].split()[0])
    assert abs(float(race[3].split()[0])) < float(highest[3].split()[0])


def test_the_truth_of_a_simulated_study_is_not_what_its_rules_have_seen(seeds_folder):
    scores = selection.read_table(seeds_folder, "one")
    drawn = selection.draw_apart(scores, np.array([3]), 50, np.random.default_rng(0))
    luck = drawn.fresh - drawn.true[:, :, None]
    assert luck.mean() == pytest.approx(0, abs=1e-3)
    assert luck.std() == pytest.approx(0.05, rel=0.1)
    assert np.corrcoef(luck[:, :, 0].ravel(), (drawn.seen - drawn.true).ravel())[0, 1] == pytest.approx(0, abs=0.05)
    assert (drawn.true[:, 0] == scores[3].mean()).all()


def test_a_table_that_would_import_something_is_refused(tmp_path):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"00000": os.system}))
    with pytest.raises(pickle.UnpicklingError, match="should hold numbers only"):
        selection.read_table(tmp_path, "bad")
