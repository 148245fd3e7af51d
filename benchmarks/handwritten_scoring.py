"""What people write to score a table: load the model, read the table with types that Spark infers, transform, write.

It does not check cells, keeps no rejected rows, and leaves no record of what was scored. `benchmarks.batch_scoring` runs it.
"""

from __future__ import annotations

import sys

from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

if __name__ == "__main__":
    data, model, target = sys.argv[1:]
    spark = SparkSession.builder.appName("score").getOrCreate()
    rows = spark.read.csv(data, header=True, inferSchema=True)
    scored = PipelineModel.load(model).transform(rows)
    probability = vector_to_array(F.col("probability"))[1].alias("probability")
    kept = scored.select(*rows.columns, probability, F.col("predicted_label").alias("prediction"))
    kept.write.mode("overwrite").parquet(target)
    spark.stop()
