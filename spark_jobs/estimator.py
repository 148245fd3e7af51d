"""The interface of an estimator: what train, evaluate and the report need from a kind of model.

To add an estimator, write one module in `spark_jobs.estimators` with the attributes and functions of `Estimator`, and declare its settings
in `spark_jobs.contract`: a dataclass that is listed in `ESTIMATORS` and is a base class of `TrainArgs`.
`spark_jobs.estimators.logistic_regression` is the example to copy; what estimators made of trees share is in `spark_jobs.trees`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from pyspark.ml.classification import ProbabilisticClassificationModel, ProbabilisticClassifier
from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_jobs.arguments import flag
from spark_jobs.contract import TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.result import Result
from spark_jobs.split import LABEL

WEIGHT = "weight"
"""Column with the weight of a row in the fit."""


@dataclass(frozen=True)
class Convergence:
    """Whether an iterative fit has converged.

    Attributes:
        iterations: number of iterations of the optimiser.
        converged: False if the optimiser stopped at its maximum number of iterations.
    """

    iterations: int
    converged: bool


@dataclass(frozen=True)
class Shape:
    """The size of what a model reads and tells.

    Attributes:
        features: number of elements of the feature vector.
        classes: number of classes of the label.
    """

    features: int
    classes: int


class Estimator(Protocol):
    """The attributes and functions of a module in `spark_jobs.estimators`.

    Attributes:
        TITLE: name of this kind of model in the report, such as `logistic regression`.
        MODEL: class of the fitted model; a saved model is loaded by it.
        WHEN_TOO_SURE: what to change if the probabilities are too close to 0 and 1; a sentence for the report.
    """

    TITLE: str
    MODEL: type[ProbabilisticClassificationModel]
    WHEN_TOO_SURE: str

    def check(self, args: TrainArgs, labels: Sequence[str]) -> None:
        """Checks the settings against the classes of the label.

        Raises:
            InputError: the estimator cannot be fitted to these classes with these settings.
        """

    def build(self, args: TrainArgs, shape: Shape) -> ProbabilisticClassifier:
        """Returns the MLlib estimator with its settings; train sets the names of the columns."""

    def convergence(self, model: Any, args: TrainArgs) -> Convergence | None:
        """Returns whether the fit has converged; None for a model that is not fitted by iterations."""

    def explain(
        self,
        model: Any,
        features: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
        deviations: Mapping[str, float],
    ) -> dict[str, Any]:
        """Returns how the features influence the model, for the report.

        Args:
            model: the fitted model.
            features: the elements of the feature vector, as described in features.json.
            labels: the label values in the order of their index.
            deviations: standard deviation of each numeric column over the train rows.

        Returns:
            `coefficients` (see `coefficient_rows`), `importances` (see `importance_rows`), or nothing.
        """

    def scorecard(self, model: Any, uri: str) -> dict[str, Any] | None:
        """Returns the model as plain numbers for `serving.scorer`; None if the model has no such form and only Spark can score it.

        Args:
            model: the fitted model.
            uri: where it is saved.

        Returns:
            `form`, one of those of `spark_jobs.scorecard`, and the numbers of that form.
        """


def find_estimator(name: str) -> Estimator:
    """Returns the estimator with a name from the contract's `ESTIMATORS`."""
    return cast(Estimator, importlib.import_module(f"spark_jobs.estimators.{name}"))


def with_class_weights(estimator: Any, class_weights: str, name: str) -> Any:
    """Lets the estimator use the column of weights if `class_weights` asks for it.

    Raises:
        InputError: this kind of model takes no weights.
    """
    if class_weights == "none":
        return estimator
    if not estimator.hasParam("weightCol"):
        raise InputError(f"{flag('class_weights')}={class_weights}: {name} takes no weights; leave it out")
    return estimator.setWeightCol(WEIGHT)


def class_weight(counts: dict[str, int], labels: list[str]) -> Column:
    """Returns the weight of a row with which all classes count the same: rows / (classes * rows of the class)."""
    rows = sum(counts.values())
    weights = [rows / (len(labels) * counts[label]) for label in labels]
    return F.array(*map(F.lit, weights))[F.col(LABEL).cast("int")]


def fitted_args(fitted: Result) -> TrainArgs:
    """Returns the arguments with which the model of a step train was fitted: its own, and the settings that tune has chosen."""
    args = TrainArgs(**fitted.arguments)
    return with_choice(args, fitted.facts["chosen"]) if fitted.facts.get("chosen") else args


def with_choice(args: TrainArgs, choice: Mapping[str, Any]) -> TrainArgs:
    """Returns the arguments with an estimator and its settings, such as those of best.json."""
    return replace(args, tune_uri="", estimator=choice["estimator"], **choice["settings"])


def coefficient_rows(
    coefficients: Sequence[Sequence[float]],
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Describes each coefficient of a linear model and its odds ratio: the factor of the odds when the feature grows by one.

    Args:
        coefficients: one row for two classes, else one row per class; shape (rows, features).
        features: as for `Estimator.explain`.
        labels: as for `Estimator.explain`.
        deviations: as for `Estimator.explain`.

    Returns:
        One row per coefficient: `class` (None for two classes), `feature`, `column`, `category`, `kind`, `coefficient`, `deviation`,
        `odds_ratio` and `odds_ratio_per_sd` (the factor when the feature grows by one standard deviation).
    """
    found = []
    classes: list[str | None] = [None] if len(labels) == 2 else list(labels)
    for label, row in zip(classes, coefficients, strict=True):
        for feature, coefficient in zip(features, row, strict=True):
            deviation = deviations.get(feature["column"]) if feature["kind"] == "numeric" else None
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


def importance_rows(importances: Sequence[float], features: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describes the importance of each element of the feature vector, for the report.

    Returns:
        One row per feature, the most important first: `feature`, `column` and `importance` (0 to 1, with the sum 1).
    """
    rows = [
        {"feature": feature["name"], "column": feature["column"], "importance": float(importance)}
        for feature, importance in zip(features, importances, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["importance"])


def bounded_exp(value: float) -> float:
    """Returns exp(value), but at most exp(709): exp(710) overflows a double, and JSON has no infinity."""
    return float(np.exp(min(value, 709.0)))
