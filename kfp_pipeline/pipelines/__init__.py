"""The KFP graphs, one module a pipeline."""
