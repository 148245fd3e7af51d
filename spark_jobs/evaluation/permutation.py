"""Permutation importance: how much worse a model ranks the test rows when the values of one column are those of other rows.

It needs nothing but the model's probabilities, so it compares columns in the same way for every kind of model (Breiman 2001, Random
Forests, section 10). All features of a column are exchanged together. Columns that tell the same can each seem unimportant, as the model
still has the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from spark_jobs.evaluation import metrics
from spark_jobs.evaluation.intervals import Array
from spark_jobs.evaluation.metrics import SMALLEST
from spark_jobs.features import FEATURES
from spark_jobs.split import LABEL, ROW_HASH

MOST_ROWS, MOST_COLUMNS, REPEATS = 500, 30, 3
"""At most so many test rows, those with the smallest hashes, and so many columns are exchanged, so many times
each; so the time is bounded."""
NO_COLUMN = -1


def permutation_importance(
    model: Any, test: DataFrame, features: Sequence[Mapping[str, Any]], columns: Sequence[str], counts: Sequence[int]
) -> dict[str, Any]:
    """Returns the permutation importance of columns on the test rows.

    A permutation moves the rows, which are in the order of their hash and so in a random one, by a fixed number of places. So the result
    is the same in every run.

    Args:
        model: the classifier; its columns have MLlib's names.
        test: the test rows, with the columns features, label and row_hash.
        features: the elements of the feature vector, as described in features.json.
        columns: names of the raw columns, the ones to keep first; the first `MOST_COLUMNS` are taken.
        counts: number of test rows of each class.

    Returns:
        `metric`, `rows`, `repeats`, and `columns`, the most important first: `column`; `importance`, the mean loss of areaUnderROC, or the
        mean rise of logLoss for more than two classes; and `deviation`, its standard deviation over the repeats.
    """
    taken = list(dict.fromkeys(columns))[:MOST_COLUMNS]
    rows = (
        test.orderBy(ROW_HASH).limit(MOST_ROWS).select(LABEL, ROW_HASH, vector_to_array(F.col(FEATURES)).alias("own"))
    )
    place = (F.row_number().over(Window.orderBy(ROW_HASH)) - 1).alias("place")
    numbered = rows.select(LABEL, "own", place)
    count, labels = min(MOST_ROWS, sum(counts)), len(counts)
    moves = sorted({max(1, round(count * repeat / (REPEATS + 1))) for repeat in range(1, REPEATS + 1)})
    moved = numbered.select("*", F.explode(F.array(*map(F.lit, moves))).alias("move"))
    others = numbered.select(F.col("own").alias("other"), F.col("place").alias("partner"))
    pairs = moved.withColumn("partner", (F.col("place") + F.col("move")) % count).join(F.broadcast(others), "partner")
    owners = F.array(
        *(F.lit(taken.index(item["column"]) if item["column"] in taken else NO_COLUMN - 1) for item in features)
    )
    exchanged = F.transform(
        "own", lambda value, i: F.when(owners[i] == F.col("exchanged"), F.col("other")[i]).otherwise(value)
    )
    places = F.explode(F.array(*map(F.lit, [NO_COLUMN, *range(len(taken))])))
    permuted = pairs.withColumn("exchanged", places).select(
        LABEL, "move", "exchanged", array_to_vector(exchanged).alias(FEATURES)
    )
    probability = vector_to_array(F.col("probability"))[1 if labels == 2 else F.col(LABEL).cast("int")]
    predicted = model.transform(permuted).select("move", "exchanged", LABEL, probability.alias("p"))
    lists = (F.collect_list(name).alias(name) for name in (LABEL, "p"))
    groups = predicted.groupBy("move", "exchanged").agg(*lists).collect()
    return _summary(groups, taken, labels, count)


def _summary(groups: Sequence[Row], columns: Sequence[str], labels: int, count: int) -> dict[str, Any]:
    """Returns the document of `permutation_importance` from the predictions of each permutation."""
    table = {(group["exchanged"], group["move"]): np.array([group[LABEL], group["p"]]) for group in groups}
    moves = sorted({move for _, move in table})
    truth = table[NO_COLUMN, moves[0]][0]
    ranked = labels == 2 and 0 < truth.sum() < count
    worse = {
        key: -area(label, p) if ranked else log_loss(label if labels == 2 else np.ones(count), p)
        for key, (label, p) in table.items()
    }
    found = []
    for index, name in enumerate(columns):
        rises = [worse[index, move] - worse[NO_COLUMN, move] for move in moves]
        found.append({"column": name, "importance": float(np.mean(rises)), "deviation": float(np.std(rises))})
    return {
        "metric": "areaUnderROC" if ranked else "logLoss",
        "rows": count,
        "repeats": len(moves),
        "columns": sorted(found, key=lambda item: -item["importance"]),
    }


def area(label: Array, probability: Array) -> float:
    """Returns the area under the ROC curve; a tie counts as one half."""
    _, place = np.unique(probability, return_inverse=True)
    negatives, positives = (np.bincount(place, weights).astype(float) for weights in (1 - label, label))
    return metrics.area_under_roc(negatives, positives)


def log_loss(label: Array, probability: Array) -> float:
    """Returns the mean of -ln(probability of the actual class); `label` is 1 where `probability` is that of the actual class, else 0."""
    own = np.where(label == 1, probability, 1 - probability)
    return float(-np.log(np.maximum(own, SMALLEST)).mean())
