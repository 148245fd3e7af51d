"""What the estimators made of trees share: the settings of a tree, its importances, and the fitted trees as plain numbers.

A tree is a list of nodes. An inner node sends a row whose feature is at most the threshold to its left child and any other row to its right
child. A leaf holds a value. MLlib gives access to the nodes of a fitted model only through the saved model, so they are read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.contract import DecisionTreeArgs, RandomForestArgs
from spark_jobs.estimator import importance_rows

WHEN_TOO_SURE = "Let leaves hold more rows, for example min_instances_per_node 50, or fit shallower trees."


def tree_settings(args: DecisionTreeArgs) -> dict[str, Any]:
    """Returns the settings of each tree by MLlib's names."""
    return {
        "maxDepth": args.max_depth,
        "maxBins": args.max_bins,
        "minInstancesPerNode": args.min_instances_per_node,
        "seed": args.fit_seed,
    }


def forest_settings(args: RandomForestArgs) -> dict[str, Any]:
    """Returns the settings of each tree and how its rows and features are drawn, by MLlib's names."""
    return {
        **tree_settings(args),
        "subsamplingRate": args.subsampling_rate,
        "featureSubsetStrategy": args.feature_subset_strategy,
    }


def explain(model: Any, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns MLlib's importances: how much the splits on each feature reduce the impurity on the train rows."""
    return {"importances": importance_rows(model.featureImportances.toArray().tolist(), features)}


def averaged(uri: str) -> dict[str, Any]:
    """Returns the trees of a saved tree or forest of classes; its probabilities are the mean of those in the leaves.

    Args:
        uri: where the model is saved.
    """
    return {"form": "averaged_trees", "trees": [_tree(nodes, _class_shares) for nodes in read_nodes(uri)]}


def boosted(uri: str, weights: Sequence[float]) -> dict[str, Any]:
    """Returns the trees of a saved model of boosting; the log-odds of the positive class are the sum of their leaves.

    MLlib's margin is the sum of weight times prediction over all trees, and the probability 1 / (1 + exp(-2 * margin)); a leaf holds its
    part of the log-odds, which are twice the margin. See https://spark.apache.org/docs/latest/mllib-ensembles.html#losses.

    Args:
        uri: where the model is saved.
        weights: the weight of each tree.
    """
    trees = [
        _tree(nodes, lambda node, weight=weight: 2.0 * weight * node["prediction"])  # type: ignore[misc]
        for nodes, weight in zip(read_nodes(uri), weights, strict=True)
    ]
    return {"form": "boosted_trees", "trees": trees}


def read_nodes(uri: str) -> list[list[Row]]:
    """Reads the nodes of a saved model: one list for each tree, in which a node's place is its id."""
    nodes = storage.read_table(SparkSession.active(), storage.join(uri, "data"))
    nodes = nodes.select("treeID", "nodeData.*") if "treeID" in nodes.columns else nodes.withColumn("treeID", F.lit(0))
    trees: dict[int, list[Row]] = {}
    columns = ("treeID", "id", "prediction", "impurityStats", "leftChild", "rightChild", "split")
    for row in sorted(nodes.select(*columns).collect(), key=lambda row: (row["treeID"], row["id"])):
        trees.setdefault(row["treeID"], []).append(row)
    return list(trees.values())


def _tree(nodes: Sequence[Row], value: Callable[[Row], Any]) -> dict[str, list[Any]]:
    """Returns a tree as lists with one entry for each node; `value` gives what a leaf holds."""
    leaf = [node["leftChild"] < 0 for node in nodes]
    splits = [node["split"] for node in nodes]
    return {
        "feature": [split["featureIndex"] for split in splits],
        "threshold": [
            None if end else split["leftCategoriesOrThreshold"][0] for split, end in zip(splits, leaf, strict=True)
        ],
        "left": [node["leftChild"] for node in nodes],
        "right": [node["rightChild"] for node in nodes],
        "value": [value(node) if end else None for node, end in zip(nodes, leaf, strict=True)],
    }


def _class_shares(node: Row) -> list[float]:
    """Returns the share of each class in the weights of a leaf's train rows."""
    total = sum(node["impurityStats"])
    return [weight / total for weight in node["impurityStats"]]
