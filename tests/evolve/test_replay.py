"""A replay runs what the pruner lets run, and tells what was kept."""

import optuna
import pytest
from optuna.pruners import BasePruner, NopPruner

from evolve.replay import Curve, replay
from search_spaces import Param, Space
from studies import build_pruner, build_sampler
from studies.trials import BASE

EPOCHS = 8
SPACE = Space("one", (Param("lr0", 0.1, 0.0, 1.0),), {}, ("lr0",))


def rising(number, end, *, epochs=EPOCHS, **more):
    return Curve(number, {epoch: end * epoch / epochs for epoch in range(1, epochs + 1)}, **more)


class Below(BasePruner):
    """Stops at an epoch whatever is below a bound."""

    def __init__(self, epoch, bound):
        self.epoch, self.bound = epoch, bound

    def prune(self, study, trial):
        return trial.number > 0 and trial.last_step == self.epoch and trial.intermediate_values[self.epoch] < self.bound


def test_what_is_stopped_runs_no_further_and_the_rest_to_its_end():
    found = replay([rising(0, 0.4), rising(1, 0.8), rising(2, 0.2)], Below(4, 0.3))
    assert found.stopped == (None, None, 4)
    assert (found.epochs, found.pruned, found.share) == (20, 1, 20 / 24)
    assert (found.best.number, found.kept.number, found.regret) == (1, 1, 0.0)


def test_the_regret_is_by_how_much_the_best_that_ended_is_behind():
    curves = [rising(0, 0.4), rising(1, 0.5), rising(2, 0.8), rising(3, 0.45)]
    found = replay(curves, Below(4, 0.5))
    assert (found.best.number, found.kept.number) == (2, 0)
    assert found.regret == pytest.approx(0.4)
    assert replay(curves, NopPruner(), "minimize").best.number == 0


def test_a_regret_where_less_is_better_is_no_less_than_0():
    class OnlyTheFirst(BasePruner):
        def prune(self, study, trial):
            return trial.number > 0

    found = replay([rising(0, 0.4), rising(1, 0.1)], OnlyTheFirst(), "minimize")
    assert found.regret == pytest.approx(0.3)


def test_a_verdict_after_the_last_epoch_comes_too_late():
    found = replay([rising(0, 0.4), rising(1, 0.1)], Below(EPOCHS, 0.3))
    assert found.stopped == (None, None)


def test_the_seconds_saved_are_those_of_the_epochs_that_were_not_run():
    seconds = {epoch: float(epoch) for epoch in range(1, EPOCHS + 1)}
    curves = [rising(0, 0.4, seconds=seconds), rising(1, 0.1, seconds=seconds)]
    assert replay(curves, Below(5, 0.3)).seconds_saved == 6 + 7 + 8
    assert replay([*curves, rising(2, 0.9)], Below(5, 0.3)).seconds_saved is None


def test_how_long_the_best_that_is_kept_took_to_find():
    assert replay([rising(0, 0.4), rising(1, 0.8), rising(2, 0.2)], Below(4, 0.3)).epochs_to_kept == 16


def test_the_base_under_other_seeds_is_told_to_the_pruner():
    seen = []

    class Watching(BasePruner):
        def prune(self, study, trial):
            seen.append((trial.number, trial.user_attrs.get(BASE)))
            return False

    curves = [rising(3, 0.4, attrs={BASE: True}), rising(7, 0.5), rising(9, 0.4, attrs={BASE: True})]
    replay(curves, Watching())
    assert set(seen) == {(0, True), (1, None), (2, True)}  # as numbered here, not there


def test_with_a_sampler_each_proposal_stands_for_the_nearest_hyp_that_is_left():
    class Proposing(optuna.samplers.RandomSampler):
        values = iter((0.55, 0.55, 0.95))

        def sample_independent(self, study, trial, name, distribution):
            return next(self.values)

    curves = [rising(i, lr0, hyp={"lr0": lr0}) for i, lr0 in enumerate((0.1, 0.9, 0.2, 0.5))]
    found = replay(curves, NopPruner(), sampler=Proposing(), space=SPACE)
    assert [curve.number for curve in found.curves] == [0, 3, 1, 2]


@pytest.mark.parametrize("sampler", ["genetic", "tpe", "random"])
def test_any_sampler_brings_every_curve_once(sampler):
    curves = [rising(i, 0.1 + i / 20, hyp={"lr0": i / 10}) for i in range(10)]
    found = replay(
        curves,
        build_pruner("evolve", epochs=EPOCHS),
        sampler=build_sampler(sampler, SPACE, seed=0),
        space=SPACE,
    )
    assert sorted(curve.number for curve in found.curves) == list(range(10))
    assert found.curves[0].number == 0
