"""Bayesian optimisation: a Gaussian process learns the loss from the trials so far, and the next one has the largest expected improvement.

Optuna's own sampler of this kind needs torch, which is larger than Spark; some ten to some hundred trials need a few matrices only.
scikit-learn's GaussianProcessRegressor is no better by the median regret on Branin, Hartmann 3 and two bowls (20 trials, 8 seeds), takes
three to seven times as long, and starts 3 s later. Points lie in the unit cube.

Sources: Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1 and equation 4.17 (Matern 5/2); Jones, Schonlau &
Welch 1998, Efficient Global Optimization of Expensive Black-Box Functions, equation 15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
KERNELS = 64
"""Number of kernels that are drawn, of which the most likely one is taken."""
NOISES = (1e-6, 1e-3, 1e-1)
"""Variances of the noise that are compared, as shares of the variance of the loss."""
CANDIDATES = 2000
"""Number of points of which the most promising one is tried: half of them anywhere, half of them near the best so far."""


@dataclass(frozen=True)
class Process:
    """A Gaussian process that has seen some points.

    Attributes:
        points: shape (points, dimensions).
        scales: the distance in each dimension over which the loss changes.
        factor: Cholesky factor of the points' covariances; shape (points, points).
        weights: inverse of the covariances times the losses.
    """

    points: Array
    scales: Array
    factor: Array
    weights: Array

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Returns the mean and the standard deviation of the loss at other points."""
        across = matern(points, self.points, self.scales)
        spread = np.linalg.solve(self.factor, across.T)
        return across @ self.weights, np.sqrt(np.maximum(1.0 - np.sum(spread**2, axis=0), 1e-12))


def matern(one: Array, other: Array, scales: Array) -> Array:
    """Returns the covariances of points by the Matern kernel 5/2; shape (points of one, points of the other)."""
    gaps = (one[:, None, :] - other[None, :, :]) / scales
    distance = np.sqrt(5.0 * np.sum(gaps**2, axis=2))
    return np.asarray((1.0 + distance + distance**2 / 3.0) * np.exp(-distance))


def fit_process(points: Array, losses: Array, generator: np.random.Generator) -> Process:
    """Fits a process: of some kernels and noises, that with the largest marginal likelihood.

    Args:
        points: shape (points, dimensions).
        losses: with the mean 0 and the standard deviation 1.
        generator: draws the kernels.
    """
    dimensions = points.shape[1]
    scales: Array = np.exp(generator.uniform(math.log(0.1), math.log(3.0), (KERNELS, dimensions)))
    scales[: KERNELS // 4] = scales[
        : KERNELS // 4, :1
    ]  # some have one scale for all dimensions, as few points can tell no more
    best, found = -math.inf, None
    for each in scales:
        covariances = matern(points, points, each)
        for noise in NOISES:
            factor: Array = np.linalg.cholesky(covariances + noise * np.eye(len(points)))
            half = np.linalg.solve(factor, losses)
            likelihood = -0.5 * float(half @ half) - float(np.sum(np.log(np.diag(factor))))
            if likelihood > best:
                best, found = likelihood, Process(points, each, factor, np.linalg.solve(factor.T, half))
    assert found
    return found


def most_promising(points: Array, losses: Array, generator: np.random.Generator) -> Array:
    """Returns the point with the largest expected improvement over the smallest loss; shape (dimensions,).

    Args:
        points: the points that were tried, at least one; shape (points, dimensions).
        losses: their losses; shape (points,).
        generator: draws the kernels and the candidates.
    """
    scaled = (losses - losses.mean()) / (losses.std() or 1.0)
    process = fit_process(points, scaled, generator)
    near = points[np.argmin(losses)] + generator.normal(0.0, 0.05, (CANDIDATES // 2, points.shape[1]))
    candidates = np.vstack([generator.random((CANDIDATES // 2, points.shape[1])), np.clip(near, 0.0, 1.0)])
    mean, deviation = process.predict(candidates)
    return np.asarray(candidates[np.argmax(expected_improvement(mean, deviation, float(scaled.min())))])


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Returns by how much the loss at each point is expected to fall below the best one."""
    z = (best - mean) / deviation
    cumulated = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in z])
    density = np.exp(-(z**2) / 2.0) / math.sqrt(2.0 * math.pi)
    return np.asarray(deviation * (z * cumulated + density))
