"""Runs steps as clients of a Spark Connect server that runs already."""
