"""Permutation importance against scikit-learn's area and a model whose weights are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from spark_jobs.contract import TrainArgs
from spark_jobs.estimator import Shape
from spark_jobs.evaluation import permutation
from spark_jobs.evaluation.permutation import MOST_COLUMNS, area, permutation_importance
from spark_jobs.steps.train import fit

FEATURES = [
    {"column": "strong", "name": "strong = p"},
    {"column": "noise", "name": "noise"},
    {"column": "strong", "name": "strong = q"},
]


def case(spark: Any, classes: int) -> tuple[Any, Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A model of the sum of the two features of `strong`, its rows in the order of their hash, their features and labels."""
    from pyspark.ml.linalg import Vectors

    draw = np.random.default_rng(classes)
    values = draw.normal(size=(300, 3))
    score = values[:, 0] + values[:, 2] + draw.normal(size=300) / 2
    label = np.digitize(score, [0.0] if classes == 2 else [-1.0, 1.0]).astype(float)
    rows = [
        (float(truth), 1.0, place * 10, Vectors.dense(*row))
        for place, (truth, row) in enumerate(zip(label, values, strict=True))
    ]
    table = spark.createDataFrame(rows, ["label", "weight", "row_hash", "features"]).coalesce(1)
    args = TrainArgs(preprocess_uri="p", output_uri="o", reg_param=0.01)
    return fit(table, table, args, Shape(3, classes)).model, table, values, label


def expected(model: Any, values: Any, label: Any, places: list[int], move: int) -> float:
    """The loss of the metric, by Spark's model of one row and scikit-learn's metric, when the rows of some features move."""
    from pyspark.ml.linalg import Vectors

    worse = []
    for exchanged in ([], places):
        moved = values.copy()
        moved[:, exchanged] = np.roll(values, -move, axis=0)[:, exchanged]
        p = np.array([model.predictProbability(Vectors.dense(*row)).toArray() for row in moved])
        worse.append(-roc_auc_score(label, p[:, 1]) if p.shape[1] == 2 else log_loss(label, p))
    return float(worse[1] - worse[0])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
def test_all_features_of_a_column_are_exchanged_and_the_metric_falls(spark: Any, classes: int) -> None:
    model, table, values, label = case(spark, classes)
    found = permutation_importance(model, table, FEATURES, ["noise", "strong"], [300 // classes] * classes)
    assert (found["metric"], found["rows"], found["repeats"]) == ("areaUnderROC" if classes == 2 else "logLoss", 300, 3)
    assert [item["column"] for item in found["columns"]] == ["strong", "noise"]
    for item, places in zip(found["columns"], ([0, 2], [1]), strict=True):
        drops = [expected(model, values, label, places, move) for move in (75, 150, 225)]
        assert item["importance"] == pytest.approx(np.mean(drops), abs=1e-9)
        assert item["deviation"] == pytest.approx(np.std(drops), abs=1e-9)
    assert found["columns"][0]["importance"] > 0.2 > abs(found["columns"][1]["importance"])


def test_rows_and_columns_are_bounded(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "MOST_ROWS", 120)
    model, table, values, label = case(spark, 2)
    found = permutation_importance(model, table, FEATURES, ["strong", *(f"c{i}" for i in range(40))], [200, 100])
    assert (found["rows"], len(found["columns"])) == (120, MOST_COLUMNS)
    drops = [expected(model, values[:120], label[:120], [0, 2], move) for move in (30, 60, 90)]
    assert found["columns"][0]["importance"] == pytest.approx(np.mean(drops), abs=1e-9)


def test_area_counts_a_tie_as_one_half() -> None:
    label, p = np.array([0.0, 1, 1, 0, 1]), np.array([0.2, 0.2, 0.9, 0.5, 0.1])
    assert area(label, p) == pytest.approx(roc_auc_score(label, p), abs=1e-12)
