"""The pictures of a study: what each of them shows, of studies of every sort."""

import json
import math

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from small_study import EPOCHS, open_small, run

from search_spaces import Param, Space
from studies import distribution, open_study, trials_of
from studies.insight import LEAST_TRIALS, insight_of
from studies.pictures import PICTURES, pictures_of
from studies.racing import races_of
from studies.stock import build_pruner, build_sampler
from studies.trials import BASE, PARENTS
from studies.view import view_of

HOSTILE = "<script>alert(1)</script>"
ONE_GOAL = {"fitness": "maximize"}


def view(study, space):
    return view_of(study, insight_of(study, space, {}, {}))


def opened(space, goals=ONE_GOAL, base_seeds=0):
    """A study of which each test makes the trials by itself."""
    return open_study(
        "made-up",
        "memory:",
        sampler=build_sampler("random", space, seed=0, goals=len(goals)),
        pruner=build_pruner("none", epochs=EPOCHS, warmup_epochs=0),
        identity={"space": space.to_dict(), "epochs": EPOCHS},
        base=space.defaults(),
        base_seeds=base_seeds,
        goals=goals,
        exclusive=True,
    )


def tell(study, space, hyp, values, *, state=TrialState.COMPLETE, **noted):
    """Add a trial that has ended."""
    study.add_trial(
        create_trial(
            state=state,
            values=values,
            params={param.name: hyp[param.name] for param in space.params},
            distributions={param.name: distribution(param) for param in space.params},
            user_attrs=noted,
        )
    )


@pytest.fixture(scope="module")
def seen():
    """A study of 60 trials, most of them pruned, some failed."""
    space = Space(
        "small",
        (
            Param("lr0", 0.01, 1e-5, 0.1, log=True),
            Param("degrees", 0.0, 0.0, 45.0),
            Param("layers", 3, 1, 9, step=1),
            Param("optimizer", "sgd", choices=("sgd", "adam", "lion")),
        ),
    )
    study = open_small("memory:", space)
    run(study, space, 60)
    return view(study, space)


def traces_of(figure):
    return {trace.name: trace for trace in figure.data}


def test_every_trial_that_ended_stands_in_the_history_once(seen):
    traces = traces_of(PICTURES["history"].draw(seen))
    drawn = {state: len(traces[state].x) for state in ("complete", "pruned", "failed")}
    assert drawn == {state: sum(one.state == state for one in seen.trials) for state in drawn}
    assert min(drawn.values()) > 0
    assert traces["best hyp so far"].y[-1] == seen.best.fitness == max(one.value for one in seen.complete)
    assert sorted(traces["best hyp so far"].y) == list(traces["best hyp so far"].y)


def test_of_a_goal_that_is_minimised_the_best_line_goes_down():
    space = Space("one", (Param("x", 0.5, 0.0, 1.0),))
    study = opened(space, {"loss": "minimize"})
    for value in (3.0, 2.0, 2.5, 1.0):
        tell(study, space, {"x": value / 10}, [value])
    figure = PICTURES["history"].draw(view(study, space))
    assert list(traces_of(figure)["best hyp so far"].y[:-1]) == [3.0, 2.0, 1.0]


def test_the_band_of_the_history_is_twice_the_noise_floor_around_the_base():
    space = Space("one", (Param("x", 0.5, 0.0, 1.0),))
    study = opened(space)
    for value in (0.4, 0.5, 0.6):
        tell(study, space, space.defaults(), [value], **{BASE: True})
    found = view(study, space)
    band = traces_of(PICTURES["history"].draw(found))["base ± 2 × noise"]
    assert found.noise.sd == pytest.approx(0.1)
    assert (min(band.y), max(band.y)) == pytest.approx((0.3, 0.7))


def test_learning_curves_end_where_trials_were_pruned(seen):
    traces = traces_of(PICTURES["curves"].draw(seen))
    pruned = [one for one in seen.trials if one.state == "pruned"]
    assert list(traces["pruned here"].x) == [max(one.curve) for one in pruned]
    assert list(traces["pruned here"].y) == [one.curve[max(one.curve)] for one in pruned]
    best = seen.by_number[seen.best.number]
    assert list(traces["the best hyp"].y) == list(best.curve.values())


def test_long_curves_are_thinned_but_keep_their_ends():
    from studies.progress_pictures import _thinned

    points = [(epoch, epoch / 300) for epoch in range(1, 301)]
    thin = _thinned(points, 7)
    assert len(thin) <= 300 / 7 + 2
    assert (thin[0], thin[-1]) == (points[0], points[-1])


