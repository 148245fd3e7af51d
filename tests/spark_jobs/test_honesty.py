"""The run is honest: what is fitted, on which rows, and that numbers are those of the rows. Then the same checks on planted faults.

Each check judges a finished run from its files and its raw data, by other means than the code under test. Each planted fault must be
caught by its check: a check that passes on it guards nothing.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from spark_jobs import features, split
from spark_jobs.dataset import OWN_PREFIX, Specification, read_specification
from spark_jobs.evaluation import judging as evaluation
from spark_jobs.steps import preprocess, train

RunSteps = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A finished run: its raw rows by the hash that names them, and its documents."""

    spark: Any
    directory: Path
    rows: dict[int, dict[str, Any]]

    def document(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text())

    def specification(self) -> Specification:
        return read_specification((self.directory / "specification.toml").read_text(), "specification.toml")

    def encoded(self, name: str) -> list[Any]:
        return self.spark.read.parquet(str(self.directory / f"preprocess/features/set={name}")).collect()  # type: ignore[no-any-return]

    def raw(self, name: str) -> list[dict[str, Any]]:
        return [self.rows[row["row_hash"]] for row in self.encoded(name)]

    def probabilities(self, name: str) -> tuple[Any, Any]:
        """Label (1 for the positive value of the raw row) and the saved model's probability from raw columns."""
        from pyspark.ml import PipelineModel
        from pyspark.ml.functions import vector_to_array

        model = PipelineModel.load(str(self.directory / "train/model"))
        raw = self.raw(name)
        specification = self.specification()
        table = self.spark.createDataFrame(
            [{k: v for k, v in row.items() if k in specification.features} for row in raw]
        )
        rows = model.transform(table).select(vector_to_array("probability")[1].alias("p")).collect()
        return np.array([row[specification.label] == specification.positive for row in raw]), np.array(
            [row["p"] for row in rows]
        )


def make_table(path: Path, rows: int = 700) -> None:
    """Rows whose label depends on x and on kind; `rare` has a value of its own in every tenth row; `later` is known afterwards."""
    generator = np.random.default_rng(5)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "later", "kind", "rare", "label"])
        for i in range(rows):
            x, kind = generator.normal(), str(generator.choice(["p", "q", "r"]))
            yes = generator.random() < 1 / (1 + np.exp(-(1.5 * x + (kind == "p") - 0.3)))
            writer.writerow(
                [
                    f"{x:.6f}",
                    f"{yes * 2 + generator.normal():.6f}",
                    kind,
                    f"v{i}" if i % 10 == 0 else "common",
                    "yes" if yes else "no",
                ]
            )


SPECIFICATION = """[label]
name = "label"
positive = "yes"
[columns]
numeric = ["x", "later"]
categorical = ["kind", "rare"]
known_afterwards = ["later"]
"""


@pytest.fixture(scope="module")
def honest(spark: Any, run_steps: RunSteps, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of the code as it is."""
    directory = tmp_path_factory.mktemp("honest")
    make_table(directory / "table.csv")
    (directory / "specification.toml").write_text(SPECIFICATION)
    data = {"data_uri": directory / "table.csv", "specification_uri": directory / "specification.toml"}
    run_steps(directory, **data, bootstrap_samples=50)
    hashed = split.assign_sets(
        spark.read.parquet(str(directory / "load/rows")),
        preprocess.PreprocessArgs(load_uri="-", output_uri="-"),
        OWN_PREFIX,
    )
    return Run(spark, directory, {row[f"{OWN_PREFIX}row_hash"]: row.asDict() for row in hashed.collect()})


def run_again(honest: Run, run_step: Callable[..., Any], step: str, directory: Path) -> Run:
    """The honest run with one step run again, as the code is now."""
    shutil.copytree(honest.directory, directory, dirs_exist_ok=True)
    uris = {f"{name}_uri": directory / name for name in ("load", "preprocess", "train")}
    needed = {"preprocess": ["load_uri"], "train": ["preprocess_uri"], "evaluate": ["preprocess_uri", "train_uri"]}[
        step
    ]
    more = {"report_uri": directory / "report.html", "bootstrap_samples": 50} if step == "evaluate" else {}
    run_step(step, output_uri=directory / step, **{name: uris[name] for name in needed}, **more)
    return replace(honest, directory=directory)


def check_columns(run: Run) -> None:
    """The features come from the specification's feature columns: from each of them, and from no other."""
    used = {feature["column"] for feature in run.document("preprocess/features.json")["features"]}
    assert used == set(run.specification().features)


def check_fitted_on_train_rows(run: Run) -> None:
    """Vocabularies and means are those of the train rows."""
    document, rows = run.document("preprocess/features.json"), run.raw("train")
    for column in document["categorical"]:
        assert set(column["values"]) == {row[column["name"]] for row in rows}
    for column in document["numeric"]:
        assert column["mean"] == pytest.approx(np.mean([row[column["name"]] for row in rows]), abs=1e-12)


def check_label(run: Run) -> None:
    """Label 1 is the positive value, in every row of every set."""
    specification = run.specification()
    for name in split.SETS:
        for row in run.encoded(name):
            assert row["label"] == float(run.rows[row["row_hash"]][specification.label] == specification.positive)


def check_metrics(run: Run) -> None:
    """The metrics are those of the test rows, as scikit-learn computes them."""
    truth, p = run.probabilities("test")
    found = {item["name"]: item["value"] for item in run.document("evaluate/evaluation.json")["metrics"]}
    predicted = p > run.document("train/scorecard.json")["threshold"]
    assert found["areaUnderROC"] == pytest.approx(reference.roc_auc_score(truth, p), abs=1e-3)
    assert found["areaUnderPR"] == pytest.approx(reference.average_precision_score(truth, p), abs=0.02)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted), abs=1e-12)
    assert found["f1"] == pytest.approx(reference.f1_score(truth, predicted), abs=1e-12)
    assert found["logLoss"] == pytest.approx(reference.log_loss(truth, p), abs=1e-9)
    assert found["brierScore"] == pytest.approx(reference.brier_score_loss(truth, p), abs=1e-9)


