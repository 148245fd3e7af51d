"""Logistic regression: Spark's `LogisticRegression`, binomial for two classes and multinomial for more.

See `spark_jobs.estimator.Estimator` for what each function is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel

from spark_jobs.arguments import flag
from spark_jobs.contract import TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import Optimised, coefficient_rows

TITLE = "logistic regression"
MODEL = LogisticRegressionModel
WHEN_TOO_SURE = "Fit with a penalty, for example reg_param 0.01."


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """A binomial regression knows two classes."""
    if args.family == "binomial" and len(labels) > 2:
        raise InputError(f"{flag('family')}=binomial is for two classes, the label has {len(labels)}; use auto")


def build(args: TrainArgs) -> LogisticRegression:
    """The estimator with the settings of the contract."""
    return LogisticRegression(
        regParam=args.reg_param,
        elasticNetParam=args.elastic_net_param,
        maxIter=args.max_iter,
        tol=args.tol,
        fitIntercept=args.fit_intercept,
        standardization=args.standardization,
        family=args.family,
    )


def optimised(model: LogisticRegressionModel, args: TrainArgs) -> Optimised:
    """How many iterations it took."""
    iterations = int(model.summary.totalIterations)
    return Optimised(iterations, iterations < args.max_iter)


def explain(
    model: LogisticRegressionModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Its coefficients as odds ratios, and its intercepts."""
    coefficients, intercepts = as_rows(model)
    return {
        "coefficients": coefficient_rows(coefficients, features, labels, deviations),
        "intercepts": intercepts,
    }


def scorecard(model: LogisticRegressionModel) -> dict[str, Any]:
    """Coefficients, shape (rows, features), in units of the raw features, and an intercept for each row."""
    coefficients, intercepts = as_rows(model)
    return {"intercepts": intercepts, "coefficients": coefficients}


def as_rows(model: LogisticRegressionModel) -> tuple[list[list[float]], list[float]]:
    """Coefficients and intercepts: one row for two classes, whichever family was fitted, else a row for each class."""
    coefficients, intercepts = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
    if model.numClasses == 2 and len(coefficients) == 2:
        coefficients, intercepts = coefficients[1:] - coefficients[:1], intercepts[1:] - intercepts[:1]
    return coefficients.tolist(), intercepts.tolist()
