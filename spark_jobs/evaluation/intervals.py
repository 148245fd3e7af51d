"""95 % confidence intervals of metrics, each with the name of its method.

The usual methods (DeLong, bootstrap) estimate the variance of a metric from the rows that the model predicts wrong. If there are hardly
any, as with a perfect score, their interval has no width, which would pass for certainty. In these cases other methods are used, whose
width depends on the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
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
"""Numbers that differ by less count as equal."""
FEW_WRONG = 5
"""With fewer wrong rows than this, most bootstrap samples of the losses hold too few of them."""


class Interval(NamedTuple):
    """The ends of a 95 % interval and the name of the method that computed them."""

    low: float
    high: float
    method: str


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Computes the 95 % interval of a proportion by Wilson 1927; without trials it is 0 to 1."""
    if not trials:
        return 0.0, 1.0
    share, square = successes / trials, Z95**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    half = Z95 / (1 + square / trials) * np.sqrt(max(share * (1 - share), 0.0) / trials + square / (4 * trials**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def of_proportion(successes: float, trials: float) -> Interval:
    """Returns the interval of a proportion by Wilson 1927."""
    return Interval(*wilson(successes, trials), WILSON)


def is_inside(ends: tuple[float, float]) -> bool:
    """Returns whether both ends of an interval lie strictly between 0 and 1."""
    return ends[0] > ROUNDING and ends[1] < 1 - ROUNDING


def of_area_under_roc(area: float, negatives: Array, positives: Array) -> Interval:
    """Returns the interval of an area under the ROC curve: by DeLong, or by Newcombe if DeLong's would reach 0 or 1.

    Args:
        area: the area under the ROC curve.
        negatives: number of negatives of each margin, in ascending order of the margin; shape (margins,).
        positives: number of positives of each margin; shape (margins,).
    """
    half = Z95 * delong_deviation(negatives, positives)
    if is_inside((area - half, area + half)):
        return Interval(area - half, area + half, DELONG)
    return Interval(*newcombe(area, float(negatives.sum()), float(positives.sum())), NEWCOMBE)


def delong_deviation(negatives: Array, positives: Array) -> float:
    """Computes the standard deviation of an area under the ROC curve by DeLong, DeLong & Clarke-Pearson 1988.

    It follows from the variances of the placement values, in which a tie counts as one half. For the arguments see `of_area_under_roc`.
    """
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
    """Computes the 95 % interval of an area under the ROC curve by Newcombe 2006 (Statistics in Medicine 25:559), method 5.

    Each end is the area from which the measured area is 1.96 standard deviations away. The standard deviation is that at the end, by
    Hanley & McNeil 1982 with both counts replaced by their mean. So the interval has a width even for an area of 0 or 1, and stays
    between 0 and 1.
    """
    more = (n_negative + n_positive) / 2 - 1

    def is_too_far(other: float) -> bool:
        factor = 1 + more * ((1 - other) / (2 - other) + other / (1 + other))
        return (area - other) ** 2 > Z95**2 * other * (1 - other) * factor / (n_negative * n_positive)

    return _edge(is_too_far, 0.0, area), _edge(is_too_far, 1.0, area)


def _edge(is_too_far: Callable[[float], bool], outside: float, inside: float) -> float:
    """Finds the boundary between `outside`, where the condition holds, and `inside`, where it does not, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if is_too_far(middle) else (outside, middle)
    return inside


def of_f1(confusion: Array, drawn: tuple[float, float]) -> Interval:
    """Returns the interval of f1: by the bootstrap, or by Wilson if the bootstrap's reaches 0 or 1.

    f1 is 2 j / (1 + j), where j is the share of true positives among all rows that are positive or predicted positive. j is a proportion.

    Args:
        confusion: [[true negatives, false positives], [false negatives, true positives]].
        drawn: the 2.5 % and 97.5 % percentiles of the bootstrap samples.
    """
    if is_inside(drawn):
        return Interval(*drawn, BOOTSTRAP)
    (_, fp), (fn, tp) = confusion
    low, high = wilson(tp, tp + fp + fn)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high), WILSON_F1)


def of_share(value: float, trials: float, drawn: tuple[float, float], method: str) -> Interval:
    """Returns the interval of a metric between 0 and 1: by the bootstrap, or if that reaches 0 or 1, by Wilson as for a proportion.

    Args:
        value: the metric.
        trials: number of rows over which the metric is an average.
        drawn: the 2.5 % and 97.5 % percentiles of the bootstrap samples.
        method: name of the method if Wilson's interval is used.
    """
    if is_inside(drawn):
        return Interval(*drawn, BOOTSTRAP)
    return Interval(*wilson(value * trials, trials), method)


def of_lift(found: float, positives: float, rows: float, drawn: tuple[float, float]) -> Interval:
    """Returns the interval of the lift of the best-ranked tenth of the rows.

    It is the bootstrap's; if the tenth holds no positives, or as many as it can, that one is widened to Wilson's.

    Args:
        found: number of positives in the best-ranked tenth.
        positives: number of positives in all rows.
        rows: number of all rows.
        drawn: the 2.5 % and 97.5 % percentiles of the bootstrap samples.
    """
    most = min(rows / 10, positives)
    if ROUNDING < found < most - ROUNDING:
        return Interval(*drawn, BOOTSTRAP)
    low, high = (end * most * 10 / positives for end in wilson(min(found, most), most))
    if drawn[0] <= low and high <= drawn[1]:
        return Interval(*drawn, BOOTSTRAP)
    return Interval(min(low, drawn[0]), max(high, drawn[1]), WILSON_TENTH)


def of_losses(mean: float, rows: float, largest: float, wrong: float, usual: Interval) -> Interval:
    """Returns the interval of a mean loss: the usual one, or a wider one if hardly any row was predicted wrong.

    The wider one holds for any losses between 0 and the largest. Losses of a given mean vary most if each is either 0 or the largest
    (Bhatia & Davis 2000); the mean is then a proportion times the largest loss.

    Args:
        mean: mean of the rows' losses.
        rows: number of rows.
        largest: largest loss that is possible with the probabilities that the model gives.
        wrong: number of rows that were predicted wrong.
        usual: the interval to return if enough rows were predicted wrong.
    """
    if wrong >= FEW_WRONG or not largest:
        return usual
    low, high = wilson(mean / largest * rows, rows)
    return Interval(low * largest, high * largest, WILSON_LOSSES)


def bootstrap(
    rows: Array, metrics: Callable[[Array], Mapping[str, float]], samples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Computes 95 % percentile intervals of metrics from multinomial samples of the rows (Efron 1979).

    Args:
        rows: number of rows of each bin; shape (bins,).
        metrics: computes the metrics of sampled row counts.
        samples: number of samples. A sample in which a metric is not finite, as a class has no rows, is ignored for that metric.
        seed: seed of the random generator.

    Returns:
        By metric, the 2.5 % and 97.5 % percentiles.
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
