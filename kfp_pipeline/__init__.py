"""The pipeline that a platform engineer changes: graphs, components and runners, no Spark."""
