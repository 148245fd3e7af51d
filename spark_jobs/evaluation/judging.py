"""Evaluates predictions: counts them with Spark, and computes from the counts the metrics, curves and tables of the report.

Spark only counts; all formulas are in `metrics` and `intervals` and run in the driver on a few thousand counts. The functions take and
return DataFrames and plain values; the step evaluate reads the inputs and writes the results.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from spark_jobs.contract import MULTICLASS_OBJECTIVES, TrainArgs
from spark_jobs.dataset import Specification
from spark_jobs.evaluation import intervals, metrics
from spark_jobs.evaluation.intervals import Interval
from spark_jobs.evaluation.metrics import SMALLEST
from spark_jobs.scorecard import population_shift
from spark_jobs.split import LABEL, ROW_HASH, is_small

MARGIN_STEP = 0.001
"""Width of a bin of log-odds: rows in the same bin are counted together."""
GROUPS = 20
"""Number of groups of test rows; each is left out once, so that two models can be compared on the same rows (see `leave_each_out`)."""


@dataclass(frozen=True)
class Training:
    """How a model was trained, from the outputs of the earlier steps.

    Attributes:
        features: the document features.json of preprocess.
        args: the arguments of train.
        specification: the data specification.
    """

    features: dict[str, Any]
    args: TrainArgs
    specification: Specification

    @property
    def labels(self) -> list[str]:
        """The label values in the order of their index."""
        return list(self.features["labels"])

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number of rows by set and label value."""
        counts: dict[str, dict[str, int]] = self.features["split"]["counts"]
        return counts


def estimates(predictions: DataFrame, classes: int) -> dict[str, float]:
    """Computes metrics without intervals; for more than two classes those by which a search compares trials.

    Args:
        predictions: the predicted rows, with the columns label, probability and prediction.
        classes: number of classes of the label.
    """
    if classes == 2:
        return metrics.binary_estimates(count_predictions(predictions)[0])
    counts = count_classes(predictions, classes)
    found = {**metrics.multiclass_estimates(counts.confusion), "logLoss": counts.losses.mean}
    return {name: found[name] for name in MULTICLASS_OBJECTIVES}


def count_predictions(predictions: DataFrame, groups: int = 1) -> list[metrics.PredictionCounts]:
    """Counts the predictions of two classes.

    Args:
        predictions: the predicted test rows, with the columns label, probability, prediction and, for more than one group, row_hash.
        groups: number of groups into which the rows are divided by their hash.

    Returns:
        The counts of each group that has rows.
    """
    positive = F.col(LABEL) == 1.0
    probability = vector_to_array(F.col("probability"))[1]
    of_own_class = F.when(positive, probability).otherwise(vector_to_array(F.col("probability"))[0])
    clipped = F.greatest(of_own_class, F.lit(SMALLEST))
    margin_bin = F.round(log_odds(probability) / MARGIN_STEP).cast("long")
    predicted = F.col("prediction") == 1.0
    counted = (
        predictions.groupBy(
            group_of(groups), margin_bin.alias("bin"), positive.alias("positive"), predicted.alias("predicted")
        )
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.sum(-F.log(clipped)).alias("log_loss"),
            F.sum((probability - F.col(LABEL)) ** 2).alias("squared_error"),
            F.sum(probability).alias("probability"),
            F.count_if(of_own_class < SMALLEST).alias("clipped"),
        )
        .collect()
    )
    # Spark returns groups in no order; sums of floating-point numbers must be added in the same order every time.
    counted.sort(key=lambda row: (row["group"], row["bin"], row["positive"], row["predicted"]))
    return [_counts_of(list(rows)) for _, rows in itertools.groupby(counted, key=lambda row: row["group"])]


def log_odds(probability: Column) -> Column:
    """Returns ln(p / (1 - p)), with p clipped to `SMALLEST` and 1 - `SMALLEST`.

    It is computed from the probability, as MLlib's rawPrediction is a log-odds for logistic regression only, and not for trees.
    """
    clipped = F.greatest(F.least(probability, F.lit(1 - SMALLEST)), F.lit(SMALLEST))
    return F.log(clipped / (1 - clipped))


def group_of(groups: int) -> Column:
    """Returns the group of a test row, 0 to groups - 1. It depends on the row only, so that two models have the same groups."""
    return (F.pmod(F.col(ROW_HASH), F.lit(groups)) if groups > 1 else F.lit(0)).alias("group")


