"""How good a classifier is: numbers and their 95 % intervals, computed from counts.

Nothing here reads a table: `evaluate` counts rows in cells, and these functions turn the counts into metrics. A cell is one label, one
predicted label and one small range of the margin, so a table of any size becomes a few thousand cells.
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
SMALLEST = 1e-15
"""Probabilities below this count as this in logLoss, as in Spark's evaluator."""


@dataclass(frozen=True)
class Cells:
    """Counted predictions of two classes, one entry for each cell, sorted by margin.

    Attributes:
        margin: log-odds of the positive class, the same for all rows of a cell to 0.001.
        positive: whether the cell's rows are positive.
        predicted: whether they are predicted positive.
        rows: how many rows.
        log_loss: sum over the rows of -ln(probability of the row's own class).
        squared_error: sum over the rows of (probability - label)^2.
        probability: sum over the rows of the positive class's probability.
        clipped: how many rows have a probability of their own class below `SMALLEST`.
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
        """Distinct margins, rising, with their negatives and positives; shape (margins,) each."""
        rows = self.rows if rows is None else rows
        margins, place = np.unique(self.margin, return_inverse=True)
        negatives = np.bincount(place, weights=np.where(self.positive, 0.0, rows), minlength=len(margins)).astype(float)
        positives = np.bincount(place, weights=np.where(self.positive, rows, 0.0), minlength=len(margins)).astype(float)
        return margins, negatives, positives


def merged(parts: Sequence[Cells]) -> Cells:
    """The cells of all rows, from those of their parts."""
    one = {item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Cells)}
    order = np.lexsort((one["predicted"], one["positive"], one["margin"]))
    keys = np.stack([one[name][order].astype(float) for name in ("margin", "positive", "predicted")])
    first = np.flatnonzero(np.any(np.diff(keys, prepend=np.nan) != 0, axis=0))
    names = ("margin", "positive", "predicted")
    return Cells(
        **{name: one[name][order][first] for name in names},
        **{name: np.add.reduceat(values[order], first) for name, values in one.items() if name not in names},
    )


def without_each(
    parts: Sequence[int], metrics: Callable[[list[int]], Mapping[str, float]]
) -> dict[str, list[float | None]]:
    """Each metric without the first part of the rows, without the second, and so on.

    How much they differ between two models, part by part, tells how far chance moves the difference of the models on the same rows
    (the delete-a-group jackknife, Kott 2001).

    Args:
        parts: the numbers of the parts.
        metrics: of the rows of the parts that are kept.

    Returns:
        A list of one number for each part, None where a class is missing without it; empty where there are fewer than two parts.
    """
    found: dict[str, list[float | None]] = {}
    for left_out in parts if len(parts) > 1 else ():
        with np.errstate(divide="ignore", invalid="ignore"):
            point = metrics([part for part in parts if part != left_out])
        for name, value in point.items():
            found.setdefault(name, []).append(float(value) if np.isfinite(value) else None)
    return found


def area_under_roc(negatives: Array, positives: Array) -> float:
    """Probability that a random positive has a larger margin than a random negative, ties counted half.

    Args:
        negatives: rows of each margin, margins rising; shape (margins,).
        positives: the same for positives.
    """
    below = np.cumsum(negatives) - negatives / 2
    return float(np.dot(positives, below) / (positives.sum() * negatives.sum()))


def roc_curve(negatives: Array, positives: Array) -> tuple[Array, Array]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1); shape (margins + 1,) each."""
    false = np.concatenate([[0.0], np.cumsum(negatives[::-1])]) / negatives.sum()
    true = np.concatenate([[0.0], np.cumsum(positives[::-1])]) / positives.sum()
    return false, true


def precision_recall_curve(negatives: Array, positives: Array) -> tuple[Array, Array]:
    """Recall and precision as the threshold falls, from recall 0 with the precision of the first point, as Spark defines it."""
    true = np.cumsum(positives[::-1])
    chosen = true + np.cumsum(negatives[::-1])
    met = chosen > 0
    recall, precision = true[met] / positives.sum(), true[met] / chosen[met]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def area_under_pr(negatives: Array, positives: Array) -> float:
    """Area under `precision_recall_curve` by trapezoids, as Spark's BinaryClassificationEvaluator with all points."""
    recall, precision = precision_recall_curve(negatives, positives)
    return float(np.trapezoid(precision, recall))


def lift_top_decile(negatives: Array, positives: Array) -> float:
    """Share of positives among the tenth of the rows with the largest margins, divided by their share among all rows."""
    return float(gains(negatives, positives)[0] / (positives.sum() / 10))


def gains(negatives: Array, positives: Array) -> Array:
    """Positives in each tenth of the rows, largest margins first; rows of one margin are divided evenly; shape (10,)."""
    rows = np.concatenate([[0.0], np.cumsum((negatives + positives)[::-1])])
    found = np.concatenate([[0.0], np.cumsum(positives[::-1])])
    return np.diff(np.interp(np.linspace(0, rows[-1], 11), rows, found))


