"""The step train: fits an estimator on the train rows and chooses the decision threshold on the validation rows.

    spark-submit spark_jobs/__main__.py train --preprocess-uri=out/preprocess --output-uri=out/train

The setting `estimator` selects a module of `spark_jobs.estimators`. The step never reads the test rows. If the data have columns that are
known only after the outcome, a second model without them is fitted, with which evaluate compares the first.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
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
from spark_jobs.background import BackgroundWork
from spark_jobs.contract import NEEDS_LIKE_SCALES, TRAIN_PARTS, Step, TrainArgs
from spark_jobs.dataset import read_specification
from spark_jobs.errors import InputError
from spark_jobs.estimator import Convergence, Shape, find_estimator
from spark_jobs.evaluation.judging import estimates
from spark_jobs.evaluation.metrics import choose_threshold
from spark_jobs.features import (
    FEATURES,
    KEPT_FEATURES,
    PREDICTED_LABEL,
    PREDICTIONS,
    set_column_names,
    slicer_without,
)
from spark_jobs.result import Result
from spark_jobs.scorecard import build_scorecard
from spark_jobs.split import LABEL, ROW_HASH, is_small, read_set

WEIGHT = "weight"
"""Column with the weight of a train row."""
THRESHOLD_BINS = 1000
"""The decision threshold is one of k / THRESHOLD_BINS."""


@dataclass(frozen=True)
class FittedModel:
    """A fitted model and its threshold.

    Attributes:
        model: the classifier, with its threshold set.
        threshold: the decision threshold; None for more than two classes.
        convergence: whether the fit has converged; None for a model that is not fitted by iterations.
    """

    model: ProbabilisticClassificationModel
    threshold: float | None
    convergence: Convergence | None


def fit(
    train: DataFrame, validation: DataFrame, args: TrainArgs, shape: Shape, features: str = FEATURES
) -> FittedModel:
    """Fits the estimator on the train rows, then chooses the threshold on the validation rows.

    Args:
        train: the train rows, with the columns `label`, `weight` and the features.
        validation: the validation rows, with the same columns.
        args: the arguments of train.
        shape: number of features and of classes.
        features: name of the column of feature vectors.
    """
    kind = find_estimator(args.estimator)
    estimator = kind.build(args, shape).setFeaturesCol(features).setLabelCol(LABEL)
    model = with_class_weights(estimator, args).fit(train)
    convergence = kind.convergence(
        model, args
    )  # before the threshold is set, as that returns a model without a summary
    if model.numClasses > 2:
        return FittedModel(model, None, convergence)
    threshold = choose_threshold(count_probabilities(model.transform(validation)), args.threshold_rule)
    return FittedModel(set_threshold(model, threshold), threshold, convergence)


def with_class_weights(estimator: Any, args: TrainArgs) -> Any:
    """Lets the estimator use the column of weights if `class_weights` asks for it.

    Raises:
        InputError: this kind of model takes no weights.
    """
    if args.class_weights == "none":
        return estimator
    if not estimator.hasParam("weightCol"):
        raise InputError(
            f"{flag('class_weights')}={args.class_weights}: {args.estimator} takes no weights; leave it out"
        )
    return estimator.setWeightCol(WEIGHT)


def set_threshold(model: Any, threshold: float) -> Any:
    """Lets a model of two classes predict the positive class above this probability."""
    if model.hasParam("threshold"):
        return model.setThreshold(threshold)
    # Spark predicts the class whose probability is largest relative to its threshold: p / t > (1 - p) / (1 - t), so p > t.
    return model.setThresholds([1.0 - threshold, threshold])


def count_probabilities(predictions: DataFrame) -> np.ndarray[Any, Any]:
    """Counts the negatives and positives whose probability lies between neighbouring thresholds.

    Args:
        predictions: the predicted rows, with the columns `label` and `probability`.

    Returns:
        Shape (THRESHOLD_BINS + 1, 2): row k counts the negatives and the positives with a probability of the positive class above
        k / THRESHOLD_BINS and not above (k + 1) / THRESHOLD_BINS.
    """
    positive = vector_to_array(F.col("probability"))[1]
    place = F.greatest(F.ceil(positive * THRESHOLD_BINS) - 1, F.lit(0)).alias("bin")
    counted = predictions.select(place, LABEL).groupBy("bin", LABEL).count().collect()
    counts = np.zeros((THRESHOLD_BINS + 1, 2))
    for row in counted:
        counts[int(row["bin"]), int(row[LABEL])] = row["count"]
    return counts


def class_weight(counts: dict[str, int], labels: list[str]) -> Column:
    """Returns the weight of a row with which all classes count the same: rows / (classes * rows of the class)."""
    rows = sum(counts.values())
    weights = [rows / (len(labels) * counts[label]) for label in labels]
    return F.array(*map(F.lit, weights))[F.col(LABEL).cast("int")]


def renamed_column_warnings(columns: dict[str, str]) -> list[str]:
    """Returns a warning for each prediction column that got another name, as the user's table has a column of its usual name."""
    return [
        f"the table has a column like {name!r}; the saved model calls its own {columns[name]!r}"
        for name in PREDICTIONS
        if columns[name] != name
    ]