def _counts_of(counted: Sequence[Row]) -> metrics.PredictionCounts:
    column = {name: np.array([row[name] for row in counted]) for name in ("positive", "predicted")}
    sums = {
        name: np.array([row[name] for row in counted], dtype=float)
        for name in ("rows", "log_loss", "squared_error", "probability", "clipped")
    }
    margin = np.array([row["bin"] * MARGIN_STEP for row in counted])
    return metrics.PredictionCounts(margin=margin, **column, **sums)


def judge_binary(counts: metrics.PredictionCounts, training: Training, samples: int) -> dict[str, Any]:
    """Computes metrics, curves, confusion matrix, calibration and deciles for two classes; for the arguments see `judge`."""
    margins, negatives, positives = counts.by_margin()
    tenths = metrics.gains(negatives, positives)
    size, share = (negatives + positives).sum() / 10, positives.sum() / (negatives + positives).sum()
    return {
        "metrics": metrics.binary_metrics(counts, samples),
        "clipped": metrics.clipping(float(counts.clipped.sum()), float(counts.rows.sum())),
        "baseline": baseline(training),
        "curves": curves(counts),
        "confusion": {"labels": training.labels, "matrix": metrics.confusion_of(counts).astype(int).tolist()},
        "calibration": metrics.calibration(metrics.logistic(margins), negatives, positives),
        "correction": correction(counts, training),
        "deciles": [
            {
                "decile": i + 1,
                "rows": size,
                "positives": float(hits),
                "rate": float(hits / size),
                "lift": float(hits / size / share),
            }
            for i, hits in enumerate(tenths)
        ],
        "per_class": [],
    }


def curves(counts: metrics.PredictionCounts) -> dict[str, list[list[float]]]:
    """Returns the ROC and the precision-recall curve for the report; each point is (x, y, threshold)."""
    margins, negatives, positives = counts.by_margin()
    falling = np.concatenate([[1.0], metrics.logistic(margins)[::-1]])
    false, true = metrics.roc_curve(negatives, positives)
    recall, precision = metrics.precision_recall_curve(negatives, positives)
    # Above the score of the first positive, recall and precision are 0: a drawn curve would fall to 0 at its left end. It starts at
    # recall 0 with the precision at the first positive instead.
    first = int(np.argmax(recall > 0))
    precision[first - 1] = precision[first]
    return {
        "roc": metrics.thin_curve(false, true, falling),
        "pr": metrics.thin_curve(recall[first - 1 :], precision[first - 1 :], falling[first - 1 :]),
    }


def baseline(training: Training) -> dict[str, Any]:
    """Returns the metrics of a model without features, to compare with.

    It always predicts the most frequent class of the train rows, with the shares of the classes in the train rows as probabilities.
    """
    train, test = training.counts["train"], training.counts["test"]
    common = max(sorted(train), key=lambda label: train[label])
    rows, train_rows = sum(test.values()), sum(train.values())
    loss = -sum(count * np.log(train[label] / train_rows) for label, count in test.items()) / rows
    found = {"accuracy": test.get(common, 0) / rows, "logLoss": float(loss), "areaUnderROC": 0.5}
    if len(training.labels) == 2:
        positive = training.labels[1]
        share, observed = train[positive] / train_rows, test.get(positive, 0) / rows
        confusion = np.array([[rows - test.get(positive, 0), 0.0], [test.get(positive, 0), 0.0]])
        found |= {
            **metrics.rates(confusion if common != positive else confusion[:, ::-1]),
            "areaUnderPR": observed,
            "liftTopDecile": 1.0,
        }
        found["brierScore"] = observed * (1 - share) ** 2 + (1 - observed) * share**2
    return {"label": common, "metrics": found}


def correction(counts: metrics.PredictionCounts, training: Training) -> dict[str, Any] | None:
    """Corrects the probabilities for a population whose share of positives (base rate) is stated in the specification.

    The shift is that of `spark_jobs.scorecard.population_shift`. For the calibration, the test rows are weighted to the population.

    Returns:
        None if the specification states no base rate.
    """
    found = population_shift(
        training.specification.base_rate, training.labels, training.counts["train"], training.args.class_weights
    )
    if found is None:
        return None
    base_rate, shift = found["base_rate"], found["shift"]
    margins, negatives, positives = counts.by_margin()
    share = positives.sum() / (negatives + positives).sum()
    weighted = negatives * (1 - base_rate) / (1 - share), positives * base_rate / share
    before, after = metrics.logistic(margins), metrics.logistic(margins + shift)
    weight = weighted[0] + weighted[1]
    return {
        **found,
        "calibration": metrics.calibration(after, *weighted),
        "before": metrics.calibration(before, *weighted),
        "mean_before": float(np.dot(before, weight) / weight.sum()),
        "mean_after": float(np.dot(after, weight) / weight.sum()),
    }


