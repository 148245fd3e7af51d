"""95 % intervals, each with the name of its method, from counts.

The usual methods learn how far a number may be off from the rows that the model got wrong. Where there are hardly any, as with a perfect
score, they end in an interval of no width. There, others are used that learn from the number of rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
DELONG = "DeLong, DeLong & Clarke-Pearson 1988"
NEWCOMBE = "Newcombe 2006, method 5"
WILSON = "Wilson 1927"
BOOTSTRAP = "bootstrap percentiles, Efron 1979"
WILSON_F1 = "Wilson 1927 of the hits among the rows that are positive or predicted so"
WILSON_POSITIVES = "Wilson 1927 with the positives as trials (binomial interval, Boyd, Eng & Page 2013)"
WILSON_ROWS = "Wilson 1927 with the rows as trials"
WILSON_TENTH = "bootstrap percentiles, widened by Wilson 1927 of the positives in the best-ranked tenth"
WILSON_LOSSES = "Wilson 1927 with the largest variance of bounded losses (Bhatia & Davis 2000)"
ROUNDING = 1e-9
FEW_WRONG = 5
"""With fewer wrong rows than this, a bootstrap of the losses has too little to draw from."""


class Interval(NamedTuple):
    """The ends of a 95 % interval and the method that gave them."""

    low: float
    high: float
    method: str


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """The 95 % interval of a proportion, Wilson 1927; 0 to 1 where there is no trial."""
    if not trials:
        return 0.0, 1.0
    share, square = successes / trials, Z95**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    half = Z95 / (1 + square / trials) * np.sqrt(max(share * (1 - share), 0.0) / trials + square / (4 * trials**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def of_proportion(successes: float, trials: float) -> Interval:
    """The interval of a proportion."""
    return Interval(*wilson(successes, trials), WILSON)


def is_inside(ends: tuple[float, float]) -> bool:
    """Whether an interval reaches neither 0 nor 1."""
    return ends[0] > ROUNDING and ends[1] < 1 - ROUNDING


def of_area_under_roc(area: float, negatives: Array, positives: Array) -> Interval:
    """By DeLong, or by Newcombe where DeLong's would reach 0 or 1.

    Args:
        area: the area under ROC.
        negatives: rows of each margin, margins rising; shape (margins,).
        positives: the same for positives.
    """
    half = Z95 * delong_deviation(negatives, positives)
    if is_inside((area - half, area + half)):
        return Interval(area - half, area + half, DELONG)
    return Interval(*newcombe(area, float(negatives.sum()), float(positives.sum())), NEWCOMBE)


def delong_deviation(negatives: Array, positives: Array) -> float:
    """Standard deviation of the area under ROC by DeLong, DeLong & Clarke-Pearson 1988 (placement values, ties counted half)."""
    n_negative, n_positive = negatives.sum(), positives.sum()
    of_positives = (np.cumsum(negatives) - negatives / 2) / n_negative
    of_negatives = 1 - (np.cumsum(positives) - positives / 2) / n_positive
    return float(
        np.sqrt(_variance(of_positives, positives) / n_positive + _variance(of_negatives, negatives) / n_negative)
    )


def _variance(values: Array, counts: Array) -> float:
    n = counts.sum()
    if n < 2:
        return 0.0
    mean = np.dot(values, counts) / n
    return float(np.dot(counts, (values - mean) ** 2) / (n - 1))


def newcombe(area: float, n_negative: float, n_positive: float) -> tuple[float, float]:
    """The 95 % interval of an area under ROC by Newcombe 2006 (Statistics in Medicine 25:559), method 5.

    The ends are the areas whose own standard deviation, that of Hanley & McNeil 1982 with both counts replaced by their mean, makes the
    measured area lie 1.96 of them away. So the interval has a width even at 0 and 1, and stays between them.
    """
    more = (n_negative + n_positive) / 2 - 1

    def is_too_far(other: float) -> bool:
        factor = 1 + more * ((1 - other) / (2 - other) + other / (1 + other))
        return (area - other) ** 2 > Z95**2 * other * (1 - other) * factor / (n_negative * n_positive)

    return _edge(is_too_far, 0.0, area), _edge(is_too_far, 1.0, area)


def _edge(is_too_far: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where between two numbers the condition ends, by halving."""
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if is_too_far(middle) else (outside, middle)
    return inside


def of_f1(confusion: Array, drawn: tuple[float, float]) -> Interval:
    """By the bootstrap, or by Wilson where that reaches 0 or 1.

    f1 is 2 j / (1 + j), where j is the share of true positives among all rows that are positive or predicted so: a proportion.

    Args:
        confusion: [[true negatives, false positives], [false negatives, true positives]].
        drawn: the bootstrap's percentiles.
    """
    if is_inside(drawn):
        return Interval(*drawn, BOOTSTRAP)
    (_, fp), (fn, tp) = confusion
    low, high = wilson(tp, tp + fp + fn)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high), WILSON_F1)


def of_share(value: float, trials: float, drawn: tuple[float, float], method: str) -> Interval:
    """By the bootstrap, or where that reaches 0 or 1 as if the value were a share of so many trials.

    Args:
        value: from 0 to 1.
        trials: how many rows it is a kind of mean of.
        drawn: the bootstrap's percentiles.
        method: what Wilson's interval is called here.
    """
    if is_inside(drawn):
        return Interval(*drawn, BOOTSTRAP)
    return Interval(*wilson(value * trials, trials), method)


def of_lift(found: float, positives: float, rows: float, drawn: tuple[float, float]) -> Interval:
    """By the bootstrap, and wider where the best-ranked tenth holds no positive, or as many as it can.

    Args:
        found: positives in that tenth.
        positives: among all rows.
        rows: all rows.
        drawn: the bootstrap's percentiles.
    """
    most = min(rows / 10, positives)
    if ROUNDING < found < most - ROUNDING:
        return Interval(*drawn, BOOTSTRAP)
    low, high = (end * most * 10 / positives for end in wilson(min(found, most), most))
    if drawn[0] <= low and high <= drawn[1]:
        return Interval(*drawn, BOOTSTRAP)
    return Interval(min(low, drawn[0]), max(high, drawn[1]), WILSON_TENTH)


def of_losses(mean: float, rows: float, largest: float, wrong: float, usual: Interval) -> Interval:
    """The usual interval of a mean loss, and if hardly a row was predicted wrong, one for losses from 0 to the largest.

    A loss in that range varies most if it is always one end or the other (Bhatia & Davis 2000): a proportion, times the largest.

    Args:
        mean: of the rows' losses.
        rows: how many.
        largest: a row could have had with the probabilities that the model gives.
        wrong: rows that were predicted wrong.
        usual: the interval for more wrong rows.
    """
    if wrong >= FEW_WRONG or not largest:
        return usual
    low, high = wilson(mean / largest * rows, rows)
    return Interval(low * largest, high * largest, WILSON_LOSSES)


def bootstrap(
    rows: Array, metrics: Callable[[Array], Mapping[str, float]], samples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals over multinomial resamples of the rows.

    Args:
        rows: row counts of the cells; shape (cells,).
        metrics: metrics of resampled counts.
        samples: how many; one in which a class is missing is drawn again in effect by being left out.
        seed: of the generator.
    """
    generator = np.random.default_rng(seed)
    total = int(rows.sum())
    drawn: dict[str, list[float]] = {}
    for _ in range(samples):
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, value in metrics(generator.multinomial(total, rows / rows.sum()).astype(float)).items():
                drawn.setdefault(name, []).append(value)
    return {name: _percentiles(np.array(values)) for name, values in drawn.items()}


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)
