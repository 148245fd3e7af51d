"""Train: fits a logistic regression on the train rows and chooses its decision threshold on the validation rows.

    spark-submit spark_jobs/__main__.py train --preprocess-uri=out/preprocess --output-uri=out/train

To fit the regression in another way, change `build_estimator`. Never reads a test row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.feature import IndexToString, VectorSlicer
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.beside import Beside
from spark_jobs.contract import InputError, Result, Step, TrainArgs, settings_of
from spark_jobs.dataset import read_specification
from spark_jobs.evaluation.metrics import choose_threshold
from spark_jobs.features import (
    FEATURES,
    KEPT,
    PREDICTED_LABEL,
    PREDICTIONS,
    name_columns,
    slicer_without,
)
from spark_jobs.scorecard import build_scorecard
from spark_jobs.split import LABEL, is_small, read_set

WEIGHT = "weight"
THRESHOLD_BINS = 1000
"""Thresholds tried are k / THRESHOLD_BINS."""


def build_estimator(args: TrainArgs, features: str = FEATURES) -> LogisticRegression:
    """The estimator: Spark's logistic regression with the settings of the contract."""
    estimator = LogisticRegression(
        featuresCol=features,
        labelCol=LABEL,
        regParam=args.reg_param,
        elasticNetParam=args.elastic_net_param,
        maxIter=args.max_iter,
        tol=args.tol,
        fitIntercept=args.fit_intercept,
        standardization=args.standardization,
        family=args.family,
    )
    return estimator.setWeightCol(WEIGHT) if args.class_weights == "balanced" else estimator


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes:
        model: with its threshold set.
        threshold: None for more than two classes.
        iterations: of the optimiser.
        converged: False if it stopped because of `max_iter`.
    """

    model: LogisticRegressionModel
    threshold: float | None
    iterations: int
    converged: bool


def fit(train: DataFrame, validation: DataFrame, args: TrainArgs, features: str = FEATURES) -> Fitted:
    """Fits on the train rows, then chooses the threshold on the validation rows.

    Args:
        train: columns `label`, `weight` and the features.
        validation: the same columns.
        features: name of the features' column.
    """
    model = build_estimator(args, features).fit(train)
    iterations = int(model.summary.totalIterations)
    threshold = None
    if model.numClasses == 2:
        threshold = choose_threshold(count_probabilities(model.transform(validation)), args.threshold_rule)
        model = model.setThreshold(threshold)
    return Fitted(model, threshold, iterations, iterations < args.max_iter)


def count_probabilities(predictions: DataFrame) -> np.ndarray[Any, Any]:
    """How many negatives and positives fall between neighbouring thresholds.

    Args:
        predictions: columns `label` and `probability`.

    Returns:
        Shape (THRESHOLD_BINS + 1, 2): row k counts the rows whose positive probability is above k / THRESHOLD_BINS and not above the next.
    """
    positive = vector_to_array(F.col("probability"))[1]
    place = F.greatest(F.ceil(positive * THRESHOLD_BINS) - 1, F.lit(0)).alias("place")
    counted = predictions.select(place, LABEL).groupBy("place", LABEL).count().collect()
    counts = np.zeros((THRESHOLD_BINS + 1, 2))
    for row in counted:
        counts[int(row["place"]), int(row[LABEL])] = row["count"]
    return counts


def class_weight(counts: dict[str, int], labels: list[str]) -> Column:
    """The weight of a row that lets each class weigh the same: rows / (classes * rows of the class)."""
    rows = sum(counts.values())
    weights = [rows / (len(labels) * counts[label]) for label in labels]
    return F.array(*map(F.lit, weights))[F.col(LABEL).cast("int")]


def as_rows(model: LogisticRegressionModel) -> tuple[list[list[float]], list[float]]:
    """Coefficients and intercepts: one row for two classes, whichever family was fitted, else a row for each class."""
    coefficients, intercepts = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
    if model.numClasses == 2 and len(coefficients) == 2:
        coefficients, intercepts = coefficients[1:] - coefficients[:1], intercepts[1:] - intercepts[:1]
    return coefficients.tolist(), intercepts.tolist()


def renamed(columns: dict[str, str]) -> list[str]:
    """Sentences about the columns of the saved model that could not have their usual names."""
    return [
        f"the table has a column like {name!r}; the saved model calls its own {columns[name]!r}"
        for name in PREDICTIONS
        if columns[name] != name
    ]


def hyperparameters(args: TrainArgs) -> dict[str, Any]:
    """The settings of the fit, by the names of the contract."""
    return {name: getattr(args, name) for name in settings_of(TrainArgs)}


def save_without(train: DataFrame, validation: DataFrame, args: TrainArgs, slicer: VectorSlicer, uri: str) -> None:
    """Fits and saves the same classifier on fewer features; it takes what the slicer has kept to a probability."""
    fitted = fit(slicer.transform(train), slicer.transform(validation), args, KEPT)
    storage.write_model(fitted.model, uri)


def run(session: SparkSession, args: TrainArgs) -> Result:
    """Fits and saves the model; see `TrainArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    where = storage.join(args.preprocess_uri, "features.json")
    features: dict[str, Any] = json.loads(storage.read_text(where))
    labels, counts = features["labels"], features["split"]["counts"]
    if args.family == "binomial" and len(labels) > 2:
        raise InputError(f"--family=binomial is for two classes, the label has {len(labels)}; use --family=auto")
    uri = storage.join(args.preprocess_uri, "features")
    weight = class_weight(counts["train"], labels)
    train, validation = (
        read_set(session, uri, name, preprocessed.rows_in).withColumn(WEIGHT, weight)
        for name in ("train", "validation")
    )
    afterwards = read_specification(features["specification"], where).known_afterwards
    slicer = slicer_without(features["features"], afterwards)
    uris = {
        name: storage.join(args.output_uri, path)
        for name, path in (("model", "model"), ("scorecard", "scorecard.json"))
    }
    without = None
    if slicer:
        uris["without"] = storage.join(args.output_uri, "model_without_known_afterwards")
        without = Beside(
            partial(save_without, train, validation, args, slicer, uris["without"]),
            small=is_small(preprocessed.rows_in),
        )
    fitted = fit(train, validation, args)
    encoder = storage.read_model(storage.join(args.preprocess_uri, "features_model"))
    columns = features["model_columns"]
    to_label = IndexToString(inputCol=columns["prediction"], outputCol=columns[PREDICTED_LABEL], labels=labels)
    model = PipelineModel(stages=[*encoder.stages, name_columns(fitted.model, columns), to_label])
    storage.write_model(model, uris["model"])
    coefficients, intercepts = as_rows(fitted.model)
    scorecard = build_scorecard(
        features,
        coefficients=coefficients,
        intercepts=intercepts,
        threshold=fitted.threshold,
        settings={**hyperparameters(args), "iterations": fitted.iterations, "converged": fitted.converged},
        digests={"features": preprocessed.digest},
    )
    storage.write_text(uris["scorecard"], json.dumps(scorecard, indent=1, ensure_ascii=False) + "\n")
    if without:
        without.value()
    warning = (
        f"the optimiser stopped at --max-iter={args.max_iter} without converging; raise it, or scale or drop columns"
    )
    rows = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
    return Result(
        step=Step.TRAIN,
        status="succeeded",
        rows_in=sum(rows.values()),
        rows_out=rows,
        metrics={"iterations": float(fitted.iterations)}
        | ({} if fitted.threshold is None else {"threshold": fitted.threshold}),
        columns=tuple((feature["name"], "double") for feature in features["features"]),
        inputs={"preprocess_uri": preprocessed.digest},
        digest=scorecard["digest"],
        uris=uris,
        warnings=(*renamed(columns), *(() if fitted.converged else (warning,))),
        facts={
            "converged": fitted.converged,
            "labels": labels,
            "model_columns": columns,
            "classifier": storage.stage_path(model, fitted.model),
        },
    )
