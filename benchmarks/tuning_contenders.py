"""What a search costs when it is written by hand: the contenders of `benchmarks.tuning`, each for spark-submit.

    spark-submit benchmarks/tuning_contenders.py trial FEATURES OUT REG_PARAM ELASTIC_NET_PARAM
    spark-submit benchmarks/tuning_contenders.py split FEATURES OUT     # TrainValidationSplit
    spark-submit benchmarks/tuning_contenders.py folds FEATURES OUT     # CrossValidator, three folds
    spark-submit benchmarks/tuning_contenders.py path FEATURES OUT      # each fit begins with the model of the last one

FEATURES is the output of the step preprocess, so that all contenders fit and judge the same vectors. `measured.json` in OUT holds the
seconds without the start of the session, and the best areaUnderROC with its settings.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

REG_PARAMS = (1e-6, 5.623413251903491e-05, 0.0031622776601683794, 0.1778279410038923, 10.0)
ELASTIC_NET_PARAMS = (0.0, 1 / 3, 2 / 3, 1.0)
"""The 20 points of the step tune's grid for a logistic regression."""
PARALLEL = 2
FOLDS = 3


def read(spark: SparkSession, features: str, name: str) -> DataFrame:
    """Reads the rows of one set as the step tune does: kept in memory, a small table in one partition."""
    return spark.read.parquet(f"{features}/features/set={name}").coalesce(1).cache()


def one_trial(train: DataFrame, validation: DataFrame, reg_param: float, elastic_net_param: float) -> float:
    """Fits and judges one model, and returns its areaUnderROC."""
    estimator = LogisticRegression(
        regParam=reg_param, elasticNetParam=elastic_net_param, featuresCol="features", labelCol="label"
    )
    return float(BinaryClassificationEvaluator().evaluate(estimator.fit(train).transform(validation)))


def by_spark(train: DataFrame, validation: DataFrame, folds: int) -> tuple[float, dict[str, float]]:
    """Lets Spark search; the folds are ours, a single fold is Spark's random quarter. Returns the best value that it reports."""
    estimator = LogisticRegression()
    grid = (
        ParamGridBuilder()
        .addGrid(estimator.regParam, list(REG_PARAMS))
        .addGrid(estimator.elasticNetParam, list(ELASTIC_NET_PARAMS))
        .build()
    )
    both = train.unionByName(validation)
    search: Any
    common: dict[str, Any] = {"estimator": estimator, "estimatorParamMaps": grid, "parallelism": PARALLEL}
    if folds > 1:
        both = both.withColumn("fold", F.pmod(F.col("row_hash"), F.lit(folds)).cast("int")).cache()
        search = CrossValidator(**common, evaluator=BinaryClassificationEvaluator(), numFolds=folds, foldCol="fold")
        values = search.fit(both).avgMetrics
    else:
        search = TrainValidationSplit(**common, evaluator=BinaryClassificationEvaluator(), trainRatio=0.75, seed=42)
        values = search.fit(both.cache()).validationMetrics
    best = max(range(len(values)), key=lambda place: values[place])
    return values[best], {param.name: value for param, value in grid[best].items()}


def path(train: DataFrame, validation: DataFrame) -> tuple[float, dict[str, float]]:
    """Fits from the strongest penalty to the weakest, each fit from the coefficients of the last one; Spark has that in Scala only."""
    best = 0.0
    settings: dict[str, float] = {}
    for elastic_net_param in ELASTIC_NET_PARAMS:
        last: Any = None
        for reg_param in sorted(REG_PARAMS, reverse=True):
            estimator: Any = LogisticRegression(regParam=reg_param, elasticNetParam=elastic_net_param)
            estimator._transfer_params_to_java()
            if last is not None:
                estimator._java_obj.setInitialModel(last._java_obj)
            last = estimator._create_model(estimator._java_obj.fit(train._jdf))
            value = float(BinaryClassificationEvaluator().evaluate(last.transform(validation)))
            if value > best:
                best, settings = value, {"regParam": reg_param, "elasticNetParam": elastic_net_param}
    return best, settings


def main(kind: str, features: str, out: str, *settings: str) -> None:
    """Runs one contender."""
    spark = SparkSession.builder.getOrCreate()
    began = time.perf_counter()
    train, validation = read(spark, features, "train"), read(spark, features, "validation")
    best: dict[str, float] = {}
    if kind == "trial":
        value = one_trial(train, validation, *map(float, settings))
    elif kind == "path":
        value, best = path(train, validation)
    else:
        value, best = by_spark(train, validation, FOLDS if kind == "folds" else 1)
    seconds = time.perf_counter() - began
    spark.stop()
    Path(out).mkdir(parents=True, exist_ok=True)
    Path(out, "measured.json").write_text(json.dumps({"seconds": seconds, "value": value, "best": best}))


if __name__ == "__main__":
    main(*sys.argv[1:])
