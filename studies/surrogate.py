"""A small Gaussian process: what the trials so far say of a hyp that nobody has trained. Pure numpy.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1 and section 5.4.1: a Matern 5/2
kernel with a length scale for each column, a constant mean and homoscedastic noise. The scales and the noise are those
of the highest posterior density under broad log-normal priors, found by Adam on the exact gradient; the mean and the
variance of the process are profiled out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Reals = NDArray[np.floating[Any]]  # as numpy.linalg has them

JITTER = 1e-8
STEPS = 30
RATE = 0.15  # of Adam, in log units
LEAF = 48  # rows of a matrix that is too small to be halved

# Log-normal priors: medians, and standard deviations of the logarithms. The median scale grows with the diagonal of the
# cube: with more columns points lie further apart.
SCALE_SD = 1.5  # of all scales together
COLUMN_SD = 1.0  # of each column's against the common one: how sure we are that all columns matter alike
NOISE = (0.1, 1.5)  # relative to the variance of the process; to know it better from repeats helped nothing


@dataclass(frozen=True)
class Kernel:
    """Inverse length scales [d] of the columns, and the noise's variance relative to that of the process."""

    inverse_scales: Floats
    noise: float


@dataclass(frozen=True)
class Surrogate:
    """A process conditioned on points and their values; `Surrogate.of` makes it."""

    kernel: Kernel
    points: Floats
    mean: float
    variance: float
    weights: Floats
    whitener: Reals  # inverse of the Cholesky factor [n, n] of the points' covariance

    @classmethod
    def of(cls, points: Floats, values: Floats, kernel: Kernel) -> Surrogate:
        """Condition on values [n] at points [n, d]. Raises LinAlgError where these cannot be told apart."""
        scaled = points * kernel.inverse_scales
        covariance, _ = _matern(_squared(scaled, scaled))
        covariance[np.diag_indices(len(points))] += kernel.noise + JITTER
        factor = np.linalg.cholesky(covariance)
        whitener = inverted(factor)
        ones, white = whitener.sum(axis=1), whitener @ values
        mean = float(ones @ white / (ones @ ones))
        rest = white - mean * ones
        variance = max(float(rest @ rest + 1e-3) / len(points), 1e-6)
        return cls(kernel, scaled, mean, variance, whitener.T @ rest, whitener)

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean [m] and standard deviation [m] of the value, without its noise, at points [m, d]."""
        between, _ = _matern(_squared(points * self.kernel.inverse_scales, self.points))
        spread = 1 - np.square(between @ self.whitener.T).sum(axis=1)
        return self.mean + between @ self.weights, np.sqrt(np.maximum(spread, 1e-9) * self.variance)


def inverted(lower: Reals) -> Reals:
    """The inverse of a lower triangular matrix [n, n] with no 0 on its diagonal.

    By halves, which is a quarter of the work of numpy's: that knows of no zeros.
    """
    n = len(lower)
    if n <= LEAF:
        return np.linalg.inv(lower)
    half = n // 2
    found = np.zeros_like(lower)
    found[:half, :half] = first = inverted(lower[:half, :half])
    found[half:, half:] = second = inverted(lower[half:, half:])
    found[half:, :half] = -second @ (lower[half:, :half] @ first)
    return found


def fit_kernel(points: Floats, values: Floats) -> Kernel:
    """The kernel that explains values [n] at points [n, d] best.

    Asked again with the same numbers it answers from memory.
    """
    return _fitted(points.shape, points.tobytes(), values.tobytes())


@lru_cache(maxsize=8)
def _fitted(shape: tuple[int, int], points: bytes, values: bytes) -> Kernel:
    return _climb(np.frombuffer(points).reshape(shape), np.frombuffer(values))


def _climb(points: Floats, values: Floats) -> Kernel:
    """Adam on the log posterior of (log common inverse scale, log columns' shares, log noise); the best point seen."""
    d = points.shape[1]
    centre = np.array([-0.5 * np.log(d), *np.zeros(d), np.log(NOISE[0])])
    sd = np.array([SCALE_SD, *np.full(d, COLUMN_SD), NOISE[1]])
    at, first, second = centre.copy(), np.zeros(d + 2), np.zeros(d + 2)
    best, best_density = centre, -np.inf
    for step in range(1, STEPS + 1):
        try:
            density, gradient = _posterior(points, values, at)
        except LinAlgError:
            break
        density -= 0.5 * float(np.square((at - centre) / sd).sum())
        if density > best_density:
            best, best_density = at, density
        gradient -= (at - centre) / sd**2
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        at = at + RATE * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-9)
    return Kernel(np.exp(best[0] + best[1:-1]), float(np.exp(best[-1])))


def _posterior(points: Floats, values: Floats, at: Floats) -> tuple[float, Floats]:
    """Log likelihood, up to a constant, and its gradient [d + 2]; mean and variance of the process profiled out."""
    n = len(points)
    scaled = points * np.exp(at[0] + at[1:-1])
    covariance, slope = _matern(_squared(scaled, scaled))
    noise = float(np.exp(at[-1]))
    covariance[np.diag_indices(n)] += noise + JITTER
    factor = np.linalg.cholesky(covariance)
    whitener = inverted(factor)
    inverse = whitener.T @ whitener
    sums = inverse.sum(axis=1)
    rest = values - (sums @ values) / sums.sum()
    weights = inverse @ rest
    variance = max(float(rest @ weights + 1e-3) / n, 1e-6)
    likelihood = -0.5 * n * np.log(variance) - float(np.log(np.diag(factor)).sum())
    lever = np.outer(weights, weights) / variance - inverse
    pull = lever * slope
    columns = (pull @ scaled * scaled).sum(axis=0) - (pull.sum(axis=1)[:, None] * scaled * scaled).sum(axis=0)
    return likelihood, np.array([columns.sum(), *columns, 0.5 * noise * float(np.trace(lever))])


def _matern(squared: Floats) -> tuple[Floats, Floats]:
    """Matern 5/2 of squared distances, and minus its slope by the logarithm of a distance, over distance squared."""
    r = np.sqrt(5 * squared)
    decay = np.exp(-r)
    return (1 + r + r * r / 3) * decay, 5 / 3 * (1 + r) * decay


def _squared(a: Floats, b: Floats) -> Floats:
    """Squared distances [n, m] of rows."""
    distances = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    nonnegative: Floats = np.maximum(distances, 0.0)
    return nonnegative
