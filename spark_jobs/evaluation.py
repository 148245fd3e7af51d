"""From predictions to an evaluation: counts them with Spark, and turns the counts into what the report shows.

Pure functions over DataFrames and plain values; `evaluate` reads and writes, `metrics` holds the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import metrics
from spark_jobs.dataset import Specification
from spark_jobs.split import LABEL

MARGIN_STEP = 0.001
"""Rows whose log-odds are the same to this are counted together."""
SMALLEST = 1e-15
"""Probabilities below this count as this in logLoss, as in Spark's evaluator."""


@dataclass(frozen=True)
class Trained:
    """What the earlier steps left.

    Attributes:
        features: features.json of preprocess.
        scorecard: scorecard.json of train.
    """

    features: dict[str, Any]
    scorecard: dict[str, Any]
    specification: Specification

    @property
    def labels(self) -> list[str]:
        """The label values in the order of their index."""
        return list(self.scorecard["labels"])

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows by set and label value."""
        counts: dict[str, dict[str, int]] = self.features["split"]["counts"]
        return counts


def count_cells(predictions: DataFrame) -> metrics.Cells:
    """Counts the predictions of two classes.

    Args:
        predictions: one row for each test row; columns label, rawPrediction, probability and prediction.
    """
    positive = F.col(LABEL) == 1.0
    probability = vector_to_array(F.col("probability"))[1]
    own = F.greatest(F.when(positive, probability).otherwise(vector_to_array(F.col("probability"))[0]), F.lit(SMALLEST))
    place = F.round(vector_to_array(F.col("rawPrediction"))[1] / MARGIN_STEP).cast("long")
    counted = (
        predictions.groupBy(
            place.alias("place"), positive.alias("positive"), (F.col("prediction") == 1.0).alias("predicted")
        )
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.sum(-F.log(own)).alias("log_loss"),
            F.sum((probability - F.col(LABEL)) ** 2).alias("squared_error"),
            F.sum(probability).alias("probability"),
        )
        .collect()
    )
    counted.sort(key=lambda row: (row["place"], row["positive"], row["predicted"]))
    column = {name: np.array([row[name] for row in counted]) for name in ("positive", "predicted")}
    sums = {
        name: np.array([row[name] for row in counted], dtype=float)
        for name in ("rows", "log_loss", "squared_error", "probability")
    }
    return metrics.Cells(margin=np.array([row["place"] * MARGIN_STEP for row in counted]), **column, **sums)


def judge_binary(cells: metrics.Cells, trained: Trained, samples: int) -> dict[str, Any]:
    """Metrics, curves, confusion matrix, calibration and deciles of two classes."""
    margins, negatives, positives = cells.by_margin()
    tenths = metrics.gains(negatives, positives)
    size, share = (negatives + positives).sum() / 10, positives.sum() / (negatives + positives).sum()
    return {
        "metrics": metrics.binary_metrics(cells, samples),
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
    balanced = trained.scorecard["settings"]["class_weights"] == "balanced"
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


def judge_multiclass(predictions: DataFrame, trained: Trained, samples: int) -> dict[str, Any]:
    """Metrics, confusion matrix and classes, for more than two classes.

    Args:
        predictions: columns label, probability and prediction.
    """
    classes = len(trained.labels)
    own = F.greatest(vector_to_array(F.col("probability"))[F.col(LABEL).cast("int")], F.lit(SMALLEST))
    grouped = predictions.groupBy(LABEL, "prediction").agg(
        F.count(F.lit(1)).alias("rows"), F.sum(-F.log(own)).alias("loss"), F.sum(F.log(own) ** 2).alias("square")
    )
    confusion, loss, square = np.zeros((classes, classes)), 0.0, 0.0
    for row in sorted(grouped.collect(), key=lambda row: (row[LABEL], row["prediction"])):
        confusion[int(row[LABEL]), int(row["prediction"])] = row["rows"]
        loss, square = loss + row["loss"], square + row["square"]
    rows = confusion.sum()
    areas = one_against_rest(predictions, classes)
    each = metrics.per_class(confusion)
    return {
        "metrics": multiclass_metrics(confusion, areas, loss / rows, square / rows, samples),
        "baseline": baseline(trained),
        "curves": None,
        "confusion": {"labels": trained.labels, "matrix": confusion.astype(int).tolist()},
        "calibration": [],
        "correction": None,
        "deciles": [],
        "per_class": [
            {"label": label, **{name: float(values[i]) for name, values in each.items()}, "rows": int(confusion[i].sum()),
             "areaUnderROC": areas[i][0]}
            for i, label in enumerate(trained.labels)
        ],
    }  # fmt: skip


def one_against_rest(predictions: DataFrame, classes: int) -> list[tuple[float, float]]:
    """Area under ROC and its DeLong deviation of each class against the others; shape (classes, 2)."""
    exploded = predictions.select(LABEL, F.posexplode(vector_to_array(F.col("probability"))).alias("class", "p"))
    clipped = F.greatest(F.least("p", F.lit(1 - SMALLEST)), F.lit(SMALLEST))
    place = F.round(F.log(clipped / (1 - clipped)) / MARGIN_STEP).cast("long").alias("place")
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
        found.append((metrics.area_under_roc(negatives, positives), metrics.delong_deviation(negatives, positives)))
    return found


def multiclass_metrics(
    confusion: metrics.Array, areas: list[tuple[float, float]], loss: float, square: float, samples: int
) -> list[dict[str, Any]]:
    """Every metric of more than two classes with its 95 % interval."""
    rows = confusion.sum()
    point = metrics.multiclass_point(confusion)
    spread = metrics.bootstrap(
        confusion.ravel(), lambda drawn: metrics.multiclass_point(drawn.reshape(confusion.shape)), samples
    )
    found = [{"name": name, "value": value, "low": spread[name][0], "high": spread[name][1], "interval": metrics.BOOTSTRAP}
             for name, value in point.items()]  # fmt: skip
    half = metrics.Z95 * float(np.sqrt(max(square - loss**2, 0.0) / rows))
    found.append(
        {"name": "logLoss", "value": loss, "low": max(0.0, loss - half), "high": loss + half, "interval": "normal"}
    )
    mean = float(np.mean([area for area, _ in areas]))
    # The classes' areas are not independent; the mean of their deviations bounds the deviation of their mean.
    half = metrics.Z95 * float(np.mean([deviation for _, deviation in areas]))
    return [
        {
            "name": "areaUnderROC",
            "value": mean,
            "low": max(0.0, mean - half),
            "high": min(1.0, mean + half),
            "interval": f"bound from {metrics.DELONG}",
        },
        *found,
    ]


def coefficients(trained: Trained) -> list[dict[str, Any]]:
    """Each coefficient as odds ratio: by how much the odds are multiplied when the feature grows by one."""
    found = []
    classes: list[str | None] = [None] if len(trained.labels) == 2 else list(trained.labels)
    for label, row in zip(classes, trained.scorecard["coefficients"], strict=True):
        for feature, coefficient in zip(trained.scorecard["features"], row, strict=True):
            deviation = trained.features["deviations"].get(feature["column"]) if feature["kind"] == "numeric" else None
            found.append(
                {
                    "class": label,
                    "feature": feature["name"],
                    "column": feature["column"],
                    "category": feature["category"] or None,
                    "kind": feature["kind"],
                    "coefficient": coefficient,
                    "deviation": deviation,
                    "odds_ratio": bounded_exp(coefficient),
                    "odds_ratio_per_sd": None if deviation is None else bounded_exp(coefficient * deviation),
                }
            )
    return found


def bounded_exp(value: float) -> float:
    """exp, but the largest double where that would overflow."""
    return float(np.exp(min(value, 709.0)))


def judge(predictions: DataFrame, trained: Trained, samples: int) -> dict[str, Any]:
    """The evaluation of a model on test rows: metrics with intervals, and what the report draws.

    Args:
        predictions: one row for each test row; columns label, rawPrediction, probability and prediction.
        trained: what the model was made from.
        samples: bootstrap samples.
    """
    if len(trained.labels) == 2:
        return judge_binary(count_cells(predictions), trained, samples)
    return judge_multiclass(predictions, trained, samples)


def judge_without(predictions: DataFrame, trained: Trained, samples: int) -> dict[str, Any]:
    """The part of an evaluation that the model without the columns known only afterwards is compared by."""
    judged = judge(predictions, trained, samples)
    roc = judged["curves"]["roc"] if judged["curves"] else []
    return {"columns": list(trained.specification.known_afterwards), "metrics": judged["metrics"], "roc": roc}
