"""The code that runs inside a KFP task: it submits a step to Spark, follows the driver and reads the step's result."""
