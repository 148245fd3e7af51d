"""The `Runner` interface: it runs a step on Spark, and hides whether by spark-submit or by the Spark operator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kfp_pipeline.runtime.spark_connect.runner import SparkConnectRunner
from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result

ON_A_CLUSTER = ("operator", "shared")
"""The values of `--spark` that submit SparkApplications: one for each step, or one whose session the steps of a run share."""


class Runner(Protocol):
    """Runs a step on Spark and returns its result."""

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """Runs the step and waits until it has ended.

        Args:
            step: which step.
            args: its arguments.
            log_path: file to which the driver's log is appended.

        Returns:
            The result document, whose status is `succeeded`.

        Raises:
            PermanentError: the step failed, and a retry cannot help.
            TemporaryError: the step failed, and a retry may help.
            InputError: Spark cannot be started with these settings.
        """


def runner_for(
    spark: str,
    settings: Settings,
    *,
    run: str = "",
    overrides: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
    owners: Sequence[Mapping[str, str]] | None = None,
) -> Runner:
    """Makes the runner that a `--spark` value names.

    Args:
        spark: local, local[N], local[*], sc://HOST:PORT, operator or shared.
        settings: of the platform.
        run: id of the run, for the labels of its SparkApplications.
        overrides: the run's Spark settings: for each step a partial SparkApplication spec.
        task_config: resources and placement that the pipeline's author set on the KFP task, as fields of `dsl.TaskConfig`.
        owners: owner references of the SparkApplications; None: those of the task's pod.

    Raises:
        InputError: no runner has that name, the runner is not supported yet, or no cluster is configured.
    """
    if re.fullmatch(r"local(\[(\*|[1-9]\d*)\])?", spark):
        return SparkSubmitRunner(spark, settings)
    if spark in ON_A_CLUSTER:
        from kfp_pipeline.runtime.kubernetes_api import connect  # noqa: PLC0415 - a run on one machine needs no Kubernetes client
        from kfp_pipeline.runtime.spark_operator.runner import SparkOperatorRunner  # noqa: PLC0415
        from kfp_pipeline.runtime.spark_operator.session_runner import SharedSessionRunner  # noqa: PLC0415
        from kfp_pipeline.runtime.supervision import SupervisedRunner  # noqa: PLC0415

        cluster = connect(settings.namespace, settings.patience_seconds)
        kind = SharedSessionRunner if spark == "shared" else SparkOperatorRunner
        return SupervisedRunner(
            lambda: kind(
                cluster,
                config_name=settings.config_map,
                lease_seconds=settings.lease_seconds,
                run=run,
                overrides=overrides,
                task_config=task_config,
                owners=owners,
            )
        )
    if spark.startswith("sc://"):
        return SparkConnectRunner(spark)
    raise InputError(f"--spark={spark} is none of local, local[N], local[*], sc://HOST:PORT, operator, shared")
