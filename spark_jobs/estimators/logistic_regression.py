"""Logistic regression: Spark's `LogisticRegression`, binomial for two classes and multinomial for more.

This module implements `spark_jobs.estimator.Estimator`, which describes each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel

from spark_jobs.arguments import flag
from spark_jobs.contract import TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import Convergence, Shape, coefficient_rows

TITLE = "logistic regression"
MODEL = LogisticRegressionModel
WHEN_TOO_SURE = "Fit with a penalty, for example reg_param 0.01."


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """Refuses a binomial family if the label has more than two classes."""
    if args.family == "binomial" and len(labels) > 2:
        raise InputError(f"{flag('family')}=binomial is for two classes, the label has {len(labels)}; use auto")


def build(args: TrainArgs, shape: Shape) -> LogisticRegression:
    """Returns Spark's estimator with the settings of the contract."""
    return LogisticRegression(
        regParam=args.reg_param,
        elasticNetParam=args.elastic_net_param,
        maxIter=args.max_iter,
        tol=args.tol,
        fitIntercept=args.fit_intercept,
        standardization=args.standardization,
        family=args.family,
    )


def convergence(model: LogisticRegressionModel, args: TrainArgs) -> Convergence:
    """Returns the number of iterations and whether it is below the maximum."""
    iterations = int(model.summary.totalIterations)
    return Convergence(iterations, iterations < args.max_iter)


def explain(
    model: LogisticRegressionModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the coefficients with their odds ratios, and the intercepts."""
    coefficients, intercepts = coefficients_and_intercepts(model)
    return {
        "coefficients": coefficient_rows(coefficients, features, labels, deviations),
        "intercepts": intercepts,
    }


def scorecard(model: LogisticRegressionModel, uri: str) -> dict[str, Any]:
    """Returns the coefficients, shape (rows, features), in units of the raw features, and one intercept per row."""
    coefficients, intercepts = coefficients_and_intercepts(model)
    return {"form": "linear", "intercepts": intercepts, "coefficients": coefficients}


def coefficients_and_intercepts(model: LogisticRegressionModel) -> tuple[list[list[float]], list[float]]:
    """Returns coefficients and intercepts: one row for two classes, else one row per class."""
    coefficients, intercepts = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
    if model.numClasses == 2 and len(coefficients) == 2:
        # A multinomial fit has a row for each of the two classes; the softmax of two margins is the logistic function of their difference.
        coefficients, intercepts = coefficients[1:] - coefficients[:1], intercepts[1:] - intercepts[:1]
    return coefficients.tolist(), intercepts.tolist()
