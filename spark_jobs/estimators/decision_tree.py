"""Decision tree: Spark's `DecisionTreeClassifier`, for two and more classes.

This module implements `spark_jobs.estimator.Estimator`, which describes each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import DecisionTreeClassificationModel, DecisionTreeClassifier

from spark_jobs import trees
from spark_jobs.contract import TrainArgs
from spark_jobs.estimator import Shape

TITLE = "decision tree"
MODEL = DecisionTreeClassificationModel
WHEN_TOO_SURE = trees.WHEN_TOO_SURE


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """Accepts any classes."""


def build(args: TrainArgs, shape: Shape) -> DecisionTreeClassifier:
    """Returns Spark's estimator with the settings of the contract."""
    # Pruning would merge leaves that predict the same class with different probabilities, which costs ranking and calibration.
    return DecisionTreeClassifier(pruneTree=False, **trees.tree_settings(args))


def convergence(model: DecisionTreeClassificationModel, args: TrainArgs) -> None:
    """Returns None: a tree is not fitted by iterations."""


def explain(
    model: DecisionTreeClassificationModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the importances of the features."""
    return trees.explain(model, features)


def scorecard(model: DecisionTreeClassificationModel, uri: str) -> dict[str, Any]:
    """Returns the one tree, with the probabilities of the classes in its leaves."""
    return trees.averaged(uri)
