"""From predictions to an evaluation: counts them with Spark, and turns the counts into what the report shows.

Pure functions over DataFrames and plain values; `evaluate` reads and writes, `metrics` holds the formulas.
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

from spark_jobs.contract import TrainArgs
from spark_jobs.dataset import Specification
from spark_jobs.evaluation import intervals, metrics
from spark_jobs.evaluation.intervals import Interval
from spark_jobs.evaluation.metrics import SMALLEST
from spark_jobs.split import LABEL, ROW_HASH, is_small

MARGIN_STEP = 0.001
"""Rows whose log-odds are the same to this are counted together."""
GROUPS = 20
"""Parts of the test rows that are left out one after another, so that two models can be compared on the same rows."""


@dataclass(frozen=True)
class Trained:
    """What the earlier steps left.

    Attributes:
        features: features.json of preprocess.
        args: of train.
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
        """Rows by set and label value."""
        counts: dict[str, dict[str, int]] = self.features["split"]["counts"]
        return counts


def count_cells(predictions: DataFrame, groups: int = 1) -> list[metrics.Cells]:
    """Counts the predictions of two classes.

    Args:
        predictions: one row for each test row; columns label, probability, prediction and, for groups, row_hash.
        groups: into how many parts the rows are divided, by their hash.

    Returns:
        The cells of each part; a part without rows is left out.
    """
    positive = F.col(LABEL) == 1.0
    probability = vector_to_array(F.col("probability"))[1]
    given = F.when(positive, probability).otherwise(vector_to_array(F.col("probability"))[0])
    own = F.greatest(given, F.lit(SMALLEST))
    place = F.round(log_odds(probability) / MARGIN_STEP).cast("long")
    predicted = F.col("prediction") == 1.0
    counted = (
        predictions.groupBy(
            group_of(groups), place.alias("place"), positive.alias("positive"), predicted.alias("predicted")
        )
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.sum(-F.log(own)).alias("log_loss"),
            F.sum((probability - F.col(LABEL)) ** 2).alias("squared_error"),
            F.sum(probability).alias("probability"),
            F.count_if(given < SMALLEST).alias("clipped"),
        )
        .collect()
    )
    counted.sort(key=lambda row: (row["group"], row["place"], row["positive"], row["predicted"]))
    return [_cells(list(rows)) for _, rows in itertools.groupby(counted, key=lambda row: row["group"])]


def log_odds(probability: Column) -> Column:
    """ln(p / (1 - p)), bounded where p is nearly 0 or 1; from the probability alone, as a tree's rawPrediction is no log-odds."""
    clipped = F.greatest(F.least(probability, F.lit(1 - SMALLEST)), F.lit(SMALLEST))
    return F.log(clipped / (1 - clipped))


def group_of(groups: int) -> Column:
    """The part, 0 to groups - 1, that a test row belongs to; the same for equal rows, whatever the model."""
    return (F.pmod(F.col(ROW_HASH), F.lit(groups)) if groups > 1 else F.lit(0)).alias("group")


def _cells(counted: Sequence[Row]) -> metrics.Cells:
    column = {name: np.array([row[name] for row in counted]) for name in ("positive", "predicted")}
    sums = {
        name: np.array([row[name] for row in counted], dtype=float)
        for name in ("rows", "log_loss", "squared_error", "probability", "clipped")
    }
    return metrics.Cells(margin=np.array([row["place"] * MARGIN_STEP for row in counted]), **column, **sums)


def judge_binary(cells: metrics.Cells, trained: Trained, samples: int) -> dict[str, Any]:
    """Metrics, curves, confusion matrix, calibration and deciles of two classes."""
    margins, negatives, positives = cells.by_margin()
    tenths = metrics.gains(negatives, positives)
    size, share = (negatives + positives).sum() / 10, positives.sum() / (negatives + positives).sum()
    return {
        "metrics": metrics.binary_metrics(cells, samples),
        "clipped": metrics.clipping(float(cells.clipped.sum()), float(cells.rows.sum())),
        "baseline": baseline(trained),
        "curves": curves(cells),
        "confusion": {"labels": trained.labels, "matrix": metrics.confusion_of(cells).astype(int).tolist()},
        "calibration": metrics.calibration(metrics.logistic(margins), negatives, positives),
        "correction": correction(cells, trained),
        "deciles": [
            {
                "decile": i + 1,
                "rows": size,
                "positives": float(met),
                "rate": float(met / size),
                "lift": float(met / size / share),
            }
            for i, met in enumerate(tenths)
        ],
        "per_class": [],
    }


def curves(cells: metrics.Cells) -> dict[str, list[list[float]]]:
    """ROC and precision-recall curves, each point with its threshold."""
    margins, negatives, positives = cells.by_margin()
    falling = np.concatenate([[1.0], metrics.logistic(margins)[::-1]])
    false, true = metrics.roc_curve(negatives, positives)
    recall, precision = metrics.precision_recall_curve(negatives, positives)
    return {"roc": metrics.thin(false, true, falling), "pr": metrics.thin(recall, precision, falling)}


