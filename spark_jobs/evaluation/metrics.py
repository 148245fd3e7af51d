"""The metrics of a classifier and their 95 % intervals, computed from counts of predictions.

Spark counts the test rows in bins: rows with the same label, the same predicted label and nearly the same log-odds (margin) fall into the
same bin. So a table of any size becomes a few thousand counts, and these functions need numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from spark_jobs.evaluation import intervals
from spark_jobs.evaluation.intervals import Array, Interval, wilson

CURVE_POINTS = 200
"""Largest number of points of a curve in evaluation.json and the report."""
SMALLEST = 1e-15
"""Lower bound of a probability in logLoss, the default of Spark's MulticlassClassificationEvaluator (`eps`)."""


@dataclass(frozen=True)
class PredictionCounts:
    """Counts of the predictions of two classes, sorted by margin; every attribute has the shape (bins,).

    Attributes:
        margin: log-odds of the positive class, rounded to 0.001.
        positive: whether the rows of the bin are positive.
        predicted: whether they are predicted positive.
        rows: number of rows.
        log_loss: sum over the rows of -ln(probability of the row's own class).
        squared_error: sum over the rows of (probability - label)^2.
        probability: sum over the rows of the probability of the positive class.
        clipped: number of rows whose own class has a probability below `SMALLEST`.
    """

    margin: Array
    positive: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.bool_]
    rows: Array
    log_loss: Array
    squared_error: Array
    probability: Array
    clipped: Array

    def by_margin(self, rows: Array | None = None) -> tuple[Array, Array, Array]:
        """Sums the rows by margin.

        Args:
            rows: other row counts for the same bins, for a bootstrap sample; shape (bins,).

        Returns:
            The distinct margins in ascending order, the negatives and the positives of each; shape (margins,) each.
        """
        rows = self.rows if rows is None else rows
        margins, place = np.unique(self.margin, return_inverse=True)
        negatives = np.bincount(place, weights=np.where(self.positive, 0.0, rows), minlength=len(margins)).astype(float)
        positives = np.bincount(place, weights=np.where(self.positive, rows, 0.0), minlength=len(margins)).astype(float)
        return margins, negatives, positives


def merge_counts(parts: Sequence[PredictionCounts]) -> PredictionCounts:
    """Adds up the counts of several groups of rows."""
    one = {item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(PredictionCounts)}
    order = np.lexsort((one["predicted"], one["positive"], one["margin"]))
    keys = np.stack([one[name][order].astype(float) for name in ("margin", "positive", "predicted")])
    first = np.flatnonzero(np.any(np.diff(keys, prepend=np.nan) != 0, axis=0))
    names = ("margin", "positive", "predicted")
    return PredictionCounts(
        **{name: one[name][order][first] for name in names},
        **{name: np.add.reduceat(values[order], first) for name, values in one.items() if name not in names},
    )


def leave_each_out(
    parts: Sequence[int], metrics: Callable[[list[int]], Mapping[str, float]]
) -> dict[str, list[float | None]]:
    """Computes every metric without the first group of rows, without the second group, and so on.

    From these values of two models, the variance of the difference of the models on the same rows can be estimated (the delete-a-group
    jackknife, Kott 2001).

    Args:
        parts: the indices of the groups.
        metrics: computes the metrics of the rows of some groups, given by their indices.

    Returns:
        By metric, one value for each group that is left out; None if a class has no rows without that group. Empty if there are fewer
        than two groups.
    """
    found: dict[str, list[float | None]] = {}
    for left_out in parts if len(parts) > 1 else ():
        with np.errstate(divide="ignore", invalid="ignore"):
            point = metrics([part for part in parts if part != left_out])
        for name, value in point.items():
            found.setdefault(name, []).append(float(value) if np.isfinite(value) else None)
    return found


def area_under_roc(negatives: Array, positives: Array) -> float:
    """Computes the area under the ROC curve: the probability that a random positive has a larger margin than a random negative.

    A tie counts as one half.

    Args:
        negatives: number of negatives of each margin, in ascending order of the margin; shape (margins,).
        positives: number of positives of each margin; shape (margins,).
    """
    below = np.cumsum(negatives) - negatives / 2
    return float(np.dot(positives, below) / (positives.sum() * negatives.sum()))


def roc_curve(negatives: Array, positives: Array) -> tuple[Array, Array]:
    """Returns the false and the true positive rates for falling thresholds, from (0, 0) to (1, 1); shape (margins + 1,) each."""
    false = np.concatenate([[0.0], np.cumsum(negatives[::-1])]) / negatives.sum()
    true = np.concatenate([[0.0], np.cumsum(positives[::-1])]) / positives.sum()
    return false, true


