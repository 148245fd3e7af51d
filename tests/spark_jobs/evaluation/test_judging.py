"""From predictions to an evaluation, on predictions made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from spark_jobs.contract import TrainArgs
from spark_jobs.dataset import Specification
from spark_jobs.evaluation.judging import Training, baseline, correction, count_predictions, curves, judge, log_odds
from spark_jobs.evaluation.metrics import SMALLEST, PredictionCounts, logistic


def training(labels: list[str], counts: dict[str, int], base_rate: float | None = None, **settings: Any) -> Training:
    return Training(
        features={"labels": labels, "split": {"counts": {"train": counts, "validation": counts, "test": counts}}},
        args=TrainArgs(preprocess_uri="p", output_uri="o", **settings),
        specification=Specification(label="y", base_rate=base_rate),
    )


@pytest.fixture(scope="module")
def drawn() -> list[tuple[float, list[float], float, int]]:
    """Rows of label, probabilities, prediction and hash, as a model of two classes without rawPrediction would give them."""
    random = np.random.default_rng(5)
    rows = []
    for place in range(300):
        p = round(float(random.uniform(0.02, 0.98)), 2)
        label = float(random.random() < p)
        rows.append((label, [1 - p, p], float(p > 0.5), place * 7919))
    return rows


@pytest.fixture(scope="module")
def predictions(spark: Any, drawn: list[Any]) -> Any:
    from pyspark.ml.functions import array_to_vector

    table = spark.createDataFrame(drawn, "label double, p array<double>, prediction double, row_hash long")
    return table.withColumn("probability", array_to_vector("p")).drop("p").cache()


def test_two_classes_are_judged_from_probabilities_alone(predictions: Any, drawn: list[Any]) -> None:
    label, p = [row[0] for row in drawn], [row[1][1] for row in drawn]
    positives = int(sum(label))
    judged = judge(predictions, training(["no", "yes"], {"no": 300 - positives, "yes": positives}), 50)
    found = {item["name"]: item["value"] for item in judged["metrics"]}
    assert found["areaUnderROC"] == pytest.approx(roc_auc_score(label, p), abs=1e-12)
    assert found["logLoss"] == pytest.approx(log_loss(label, p), abs=1e-12)
    assert found["accuracy"] == pytest.approx(np.mean([(x > 0.5) == y for x, y in zip(p, label, strict=True)]))
    assert sum(map(sum, judged["confusion"]["matrix"])) == 300
    assert len(judged["left_out"]["areaUnderROC"]) == 20, (
        "the parts that are left out one after another, to compare two models"
    )


def test_the_precision_curve_begins_at_the_first_positive_and_not_at_a_precision_of_zero() -> None:
    ones = np.ones(4)
    margin, positive = np.array([-1.0, 0.0, 1.0, 2.0]), np.array([False, True, True, False])
    counts = PredictionCounts(margin, positive, margin > 0, ones, ones, ones, ones, np.zeros(4))
    found = curves(counts)["pr"]
    assert [point[:2] for point in found] == [[0.0, 0.5], [0.5, 0.5], [1.0, 2 / 3], [1.0, 0.5]]
    assert [point[2] for point in found[1:]] == pytest.approx([float(logistic(at)) for at in (1.0, 0.0, -1.0)])


def test_the_counts_hold_every_row_once_however_many_parts(predictions: Any) -> None:
    whole = count_predictions(predictions)
    parts = count_predictions(predictions, 20)
    assert len(whole) == 1
    assert sum(part.rows.sum() for part in parts) == whole[0].rows.sum() == 300


def test_log_odds_of_a_certain_probability_are_bounded(spark: Any) -> None:
    from pyspark.sql import functions as F

    table = spark.createDataFrame([(0.0,), (0.5,), (1.0,)], "p double")
    low, middle, high = (row[0] for row in table.select(log_odds(F.col("p"))).collect())
    assert middle == 0.0
    assert low == pytest.approx(math.log(SMALLEST))
    assert high == pytest.approx(-math.log(SMALLEST), rel=0.01)


def test_the_baseline_is_made_of_the_train_rows() -> None:
    known = training(["no", "yes"], {"no": 30, "yes": 10})
    known.features["split"]["counts"]["test"] = {"no": 5, "yes": 15}
    found = baseline(known)
    assert found["label"] == "no"
    assert found["metrics"]["accuracy"] == 0.25, "the commonest class of the train rows, not of the test rows"
    assert found["metrics"]["logLoss"] == pytest.approx(-(0.25 * math.log(0.75) + 0.75 * math.log(0.25)))


def test_the_correction_moves_the_log_odds_from_the_samples_share_to_the_populations(predictions: Any) -> None:
    (predicted,) = count_predictions(predictions)
    counts = {"no": 60, "yes": 40}
    found = correction(predicted, training(["no", "yes"], counts, base_rate=0.1))
    assert found is not None
    assert found["shift"] == pytest.approx(math.log(0.1 / 0.9) - math.log(0.4 / 0.6))
    assert found["mean_after"] < found["mean_before"]
    balanced = correction(predicted, training(["no", "yes"], counts, base_rate=0.1, class_weights="balanced"))
    assert balanced is not None
    assert balanced["shift"] == pytest.approx(math.log(0.1 / 0.9)), "the fit saw as many positives as negatives"
    assert correction(predicted, training(["no", "yes"], counts)) is None
