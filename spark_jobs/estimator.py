"""What a kind of model must say of itself, so that train, evaluate and the report can use it; and how it is found by its name.

A new kind is one module in `spark_jobs.estimators` with what `Estimator` lists, and its settings in `spark_jobs.contract`: a dataclass
that `ESTIMATORS` and the bases of `TrainArgs` name. `spark_jobs.estimators.logistic_regression` is the example to copy.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from pyspark.ml.classification import ProbabilisticClassificationModel, ProbabilisticClassifier

from spark_jobs.contract import TrainArgs


@dataclass(frozen=True)
class Optimised:
    """How an iterative fit went.

    Attributes:
        iterations: of the optimiser.
        converged: False if it stopped because it may do no more iterations.
    """

    iterations: int
    converged: bool


class Estimator(Protocol):
    """A module of `spark_jobs.estimators`.

    Attributes:
        TITLE: what people call this kind of model, such as `logistic regression`.
        MODEL: the class of the fitted model, by which a saved one is loaded.
        WHEN_TOO_SURE: what to change when its probabilities are too near to 0 and 1; a sentence for the report.
    """

    TITLE: str
    MODEL: type[ProbabilisticClassificationModel]
    WHEN_TOO_SURE: str

    def check(self, args: TrainArgs, labels: Sequence[str]) -> None:
        """Raises an InputError if these settings do not go with these classes."""

    def build(self, args: TrainArgs) -> ProbabilisticClassifier:
        """The estimator with its settings; `train` sets the columns."""

    def optimised(self, model: Any, args: TrainArgs) -> Optimised | None:
        """How the fit went; None for a model that is not fitted by iterations."""

    def explain(
        self,
        model: Any,
        features: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
        deviations: Mapping[str, float],
    ) -> dict[str, Any]:
        """What drives the model, as the report shows it: `coefficients` (see `coefficient_rows`) or `importances` (see `importance_rows`).

        Args:
            model: fitted.
            features: the places of the feature vector, as features.json tells them.
            labels: in the order of their index.
            deviations: standard deviation of each numeric column over the train rows.
        """

    def scorecard(self, model: Any) -> dict[str, Any] | None:
        """The model as plain numbers, from which `serving.scorer` scores; None if it has none: then only Spark scores it."""


def find(name: str) -> Estimator:
    """The estimator of a name that the contract allows."""
    return cast(Estimator, importlib.import_module(f"spark_jobs.estimators.{name}"))


def coefficient_rows(
    coefficients: Sequence[Sequence[float]],
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Each coefficient of a linear model as odds ratio: by how much the odds are multiplied when the feature grows by one.

    Args:
        coefficients: one row for two classes, else a row for each class; shape (rows, features).
        features: what each place is; `features`, `labels` and `deviations` as for `Estimator.explain`.
        labels: in the order of their index.
        deviations: of each numeric column.

    Returns:
        `class` (None for two classes), `feature`, `column`, `category`, `kind`, `coefficient`, `deviation`, `odds_ratio` and
        `odds_ratio_per_sd` of each.
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
    """`feature`, `column` and `importance` (0 to 1, all together 1) of each place of the feature vector, the largest first."""
    rows = [
        {"feature": feature["name"], "column": feature["column"], "importance": float(importance)}
        for feature, importance in zip(features, importances, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["importance"])


def bounded_exp(value: float) -> float:
    """exp, but the largest double where that would overflow."""
    return float(np.exp(min(value, 709.0)))
