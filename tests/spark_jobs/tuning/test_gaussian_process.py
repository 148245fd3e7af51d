"""Bayesian optimisation on functions whose smallest value is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from spark_jobs.tuning.gaussian_process import Array, expected_improvement, fit_process, matern, most_promising


def branin(point: Array) -> float:
    """The Branin function on the unit square; its smallest value is 0.398."""
    x, y = 15 * point[0] - 5, 15 * point[1]
    curve = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return float(curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def smallest_found(seed: int, trials: int, *, learns: bool) -> float:
    generator = np.random.default_rng(seed)
    points = list(generator.random((6, 2)))
    while len(points) < trials:
        losses = np.array([branin(point) for point in points])
        points.append(most_promising(np.array(points), losses, generator) if learns else generator.random(2))
    return min(branin(point) for point in points)


def test_it_finds_the_minimum_where_as_many_random_points_do_not() -> None:
    seeds = range(3)
    learnt, random = ([smallest_found(seed, 25, learns=learns) for seed in seeds] for learns in (True, False))
    assert max(learnt) < 0.5
    assert min(random) > max(learnt)


def test_the_kernel_is_that_of_the_book() -> None:
    gap = 0.3 / 0.7  # equation 4.17 of Rasmussen & Williams with r = 0.3 and l = 0.7
    expected = (1 + math.sqrt(5) * gap + 5 * gap**2 / 3) * math.exp(-math.sqrt(5) * gap)
    assert matern(np.array([[0.1]]), np.array([[0.4]]), np.array([0.7]))[0, 0] == pytest.approx(expected)


def test_a_process_knows_the_losses_of_its_points_and_little_far_from_them() -> None:
    points, losses = np.array([[0.1], [0.2], [0.3], [0.4]]), np.array([-1.0, 1.0, 1.0, -1.0])
    process = fit_process(points, losses, np.random.default_rng(1))
    mean, deviation = process.predict(np.array([[0.2], [1.0]]))
    assert mean[0] == pytest.approx(1.0, abs=0.15)
    assert deviation[0] < deviation[1]


@pytest.mark.parametrize("best", [-1.0, 0.0, 2.0])
def test_the_expected_improvement_is_the_mean_of_what_is_drawn(best: float) -> None:
    drawn = np.random.default_rng(5).normal(0.5, 0.8, 400_000)
    expected = np.maximum(best - drawn, 0.0).mean()
    assert expected_improvement(np.array([0.5]), np.array([0.8]), best)[0] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [0.0, 1e9, -1e9]])
def test_equal_and_huge_losses_give_a_point_in_the_cube(losses: Any) -> None:
    points = np.array([[0.1, 0.1], [0.1, 0.1], [0.9, 0.9]])
    found = most_promising(points, np.array(losses), np.random.default_rng(1))
    assert np.all((found >= 0) & (found <= 1))
