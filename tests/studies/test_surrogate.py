"""The Gaussian process, held against scikit-learn's, against formulas written the long way, and against differences."""

import math

import numpy as np
import pytest
from numpy.linalg import LinAlgError
from numpy.random import default_rng
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from studies import surrogate
from studies.surrogate import JITTER, Kernel, Surrogate, fit_kernel, inverted

Floats = NDArray[np.float64]
KERNEL = Kernel(np.array([2.0, 0.7, 0.1]), noise=0.05)


def drawn(n: int, d: int = 3, seed: int = 0) -> tuple[Floats, Floats]:
    rng = default_rng(seed)
    points = rng.random((n, d))
    return points, np.sin(4 * points[:, 0]) + points[:, 1] ** 2 + 0.1 * rng.standard_normal(n)


def covariance(a: Floats, b: Floats, kernel: Kernel) -> Floats:
    """Rasmussen and Williams, (4.17) and a length scale for each column, one pair of points at a time."""

    def of(x: Floats, y: Floats) -> float:
        r = math.dist(x * kernel.inverse_scales, y * kernel.inverse_scales)
        return (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)

    return np.array([[of(x, y) for y in b] for x in a])


def log_density(points: Floats, values: Floats, mean: float, variance: float, kernel: Kernel) -> float:
    """Of values under a normal distribution with this mean, and this variance times the covariance and its noise."""
    matrix = variance * (covariance(points, points, kernel) + (kernel.noise + JITTER) * np.eye(len(points)))
    rest = values - mean
    _, log_volume = np.linalg.slogdet(2 * np.pi * matrix)
    return float(-0.5 * rest @ np.linalg.solve(matrix, rest) - 0.5 * log_volume)


def test_predictions_are_those_of_the_textbook() -> None:
    points, values = drawn(12)
    at = drawn(5, seed=1)[0]
    noisy = covariance(points, points, KERNEL) + (KERNEL.noise + JITTER) * np.eye(12)
    between = covariance(at, points, KERNEL)
    ones = np.ones(12)
    mean = ones @ np.linalg.solve(noisy, values) / (ones @ np.linalg.solve(noisy, ones))
    variance = ((values - mean) @ np.linalg.solve(noisy, values - mean) + 1e-3) / 12
    expected = mean + between @ np.linalg.solve(noisy, values - mean)
    spread = variance * np.diag(covariance(at, at, KERNEL) - between @ np.linalg.solve(noisy, between.T))
    found, sd = Surrogate.of(points, values, KERNEL).predict(at)
    assert found == pytest.approx(expected, abs=1e-9)
    assert sd == pytest.approx(np.sqrt(spread), abs=1e-9)


def test_predictions_are_those_of_scikit_learn() -> None:
    points, values = drawn(30)
    at = drawn(20, seed=1)[0]
    model = Surrogate.of(points, values, KERNEL)
    theirs = GaussianProcessRegressor(
        Matern(1 / KERNEL.inverse_scales, nu=2.5), alpha=KERNEL.noise + JITTER, optimizer=None
    ).fit(points, values - model.mean)
    expected, sd = theirs.predict(at, return_std=True)
    assert model.predict(at)[0] == pytest.approx(model.mean + expected, abs=1e-8)
    assert model.predict(at)[1] == pytest.approx(sd * math.sqrt(model.variance), abs=1e-8)


def test_mean_and_variance_are_the_likeliest() -> None:
    points, values = drawn(15)
    model = Surrogate.of(points, values, KERNEL)
    best = log_density(points, values, model.mean, model.variance, KERNEL)
    for mean, variance in ((0.05, 1), (-0.05, 1), (0, 1.1), (0, 0.9)):
        assert log_density(points, values, model.mean + mean, model.variance * variance, KERNEL) < best


def test_far_from_all_points_it_knows_the_mean_only_and_at_a_point_without_noise_its_value() -> None:
    points, values = drawn(10)
    model = Surrogate.of(points, values, Kernel(np.full(3, 5.0), noise=1e-6))
    mean, sd = model.predict(np.full((1, 3), 100.0))
    assert mean == pytest.approx(model.mean)
    assert sd == pytest.approx(math.sqrt(model.variance))
    mean, sd = model.predict(points)
    assert mean == pytest.approx(values, abs=1e-3)
    assert (sd < 0.01 * math.sqrt(model.variance)).all()