class Losses(NamedTuple):
    """Statistics of the rows' log losses, -ln(probability of the row's own class).

    Attributes:
        mean: their mean.
        square: mean of their squares.
        largest: the largest loss that is possible with the probabilities that the model gives.
    """

    mean: float
    square: float
    largest: float


@dataclass(frozen=True)
class ClassCounts:
    """The counts of the predictions of more than two classes.

    Attributes:
        parts: number of rows by group, actual and predicted class; shape (groups, classes, classes).
        losses_of_parts: sum of the log losses of each group; shape (groups,).
        losses: the log losses of all rows.
        clipped: number of rows whose own class got a probability below `SMALLEST`.
    """

    parts: intervals.Array
    losses_of_parts: intervals.Array
    losses: Losses
    clipped: float

    @property
    def confusion(self) -> intervals.Array:
        """Number of rows by actual and predicted class; shape (classes, classes)."""
        found: intervals.Array = self.parts.sum(axis=0)
        return found


def count_classes(predictions: DataFrame, classes: int, groups: int = 1) -> ClassCounts:
    """Counts the predictions of more than two classes, in one Spark job; for the arguments see `judge_multiclass`."""
    probabilities = vector_to_array(F.col("probability"))
    of_own_class = probabilities[F.col(LABEL).cast("int")]
    clipped_own = F.greatest(of_own_class, F.lit(SMALLEST))
    grouped = predictions.groupBy(LABEL, "prediction", group_of(groups)).agg(
        F.count(F.lit(1)).alias("rows"), F.sum(-F.log(clipped_own)).alias("loss"), F.sum(F.log(clipped_own) ** 2).alias("square"),
        F.count_if(of_own_class < SMALLEST).alias("clipped"), F.min(F.array_min(probabilities)).alias("least"),
    )  # fmt: skip
    parts, losses_of_parts, counted = np.zeros((groups, classes, classes)), np.zeros(groups), grouped.collect()
    ordered = sorted(counted, key=lambda row: (row["group"], row[LABEL], row["prediction"]))
    for row in ordered:
        parts[row["group"], int(row[LABEL]), int(row["prediction"])] = row["rows"]
        losses_of_parts[row["group"]] += row["loss"]
    rows, loss, square, clipped = (sum(row[name] for row in ordered) for name in ("rows", "loss", "square", "clipped"))
    largest = -float(np.log(max(SMALLEST, min(row["least"] for row in ordered))))
    return ClassCounts(parts, losses_of_parts, Losses(loss / rows, square / rows, largest), float(clipped))


def judge_multiclass(predictions: DataFrame, training: Training, samples: int, groups: int = 1) -> dict[str, Any]:
    """Computes metrics, confusion matrix and metrics by class, for more than two classes.

    Args:
        predictions: the predicted test rows, with the columns label, probability, prediction and, for more than one group, row_hash.
        training: how the model was trained.
        samples: number of bootstrap samples.
        groups: number of groups into which the rows are divided by their hash.
    """
    classes = len(training.labels)
    counts = count_classes(predictions, classes, groups)
    confusion, parts, losses_of_parts = counts.confusion, counts.parts, counts.losses_of_parts
    areas = one_against_rest(predictions, classes)
    each = metrics.per_class(confusion)
    return {
        "metrics": multiclass_metrics(confusion, areas, counts.losses, samples),
        "left_out": metrics.leave_each_out(
            [part for part in range(groups) if parts[part].any()],
            lambda kept: {
                **metrics.multiclass_estimates(parts[kept].sum(axis=0)),
                "logLoss": float(losses_of_parts[kept].sum() / parts[kept].sum()),
            },
        ),
        "clipped": metrics.clipping(counts.clipped, float(confusion.sum())),
        "baseline": baseline(training),
        "curves": None,
        "confusion": {"labels": training.labels, "matrix": confusion.astype(int).tolist()},
        "calibration": [],
        "correction": None,
        "deciles": [],
        "per_class": [
            {"label": label, **{name: float(values[i]) for name, values in each.items()}, "rows": int(confusion[i].sum()),
             "areaUnderROC": areas[i].value}
            for i, label in enumerate(training.labels)
        ],
    }  # fmt: skip


class Area(NamedTuple):
    """The area under the ROC curve of one class against all others, and its interval."""

    value: float
    interval: Interval