def precision_recall_curve(negatives: Array, positives: Array) -> tuple[Array, Array]:
    """Returns recall and precision for falling thresholds.

    As in Spark, the curve begins at recall 0 with the precision of the first threshold.
    """
    true = np.cumsum(positives[::-1])
    predicted = true + np.cumsum(negatives[::-1])
    any_rows = predicted > 0
    recall, precision = true[any_rows] / positives.sum(), true[any_rows] / predicted[any_rows]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def area_under_pr(negatives: Array, positives: Array) -> float:
    """Computes the area under `precision_recall_curve` by trapezoids, as Spark's BinaryClassificationEvaluator does with all points."""
    recall, precision = precision_recall_curve(negatives, positives)
    return float(np.trapezoid(precision, recall))


def lift_top_decile(negatives: Array, positives: Array) -> float:
    """Computes the share of positives in the tenth of the rows with the largest margins, divided by their share in all rows."""
    return float(gains(negatives, positives)[0] / (positives.sum() / 10))


def gains(negatives: Array, positives: Array) -> Array:
    """Returns the positives in each tenth of the rows, in descending order of the margin; shape (10,).

    If a boundary falls between rows of the same margin, their positives are divided in proportion.
    """
    rows = np.concatenate([[0.0], np.cumsum((negatives + positives)[::-1])])
    found = np.concatenate([[0.0], np.cumsum(positives[::-1])])
    return np.diff(np.interp(np.linspace(0, rows[-1], 11), rows, found))


def rates(confusion: Array) -> dict[str, float]:
    """Computes accuracy, precision, recall and f1 of two classes; a quotient without a denominator is 0.

    Args:
        confusion: [[true negatives, false positives], [false negatives, true positives]].
    """
    (tn, fp), (fn, tp) = confusion
    return {
        "accuracy": float((tn + tp) / confusion.sum()),
        "precision": float(tp / (tp + fp)) if tp + fp else 0.0,
        "recall": float(tp / (tp + fn)) if tp + fn else 0.0,
        "f1": float(2 * tp / (2 * tp + fp + fn)) if 2 * tp + fp + fn else 0.0,
    }


def confusion_of(counts: PredictionCounts, rows: Array | None = None) -> Array:
    """Returns the confusion matrix: number of rows by actual (row) and predicted (column) class; shape (2, 2)."""
    rows = counts.rows if rows is None else rows
    return np.bincount(2 * counts.positive + counts.predicted, weights=rows, minlength=4).reshape(2, 2).astype(float)


def binary_estimates(counts: PredictionCounts, rows: Array | None = None) -> dict[str, float]:
    """Computes every metric of two classes, without intervals.

    Args:
        counts: the counts of predictions.
        rows: other row counts for the same bins, for a bootstrap sample; shape (bins,).
    """
    rows = counts.rows if rows is None else rows
    _, negatives, positives = counts.by_margin(rows)
    scale = rows / counts.rows
    return {
        "areaUnderROC": area_under_roc(negatives, positives),
        "areaUnderPR": area_under_pr(negatives, positives),
        **rates(confusion_of(counts, rows)),
        "logLoss": float(np.dot(scale, counts.log_loss) / rows.sum()),
        "brierScore": float(np.dot(scale, counts.squared_error) / rows.sum()),
        "liftTopDecile": lift_top_decile(negatives, positives),
    }


def binary_metrics(counts: PredictionCounts, samples: int) -> list[dict[str, Any]]:
    """Computes every metric of two classes with its 95 % interval.

    Args:
        counts: the counts of predictions.
        samples: number of bootstrap samples.

    Returns:
        One row per metric: `name`, `value`, `low`, `high` and `interval`, the name of the interval's method.
    """
    point = binary_estimates(counts)
    found = binary_intervals(
        counts, point, intervals.bootstrap(counts.rows, lambda rows: binary_estimates(counts, rows), samples)
    )
    return metric_rows(point, found)


def binary_intervals(
    counts: PredictionCounts, point: Mapping[str, float], drawn: Mapping[str, tuple[float, float]]
) -> dict[str, Interval]:
    """Computes the 95 % intervals of the metrics of two classes.

    Args:
        counts: the counts of predictions.
        point: the metrics.
        drawn: the 2.5 % and 97.5 % percentiles of their bootstrap samples.
    """
    _, negatives, positives = counts.by_margin()
    confusion = confusion_of(counts)
    (tn, fp), (fn, tp) = confusion
    rows, n_positive = confusion.sum(), positives.sum()
    area_pr = intervals.of_share(point["areaUnderPR"], n_positive, drawn["areaUnderPR"], intervals.WILSON_POSITIVES)
    return {
        "areaUnderROC": intervals.of_area_under_roc(point["areaUnderROC"], negatives, positives),
        "areaUnderPR": area_pr,
        "accuracy": intervals.of_proportion(tn + tp, rows),
        "precision": intervals.of_proportion(tp, tp + fp),
        "recall": intervals.of_proportion(tp, tp + fn),
        "f1": intervals.of_f1(confusion, drawn["f1"]),
        **{
            name: intervals.of_losses(point[name], rows, largest, fp + fn, Interval(*drawn[name], intervals.BOOTSTRAP))
            for name, largest in largest_losses(counts).items()
        },
        "liftTopDecile": intervals.of_lift(gains(negatives, positives)[0], n_positive, rows, drawn["liftTopDecile"]),
    }


