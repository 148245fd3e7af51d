"""Gradient-boosted trees: Spark's `GBTClassifier`, for two classes only.

This module implements `spark_jobs.estimator.Estimator`, which describes each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import GBTClassificationModel, GBTClassifier

from spark_jobs import trees
from spark_jobs.arguments import flag
from spark_jobs.contract import TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import Shape

TITLE = "gradient-boosted trees"
MODEL = GBTClassificationModel
WHEN_TOO_SURE = "Fit fewer or shallower trees, for example num_trees 20 or max_depth 3."


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """Refuses a label with more than two classes."""
    if len(labels) > 2:
        raise InputError(
            f"{flag('estimator')}=gbt is for two classes, the label has {len(labels)}; use random_forest, or merge classes"
        )


def build(args: TrainArgs, shape: Shape) -> GBTClassifier:
    """Returns Spark's estimator with the settings of the contract."""
    return GBTClassifier(maxIter=args.num_trees, stepSize=args.step_size, **trees.forest_settings(args))


def convergence(model: GBTClassificationModel, args: TrainArgs) -> None:
    """Returns None: all trees are fitted, whether the last ones improve the model or not."""


def explain(
    model: GBTClassificationModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the importances of the features."""
    return trees.explain(model, features)


def scorecard(model: GBTClassificationModel, uri: str) -> dict[str, Any]:
    """Returns the trees, with parts of the log-odds of the positive class in their leaves."""
    return trees.boosted(uri, model.treeWeights)
