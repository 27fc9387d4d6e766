"""What a race shows: its intervals cover, its winners are winners, and one run of a hyp never decides."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studies.noise import NoiseFloor
from studies.race import Race, Round, Run, due_heats, rounds_for, rounds_within
from studies.verdict import critical_value, judge, rank_correlation, seeds_to_settle, simulate_races, without_luck

PLANS = [rounds_within(6), rounds_within(12), rounds_within(30), rounds_for(10)]
names = [str([(round.challengers, round.seeds) for round in plan]) for plan in PLANS]


def run(rounds, scores, floor=None):
    """The verdict on a race among `scores` [entrants, seeds]: entrant 0 is the base, and at NaN a training fails."""
    race, runs = Race(tuple(range(1, len(scores))), rounds, first_seed=0), []
    while due := due_heats(race, runs):
        heat = due[0]
        score = float(scores[heat.entrant or 0, heat.seed])
        runs.append(Run(heat, None if math.isnan(score) else score, {"map50": score / 2}, {"fitness": score / 4}))
    return judge(race, runs, floor)


def draw(rounds, seed, *, means=0.0, base_sd=1.0, sd=1.0, races=4000):
    """Scores [races, entrants, seeds]: challengers of these means and the base, which has 0."""
    shape = (races, rounds[0].challengers + 1, sum(round.seeds for round in rounds))
    scores = np.random.default_rng(seed).standard_normal(shape)
    scores[:, 0] *= base_sd
    scores[:, 1:] = scores[:, 1:] * sd + np.broadcast_to(means, shape[1] - 1)[:, None]
    return scores


def missed(rounds, seed, *, means=0.0, floor_sd=None, **how):
    """The shares of simulated races whose leader's interval lies above its true difference, and below it."""
    scores = draw(rounds, seed, means=means, **how)
    leader, difference, squares, degrees = simulate_races(scores, rounds)
    floor_degrees = 2 if floor_sd else 0
    if floor_sd:
        squares = squares + 2 * floor_sd**2 * np.random.default_rng(seed).chisquare(2, len(scores))
    error = np.sqrt(squares / (degrees + floor_degrees) / scores.shape[2])
    reach = critical_value(rounds, floor_degrees) * error
    true = np.broadcast_to(means, rounds[0].challengers)[leader - 1]
    return float(np.mean(difference - reach > true)), float(np.mean(difference + reach < true))


@pytest.mark.parametrize("rounds", PLANS, ids=names)
@pytest.mark.parametrize("floor_sd", [None, 1.0], ids=["no floor", "floor"])
def test_the_interval_of_the_leader_covers_where_all_are_equal_and_picking_flatters_most(rounds, floor_sd):
    above, below = missed(rounds, 1, floor_sd=floor_sd)
    assert above <= 0.034, "2.5 %, and three and a half standard errors of the simulation"
    assert above >= 0.016, "it is no wider than it has to be"
    assert above + below <= 0.062


@pytest.mark.parametrize("rounds", PLANS, ids=names)
@pytest.mark.parametrize("step", [0.5, 5.0])
def test_it_covers_where_the_hyps_differ(rounds, step):
    means = 2 - step * np.arange(rounds[0].challengers)
    assert sum(missed(rounds, 2, means=means)) <= 0.062


@pytest.mark.parametrize("rounds", PLANS, ids=names)
@pytest.mark.parametrize(("base_sd", "sd"), [(2.0, 1.0), (1.0, 2.0)])
def test_it_covers_where_the_base_is_noisier_or_less_so_than_the_others(rounds, base_sd, sd):
    assert sum(missed(rounds, 3, base_sd=base_sd, sd=sd)) <= 0.062
    floor_sd = base_sd  # a floor that knows the base only
    assert sum(missed(rounds, 3, base_sd=base_sd, sd=sd, floor_sd=floor_sd)) <= (0.10 if sd > base_sd else 0.062)


