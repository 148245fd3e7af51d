"""Random forest: Spark's `RandomForestClassifier`, for two and more classes.

This module implements `spark_jobs.estimator.Estimator`, which describes each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import RandomForestClassificationModel, RandomForestClassifier

from spark_jobs import trees
from spark_jobs.contract import TrainArgs
from spark_jobs.estimator import Shape

TITLE = "random forest"
MODEL = RandomForestClassificationModel
WHEN_TOO_SURE = trees.WHEN_TOO_SURE


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """Accepts any classes."""


def build(args: TrainArgs, shape: Shape) -> RandomForestClassifier:
    """Returns Spark's estimator with the settings of the contract."""
    # Pruning would merge leaves that predict the same class with different probabilities, which costs ranking and calibration.
    return RandomForestClassifier(pruneTree=False, numTrees=args.num_trees, **trees.forest_settings(args))


def convergence(model: RandomForestClassificationModel, args: TrainArgs) -> None:
    """Returns None: a forest is not fitted by iterations."""


def explain(
    model: RandomForestClassificationModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the importances of the features."""
    return trees.explain(model, features)


def scorecard(model: RandomForestClassificationModel, uri: str) -> dict[str, Any]:
    """Returns the trees, with the probabilities of the classes in their leaves."""
    return trees.averaged(uri)
