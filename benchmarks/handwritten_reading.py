"""What people write to read a CSV: Spark infers the types, and the rows become Parquet. `benchmarks.wide_tables` runs it."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession


def read_alone(spark: SparkSession, data: str, target: str) -> None:
    """Reads a table with Spark alone, which infers the types of the columns, and writes it as Parquet."""
    spark.read.csv(data, header=True, inferSchema=True).write.mode("overwrite").parquet(target)


if __name__ == "__main__":
    session = SparkSession.builder.appName("read").getOrCreate()
    read_alone(session, *sys.argv[1:])
    session.stop()
