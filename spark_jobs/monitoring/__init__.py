"""Drift: whether the rows that a model meets now are like those that it was trained on. Formulas, the rule of the alarm, and the report."""
