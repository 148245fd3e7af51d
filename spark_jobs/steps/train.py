"""Train: fits an estimator on the train rows and chooses its decision threshold on the validation rows.

    spark-submit spark_jobs/__main__.py train --preprocess-uri=out/preprocess --output-uri=out/train

Which estimator is a setting: each is a module of `spark_jobs.estimators`. Never reads a test row.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.ml.classification import ProbabilisticClassificationModel
from pyspark.ml.feature import IndexToString, VectorSlicer
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.beside import Beside
from spark_jobs.contract import Step, TrainArgs
from spark_jobs.dataset import read_specification
from spark_jobs.errors import InputError
from spark_jobs.estimator import Optimised, find
from spark_jobs.evaluation.metrics import choose_threshold
from spark_jobs.features import (
    FEATURES,
    KEPT,
    PREDICTED_LABEL,
    PREDICTIONS,
    name_columns,
    slicer_without,
)
from spark_jobs.result import Result
from spark_jobs.scorecard import build_scorecard
from spark_jobs.split import LABEL, is_small, read_set

WEIGHT = "weight"
THRESHOLD_BINS = 1000
"""Thresholds tried are k / THRESHOLD_BINS."""


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes:
        model: with its threshold set.
        threshold: None for more than two classes.
        optimised: how the fit went; None for a kind of model that is not fitted by iterations.
    """

    model: ProbabilisticClassificationModel
    threshold: float | None
    optimised: Optimised | None


def fit(train: DataFrame, validation: DataFrame, args: TrainArgs, features: str = FEATURES) -> Fitted:
    """Fits on the train rows, then chooses the threshold on the validation rows.

    Args:
        train: columns `label`, `weight` and the features.
        validation: the same columns.
        features: name of the features' column.
    """
    kind = find(args.estimator)
    estimator = kind.build(args).setFeaturesCol(features).setLabelCol(LABEL)
    model = weighted(estimator, args).fit(train)
    optimised = kind.optimised(model, args)  # asked before the threshold is set, which makes a model without a summary
    if model.numClasses > 2:
        return Fitted(model, None, optimised)
    threshold = choose_threshold(count_probabilities(model.transform(validation)), args.threshold_rule)
    return Fitted(set_threshold(model, threshold), threshold, optimised)


def weighted(estimator: Any, args: TrainArgs) -> Any:
    """The estimator, with the weights of the rows if they are asked for.

    Raises:
        InputError: this kind of model takes none.
    """
    if args.class_weights == "none":
        return estimator
    if not estimator.hasParam("weightCol"):
        raise InputError(
            f"{flag('class_weights')}={args.class_weights}: {args.estimator} takes no weights; leave it out"
        )
    return estimator.setWeightCol(WEIGHT)


def set_threshold(model: Any, threshold: float) -> Any:
    """Lets a model of two classes predict the second one above this probability."""
    if model.hasParam("threshold"):
        return model.setThreshold(threshold)
    # Spark predicts the class whose probability is largest relative to its threshold: p / t > (1 - p) / (1 - t), so p > t.
    return model.setThresholds([1.0 - threshold, threshold])


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


def renamed(columns: dict[str, str]) -> list[str]:
    """Sentences about the columns of the saved model that could not have their usual names."""
    return [
        f"the table has a column like {name!r}; the saved model calls its own {columns[name]!r}"
        for name in PREDICTIONS
        if columns[name] != name
    ]


def save_without(train: DataFrame, validation: DataFrame, args: TrainArgs, slicer: VectorSlicer, uri: str) -> None:
    """Fits and saves the same classifier on fewer features; it takes what the slicer has kept to a probability."""
    fitted = fit(slicer.transform(train), slicer.transform(validation), args, KEPT)
    storage.write_model(fitted.model, uri)


def write_scorecard(fitted: Fitted, features: dict[str, Any], args: TrainArgs, data_digest: str, uri: str) -> str:
    """Writes the scorecard, if this kind of model has one.

    Returns:
        A digest of what the model is: of the scorecard, else of all that the fit depends on.
    """
    numbers = find(args.estimator).scorecard(fitted.model)
    settings = args.hyperparameters()
    if numbers is None:
        return hashlib.sha256(json.dumps([data_digest, settings], sort_keys=True).encode()).hexdigest()
    if fitted.optimised:
        settings |= {"iterations": fitted.optimised.iterations, "converged": fitted.optimised.converged}
    scorecard = build_scorecard(
        features,
        model=find(args.estimator).TITLE,
        numbers=numbers,
        threshold=fitted.threshold,
        settings=settings,
        digests={"features": data_digest},
    )
    storage.write_text(uri, json.dumps(scorecard, indent=1, ensure_ascii=False) + "\n")
    return str(scorecard["digest"])


def run(session: SparkSession, args: TrainArgs) -> Result:
    """Fits and saves the model; see `TrainArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    where = storage.join(args.preprocess_uri, "features.json")
    features: dict[str, Any] = json.loads(storage.read_text(where))
    labels, counts = features["labels"], features["split"]["counts"]
    find(args.estimator).check(args, labels)
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
    digest = write_scorecard(fitted, features, args, preprocessed.digest, uris["scorecard"])
    if without:
        without.value()
    rows = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
    metrics, warnings = {}, renamed(columns)
    if fitted.optimised:
        metrics["iterations"] = float(fitted.optimised.iterations)
        if not fitted.optimised.converged:
            warnings.append(
                f"the optimiser stopped at --max-iter={args.max_iter} without converging; raise it, or scale or drop columns"
            )
    if fitted.threshold is not None:
        metrics["threshold"] = fitted.threshold
    return Result(
        step=Step.TRAIN,
        status="succeeded",
        rows_in=sum(rows.values()),
        rows_out=rows,
        metrics=metrics,
        columns=tuple((feature["name"], "double") for feature in features["features"]),
        inputs={"preprocess_uri": preprocessed.digest},
        digest=digest,
        uris=uris,
        warnings=tuple(warnings),
        facts={
            "converged": fitted.optimised.converged if fitted.optimised else None,
            "labels": labels,
            "model_columns": columns,
            "classifier": storage.stage_path(model, fitted.model),
        },
    )
