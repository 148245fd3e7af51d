"""Runs the steps of `spark_jobs` with Kubeflow Pipelines, with the Spark operator, or on one machine. Never imports pyspark."""
