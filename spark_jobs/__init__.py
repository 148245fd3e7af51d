"""The steps that a data scientist changes: plain Spark, no Kubeflow, no Kubernetes."""
