"""The runner for this machine: a step is a spark-submit process."""
