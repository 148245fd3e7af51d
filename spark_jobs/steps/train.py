"""The step train: fits an estimator on the train rows and chooses the decision threshold on the validation rows.

    spark-submit spark_jobs/__main__.py train --preprocess-uri=out/preprocess --output-uri=out/train

The setting `estimator` selects a module of `spark_jobs.estimators`. With `tune_uri` the estimator and its settings are those that the step
tune found best, the model is fitted on the train and the validation rows, and a model with the default settings is fitted beside it. The
step never reads the test rows. If the data have columns that are
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
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.background import BackgroundWork
from spark_jobs.contract import NEEDS_LIKE_SCALES, TRAIN_PARTS, Step, TrainArgs
from spark_jobs.dataset import read_specification
from spark_jobs.errors import InputError
from spark_jobs.estimator import (
    WEIGHT,
    Convergence,
    Shape,
    class_weight,
    find_estimator,
    with_choice,
    with_class_weights,
)
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
from spark_jobs.monitoring.counting import reference_scores
from spark_jobs.monitoring.histograms import Histogram, Reference, read_histogram
from spark_jobs.result import Result
from spark_jobs.saved_model import FEATURES_NAME, REFERENCE_NAME
from spark_jobs.scorecard import build_scorecard
from spark_jobs.split import LABEL, ROW_HASH, is_small, read_set

THRESHOLD_BINS = 1000
"""The decision threshold is one of k / THRESHOLD_BINS."""


@dataclass(frozen=True)
class FittedModel:
    """A fitted model and its threshold.

    Attributes:
        model: the classifier, with its threshold set.
        first: that of the fit on the train rows alone, which has not seen the validation rows; often the same.
        threshold: the decision threshold; None for more than two classes.
        convergence: whether the fit has converged; None for a model that is not fitted by iterations.
    """

    model: ProbabilisticClassificationModel
    first: ProbabilisticClassificationModel
    threshold: float | None
    convergence: Convergence | None


def fit(
    train: DataFrame,
    validation: DataFrame,
    args: TrainArgs,
    shape: Shape,
    features: str = FEATURES,
    both: DataFrame | None = None,
) -> FittedModel:
    """Fits the estimator on the train rows, then chooses the threshold on the validation rows.

    With `both` the model is fitted once more, on these rows. Its threshold is that of the first fit, as a threshold must be chosen on rows
    that the fit has not seen.

    Args:
        train: the train rows, with the columns `label`, `weight` and the features.
        validation: the validation rows, with the same columns.
        args: the arguments of train.
        shape: number of features and of classes.
        features: name of the column of feature vectors.
        both: the train and the validation rows, if the model is to be fitted on them.
    """
    kind = find_estimator(args.estimator)
    estimator = kind.build(args, shape).setFeaturesCol(features).setLabelCol(LABEL)
    estimator = with_class_weights(estimator, args.class_weights, args.estimator)
    model = first = estimator.fit(train)
    threshold = None
    if shape.classes == 2:
        threshold = choose_threshold(count_probabilities(model.transform(validation)), args.threshold_rule)
    if both is not None:
        model = estimator.fit(both)
    convergence = kind.convergence(
        model, args
    )  # before the threshold is set, as that returns a model without a summary
    return FittedModel(model if threshold is None else set_threshold(model, threshold), first, threshold, convergence)


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


@dataclass(frozen=True)
class Rows:
    """The rows of the fits, and their shape; see `fit`."""

    train: DataFrame
    validation: DataFrame
    both: DataFrame | None
    shape: Shape


def read_rows(session: SparkSession, args: TrainArgs, preprocessed: Result, features: dict[str, Any]) -> Rows:
    """Reads the rows of the fits, with the column `weight`."""
    labels, counts = features["labels"], features["split"]["counts"]
    uri = storage.join(args.preprocess_uri, "features")
    names = ("train", "validation")
    # With weights, a row of either set counts as it does in the rows that the model is fitted on.
    weighed = {
        label: sum(counts[name].get(label, 0) for name in (names if args.tune_uri else names[:1])) for label in labels
    }
    weight = class_weight(weighed, labels)
    train, validation = (
        read_set(session, uri, name, preprocessed.rows_in).withColumn(WEIGHT, weight) for name in names
    )
    if args.train_parts < TRAIN_PARTS:  # the row's hash decides, so a larger sample holds the smaller ones
        train = train.where(F.pmod(F.col(ROW_HASH), F.lit(TRAIN_PARTS)) < args.train_parts)
    both = train.unionByName(validation) if args.tune_uri else None
    if both is not None and is_small(preprocessed.rows_in):
        both = both.coalesce(1)
    return Rows(train, validation, both, Shape(len(features["features"]), len(labels)))


def fit_beside(rows: Rows, args: TrainArgs, features: str = FEATURES) -> ProbabilisticClassificationModel:
    """Fits a model with which evaluate compares the first one."""
    train, both = rows.train, rows.both
    if rows.shape.classes > 2 and both is not None:
        train, both = both, None  # it has no threshold, for which alone a first fit on the train rows would be needed
    return fit(train, rows.validation, args, rows.shape, features, both=both).model


def fit_and_save_without(rows: Rows, args: TrainArgs, slicer: VectorSlicer, uri: str) -> None:
    """Fits and saves a second classifier of the same kind, on the features that the slicer keeps."""
    sliced = Rows(
        slicer.transform(rows.train),
        slicer.transform(rows.validation),
        None if rows.both is None else slicer.transform(rows.both),
        replace(rows.shape, features=len(slicer.getIndices())),
    )
    storage.write_model(fit_beside(sliced, args, KEPT_FEATURES), uri)


@dataclass(frozen=True)
class Tuning:
    """What the step tune has chosen.

    Attributes:
        chosen: the arguments with the best settings.
        untuned: the arguments with the defaults of the first estimator of the search.
        facts: what evaluate needs to know of it.
        digest: the digest of tune.
    """

    chosen: TrainArgs
    untuned: TrainArgs
    facts: dict[str, Any]
    digest: str


def read_tuning(args: TrainArgs, preprocessed: Result) -> Tuning:
    """Reads the best settings.

    Raises:
        InputError: the search was made on other rows.
    """
    tuned = storage.read_result(args.tune_uri)
    if tuned.inputs.get("preprocess_uri") != preprocessed.digest:
        raise InputError(
            f"the search in {args.tune_uri} was not made on {args.preprocess_uri}; name the two that belong together"
        )
    best = json.loads(storage.read_text(storage.join(args.tune_uri, "best.json")))
    untuned = best.get("untuned") or {"estimator": best["estimator"], "settings": {}}
    choice = {name: best[name] for name in ("estimator", "settings")}
    facts = {"chosen": choice, "untuned": untuned, "objective": best.get("objective", "")}
    return Tuning(with_choice(args, choice), with_choice(args, untuned), facts, tuned.digest)


def fit_and_save_untuned(rows: Rows, tuning: Tuning, uri: str) -> None:
    """Fits and saves the model with the default settings, on the same rows, with which evaluate compares the tuned one."""
    storage.write_model(fit_beside(rows, tuning.untuned), uri)


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


def write_reference(features: dict[str, Any], score: Histogram, digest: str, uri: str) -> None:
    """Writes what drift is compared with: the histograms of the train rows' columns, and of the scores of the validation rows.

    On the train rows, on which it was fitted, a model is surer than it is on new ones.
    """
    reference = Reference(
        rows=sum(features["split"]["counts"]["train"].values()),
        columns=tuple(read_histogram(item, FEATURES_NAME) for item in features["histograms"]),
        score=score,
        model=digest,
    )
    storage.write_text(uri, reference.to_json())


def run(session: SparkSession, args: TrainArgs) -> Result:
    """Fits the model, chooses its threshold and saves it; for the arguments see `TrainArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    where = storage.join(args.preprocess_uri, "features.json")
    features: dict[str, Any] = json.loads(storage.read_text(where))
    labels = features["labels"]
    tuning = read_tuning(args, preprocessed) if args.tune_uri else None
    rows = read_rows(session, args, preprocessed, features)
    args = tuning.chosen if tuning else args
    find_estimator(args.estimator).check(args, labels)
    afterwards = read_specification(features["specification"], where).known_afterwards
    slicer = slicer_without(features["features"], afterwards)
    uris = {
        name: storage.join(args.output_uri, path)
        for name, path in (("model", "model"), ("scorecard", "scorecard.json"), ("reference", REFERENCE_NAME))
    }
    beside = []
    if slicer:
        uris["without"] = storage.join(args.output_uri, "model_without_known_afterwards")
        beside.append(partial(fit_and_save_without, rows, args, slicer, uris["without"]))
    if tuning:
        uris["untuned"] = storage.join(args.output_uri, "model_untuned")
        beside.append(partial(fit_and_save_untuned, rows, tuning, uris["untuned"]))
    others = [BackgroundWork(work, small=is_small(preprocessed.rows_in)) for work in beside]
    # Reading a model is one small Spark job after another, which leaves a core to the fit.
    read_encoder = BackgroundWork(
        partial(storage.read_model, storage.join(args.preprocess_uri, "features_model")),
        small=is_small(preprocessed.rows_in),
    )
    fitted = fit(rows.train, rows.validation, args, rows.shape, both=rows.both)
    predicted = fitted.first.transform(rows.validation)  # before the columns of the model get their final names
    # Counted and judged while the model is saved, which is mostly waiting.
    count = partial(reference_scores, predicted, {name: name for name in PREDICTIONS}, labels)
    score = BackgroundWork(count, small=is_small(preprocessed.rows_in))
    judge = None
    if rows.both is None:  # else the model is another one
        work = partial(estimates, predicted, rows.shape.classes)
        judge = BackgroundWork(work, small=is_small(preprocessed.rows_in))
    encoder = read_encoder.value()
    columns = features["model_columns"]
    to_label = IndexToString(inputCol=columns["prediction"], outputCol=columns[PREDICTED_LABEL], labels=labels)
    model = PipelineModel(stages=[*encoder.stages, set_column_names(fitted.model, columns), to_label])
    storage.write_model(model, uris["model"])
    classifier = storage.stage_path(model, fitted.model)
    saved_uri = storage.join(uris["model"], classifier)
    digest = write_scorecard(fitted, features, args, preprocessed.digest, saved_uri, uris["scorecard"])
    write_reference(features, score.value(), digest, uris["reference"])
    for other in others:
        other.value()
    counts = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
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
        rows_in=sum(counts.values()),
        rows_out=counts,
        metrics=metrics,
        columns=tuple((feature["name"], "double") for feature in features["features"]),
        inputs={"preprocess_uri": preprocessed.digest} | ({"tune_uri": tuning.digest} if tuning else {}),
        digest=digest,
        uris=uris,
        warnings=tuple(warnings),
        facts={
            "converged": fitted.convergence.converged if fitted.convergence else None,
            "labels": labels,
            "model_columns": columns,
            "classifier": classifier,
        }
        | ({"validation_metrics": judge.value()} if judge else {})
        | (tuning.facts if tuning else {}),
    )