def test_repeats_of_a_point_count_as_their_mean_with_less_noise() -> None:
    points, values = drawn(8)
    at = drawn(5, seed=1)[0]
    four = Surrogate.of(np.repeat(points, 4, axis=0), np.repeat(values, 4) + np.tile([-0.3, -0.1, 0.1, 0.3], 8), KERNEL)
    one = Surrogate.of(points, values, Kernel(KERNEL.inverse_scales, KERNEL.noise / 4))
    assert four.predict(at)[0] == pytest.approx(one.predict(at)[0], abs=1e-6)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    points, values = drawn(20)
    rng = default_rng(2)
    for _ in range(3):
        at = np.array([0.5, *0.5 * rng.standard_normal(3), -2.0 + rng.standard_normal()])
        found = surrogate._posterior(points, values, at)[1]
        for i, nudge in enumerate(1e-5 * np.eye(5)):
            up, down = (surrogate._posterior(points, values, at + sign * nudge)[0] for sign in (1, -1))
            assert found[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


def test_the_likelihood_is_the_textbooks_up_to_a_constant() -> None:
    points, values = drawn(20)

    def both(at: Floats) -> tuple[float, float]:
        kernel = Kernel(np.exp(at[0] + at[1:-1]), math.exp(at[-1]))
        model = Surrogate.of(points, values, kernel)
        direct = log_density(points, values, model.mean, model.variance, kernel)
        return direct, surrogate._posterior(points, values, at)[0]

    ours = np.array([both(np.array(at)) for at in ((0, 0, 0, 0, -2), (1, 0.5, -1, 0.3, -1), (-1, 1, 1, 0, -4))])
    assert ours[1:, 0] - ours[0, 0] == pytest.approx(ours[1:, 1] - ours[0, 1], abs=1e-2)  # 1e-3 keeps variance above 0


def test_a_column_that_does_not_matter_gets_a_long_scale() -> None:
    points, _ = drawn(60, d=6)
    values = np.sin(5 * points[:, 1]) + 0.01 * default_rng(1).standard_normal(60)
    scales = 1 / fit_kernel(points, values).inverse_scales
    others = np.delete(scales, 1)
    assert scales[1] < others.min() / 3


def test_noise_is_told_from_what_the_points_explain() -> None:
    points, _ = drawn(80)
    smooth, noise = np.sin(4 * points[:, 0]), default_rng(3).standard_normal(80)
    assert fit_kernel(points, smooth).noise < 0.02
    assert fit_kernel(points, smooth + 0.5 * noise).noise > 0.1
    assert fit_kernel(points, noise).noise > 0.3


def test_the_fitted_kernel_is_denser_than_the_prior_says_and_predicts_better() -> None:
    points, values = drawn(60)
    at, truth = drawn(200, seed=5)
    prior = Kernel(np.full(3, 3**-0.5), surrogate.NOISE[0])
    errors = [
        np.mean((Surrogate.of(points, values, kernel).predict(at)[0] - truth) ** 2)
        for kernel in (fit_kernel(points, values), prior)
    ]
    assert errors[0] < errors[1]


def test_the_same_numbers_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    climbs = []
    climb = surrogate._climb
    monkeypatch.setattr(surrogate, "_climb", lambda *told: climbs.append(1) or climb(*told))
    points, values = drawn(10, seed=77)
    first = fit_kernel(points, values)
    assert fit_kernel(points.copy(), values.copy()) is first
    assert len(climbs) == 1
    assert fit_kernel(points, values[::-1].copy()) is not first
    assert len(climbs) == 2


def test_a_covariance_that_is_none_is_said_to_be_so_and_ends_the_climb() -> None:
    points, values = drawn(5)
    with pytest.raises(LinAlgError):
        Surrogate.of(points, values, Kernel(np.ones(3), noise=-2.0))
    nowhere = np.full_like(points, np.nan)
    assert np.isfinite(fit_kernel(nowhere, values).inverse_scales).all()  # what the priors say


@pytest.mark.parametrize("values", [np.zeros(6), np.array([0, 0, 0, 0, 0, 1e12]), np.full(6, -3.0)])
def test_whatever_the_values_are_predictions_are_finite(values: Floats) -> None:
    points, _ = drawn(6)
    for told in (points, np.repeat(points[:1], 6, axis=0)):
        mean, sd = Surrogate.of(told, values, fit_kernel(told, values)).predict(points)
        assert np.isfinite(mean).all()
        assert (sd > 0).all()


@pytest.mark.parametrize("n", [1, 2, 48, 49, 97, 250])
def test_the_inverse_by_halves_is_the_inverse(n: int) -> None:
    lower = np.tril(default_rng(n).standard_normal((n, n)) / n) + np.eye(n)
    found = inverted(lower)
    assert np.abs(found @ lower - np.eye(n)).max() < 1e-12
    assert not np.triu(found, 1).any()
