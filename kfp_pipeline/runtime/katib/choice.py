"""Chooses who carries out the step tune: Katib, if its arguments say so, else the runner of every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime.runner import ON_A_CLUSTER, Runner, runner_for
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs, flag
from spark_jobs.contract import KATIB, Step, TrainArgs, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.result import Result


def is_for_katib(args: StepArgs) -> bool:
    """Whether a step is a search that Katib carries out."""
    return isinstance(args, TuneArgs) and args.tuner == KATIB


def runner_of(args: StepArgs, spark: str, settings: Settings, **changes: Any) -> Runner:
    """Makes the runner of a step with these arguments; for the other parameters see `runner_for`.

    Raises:
        InputError: as `runner_for`, or Spark does not run on a cluster and Katib is to search.
    """
    if not is_for_katib(args):
        return runner_for(spark, settings, **changes)
    if spark not in ON_A_CLUSTER:
        raise InputError(
            f"{flag('tuner')}={KATIB} needs a cluster with Katib, and --spark={spark} is none: submit the pipeline, or leave it out"
        )
    return katib_tuner(settings, **changes)


def katib_tuner(
    settings: Settings,
    *,
    run: str = "",
    overrides: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
) -> Runner:
    """Makes the runner for a search by Katib; for the parameters see `runner_for`. Trials and defaults have applications of their own."""
    from kfp_pipeline.runtime.katib.tuner import KatibTuner  # noqa: PLC0415 - a run on one machine needs no Kubernetes client
    from kfp_pipeline.runtime.kubernetes_api import connect  # noqa: PLC0415
    from kfp_pipeline.runtime.supervision import SupervisedRunner  # noqa: PLC0415

    changes: dict[str, Any] = {"run": run, "overrides": overrides, "task_config": task_config}

    def run_train(args: TrainArgs, log_path: Path) -> Result:
        return runner_for("operator", settings, **changes).run(Step.TRAIN, args, log_path)

    cluster = connect(settings.namespace, settings.patience_seconds)
    return SupervisedRunner(lambda: KatibTuner(cluster, run_train, **changes))
