"""What runs inside a task: submit a step to Spark, follow it, bring back its result."""