def test_a_plain_t_interval_would_not_cover_the_best_of_ten_equals():
    """The reason for `critical_value`: whoever picks first and takes Student's t then is misled too often."""
    rounds = rounds_for(10)
    _, difference, squares, degrees = simulate_races(draw(rounds, 4), rounds)
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(squares / degrees / 4)
    assert np.mean(difference - reach > 0) > 0.06


@pytest.mark.parametrize("seeds", [3, 4, 8])
def test_for_one_challenger_the_interval_is_students(seeds):
    assert critical_value((Round(1, seeds),)) == pytest.approx(stats.t.ppf(0.975, seeds - 1), rel=0.05)


@pytest.mark.parametrize("rounds", PLANS, ids=names)
def test_what_is_judged_run_by_run_is_what_is_simulated(rounds):
    for seed in range(20):
        scores = draw(rounds, seed, races=1)
        leader, difference, squares, degrees = simulate_races(scores, rounds)
        found = run(rounds, scores[0]).leader
        assert found.entrant == leader[0]
        assert found.difference == pytest.approx(difference[0])
        sd = math.sqrt(squares[0] / degrees)
        assert found.margin == pytest.approx(critical_value(rounds) * sd / math.sqrt(scores.shape[2]))


def test_the_race_picks_far_better_than_the_highest_of_one_seed_each():
    """300 noisy hyps: what a rule's pick loses to the best hyp, as a share of what the arg-max loses."""
    rng, lost = np.random.default_rng(5), {"arg-max": [], "race": []}
    for _ in range(400):
        means = rng.normal(0, 0.5, 300)
        top = np.argsort(-(means + rng.standard_normal(300)))[:10]
        scores = np.vstack([np.zeros((1, 4)), means[top, None] + rng.standard_normal((10, 4))])
        lost["arg-max"].append(max(means) - means[top[0]])
        lost["race"].append(max(means) - means[top[run(rounds_for(10), scores).leader.entrant - 1]])
    assert fmean(lost["race"]) < 0.8 * fmean(lost["arg-max"])


@pytest.mark.parametrize("apart", [0.5, 1.0, 2.0])
def test_what_is_expected_of_the_leader_is_hardly_higher_for_its_having_been_picked(apart):
    """Raw means flatter whoever leads: in simulated races, in units of the noise, by far more than what is expected."""
    rounds, rng, races = rounds_within(30), np.random.default_rng(6), np.arange(4000)
    true = rng.normal(0, apart, (4000, rounds[0].challengers))
    scores = np.concatenate([np.zeros((4000, 1)), true], 1)[:, :, None] + rng.standard_normal((4000, 8, 6))
    leader, _, _, _ = simulate_races(scores, rounds)
    mean, worth = scores[races, leader].mean(1), true[races, leader - 1]
    expected = without_luck(scores[:, 1:, :2], mean, 6)
    assert abs(np.mean(expected - worth)) < min(0.075, 0.5 * np.mean(mean - worth))
    assert run(rounds, scores[0]).expected == pytest.approx(expected[0])


def test_of_a_single_challenger_the_mean_is_expected():
    found = run((Round(1, 3),), np.array([[0.4, 0.4, 0.4], [0.5, 0.6, 0.7]]))
    assert found.expected == pytest.approx(0.6)


def test_a_clear_winner_wins_and_the_verdict_tells_means_of_all_its_runs():
    scores = np.array([[0.40, 0.42, 0.41], [0.50, 0.53, 0.52], [0.1, 0.1, 0.1]])
    found = run((Round(2, 2), Round(1, 1)), scores)
    assert found.winner == 1 and found.best is found.challengers[0]
    differences = [0.10, 0.11, 0.11]
    assert found.best.mean == pytest.approx(fmean(scores[1]))
    assert found.best.difference == pytest.approx(fmean(differences))
    reach = critical_value((Round(2, 2), Round(1, 1))) * stdev(differences) / math.sqrt(3)
    assert found.best.interval == pytest.approx((fmean(differences) - reach, fmean(differences) + reach))
    assert found.best.metrics["map50"] == pytest.approx(fmean(scores[1]) / 2)
    assert found.best.final["fitness"] == pytest.approx(fmean(scores[1]) / 4)
    assert [result.n for result in (found.base, *found.challengers)] == [3, 3, 2]
    assert found.seeds == (0, 1, 2)