def test_each_hyp_that_evolves_has_a_panel_with_base_and_best(seen):
    figure = PICTURES["hyps"].draw(seen)
    names = [param.name for param in seen.space.evolving]
    assert [note.text.split("</b>")[0] for note in figure.layout.annotations] == [f"<b>{name}" for name in names]
    by_name = [trace for trace in figure.data if trace.name == "the best"]
    assert len(by_name) == len([trace for trace in figure.data if trace.name == "the base"]) == len(names)
    best = seen.by_number[seen.best.number].hyp
    assert [trace.x[0] for trace in by_name] == [best["lr0"], best["degrees"], best["layers"], 1]
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.range == pytest.approx((-5.2, -0.8))
    assert list(figure.layout.xaxis4.ticktext) == ["sgd", "adam", "lion"]


def test_a_hyp_says_when_it_never_moved_and_when_it_sits_at_a_bound():
    space = Space("flags", tuple(Param(name, 0.5, 0.0, 1.0) for name in ("still", "high", "free")))
    study = opened(space)
    for number in range(20):
        hyp = {"still": 0.5, "high": 1.0 if number >= 10 else 0.2, "free": number / 20}
        tell(study, space, hyp if number else space.defaults(), [number / 20])
    notes = [note.text for note in PICTURES["hyps"].draw(view(study, space)).layout.annotations]
    assert ["never moved" in note for note in notes] == [True, False, False]
    assert ["at high bound" in note for note in notes] == [False, True, False]


def test_panels_stay_clear_of_one_another_however_many_columns(seen):
    from studies.hyp_pictures import panels

    for columns in (1, 2, 3, 5):
        layout = panels(seen, {}, columns)
        boxes = []
        for index in range(len(seen.space.evolving)):
            number = str(index + 1) if index else ""
            boxes.append((layout[f"xaxis{number}"]["domain"], layout[f"yaxis{number}"]["domain"]))
        for one, ((left, right), (bottom, top)) in enumerate(boxes):
            assert 0 <= left < right <= 1 + 1e-9 and 0 <= bottom < top <= 1
            for (other_left, other_right), (other_bottom, other_top) in boxes[:one]:
                assert right <= other_left or other_right <= left or top <= other_bottom or other_top <= bottom


def test_importances_stand_beside_what_chance_makes_of_them(seen):
    found = seen.insight.importances
    assert len(seen.complete) >= LEAST_TRIALS or not found
    figure = PICTURES["importances"].draw(seen)
    if found:
        assert list(figure.data[0].x) == [100 * one.share for one in found][::-1]
        assert list(figure.data[1].x) == [100 * one.chance for one in found][::-1]
    else:
        assert str(LEAST_TRIALS) in figure.layout.annotations[0].text


def test_the_lineage_leads_from_parent_to_child_and_tells_what_changed(seen):
    figure = traces_of(PICTURES["lineage"].draw(seen))
    child = next(one for one in seen.complete if one.parents)
    parent = seen.by_number[child.parents[0]]
    steps = list(zip(figure["made from"].x[::3], figure["made from"].x[1::3], strict=True))
    assert (parent.generation, child.generation) in steps
    nodes = figure["trial, the larger the more children"]
    told = dict(zip(nodes.x, nodes.text, strict=True))
    moved = seen.moves(child)
    assert [one.far for one in moved] == sorted((one.far for one in moved), reverse=True)
    assert moved[0].name in told[child.generation]
    assert list(figure["the way to the best"].x) == [seen.by_number[number].generation for number in seen.line]
    assert seen.line[-1] == seen.best.number


def test_a_line_of_parents_that_leads_in_a_circle_ends():
    space = Space("one", (Param("x", 0.5, 0.0, 1.0),))
    study = opened(space)
    tell(study, space, {"x": 0.1}, [0.1], **{PARENTS: [1]})
    tell(study, space, {"x": 0.2}, [0.2], **{PARENTS: [0]})
    assert view(study, space).line == (0, 1)


def test_parallel_coordinates_have_the_best_tenth_apart(seen):
    traces = traces_of(PICTURES["parallel"].draw(seen))
    axes = len(seen.space.evolving)
    assert len(traces["the best hyp"].x) == axes
    lines = sum(
        (len(traces[name].x) + 1) // (axes + 1) for name in ("the best tenth", "the upper half", "the lower half")
    )
    assert lines == len(seen.complete)
    assert all(0 <= y <= 1 for y in traces["the best hyp"].y)


