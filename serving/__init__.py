"""Serves the model: scores rows with scorecard.json in plain Python, without a JVM."""
