"""Measures ways from raw values to a probability: the server's scorer, ONNX, Spark and MLflow, on the output of a training step.

    python -m benchmarks.scoring TRAIN_OUTPUT [--without-spark]

TRAIN_OUTPUT holds `model/` and `scorecard.json`. Each contender gets rows as dicts of a column's name and its raw value, as they come
out of a request, and gives the probability of each row; MLflow's gives the predicted class, as its wrapper of a Spark model has nothing
else. The contenders take turns, so that other work on the machine meets all of them. Spark and MLflow need the group `bench`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.columns import Columns
from serving.scorer import Scorer

ROUNDS = 10
ROUND_SECONDS = 0.5
"""Each contender scores for about so long in a round, and at least once."""
Rows = list[dict[str, Any]]
Contender = Callable[[Rows], Any]


def main() -> None:
    """Prints the table: one row and 1,000 rows by each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train_output", type=Path)
    parser.add_argument("--table", type=Path, default=Path("data/bank_sample.csv"))
    parser.add_argument("--without-spark", action="store_true", help="leave out Spark and MLflow")
    arguments = parser.parse_args()
    scorecard = json.loads((arguments.train_output / "scorecard.json").read_text(encoding="utf-8"))
    rows = read_rows(arguments.table, scorecard)
    contenders = {"the server's scorer, row checked": by_scorer(scorecard), "onnxruntime": by_onnx(scorecard)}
    if not arguments.without_spark:
        contenders |= by_spark(arguments.train_output / "model", scorecard)
    times = measure(contenders, (rows[:1], rows))
    print(f"| | one row: median | shortest | {len(rows):,} rows: median | shortest |\n|---|---|---|---|---|")
    for name, (one, many) in times.items():
        print(
            f"| {name} | "
            + " | ".join(shown(each(found)) for found in (one, many) for each in (statistics.median, min))
            + " |"
        )


def read_rows(table: Path, scorecard: Mapping[str, Any]) -> Rows:
    """Reads 1,000 rows with the model's columns; numbers are numbers, as a caller sends them in JSON."""
    numeric = [column["name"] for column in scorecard["numeric"]]
    names = Scorer(scorecard).columns
    with table.open(encoding="utf-8", newline="") as file:
        found = [row for row, _ in zip(csv.DictReader(file), range(1000), strict=False)]
    return [{name: float(row[name]) if name in numeric and row[name] else row[name] for name in names} for row in found]


def by_scorer(scorecard: Mapping[str, Any]) -> Contender:
    """Returns what the server does with rows: score and check each."""
    scorer, columns = Scorer(scorecard), Columns.of(scorecard)

    def score(rows: Rows) -> list[float]:
        found = []
        for row in rows:
            found.append(scorer.score(row).probabilities[scorer.labels[1]])
            columns.check(row)
        return found

    return score


def by_onnx(scorecard: Mapping[str, Any]) -> Contender:
    """Returns what a program with onnxruntime does: a tensor for each column, and a run."""
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    from spark_jobs.onnx_export import onnx_model  # noqa: PLC0415

    session = onnxruntime.InferenceSession(onnx_model(scorecard, name="bank", version="1"))
    numeric, categorical = ([item["name"] for item in scorecard[kind]] for kind in ("numeric", "categorical"))

    def score(rows: Rows) -> Any:
        feed = {name: np.array([[row[name]] for row in rows], np.float64) for name in numeric}
        feed |= {name: np.array([[row[name]] for row in rows], object) for name in categorical}
        return session.run(["probabilities"], feed)[0][:, 1]

    return score


def by_spark(model: Path, scorecard: Mapping[str, Any]) -> dict[str, Contender]:
    """Returns what programs with a warm Spark session do: `transform` of the saved model, and MLflow's pyfunc of it."""
    import mlflow  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415
    from pyspark.ml import PipelineModel  # noqa: PLC0415

    from spark_jobs.session import build_session  # noqa: PLC0415

    session = build_session("benchmark")
    session.sparkContext.setLogLevel("ERROR")
    loaded = PipelineModel.load(str(model))
    place = Path(tempfile.mkdtemp(prefix="spark-kfp-mlflow-"), "model")
    mlflow.spark.save_model(loaded, str(place))
    pyfunc = mlflow.pyfunc.load_model(str(place))

    def transformed(rows: Rows) -> list[float]:
        found = loaded.transform(session.createDataFrame(rows)).select(scorecard["model_columns"]["probability"])
        return [float(row[0][1]) for row in found.collect()]

    return {
        "`PipelineModel.transform`, warm session": transformed,
        "MLflow's pyfunc of the Spark model, warm session": lambda rows: pyfunc.predict(pd.DataFrame(rows)),
    }


def measure(contenders: Mapping[str, Contender], sizes: Sequence[Rows]) -> dict[str, list[list[float]]]:
    """Returns for each contender and each set of rows the seconds of each call, after a call to warm up."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in sizes] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, score in contenders.items():
            for place, rows in enumerate(sizes):
                end = time.perf_counter() + ROUND_SECONDS
                while True:
                    began = time.perf_counter()
                    score(rows)
                    now = time.perf_counter()
                    if turn:
                        times[name][place].append(now - began)
                    if now >= end:
                        break
    return times


def shown(seconds: float) -> str:
    """Formats a time in its own unit."""
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
