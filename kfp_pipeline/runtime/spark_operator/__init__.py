"""The runner for the Kubeflow Spark operator: it runs each step as a SparkApplication."""
