"""What people write to read a CSV: Spark infers the types, and the rows become Parquet. `benchmarks.wide_tables` runs it."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession

if __name__ == "__main__":
    data, target = sys.argv[1:]
    spark = SparkSession.builder.appName("read").getOrCreate()
    spark.read.csv(data, header=True, inferSchema=True).write.mode("overwrite").parquet(target)
    spark.stop()