def one_against_rest(predictions: DataFrame, classes: int) -> list[Area]:
    """Computes the area under the ROC curve of each class against all others, in the order of the classes."""
    exploded = predictions.select(LABEL, F.posexplode(vector_to_array(F.col("probability"))).alias("class", "p"))
    margin_bin = F.round(log_odds(F.col("p")) / MARGIN_STEP).cast("long").alias("bin")
    counted = exploded.groupBy("class", margin_bin).agg(
        F.count_if(F.col(LABEL) == F.col("class")).alias("positives"),
        F.count_if(F.col(LABEL) != F.col("class")).alias("negatives"),
    )
    rows = sorted(counted.collect(), key=lambda row: (row["class"], row["bin"]))
    found = []
    for index in range(classes):
        of_class = [row for row in rows if row["class"] == index]
        negatives, positives = (
            np.array([row[name] for row in of_class], dtype=float) for name in ("negatives", "positives")
        )
        area = metrics.area_under_roc(negatives, positives)
        found.append(Area(area, intervals.of_area_under_roc(area, negatives, positives)))
    return found


def multiclass_metrics(
    confusion: intervals.Array, areas: Sequence[Area], losses: Losses, samples: int
) -> list[dict[str, Any]]:
    """Computes every metric of more than two classes, with its 95 % interval."""
    rows, right = confusion.sum(), np.trace(confusion)
    point = metrics.multiclass_estimates(confusion)
    drawn = intervals.bootstrap(
        confusion.ravel(), lambda counts: metrics.multiclass_estimates(counts.reshape(confusion.shape)), samples
    )
    found = {
        name: intervals.of_share(point[name], rows, drawn[name], intervals.WILSON_ROWS)
        for name in ("weightedPrecision", "f1")
    }
    # The mean of the recalls, weighted by the rows of the classes, equals the accuracy.
    found |= dict.fromkeys(("accuracy", "weightedRecall"), intervals.of_proportion(right, rows))
    # The mean of many losses is about normal: its standard deviation is that of the losses divided by the root of the rows.
    half = intervals.Z95 * float(np.sqrt(max(losses.square - losses.mean**2, 0.0) / rows))
    usual = Interval(max(0.0, losses.mean - half), losses.mean + half, "normal")
    found["logLoss"] = intervals.of_losses(losses.mean, rows, losses.largest, rows - right, usual)
    found["areaUnderROC"] = interval_of_mean([area.interval for area in areas])
    mean = float(np.mean([area.value for area in areas]))
    return metrics.metric_rows({"areaUnderROC": mean, **point, "logLoss": losses.mean}, found)


def interval_of_mean(each: Sequence[Interval]) -> Interval:
    """Returns an interval of the mean of several estimates: the means of the lower and of the upper ends.

    It is exact if the estimates are perfectly correlated, and else too wide, which is the safe side.
    """
    methods = dict.fromkeys(interval.method for interval in each)
    low, high = (float(np.mean(ends)) for ends in list(zip(*each, strict=True))[:2])
    return Interval(low, high, f"bound from {' and '.join(methods)}")


def judge(predictions: DataFrame, training: Training, samples: int, most_groups: int = GROUPS) -> dict[str, Any]:
    """Evaluates a model on the test rows: metrics with intervals, and the data of the report's charts and tables.

    Args:
        predictions: the predicted test rows, with the columns label, probability, prediction and row_hash.
        training: how the model was trained.
        samples: number of bootstrap samples.
        most_groups: number of groups of rows that are left out one after another; 1 if no other model is compared on these rows.

    Returns:
        The part of evaluation.json that depends on the predictions.
    """
    # Groups multiply the number of counts in the driver; and on a large table the intervals are narrow anyway.
    groups = most_groups if is_small(sum(training.counts["test"].values())) else 1
    if len(training.labels) > 2:
        return judge_multiclass(predictions, training, samples, groups)
    parts = count_predictions(predictions, groups)
    left_out = metrics.leave_each_out(
        range(len(parts)), lambda kept: metrics.binary_estimates(metrics.merge_counts([parts[part] for part in kept]))
    )
    return {**judge_binary(metrics.merge_counts(parts), training, samples), "left_out": left_out}


def judge_without(predictions: DataFrame, training: Training, samples: int) -> dict[str, Any]:
    """Evaluates the model without the columns known only afterwards; returns its metrics and its ROC curve."""
    judged = judge(predictions, training, samples, most_groups=1)
    roc = judged["curves"]["roc"] if judged["curves"] else []
    return {"columns": list(training.specification.known_afterwards), "metrics": judged["metrics"], "roc": roc}
