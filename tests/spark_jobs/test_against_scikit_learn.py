"""The model against scikit-learn's, and the scorecard against the model, on the sample and, where it is there, on the real bank data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from serving.scorer import Scorer

PROJECT = Path(__file__).resolve().parents[2]
BANK = PROJECT.parent / "shared/data/bank.csv"
"""The real data, where it is; tests run on the synthetic sample elsewhere."""
AREAS = (0.878, 0.718)
"""Mean areaUnderROC of five random splits of the real data, with and without `duration`."""


@pytest.fixture
def run(run_steps: Callable[..., Any], tmp_path: Path) -> Path:
    data = BANK if BANK.exists() else PROJECT / "data/bank_sample.csv"
    exact = {"tol": 1e-10, "max_iter": 500, "bootstrap_samples": 50}
    run_steps(tmp_path, data_uri=data, specification_uri=PROJECT / "data/bank.toml", **exact)
    return tmp_path


def arrays(spark: Any, directory: Path, name: str) -> tuple[Any, Any]:
    rows = spark.read.parquet(str(directory / f"preprocess/features/set={name}")).collect()
    return np.array([row["features"].toArray() for row in rows]), np.array([row["label"] for row in rows])


@pytest.mark.slow
def test_model_agrees_with_scikit_learn_and_scorecard_with_model(spark: Any, run: Path) -> None:
    directory = run
    scorecard = json.loads((directory / "train/scorecard.json").read_text())
    evaluation = json.loads((directory / "evaluate/evaluation.json").read_text())
    x, y = arrays(spark, directory, "train")
    used = x.std(axis=0) > 0
    scaler = StandardScaler().fit(x[:, used])
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(scaler.transform(x[:, used]), y)
    coefficients = np.array(scorecard["coefficients"][0])
    assert coefficients[used] == pytest.approx(fitted.coef_[0] / scaler.scale_, rel=1e-3, abs=1e-7)
    assert not coefficients[~used].any()
    test_x, test_y = arrays(spark, directory, "test")
    area = roc_auc_score(test_y, fitted.predict_proba(scaler.transform(test_x[:, used]))[:, 1])
    found = {item["name"]: item["value"] for item in evaluation["metrics"]}
    assert found["areaUnderROC"] == pytest.approx(area, abs=0.002)
    if BANK.exists():
        without = {item["name"]: item["value"] for item in evaluation["without_known_afterwards"]["metrics"]}
        assert found["areaUnderROC"] == pytest.approx(AREAS[0], abs=0.012)
        assert without["areaUnderROC"] == pytest.approx(AREAS[1], abs=0.021)
    check_scorecard(spark, directory, scorecard)


def check_scorecard(spark: Any, directory: Path, scorecard: dict[str, Any]) -> None:
    """Every row of the data, scored by the scorecard and by the PipelineModel from raw columns."""
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import vector_to_array

    table = spark.read.parquet(str(directory / "load/rows"))
    predictions = PipelineModel.load(str(directory / "train/model")).transform(table)
    scorer, largest = Scorer(scorecard), 0.0
    for row in predictions.select(
        *table.columns, vector_to_array("probability").alias("p"), "predicted_label"
    ).collect():
        score = scorer.score(row.asDict())
        largest = max(largest, *(abs(a - b) for a, b in zip(score.probabilities.values(), row["p"], strict=True)))
        assert score.label == row["predicted_label"]
    assert largest < 1e-12


@pytest.mark.slow
def test_scorecard_agrees_for_three_classes_and_missing_or_new_values(
    spark: Any, run_steps: Callable[..., Any], tmp_path: Path
) -> None:
    generator = np.random.default_rng(2)
    lines = ["x,color,label"]
    for i in range(400):
        x = "" if i % 11 == 0 else f"{generator.normal() + i % 3:.4f}"
        lines.append(f"{x},{'' if i % 13 == 0 else generator.choice(['red', 'blue', 'green'])},{'abc'[i % 3]}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    run_steps(
        tmp_path,
        data_uri=tmp_path / "t.csv",
        label="label",
        reg_param=0.01,
        elastic_net_param=0.5,
        class_weights="balanced",
        bootstrap_samples=50,
    )
    scorecard = json.loads((tmp_path / "train/scorecard.json").read_text())
    assert {feature["kind"] for feature in scorecard["features"]} == {"numeric", "missing", "category", "other"}
    check_scorecard(spark, tmp_path, scorecard)
    evaluation = json.loads((tmp_path / "evaluate/evaluation.json").read_text())
    assert [row["label"] for row in evaluation["per_class"]] == ["a", "b", "c"]