def test_what_may_be_luck_leaves_the_base_and_says_how_many_seeds_would_settle_it():
    found = run((Round(1, 3),), np.array([[0.40, 0.45, 0.38], [0.44, 0.43, 0.46]]))
    assert found.winner is None and found.best is found.base
    assert found.leader.entrant == 1
    assert found.seeds_to_settle == seeds_to_settle(found.leader.difference, stdev([0.04, -0.02, 0.08]))


def test_a_noise_floor_steadies_the_interval_of_a_small_race():
    scores = np.array([[0.40, 0.45, 0.38], [0.54, 0.53, 0.56]])
    alone, helped = run((Round(1, 3),), scores), run((Round(1, 3),), scores, NoiseFloor(0.03, 40))
    sd = math.sqrt((2 * stdev([0.14, 0.08, 0.18]) ** 2 + 2 * 2 * 0.03**2) / 4)
    assert helped.leader.margin == pytest.approx(critical_value((Round(1, 3),), 2) * sd / math.sqrt(3))
    assert helped.leader.margin < alone.leader.margin


def test_nothing_is_better_than_the_base_where_its_leader_is_worse():
    found = run((Round(1, 3),), np.array([[0.5, 0.5, 0.6], [0.4, 0.5, 0.4]]))
    assert (found.winner, found.seeds_to_settle) == (None, None)


def test_trainings_without_any_noise_need_no_margin():
    found = run((Round(1, 3),), np.array([[0.5] * 3, [0.75] * 3]))
    assert found.winner == 1 and found.leader.interval == (0.25, 0.25)


def test_seeds_under_which_the_base_failed_make_no_pair():
    scores = np.array([[0.40, math.nan, 0.41, 0.40], [0.50, 0.9, 0.51, 0.52]])
    found = run((Round(1, 4),), scores)
    assert found.leader.difference == pytest.approx(fmean([0.1, 0.1, 0.12]))
    assert (found.base.n, found.base.failed) == (3, 1)
    assert found.leader.margin == pytest.approx(critical_value((Round(1, 3),)) * stdev([0.1, 0.1, 0.12]) / math.sqrt(3))


@pytest.mark.parametrize("broken", [[0], [1], [0, 1]])
def test_whoever_failed_does_not_win_and_without_a_base_nobody_does(broken):
    scores = np.array([[0.4, 0.41, 0.4], [0.5, 0.51, 0.52]])
    scores[broken] = math.nan
    found = run((Round(1, 3),), scores)
    assert found.winner is None and found.leader is None and found.seeds_to_settle is None


def test_a_challenger_that_failed_once_stands_last_whatever_else_it_did():
    scores = np.array([[0.4, 0.41, 0.4], [0.9, math.nan, 0.9], [0.5, 0.51, 0.52]])
    found = run((Round(2, 3),), scores)
    assert [result.entrant for result in found.challengers] == [2, 1]
    assert found.winner == 2
    assert (found.challengers[1].failed, found.challengers[1].difference) == (1, None)


def power(effect, seeds):
    """How often a paired t test, two-sided at 5 %, finds a difference of so many standard deviations."""
    return stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, effect * math.sqrt(seeds))


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0, 2.0])
def test_so_many_seeds_settle_it_in_eight_of_ten_cases(effect):
    seeds = seeds_to_settle(effect, 1.0)
    assert power(effect, seeds + 1) >= 0.8 > power(effect, seeds - 1)


def test_no_number_of_seeds_settles_what_is_not_better_or_hardly_so():
    assert seeds_to_settle(0.0, 1.0) is None
    assert seeds_to_settle(1e-3, 1.0) is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_rank_correlation_is_scipys(pairs):
    one, other = ([pair[i] for pair in pairs] for i in (0, 1))
    ours = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(stats.spearmanr(one, other).statistic)


def test_two_values_have_no_rank_correlation():
    assert rank_correlation([1, 2], [1, 2]) is None
