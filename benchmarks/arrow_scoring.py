"""Scores a table by its scorecard in Spark's Python workers, which get the rows as Arrow batches; `benchmarks.batch_scoring` runs it.

It is what one would write around `serving.scorer`: the cells are texts, which the scorer checks, and the first bad one ends the job.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

# spark-submit puts this folder there, in which `serving` is another module.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from serving.scorer import Scorer  # noqa: E402

if __name__ == "__main__":
    data, scorecard, target = sys.argv[1:]
    text = Path(scorecard).read_text(encoding="utf-8")
    spark = SparkSession.builder.appName("score").getOrCreate()
    rows = spark.read.csv(data, header=True)

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Adds probability and prediction to each batch of rows."""
        scorer = Scorer.from_json(text)
        positive = scorer.labels[1]
        for batch in batches:
            scores = [scorer.score(row) for row in batch.to_pylist()]
            probabilities = pa.array([found.probabilities[positive] for found in scores])
            predictions = pa.array([found.label for found in scores])
            yield batch.append_column("probability", probabilities).append_column("prediction", predictions)

    added = [StructField("probability", DoubleType()), StructField("prediction", StringType())]
    rows.mapInArrow(score, StructType([*rows.schema, *added])).write.mode("overwrite").parquet(target)
    spark.stop()