def check_threshold(run: Run) -> None:
    """The threshold has the best f1 on the validation rows."""
    truth, p = run.probabilities("validation")
    best = max(reference.f1_score(truth, p > k / train.THRESHOLD_BINS) for k in range(1, train.THRESHOLD_BINS))
    threshold = run.document("train/scorecard.json")["threshold"]
    assert reference.f1_score(truth, p > threshold) == pytest.approx(best, abs=1e-12)


CHECKS = [check_columns, check_fitted_on_train_rows, check_label, check_metrics, check_threshold]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_run_is_honest(honest: Run, check: Callable[[Run], None]) -> None:
    check(honest)


def test_the_model_without_what_is_known_afterwards_is_judged_too(honest: Run) -> None:
    evaluation = honest.document("evaluate/evaluation.json")
    assert evaluation["without_known_afterwards"]["columns"] == ["later"]
    assert any("Known only after the outcome: later" in warning for warning in evaluation["warnings"])


def plant_label_among_features(patch: pytest.MonkeyPatch) -> None:
    original = preprocess.fit_encoding
    patch.setattr(
        preprocess,
        "fit_encoding",
        lambda rows, numeric, categorical, *rest, **named: original(
            rows, numeric, (*categorical, "label"), *rest, **named
        ),
    )


def plant_fitted_on_all_rows(patch: pytest.MonkeyPatch) -> None:
    original = preprocess.fit_encoding

    def fit_on_all(rows: Any, *args: Any, **named: Any) -> features.Encoding:
        table = rows.sparkSession.read.parquet(rows.inputFiles()[0].rsplit("/", 1)[0])
        return original(table, *args, **named)

    patch.setattr(preprocess, "fit_encoding", fit_on_all)


def plant_swapped_label(patch: pytest.MonkeyPatch) -> None:
    original = preprocess.class_labels
    patch.setattr(preprocess, "class_labels", lambda *args: original(*args)[::-1])


def plant_dropped_column(patch: pytest.MonkeyPatch) -> None:
    original = preprocess.fit_encoding
    patch.setattr(
        preprocess,
        "fit_encoding",
        lambda rows, numeric, *rest, **named: original(rows, numeric[1:], *rest, **named),
    )


def plant_constant_metrics(patch: pytest.MonkeyPatch) -> None:
    fixed = [{"name": name, "value": 0.9, "low": 0.8, "high": 1.0, "interval": "none"} for name in
             ("areaUnderROC", "areaUnderPR", "accuracy", "f1", "logLoss", "brierScore")]  # fmt: skip
    patch.setattr(evaluation.metrics, "binary_metrics", lambda *_: fixed)


def plant_threshold_on_test_rows(patch: pytest.MonkeyPatch) -> None:
    original = train.read_set
    patch.setattr(
        train,
        "read_set",
        lambda session, uri, name, rows: original(session, uri, "test" if name == "validation" else name, rows),
    )


@pytest.mark.parametrize(
    ("plant", "step", "check"),
    [
        (plant_label_among_features, "preprocess", check_columns),
        (plant_fitted_on_all_rows, "preprocess", check_fitted_on_train_rows),
        (plant_swapped_label, "preprocess", check_label),
        (plant_dropped_column, "preprocess", check_columns),
        (plant_constant_metrics, "evaluate", check_metrics),
        (plant_threshold_on_test_rows, "train", check_threshold),
    ],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_a_planted_fault_is_caught(
    honest: Run,
    run_step: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    plant: Callable[..., None],
    step: str,
    check: Callable[[Run], None],
) -> None:
    plant(monkeypatch)
    run = run_again(honest, run_step, step, tmp_path)
    with pytest.raises(AssertionError):
        check(run)
