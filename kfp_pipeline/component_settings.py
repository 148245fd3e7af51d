"""What the components of all steps have in common: their image, and the inputs that the contract does not know.

Knows no step by name but the one whose task finds the data; `kfp_pipeline.components` is made from this and from the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from kfp import dsl

from spark_jobs.arguments import Role, StepArgs

TASK_IMAGE = f"spark-kfp-task:{version('spark-kfp')}"
PLATFORM_INPUTS: Mapping[str, tuple[str, str]] = {
    "spark": ("str", "where Spark runs: operator, or local[*] on one machine"),
    "spark_settings": (
        "dict",
        'resources for this run, STEP (or all) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}',
    ),
}
"""The inputs of every component beside those of the contract: type and meaning."""
SCHEDULED_TIME, CODE_VERSION = "scheduled_time", "code_version"
"""A further input of the task that finds the data, and one of the tasks that KFP's cache may take over, which that one puts out."""
TASK_CONFIG_PASSTHROUGHS = [
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.RESOURCES),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_TOLERATIONS),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.ENV, apply_to_task=True),
]
"""What a pipeline's author sets on a task and its SparkApplication gets; see `runtime.spark_operator.task_config`."""


def reads_external_data(kind: type[StepArgs]) -> bool:
    """Whether a step reads what comes from outside the run: its task fills in the date and knows the data's version."""
    return bool(kind.arguments(Role.GIVEN))


def platform_inputs_of(kind: type[StepArgs]) -> dict[str, tuple[str, str]]:
    """The inputs of a step's component that the contract does not have: type and meaning."""
    if reads_external_data(kind):
        about = "when the run was due, like 2026-12-31T23:59:59Z, for {{date}} in data_uri; KFP fills it in"
        return {**PLATFORM_INPUTS, SCHEDULED_TIME: ("str", about)}
    about = "version of the steps' code, so that KFP's cache knows it"
    return {**PLATFORM_INPUTS, **({CODE_VERSION: ("str", about)} if kind.REUSED_BY_KFP else {})}