def largest_losses(counts: PredictionCounts) -> dict[str, float]:
    """Returns the largest possible loss of a row with these predictions: the one of the surest prediction, if that were wrong."""
    surest = float(np.abs(counts.margin).max())
    wrong = max(float(np.exp(-np.logaddexp(0.0, surest))), SMALLEST)
    return {"logLoss": -float(np.log(wrong)), "brierScore": (1 - wrong) ** 2}


def metric_rows(point: Mapping[str, float], found: Mapping[str, Interval]) -> list[dict[str, Any]]:
    """Returns the metrics and their intervals in the form of evaluation.json."""
    return [
        {"name": name, "value": value, "low": found[name].low, "high": found[name].high, "interval": found[name].method}
        for name, value in point.items()
    ]


def clipping(clipped: float, rows: float) -> dict[str, float]:
    """Returns how many rows had a probability of their own class below `SMALLEST`, and how much of logLoss they are."""
    return {"rows": clipped, "smallest": SMALLEST, "of_log_loss": float(-np.log(SMALLEST) * clipped / rows)}


def choose_threshold(counts: Array, rule: str) -> float:
    """Chooses the decision threshold that is best on the counted rows; of equally good ones the smallest.

    Args:
        counts: shape (bins + 1, 2): row k counts the negatives and the positives with a probability above k / bins and not above
            (k + 1) / bins.
        rule: `max_f1`, `max_accuracy`, `youden` (largest true positive rate minus false positive rate, Youden 1950) or `half` (0.5).
    """
    bins = len(counts) - 1
    if rule == "half":
        return 0.5
    above = np.cumsum(counts[::-1], axis=0)[::-1]
    fp, tp = above[:, 0], above[:, 1]
    negatives, positives = counts.sum(axis=0)
    value = {
        "max_f1": 2 * tp / np.maximum(tp + fp + positives, 1),
        "max_accuracy": (tp + negatives - fp) / (negatives + positives),
        "youden": tp / max(positives, 1) - fp / max(negatives, 1),
    }[rule]
    return int(np.argmax(value[:bins])) / bins


def thin_curve(*columns: Array, points: int = CURVE_POINTS) -> list[list[float]]:
    """Selects at most `points` points of a curve, including its first and last."""
    chosen = np.unique(np.linspace(0, len(columns[0]) - 1, points).round().astype(int))
    return [list(map(float, point)) for point in zip(*(column[chosen] for column in columns), strict=True)]


def logistic(margin: Array) -> Array:
    """Computes 1 / (1 + exp(-margin)) by the hyperbolic tangent, which does not overflow."""
    return np.asarray(0.5 * (1 + np.tanh(margin / 2)))


def calibration(probability: Array, negatives: Array, positives: Array, groups: int = 10) -> list[dict[str, float]]:
    """Compares the mean predicted probability with the observed share of positives, in groups of about equal weight.

    Args:
        probability: the distinct probabilities in ascending order; shape (margins,).
        negatives: weight of the negatives of each probability; shape (margins,).
        positives: weight of the positives of each probability; shape (margins,).
        groups: largest number of groups.

    Returns:
        One row per group: `predicted`, `observed`, the ends of its 95 % interval `low` and `high`, and `rows`.
    """
    weight = negatives + positives
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    place = np.minimum((middle * groups).astype(int), groups - 1)
    found = []
    for group in np.unique(place):
        here = place == group
        rows, hits = weight[here].sum(), positives[here].sum()
        low, high = wilson(hits, rows)
        predicted = float(np.dot(probability[here], weight[here]) / rows)
        found.append(
            {"predicted": predicted, "observed": float(hits / rows), "low": low, "high": high, "rows": float(rows)}
        )
    return found


def multiclass_estimates(confusion: Array) -> dict[str, float]:
    """Computes accuracy and the weighted precision, recall and f1 of any number of classes, as Spark's evaluator defines them.

    Args:
        confusion: number of rows by actual (row) and predicted (column) class; shape (classes, classes).
    """
    actual = confusion.sum(axis=1)
    each = per_class(confusion)
    weight = actual / actual.sum()
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "weightedPrecision": float(np.dot(weight, each["precision"])),
        "weightedRecall": float(np.dot(weight, each["recall"])),
        "f1": float(np.dot(weight, each["f1"])),
    }


def per_class(confusion: Array) -> dict[str, Array]:
    """Computes precision, recall and f1 of each class; 0 for a class without rows or predictions; shape (classes,) each."""
    # The tiny denominator only avoids a division by zero; the last factor sets these quotients to 0.
    hit, actual, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "precision": hit / np.maximum(predicted, 1e-300) * (predicted > 0),
        "recall": hit / np.maximum(actual, 1e-300) * (actual > 0),
        "f1": 2 * hit / np.maximum(actual + predicted, 1e-300) * (actual + predicted > 0),
    }
