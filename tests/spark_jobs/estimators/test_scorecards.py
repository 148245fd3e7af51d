"""A scorecard gives what the saved model gives: on ten thousand rows with missing, unseen and extreme cells."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.scorer import Scorer
from spark_jobs.contract import ESTIMATORS, Step

ROWS = 10_000
TOLERANCE = {"linear": 1e-12}
"""Largest difference of a probability by the scorecard's form; 1e-9 for the others."""
SETTINGS: dict[str, dict[str, Any]] = {
    "random_forest": {"num_trees": 10, "max_depth": 8, "min_instances_per_node": 1},
    "gbt": {"num_trees": 15},
    "mlp": {"layers": 2, "units": 5},
}


def drawn_row(draw: random.Random, kinds: str) -> dict[str, str]:
    """Cells as in a CSV: whole numbers meet a tree's thresholds more often than others."""
    return {
        "whole": draw.choice(["", str(draw.randint(-5, 5)), str(draw.randint(-5, 5))]),
        "fraction": draw.choice(
            [f"{draw.gauss(0, 1):.6f}", f"{draw.gauss(0, 1):.17g}", f"{draw.gauss(0, 1) * 1e6:.3e}"]
        ),
        "kind": draw.choice(kinds).strip(),
    }


def write_table(path: Path, classes: int) -> None:
    draw = random.Random(classes)
    lines = ["whole,fraction,kind,label"]
    for _ in range(600):
        row = drawn_row(draw, "ppqqqrs ")
        score = float(row["whole"] or 2) + float(row["fraction"]) % 3 + 2 * (row["kind"] == "p") + draw.gauss(0, 1)
        label = "abc"[min(classes - 1, max(0, int(score / 2) + 1))]
        lines.append(f"{row['whole']},{row['fraction']},{row['kind']},{label}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def preprocessed(run_steps: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Path]:
    """The table of so many classes, preprocessed with a form of numbers."""
    known: dict[tuple[int, str], Path] = {}

    def run(classes: int, form: str) -> Path:
        if (classes, form) not in known:
            known[classes, form] = directory = tmp_path_factory.mktemp(f"{classes}")
            write_table(directory / "t.csv", classes)
            run_steps(directory, "preprocess", data_uri=directory / "t.csv", label="label", numeric_form=form)
        return known[classes, form] / "preprocess"

    return run


CASES = [
    pytest.param(
        name,
        classes,
        "standardised" if name == "mlp" else "as_is",
        marks=[] if (name, classes) == ("logistic_regression", 2) else [pytest.mark.slow],
        id=f"{name}-{classes}",
    )
    for name in ESTIMATORS
    for classes in ((2,) if name == "gbt" else (2, 3))
]
CASES += [
    pytest.param("logistic_regression", 2, form, id=form, marks=pytest.mark.slow)
    for form in ("standardised", "quantile_bins")
]


@pytest.mark.parametrize(("name", "classes", "form"), CASES)
def test_scorecard_and_saved_model_give_the_same_probabilities(
    spark: Any,
    run_step: Callable[..., Any],
    preprocessed: Callable[[int, str], Path],
    tmp_path: Path,
    name: str,
    classes: int,
    form: str,
) -> None:
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import vector_to_array

    run_step(
        Step.TRAIN,
        preprocess_uri=preprocessed(classes, form),
        output_uri=tmp_path,
        estimator=name,
        **SETTINGS.get(name, {}),
    )
    scorer = Scorer.from_json((tmp_path / "scorecard.json").read_text())
    draw = random.Random(1)
    rows = [drawn_row(draw, "pqrstuv ") for _ in range(ROWS)]
    table = spark.createDataFrame([tuple(row.values()) for row in rows], "whole string, fraction string, kind string")
    predicted = PipelineModel.load(str(tmp_path / "model")).transform(table.coalesce(1))
    found = predicted.select(vector_to_array("probability").alias("p"), "predicted_label").collect()
    tolerance = TOLERANCE.get(json.loads((tmp_path / "scorecard.json").read_text())["form"], 1e-9)
    scores = [scorer.score(row) for row in rows]
    numbers = [list(score.probabilities.values()) for score in scores]
    assert np.abs(np.array([row["p"] for row in found]) - np.array(numbers)).max() <= tolerance
    assert [row["predicted_label"] for row in found] == [score.label for score in scores]
    assert len({score.probabilities["a"] for score in scores}) >= 5
    assert len({score.label for score in scores}) == classes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic_regression", "gbt"])
def test_the_running_server_gives_the_probabilities_of_the_saved_model(
    spark: Any, run_step: Callable[..., Any], preprocessed: Callable[[int, str], Path], tmp_path: Path, name: str
) -> None:
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import vector_to_array

    settings = SETTINGS.get(name, {})
    run_step(Step.TRAIN, preprocess_uri=preprocessed(2, "as_is"), output_uri=tmp_path, estimator=name, **settings)
    draw = random.Random(2)
    rows = [drawn_row(draw, "pqrstuv ") for _ in range(ROWS)]
    table = spark.createDataFrame([tuple(row.values()) for row in rows], "whole string, fraction string, kind string")
    model = PipelineModel.load(str(tmp_path / "model"))
    found = model.transform(table.coalesce(1)).select(vector_to_array("probability").alias("p")).collect()
    served = served_probabilities(tmp_path / "scorecard.json", rows)
    tolerance = 1e-12 if name == "logistic_regression" else 1e-9
    assert np.abs(np.array([row["p"] for row in found]) - np.array(served)).max() <= tolerance
    assert len({tuple(each) for each in served}) >= 5


def served_probabilities(scorecard: Path, rows: list[dict[str, str]]) -> list[list[float]]:
    """Starts a server on a scorecard and sends it the rows, 1,000 at a time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "serving", f"--scorecard={scorecard}", f"--port={url.rpartition(':')[2]}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{url}/v2/health/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            served: list[list[float]] = []
            for start in range(0, len(rows), 1000):
                body = json.dumps({"instances": rows[start : start + 1000]}).encode()
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"{url}/v1/models/model:predict", body, headers)
                with urllib.request.urlopen(request) as answer:
                    predictions = json.load(answer)["predictions"]
                served += [list(each["probabilities"].values()) for each in predictions]
            return served
        finally:
            server.terminate()
