"""All of the pipeline's work as one hand-written PySpark script in one session, for comparison with the pipeline.

    spark-submit benchmarks/handwritten_whole.py data/bank_sample.csv out

In addition to `handwritten_short.py` it makes a profile of the table, a reproducible split, a threshold chosen on the validation rows, a
second model without the column that is known only after the outcome, the model as plain numbers, more metrics with intervals, and a report
with charts. It uses what Spark and numpy offer and not spark_jobs. It checks no input and does not separate invalid rows.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from pyspark.ml import Estimator, Pipeline, PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler, VectorSlicer
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

mpl.use("svg")
from matplotlib import pyplot as plt

NUMERIC = ["age", "balance", "duration", "campaign", "pdays", "previous"]
CATEGORICAL = ["job", "marital", "education", "housing", "loan", "poutcome"]
KNOWN_AFTERWARDS = "duration"
SAMPLES = 200


def load(spark: SparkSession, data: str, out: str) -> None:
    """Reads the CSV, writes Parquet and a profile."""
    spark.read.csv(data, header=True, inferSchema=True).write.mode("overwrite").parquet(f"{out}/rows")
    rows = spark.read.parquet(f"{out}/rows")
    wanted = [F.count("*").alias("rows")]
    for name in rows.columns:
        wanted += [F.count(name).alias(f"{name} values"), F.approx_count_distinct(name).alias(f"{name} distinct")]
    for name in NUMERIC:
        wanted += [
            F.min(name).alias(f"{name} min"),
            F.max(name).alias(f"{name} max"),
            F.mean(name).alias(f"{name} mean"),
        ]
    profile = rows.agg(*wanted).first()
    assert profile is not None
    classes = {row["deposit"]: row["count"] for row in rows.groupBy("deposit").count().collect()}
    Path(out, "profile.json").write_text(json.dumps({**profile.asDict(), "classes": classes}), encoding="utf-8")


def preprocess(spark: SparkSession, out: str) -> None:
    """Splits the rows by a hash, fits the encoding on the train rows and writes the features of all three sets."""
    rows = spark.read.parquet(f"{out}/rows")
    place = F.pmod(F.xxhash64(F.lit(42), *rows.columns), F.lit(10))
    rows = rows.withColumn("set", F.when(place < 6, "train").when(place < 8, "validation").otherwise("test"))
    train = rows.where(F.col("set") == "train")
    indexed = [f"{name}_index" for name in CATEGORICAL]
    encoded = [f"{name}_vector" for name in CATEGORICAL]
    stages: list[Estimator[Any] | Transformer] = [
        StringIndexer(inputCol="deposit", outputCol="label", stringOrderType="alphabetAsc"),
        StringIndexer(inputCols=CATEGORICAL, outputCols=indexed, handleInvalid="keep"),
        OneHotEncoder(inputCols=indexed, outputCols=encoded),
        VectorAssembler(inputCols=[*NUMERIC, *encoded], outputCol="features"),
    ]
    model = Pipeline(stages=stages).fit(train)
    model.write().overwrite().save(f"{out}/features_model")
    encoded_rows = model.transform(rows).select("features", "label", "set")
    encoded_rows.write.mode("overwrite").partitionBy("set").parquet(f"{out}/features")
    counts = [row.asDict() for row in rows.groupBy("set", "deposit").count().collect()]
    Path(out, "split.json").write_text(json.dumps(counts), encoding="utf-8")


def slicer(rows: DataFrame) -> VectorSlicer:
    """Makes a slicer that removes the feature that is known only after the outcome."""
    size = rows.schema["features"].metadata["ml_attr"]["num_attrs"]
    kept = [place for place in range(size) if place != NUMERIC.index(KNOWN_AFTERWARDS)]
    return VectorSlicer(inputCol="features", outputCol="kept", indices=kept)


def train(spark: SparkSession, out: str) -> None:
    """Fits both logistic regressions on the train rows, and chooses the threshold on the validation rows."""
    rows = spark.read.parquet(f"{out}/features")
    sets = {name: rows.where(F.col("set") == name) for name in ("train", "validation")}
    model = LogisticRegression(maxIter=100).fit(sets["train"])
    best = model.evaluate(sets["validation"]).fMeasureByThreshold.orderBy(F.desc("F-Measure")).first()
    assert best is not None
    model = model.setThreshold(best["threshold"])
    encoder = PipelineModel.load(f"{out}/features_model")
    PipelineModel(stages=[*encoder.stages, model]).write().overwrite().save(f"{out}/model")
    model.write().overwrite().save(f"{out}/classifier")
    without = LogisticRegression(featuresCol="kept", maxIter=100).fit(slicer(rows).transform(sets["train"]))
    without.write().overwrite().save(f"{out}/without")
    numbers = {"coefficients": model.coefficients.toArray().tolist(), "intercept": model.intercept}
    Path(out, "scorecard.json").write_text(json.dumps(numbers), encoding="utf-8")


def metrics_of(predictions: DataFrame) -> dict[str, float]:
    """Computes the metrics that Spark's evaluators have."""
    found = {
        name: BinaryClassificationEvaluator(metricName=name).evaluate(predictions)
        for name in ("areaUnderROC", "areaUnderPR")
    }
    evaluator = MulticlassClassificationEvaluator(metricLabel=1.0)
    for name in ("accuracy", "precisionByLabel", "recallByLabel", "f1", "logLoss"):
        found[name] = evaluator.evaluate(predictions, {evaluator.metricName: name})
    return found