def baseline(trained: Trained) -> dict[str, Any]:
    """The model that knows no feature: predicts the commonest class of the train rows, with the classes' shares as probabilities."""
    train, test = trained.counts["train"], trained.counts["test"]
    common = max(sorted(train), key=lambda label: train[label])
    rows, train_rows = sum(test.values()), sum(train.values())
    loss = -sum(count * np.log(train[label] / train_rows) for label, count in test.items()) / rows
    found = {"accuracy": test.get(common, 0) / rows, "logLoss": float(loss), "areaUnderROC": 0.5}
    if len(trained.labels) == 2:
        positive = trained.labels[1]
        share, met = train[positive] / train_rows, test.get(positive, 0) / rows
        confusion = np.array([[rows - test.get(positive, 0), 0.0], [test.get(positive, 0), 0.0]])
        found |= {
            **metrics.rates(confusion if common != positive else confusion[:, ::-1]),
            "areaUnderPR": met,
            "liftTopDecile": 1.0,
        }
        found["brierScore"] = met * (1 - share) ** 2 + (1 - met) * share**2
    return {"label": common, "metrics": found}


def correction(cells: metrics.Cells, trained: Trained) -> dict[str, Any] | None:
    """Probabilities for the population whose share of positives the specification states.

    The intercept moves by the difference of the log-odds, ln(b / (1 - b)) - ln(s / (1 - s)), where b is the population's share and s
    the share in the fit (King & Zeng 2001, section 4.2: prior correction). The test rows are weighted to the population to judge it.
    """
    base_rate = trained.specification.base_rate
    if base_rate is None:
        return None
    train = trained.counts["train"]
    balanced = trained.args.class_weights == "balanced"
    sample_rate = 0.5 if balanced else train[trained.labels[1]] / sum(train.values())
    shift = float(np.log(base_rate / (1 - base_rate)) - np.log(sample_rate / (1 - sample_rate)))
    margins, negatives, positives = cells.by_margin()
    share = positives.sum() / (negatives + positives).sum()
    weighted = negatives * (1 - base_rate) / (1 - share), positives * base_rate / share
    before, after = metrics.logistic(margins), metrics.logistic(margins + shift)
    weight = weighted[0] + weighted[1]
    return {
        "base_rate": base_rate,
        "sample_rate": sample_rate,
        "shift": shift,
        "calibration": metrics.calibration(after, *weighted),
        "before": metrics.calibration(before, *weighted),
        "mean_before": float(np.dot(before, weight) / weight.sum()),
        "mean_after": float(np.dot(after, weight) / weight.sum()),
    }


def judge_multiclass(predictions: DataFrame, trained: Trained, samples: int, groups: int = 1) -> dict[str, Any]:
    """Metrics, confusion matrix and classes, for more than two classes.

    Args:
        predictions: columns label, probability, prediction and, for groups, row_hash.
        groups: as for `count_cells`.
    """
    classes = len(trained.labels)
    given = vector_to_array(F.col("probability"))
    mine = given[F.col(LABEL).cast("int")]
    own = F.greatest(mine, F.lit(SMALLEST))
    grouped = predictions.groupBy(LABEL, "prediction", group_of(groups)).agg(
        F.count(F.lit(1)).alias("rows"), F.sum(-F.log(own)).alias("loss"), F.sum(F.log(own) ** 2).alias("square"),
        F.count_if(mine < SMALLEST).alias("clipped"), F.min(F.array_min(given)).alias("least"),
    )  # fmt: skip
    parts, losses_of_parts, counted = np.zeros((groups, classes, classes)), np.zeros(groups), grouped.collect()
    ordered = sorted(counted, key=lambda row: (row["group"], row[LABEL], row["prediction"]))
    for row in ordered:
        parts[row["group"], int(row[LABEL]), int(row["prediction"])] = row["rows"]
        losses_of_parts[row["group"]] += row["loss"]
    confusion = parts.sum(axis=0)
    rows = confusion.sum()
    loss, square, clipped = (sum(row[name] for row in ordered) for name in ("loss", "square", "clipped"))
    largest = -float(np.log(max(SMALLEST, min(row["least"] for row in ordered))))
    areas = one_against_rest(predictions, classes)
    each = metrics.per_class(confusion)
    return {
        "metrics": multiclass_metrics(confusion, areas, Losses(loss / rows, square / rows, largest), samples),
        "left_out": metrics.without_each(
            [part for part in range(groups) if parts[part].any()],
            lambda kept: {
                **metrics.multiclass_point(parts[kept].sum(axis=0)),
                "logLoss": float(losses_of_parts[kept].sum() / parts[kept].sum()),
            },
        ),
        "clipped": metrics.clipping(float(clipped), float(rows)),
        "baseline": baseline(trained),
        "curves": None,
        "confusion": {"labels": trained.labels, "matrix": confusion.astype(int).tolist()},
        "calibration": [],
        "correction": None,
        "deciles": [],
        "per_class": [
            {"label": label, **{name: float(values[i]) for name, values in each.items()}, "rows": int(confusion[i].sum()),
             "areaUnderROC": areas[i].value}
            for i, label in enumerate(trained.labels)
        ],
    }  # fmt: skip