def rates(confusion: Array) -> dict[str, float]:
    """The accuracy, precision, recall and f1 of two classes; 0 where nothing is predicted positive.

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


def confusion_of(cells: Cells, rows: Array | None = None) -> Array:
    """Rows by actual and predicted class; shape (2, 2)."""
    rows = cells.rows if rows is None else rows
    return np.bincount(2 * cells.positive + cells.predicted, weights=rows, minlength=4).reshape(2, 2).astype(float)


def binary_point(cells: Cells, rows: Array | None = None) -> dict[str, float]:
    """Every metric of two classes.

    Args:
        cells: the counted predictions.
        rows: other row counts for the same cells, for a bootstrap sample; shape (cells,).
    """
    rows = cells.rows if rows is None else rows
    _, negatives, positives = cells.by_margin(rows)
    scale = rows / cells.rows
    return {
        "areaUnderROC": area_under_roc(negatives, positives),
        "areaUnderPR": area_under_pr(negatives, positives),
        **rates(confusion_of(cells, rows)),
        "logLoss": float(np.dot(scale, cells.log_loss) / rows.sum()),
        "brierScore": float(np.dot(scale, cells.squared_error) / rows.sum()),
        "liftTopDecile": lift_top_decile(negatives, positives),
    }


def binary_metrics(cells: Cells, samples: int) -> list[dict[str, Any]]:
    """Every metric of two classes with its 95 % interval: name, value, low, high and the interval's method."""
    point = binary_point(cells)
    found = binary_intervals(
        cells, point, intervals.bootstrap(cells.rows, lambda rows: binary_point(cells, rows), samples)
    )
    return listed(point, found)


def binary_intervals(
    cells: Cells, point: Mapping[str, float], drawn: Mapping[str, tuple[float, float]]
) -> dict[str, Interval]:
    """The intervals of the metrics of two classes.

    Args:
        cells: the counted predictions.
        point: the metrics.
        drawn: their bootstrap percentiles.
    """
    _, negatives, positives = cells.by_margin()
    confusion = confusion_of(cells)
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
            for name, largest in largest_losses(cells).items()
        },
        "liftTopDecile": intervals.of_lift(gains(negatives, positives)[0], n_positive, rows, drawn["liftTopDecile"]),
    }


def largest_losses(cells: Cells) -> dict[str, float]:
    """What the row of whose class the model is surest would cost if it were of the other class."""
    surest = float(np.abs(cells.margin).max())
    wrong = max(float(np.exp(-np.logaddexp(0.0, surest))), SMALLEST)
    return {"logLoss": -float(np.log(wrong)), "brierScore": (1 - wrong) ** 2}


def listed(point: Mapping[str, float], found: Mapping[str, Interval]) -> list[dict[str, Any]]:
    """Metrics and their intervals as the evaluation document holds them."""
    return [
        {"name": name, "value": value, "low": found[name].low, "high": found[name].high, "interval": found[name].method}
        for name, value in point.items()
    ]


def clipping(clipped: float, rows: float) -> dict[str, float]:
    """How many rows' probability of what happened was below `SMALLEST`, and what they add to logLoss."""
    return {"rows": clipped, "smallest": SMALLEST, "of_log_loss": float(-np.log(SMALLEST) * clipped / rows)}


def choose_threshold(counts: Array, rule: str) -> float:
    """The decision threshold that is best on counted rows, the smallest of equals.

    Args:
        counts: shape (bins + 1, 2): row k counts the negatives and the positives with a probability above k / bins and not above the next.
        rule: `max_f1`, `max_accuracy`, `youden` (largest true minus false positive rate, Youden 1950) or `half` (0.5).
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


def thin(*columns: Array, points: int = CURVE_POINTS) -> list[list[float]]:
    """At most so many points of a curve, its ends among them."""
    chosen = np.unique(np.linspace(0, len(columns[0]) - 1, points).round().astype(int))
    return [list(map(float, point)) for point in zip(*(column[chosen] for column in columns), strict=True)]


def logistic(margin: Array) -> Array:
    """1 / (1 + exp(-margin)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(margin / 2)))


def calibration(probability: Array, negatives: Array, positives: Array, groups: int = 10) -> list[dict[str, float]]:
    """Mean predicted probability against the observed share of positives, in groups of about equal weight.

    Args:
        probability: rising; shape (margins,).
        negatives: weight of the negatives at each; shape (margins,).
        positives: the same for positives.
        groups: how many groups at most.
    """
    weight = negatives + positives
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    place = np.minimum((middle * groups).astype(int), groups - 1)
    found = []
    for group in np.unique(place):
        here = place == group
        rows, met = weight[here].sum(), positives[here].sum()
        low, high = wilson(met, rows)
        predicted = float(np.dot(probability[here], weight[here]) / rows)
        found.append(
            {"predicted": predicted, "observed": float(met / rows), "low": low, "high": high, "rows": float(rows)}
        )
    return found


def multiclass_point(confusion: Array) -> dict[str, float]:
    """The accuracy and the weighted precision, recall and f1 of any number of classes, as Spark's evaluator defines them.

    Args:
        confusion: rows actual, columns predicted; shape (classes, classes).
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
    """The precision, recall and f1 of each class, 0 where a class is never met or predicted; shape (classes,) each."""
    hit, actual, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "precision": hit / np.maximum(predicted, 1e-300) * (predicted > 0),
        "recall": hit / np.maximum(actual, 1e-300) * (actual > 0),
        "f1": 2 * hit / np.maximum(actual + predicted, 1e-300) * (actual + predicted > 0),
    }