def area(positive: np.ndarray[Any, Any], probability: np.ndarray[Any, Any]) -> float:
    """Computes the area under the ROC curve from ranks."""
    ranks = np.empty(len(probability))
    ranks[np.argsort(probability)] = np.arange(1, len(probability) + 1)
    met = positive.sum()
    return float((ranks[positive].sum() - met * (met + 1) / 2) / (met * (len(positive) - met)))


def intervals(predictions: DataFrame) -> tuple[dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Computes 95 % intervals by bootstrap; also returns for each row whether it is positive, and its predicted probability."""
    probability = vector_to_array(F.col("probability"))[1]
    collected: np.ndarray[Any, Any] = np.array(predictions.select("label", probability, "prediction").collect())
    positive, scores, predicted = collected[:, 0] == 1, collected[:, 1], collected[:, 2] == 1
    draws = np.random.default_rng(42)
    found = []
    for _ in range(SAMPLES):
        drawn = draws.integers(0, len(positive), len(positive))
        truth, told, score = positive[drawn], predicted[drawn], scores[drawn]
        both = (truth & told).sum()
        top = np.argsort(-score)[: len(score) // 10]
        found.append(
            [area(truth, score), (truth == told).mean(), both / told.sum(), both / truth.sum(),
             ((score - truth) ** 2).mean(), truth[top].mean() / truth.mean()]
        )  # fmt: skip
    names = ("areaUnderROC", "accuracy", "precision", "recall", "brierScore", "liftTopDecile")
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return {name: [low[i], high[i]] for i, name in enumerate(names)}, positive, scores


def picture(positive: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> str:
    """Draws the ROC and precision-recall curves, the calibration and the deciles as SVG."""
    order = np.argsort(-scores)
    met, other = np.cumsum(positive[order]), np.cumsum(~positive[order])
    figure, axes = plt.subplots(2, 2, figsize=(10, 8))
    axes[0, 0].plot(other / other[-1], met / met[-1])
    axes[0, 1].plot(met / met[-1], met / (met + other))
    tenths = np.array_split(order, 10)
    rates = [positive[tenth].mean() for tenth in tenths]
    axes[1, 0].plot([scores[tenth].mean() for tenth in tenths], rates, "o")
    axes[1, 1].bar(range(10), rates)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()


def evaluate(spark: SparkSession, out: str) -> dict[str, float]:
    """Evaluates both models on the test rows and writes the report."""
    rows = spark.read.parquet(f"{out}/features")
    test = rows.where(F.col("set") == "test")
    predictions = LogisticRegressionModel.load(f"{out}/classifier").transform(test).cache()
    metrics = metrics_of(predictions)
    found, positive, scores = intervals(predictions)
    without = LogisticRegressionModel.load(f"{out}/without").transform(slicer(rows).transform(test)).cache()
    others, other_intervals = metrics_of(without), intervals(without)[0]
    document = {"metrics": metrics, "intervals": found, "without": others, "without_intervals": other_intervals}
    report = f"<html><pre>{json.dumps(document, indent=1)}</pre>{picture(positive, scores)}</html>"
    Path(out, "report.html").write_text(report, encoding="utf-8")
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
