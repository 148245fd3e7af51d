"""How good a model is: metrics, intervals, charts, the report."""
