"""What carries a step out: the one interface behind which spark-submit, the Spark operator and Spark Connect are the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from kfp_pipeline.runtime.spark_submit import SparkSubmitRunner
from kfp_pipeline.settings import Settings
from spark_jobs.contract import InputError, Result, Step, StepArgs


class Runner(Protocol):
    """Carries a step out and brings back its result."""

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """Runs the step to its end.

        Args:
            step: which step.
            args: its arguments.
            log_path: file to which the driver's log is appended.

        Returns:
            The result document, whose status is `succeeded`.

        Raises:
            PermanentError: repeating cannot help.
            TemporaryError: repeating may help.
            InputError: Spark cannot be started with these settings.
        """


def runner_for(spark: str, settings: Settings) -> Runner:
    """The runner that a `--spark` value names.

    Raises:
        InputError: no runner has that name, or it is not there yet.
    """
    if re.fullmatch(r"local(\[(\*|[1-9]\d*)\])?", spark):
        return SparkSubmitRunner(spark, settings)
    if spark == "operator" or spark.startswith("sc://"):
        raise InputError(f"--spark={spark} is not supported yet; use --spark='local[*]'")
    raise InputError(f"--spark={spark} is none of local, local[N], local[*]")