def scale_warnings(args: TrainArgs, features: list[dict[str, Any]]) -> list[str]:
    """Returns a warning if the estimator needs features of like scales, and numbers are features as they are."""
    if args.estimator not in NEEDS_LIKE_SCALES or not any(item["kind"] == "numeric" for item in features):
        return []
    return [
        f"{args.estimator} learns little from numbers of different scales: run with --numeric-form=standardised or quantile_bins"
    ]


def fit_and_save_without(
    train: DataFrame, validation: DataFrame, args: TrainArgs, shape: Shape, slicer: VectorSlicer, uri: str
) -> None:
    """Fits and saves a second classifier of the same kind, on the features that the slicer keeps."""
    kept = replace(shape, features=len(slicer.getIndices()))
    fitted = fit(slicer.transform(train), slicer.transform(validation), args, kept, KEPT_FEATURES)
    storage.write_model(fitted.model, uri)


def write_scorecard(
    fitted: FittedModel, features: dict[str, Any], args: TrainArgs, data_digest: str, saved_uri: str, uri: str
) -> str:
    """Writes the scorecard, if this kind of model has one.

    Args:
        fitted: the fitted model.
        features: the document features.json of preprocess.
        args: the arguments of train.
        data_digest: the digest of preprocess.
        saved_uri: where the classifier is saved.
        uri: where to write.

    Returns:
        A digest of the model: that of the scorecard, else a digest of all inputs of the fit.
    """
    numbers = find_estimator(args.estimator).scorecard(fitted.model, saved_uri)
    settings = args.hyperparameters()
    if numbers is None:
        return hashlib.sha256(json.dumps([data_digest, settings], sort_keys=True).encode()).hexdigest()
    if fitted.convergence:
        settings |= {"iterations": fitted.convergence.iterations, "converged": fitted.convergence.converged}
    scorecard = build_scorecard(
        features,
        model=find_estimator(args.estimator).TITLE,
        numbers=numbers,
        threshold=fitted.threshold,
        settings=settings,
        digests={"features": data_digest},
    )
    storage.write_text(uri, json.dumps(scorecard, indent=1, ensure_ascii=False) + "\n")
    return str(scorecard["digest"])


def run(session: SparkSession, args: TrainArgs) -> Result:
    """Fits the model, chooses its threshold and saves it; for the arguments see `TrainArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    where = storage.join(args.preprocess_uri, "features.json")
    features: dict[str, Any] = json.loads(storage.read_text(where))
    labels, counts = features["labels"], features["split"]["counts"]
    find_estimator(args.estimator).check(args, labels)
    uri = storage.join(args.preprocess_uri, "features")
    weight = class_weight(counts["train"], labels)
    train, validation = (
        read_set(session, uri, name, preprocessed.rows_in).withColumn(WEIGHT, weight)
        for name in ("train", "validation")
    )
    if args.train_parts < TRAIN_PARTS:  # the row's hash decides, so a larger sample holds the smaller ones
        train = train.where(F.pmod(F.col(ROW_HASH), F.lit(TRAIN_PARTS)) < args.train_parts)
    afterwards = read_specification(features["specification"], where).known_afterwards
    slicer = slicer_without(features["features"], afterwards)
    uris = {
        name: storage.join(args.output_uri, path)
        for name, path in (("model", "model"), ("scorecard", "scorecard.json"))
    }
    shape = Shape(len(features["features"]), len(labels))
    without = None
    if slicer:
        uris["without"] = storage.join(args.output_uri, "model_without_known_afterwards")
        without = BackgroundWork(
            partial(fit_and_save_without, train, validation, args, shape, slicer, uris["without"]),
            small=is_small(preprocessed.rows_in),
        )
    # Reading a model is one small Spark job after another, which leaves a core to the fit.
    read_encoder = BackgroundWork(
        partial(storage.read_model, storage.join(args.preprocess_uri, "features_model")),
        small=is_small(preprocessed.rows_in),
    )
    fitted = fit(train, validation, args, shape)
    judge = BackgroundWork(  # while the model is saved, which is mostly waiting
        partial(estimates, fitted.model.transform(validation), shape.classes), small=is_small(preprocessed.rows_in)
    )
    encoder = read_encoder.value()
    columns = features["model_columns"]
    to_label = IndexToString(inputCol=columns["prediction"], outputCol=columns[PREDICTED_LABEL], labels=labels)
    model = PipelineModel(stages=[*encoder.stages, set_column_names(fitted.model, columns), to_label])
    storage.write_model(model, uris["model"])
    classifier = storage.stage_path(model, fitted.model)
    saved_uri = storage.join(uris["model"], classifier)
    digest = write_scorecard(fitted, features, args, preprocessed.digest, saved_uri, uris["scorecard"])
    if without:
        without.value()
    rows = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
    metrics, warnings = {}, [*scale_warnings(args, features["features"]), *renamed_column_warnings(columns)]
    if fitted.convergence:
        metrics["iterations"] = float(fitted.convergence.iterations)
        if not fitted.convergence.converged:
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
            "converged": fitted.convergence.converged if fitted.convergence else None,
            "labels": labels,
            "model_columns": columns,
            "classifier": classifier,
            "validation_metrics": judge.value(),
        },
    )
