"""The runner for the Kubeflow Spark operator: a step is a SparkApplication."""