class Area(NamedTuple):
    """The area under ROC of one class against the others."""

    value: float
    interval: Interval


class Losses(NamedTuple):
    """The rows' -ln(probability of the own class): mean, mean of the squares, and the largest that the model's probabilities allow."""

    mean: float
    square: float
    largest: float


def one_against_rest(predictions: DataFrame, classes: int) -> list[Area]:
    """Area under ROC of each class against the others, in the order of the classes."""
    exploded = predictions.select(LABEL, F.posexplode(vector_to_array(F.col("probability"))).alias("class", "p"))
    place = F.round(log_odds(F.col("p")) / MARGIN_STEP).cast("long").alias("place")
    counted = exploded.groupBy("class", place).agg(
        F.count_if(F.col(LABEL) == F.col("class")).alias("positives"),
        F.count_if(F.col(LABEL) != F.col("class")).alias("negatives"),
    )
    rows = sorted(counted.collect(), key=lambda row: (row["class"], row["place"]))
    found = []
    for index in range(classes):
        mine = [row for row in rows if row["class"] == index]
        negatives, positives = (
            np.array([row[name] for row in mine], dtype=float) for name in ("negatives", "positives")
        )
        area = metrics.area_under_roc(negatives, positives)
        found.append(Area(area, intervals.of_area_under_roc(area, negatives, positives)))
    return found


def multiclass_metrics(
    confusion: intervals.Array, areas: Sequence[Area], losses: Losses, samples: int
) -> list[dict[str, Any]]:
    """Every metric of more than two classes with its 95 % interval."""
    rows, right = confusion.sum(), np.trace(confusion)
    point = metrics.multiclass_point(confusion)
    drawn = intervals.bootstrap(
        confusion.ravel(), lambda counts: metrics.multiclass_point(counts.reshape(confusion.shape)), samples
    )
    found = {
        name: intervals.of_share(point[name], rows, drawn[name], intervals.WILSON_ROWS)
        for name in ("weightedPrecision", "f1")
    }
    # The recalls weighted by the classes' rows are the rows predicted right.
    found |= dict.fromkeys(("accuracy", "weightedRecall"), intervals.of_proportion(right, rows))
    half = intervals.Z95 * float(np.sqrt(max(losses.square - losses.mean**2, 0.0) / rows))
    usual = Interval(max(0.0, losses.mean - half), losses.mean + half, "normal")
    found["logLoss"] = intervals.of_losses(losses.mean, rows, losses.largest, rows - right, usual)
    found["areaUnderROC"] = interval_of_mean([area.interval for area in areas])
    mean = float(np.mean([area.value for area in areas]))
    return metrics.listed({"areaUnderROC": mean, **point, "logLoss": losses.mean}, found)


def interval_of_mean(each: Sequence[Interval]) -> Interval:
    """An interval of the mean of several numbers: the means of their ends, right if they go up and down together, else too wide."""
    methods = dict.fromkeys(interval.method for interval in each)
    low, high = (float(np.mean(ends)) for ends in list(zip(*each, strict=True))[:2])
    return Interval(low, high, f"bound from {' and '.join(methods)}")


def judge(predictions: DataFrame, trained: Trained, samples: int, most_groups: int = GROUPS) -> dict[str, Any]:
    """The evaluation of a model on test rows: metrics with intervals, and what the report draws.

    Args:
        predictions: one row for each test row; columns label, probability, prediction and row_hash.
        trained: what the model was made from.
        samples: bootstrap samples.
        most_groups: parts of the rows that are left out one after another; 1: none, where no other model is compared.
    """
    # The parts of a large table would be many cells for the driver, and its intervals are narrow anyway.
    groups = most_groups if is_small(sum(trained.counts["test"].values())) else 1
    if len(trained.labels) > 2:
        return judge_multiclass(predictions, trained, samples, groups)
    parts = count_cells(predictions, groups)
    left_out = metrics.without_each(
        range(len(parts)), lambda kept: metrics.binary_point(metrics.merged([parts[part] for part in kept]))
    )
    return {**judge_binary(metrics.merged(parts), trained, samples), "left_out": left_out}


def judge_without(predictions: DataFrame, trained: Trained, samples: int) -> dict[str, Any]:
    """The part of an evaluation that the model without the columns known only afterwards is compared by."""
    judged = judge(predictions, trained, samples, most_groups=1)
    roc = judged["curves"]["roc"] if judged["curves"] else []
    return {"columns": list(trained.specification.known_afterwards), "metrics": judged["metrics"], "roc": roc}
