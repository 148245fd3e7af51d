"""What all KFP components share: the image of their tasks, and the inputs that belong to the platform and not to a step.

`tools/generate.py` writes `kfp_pipeline.components` from this module and from the contract. This module names no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from kfp import dsl

from spark_jobs.arguments import Role, StepArgs

TASK_IMAGE = f"spark-kfp-task:{version('spark-kfp')}"
PLATFORM_INPUTS: Mapping[str, tuple[str, str]] = {
    "spark": (
        "str",
        "where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine",
    ),
    "spark_settings": (
        "dict",
        "resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: "
        '{"train": {"driver": {"memory": "4g"}}}',
    ),
}
"""The inputs that every component has besides those of the contract: name to type and meaning."""
SCHEDULED_TIME, CODE_VERSION = "scheduled_time", "code_version"
"""Two further inputs. The first is an input of the tasks that read external data. The task load returns the second, an input of the
tasks that KFP may cache: their cache entries are then valid for one version of the steps' code only."""
TASK_CONFIG_PASSTHROUGHS = [
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.RESOURCES),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_TOLERATIONS),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.ENV, apply_to_task=True),
]
"""The task settings that KFP passes to the component instead of applying them to the task's pod. The runner applies them to the step's
SparkApplication; see `runtime.spark_operator.task_config`."""


def reads_external_data(kind: type[StepArgs]) -> bool:
    """Whether a step reads data from outside the run. The task of such a step fills in the date."""
    return bool(kind.arguments(Role.GIVEN))


def platform_inputs_of(kind: type[StepArgs]) -> dict[str, tuple[str, str]]:
    """Returns the platform's inputs of a step's component: name to type and meaning."""
    if reads_external_data(kind):
        about = "when the run was due, like 2026-12-31T23:59:59Z, for {{date}} in data_uri; KFP fills it in"
        return {**PLATFORM_INPUTS, SCHEDULED_TIME: ("str", about)}
    about = "version of the steps' code, so that KFP's cache knows it"
    return {**PLATFORM_INPUTS, **({CODE_VERSION: ("str", about)} if kind.REUSED_BY_KFP else {})}
