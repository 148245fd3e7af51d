"""The runner for one machine without a cluster: it runs each step as a spark-submit process."""
