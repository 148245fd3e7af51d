"""The bank model as one short hand-written PySpark script in one session, for comparison with the pipeline.

    spark-submit benchmarks/handwritten_short.py data/bank_sample.csv out

It does what such scripts usually do: it infers the schema, splits the rows at random, fits indexers, an encoder, an assembler and a
logistic regression, and computes three metrics, with Parquet files and saved models in between. It does not use spark_jobs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.ml import Estimator, Pipeline, Transformer
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler
from pyspark.sql import SparkSession

NUMERIC = ["age", "balance", "duration", "campaign", "pdays", "previous"]
CATEGORICAL = ["job", "marital", "education", "housing", "loan", "poutcome"]
SETS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def load(spark: SparkSession, data: str, out: str) -> None:
    """Reads the CSV and writes Parquet."""
    spark.read.csv(data, header=True, inferSchema=True).write.mode("overwrite").parquet(f"{out}/rows")


def preprocess(spark: SparkSession, out: str) -> None:
    """Splits the rows at random, fits the encoding on the train rows and writes the features of all three sets."""
    rows = spark.read.parquet(f"{out}/rows")
    split = dict(zip(SETS, rows.randomSplit(list(SETS.values()), seed=42), strict=True))
    indexed = [f"{name}_index" for name in CATEGORICAL]
    encoded = [f"{name}_vector" for name in CATEGORICAL]
    stages: list[Estimator[Any] | Transformer] = [
        StringIndexer(inputCol="deposit", outputCol="label", stringOrderType="alphabetAsc"),
        StringIndexer(inputCols=CATEGORICAL, outputCols=indexed, handleInvalid="keep"),
        OneHotEncoder(inputCols=indexed, outputCols=encoded),
        VectorAssembler(inputCols=[*NUMERIC, *encoded], outputCol="features"),
    ]
    model = Pipeline(stages=stages).fit(split["train"])
    model.write().overwrite().save(f"{out}/features_model")
    for name, part in split.items():
        model.transform(part).select("features", "label").write.mode("overwrite").parquet(f"{out}/{name}")


def train(spark: SparkSession, out: str) -> None:
    """Fits the logistic regression on the train rows."""
    model = LogisticRegression(maxIter=100).fit(spark.read.parquet(f"{out}/train"))
    model.write().overwrite().save(f"{out}/model")


def evaluate(spark: SparkSession, out: str) -> dict[str, float]:
    """Evaluates the model on the test rows."""
    predictions = LogisticRegressionModel.load(f"{out}/model").transform(spark.read.parquet(f"{out}/test")).cache()
    metrics = {
        name: BinaryClassificationEvaluator(metricName=name).evaluate(predictions)
        for name in ("areaUnderROC", "areaUnderPR")
    }
    metrics["accuracy"] = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(predictions)
    return metrics


def main(data: str, out: str) -> None:
    """Runs the four parts and writes `measured.json` with the seconds of each and the metrics."""
    spark = SparkSession.builder.appName("handwritten").getOrCreate()
    began = [time.perf_counter()]
    load(spark, data, out)
    began.append(time.perf_counter())
    preprocess(spark, out)
    began.append(time.perf_counter())
    train(spark, out)
    began.append(time.perf_counter())
    metrics = evaluate(spark, out)
    began.append(time.perf_counter())
    spark.stop()
    names = ("load", "preprocess", "train", "evaluate")
    seconds = {name: end - start for name, start, end in zip(names, began, began[1:], strict=False)}
    Path(out, "measured.json").write_text(json.dumps({"seconds": seconds, "metrics": metrics}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
