"""Checks of a cluster and of Kubeflow that change nothing."""