@pytest.mark.parametrize("ended", [0, 1, 5])
def test_every_picture_is_drawn_however_little_there_is(ended, space):
    study = open_small("memory:", space)
    run(study, space, ended)
    figures = pictures_of(view(study, space))
    assert list(figures) == ["history", "curves", "hyps", "importances", "lineage", "parallel", "workers"]
    for name, figure in figures.items():
        assert figure.data or figure.layout.annotations[0].text, name
        assert json.loads(figure.to_json())["layout"]["title"]["text"]


def test_a_study_in_which_all_failed_has_pictures(space):
    study = opened(space)
    for _ in range(3):
        tell(study, space, space.defaults(), None, state=TrialState.FAIL, failure="no picture could be read")
    figures = pictures_of(view(study, space))
    (failed,) = figures["history"].data
    assert (failed.name, len(failed.x)) == ("failed", 3)
    assert "no picture could be read" in failed.text[0]


def test_a_study_of_several_goals_shows_its_front():
    space = Space("one", (Param("x", 0.5, 0.0, 1.0),))
    study = opened(space, {"map50_95": "maximize", "latency_ms": "minimize"})
    for number, values in enumerate([(0.5, 3.0), (0.6, 5.0), (0.4, 4.0), (0.3, 1.0)]):
        tell(study, space, {"x": 0.5 if not number else number / 10}, values, **({BASE: True} if not number else {}))
    figures = pictures_of(view(study, space))
    traces = traces_of(figures["front"])
    assert list(zip(traces["the front"].x, traces["the front"].y, strict=True)) == [(0.6, 5.0), (0.5, 3.0), (0.3, 1.0)]
    assert len(traces["complete"].x) == 4
    assert (traces["the base"].x[0], traces["the base"].y[0]) == (0.5, 3.0)


def test_what_users_name_is_drawn_as_text():
    space = Space(HOSTILE, (Param(HOSTILE, HOSTILE, choices=(HOSTILE, "%{x}</a>")), Param("<b>&", 0.5, 0.0, 1.0)))
    study = opened(space, {HOSTILE: "maximize", "<i>": "maximize"})
    for number in range(3):
        hyp = {HOSTILE: "%{x}</a>" if number else HOSTILE, "<b>&": number / 3}
        tell(study, space, hyp, [number / 3, 1.0], operator=HOSTILE, worker={"host": HOSTILE, "pid": 1, "started": ""})
    tell(study, space, hyp, None, state=TrialState.FAIL, failure=HOSTILE)
    for name, figure in pictures_of(view(study, space)).items():
        told = json.dumps(json.loads(figure.to_json()), ensure_ascii=False)
        assert "<script" not in told and "</a>" not in told, name
        for trace in figure.data:
            assert "alert" not in (trace.hovertemplate or ""), name


def test_nothing_in_a_picture_is_infinite_or_not_a_number():
    space = Space("one", (Param("x", 0.5, 0.0, 1.0),))
    study = opened(space)
    for value in (0.1, math.inf, 0.2):
        tell(study, space, {"x": value / 2 if value < 1 else 0.9}, [value])
    found = view(study, space)
    assert [one.values for one in found.trials if one.state == "complete"] == [(0.1,), (), (0.2,)]
    for figure in pictures_of(found).values():
        assert "Infinity" not in figure.to_json() and "NaN" not in figure.to_json()


def test_a_best_trial_that_ends_while_the_study_is_read_stands_in_none_of_it_or_in_all(space, monkeypatch):
    study = opened(space)
    tell(study, space, space.defaults(), [0.5])

    def grow_and_find(study):
        monkeypatch.undo()
        tell(study, space, {**space.defaults(), space.evolving[0].name: space.evolving[0].bounds[1]}, [0.9])
        return races_of(study)

    monkeypatch.setattr("studies.view.races_of", grow_and_find)
    seen = view(study, space)
    assert (len(trials_of(study)), seen.best.number) == (2, 0)
    assert pictures_of(seen)


def test_a_view_reads_a_study_and_leaves_it_as_it_is(space, url):
    study = open_small(url, space)
    run(study, space, 12)
    before = [(one.state, one.values, dict(one.user_attrs)) for one in trials_of(study)]
    again = optuna.load_study(study_name="small", storage=url)
    found = view(again, space)
    pictures_of(found)
    assert [(one.state, one.values, dict(one.user_attrs)) for one in trials_of(study)] == before
    assert len([one for one in found.trials if one.counts]) == 12
