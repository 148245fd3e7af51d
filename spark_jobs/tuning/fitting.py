"""Fits and judges the model of one trial: on train and validation rows, by folds of both, or on growing samples of the train rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.contract import GROWTH, TRAIN_PARTS, TrainArgs
from spark_jobs.estimator import Shape, find_estimator, with_class_weights
from spark_jobs.evaluation.judging import estimates
from spark_jobs.failure_reasons import java_cause, was_interrupted
from spark_jobs.features import FEATURES
from spark_jobs.split import LABEL, ROW_HASH
from spark_jobs.trials import Trial


@dataclass(frozen=True)
class Portion:
    """Rows to fit on and rows to judge on; a trial takes one portion after another.

    Attributes:
        name: where a trial is that was stopped after it.
        budget: what a trial has had after it: the number of folds, or of ninths of the train rows.
        train: the rows to fit on.
        judged: the rows to judge on.
    """

    name: str
    budget: int
    train: DataFrame
    judged: DataFrame


@dataclass(frozen=True)
class Rows:
    """The rows of the trials.

    Attributes:
        portions: one or more.
        shape: number of features and of classes.
        class_weights: whether rows are weighted, as for train.
        averaged: whether the metrics of a trial are the mean of its portions, as for folds, or those of the last one.
        side_by_side: whether several trials may run at one time.
    """

    portions: Sequence[Portion]
    shape: Shape
    class_weights: str = "none"
    averaged: bool = False
    side_by_side: bool = False

    @property
    def largest_budget(self) -> int:
        """The budget of a trial that is not stopped."""
        return self.portions[-1].budget


def whole(train: DataFrame, validation: DataFrame, shape: Shape, class_weights: str) -> Rows:
    """Returns the rows of trials that are fitted once, on all train rows."""
    return Rows([Portion("", 1, train, validation)], shape, class_weights)


def folds(train: DataFrame, validation: DataFrame, shape: Shape, class_weights: str, count: int) -> Rows:
    """Returns the rows of trials that are fitted on all parts but one of the train and the validation rows, and judged on that part.

    Equal rows are in the same part, as a row's hash decides on it.
    """
    both = train.unionByName(validation).cache()
    part = F.pmod(F.col(ROW_HASH), F.lit(count))
    portions = [
        Portion(f"fold {number + 1} of {count}", number + 1, both.where(part != number), both.where(part == number))
        for number in range(count)
    ]
    return Rows(portions, shape, class_weights, averaged=True)


def growing(train: DataFrame, validation: DataFrame, shape: Shape, class_weights: str) -> Rows:
    """Returns the rows of trials that are fitted on growing samples of the train rows; each sample holds the smaller ones."""
    part = F.pmod(F.col(ROW_HASH), F.lit(TRAIN_PARTS))
    portions = [
        Portion(f"{parts}/{TRAIN_PARTS} of the train rows", parts, train.where(part < parts), validation)
        for parts in GROWTH
    ]
    return Rows(portions, shape, class_weights)


def run_trial(
    rows: Rows,
    estimator: str,
    settings: Mapping[str, Any],
    objective: str,
    should_stop: Callable[[int, float], bool] = lambda *_: False,
) -> Trial:
    """Fits and judges an estimator on one portion of the rows after another; a fit that fails is a trial without metrics.

    A fit that was interrupted is no trial, and its error is raised: it says nothing of these settings.

    Args:
        rows: the rows.
        estimator: the kind of model.
        settings: its settings; the others have their defaults.
        objective: the metric that is reported.
        should_stop: called after each portion but the last with its budget and the objective so far; returns whether the trial ends.
    """
    began = time.perf_counter()
    found: list[dict[str, float]] = []
    reports: list[tuple[int, float]] = []
    metrics: dict[str, float] = {}
    error = stopped = ""
    try:
        for portion in rows.portions:
            found.append(judge_fit(portion, rows, estimator, settings))
            metrics = mean_of(found) if rows.averaged else found[-1]
            reports.append((portion.budget, metrics[objective]))
            if portion is not rows.portions[-1] and should_stop(portion.budget, metrics[objective]):
                stopped = portion.name
                break
    except Exception as failure:  # whatever Spark raises for these settings
        if was_interrupted(failure, rows.portions[0].train.sparkSession):
            raise
        text = str(failure)
        metrics, error = {}, (java_cause(text) or text).split("\n")[0][:300]
    seconds = time.perf_counter() - began
    return Trial(
        estimator=estimator, settings=settings, metrics=metrics, seconds=seconds, error=error,
        reports=tuple(reports) if len(rows.portions) > 1 else (), stopped=stopped,
    )  # fmt: skip


def judge_fit(portion: Portion, rows: Rows, estimator: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """Fits an estimator on the train rows of a portion and computes the metrics of its judged rows."""
    args = TrainArgs(preprocess_uri="", output_uri="", estimator=estimator, **settings)
    kind = find_estimator(estimator).build(args, rows.shape).setFeaturesCol(FEATURES).setLabelCol(LABEL)
    model = with_class_weights(kind, rows.class_weights, estimator).fit(portion.train)
    return estimates(model.transform(portion.judged), rows.shape.classes)


def mean_of(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric."""
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]}
