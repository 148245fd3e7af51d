"""The KFP components: one for each step, its inputs taken from the contract, and two around them.

A lightweight component is compiled from the source text of its function, so a signature that follows the contract needs a source that
follows the contract: `component_source` writes it. Each body is one call into `runtime`. A component declares output artifacts, for the UI
and the lineage, lets Spark write to their URIs, and returns the URI as text: an artifact as input would make KFP's launcher copy the whole
table into the task's pod. Annotations are not postponed here: KFP reads them.
"""

import functools
import linecache
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from importlib.metadata import version
from typing import Any, NamedTuple

from kfp import dsl

from kfp_pipeline.runtime.step import OUTPUT_ARTIFACTS
from spark_jobs.contract import ARGUMENTS, Step

TASK_IMAGE = f"spark-kfp-task:{version('spark-kfp')}"

OUTPUT_KINDS: Mapping[Step, Mapping[str, str]] = {
    Step.LOAD: {"table": "Dataset"},
    Step.PREPROCESS: {"features": "Dataset"},
    Step.TRAIN: {"model": "Model", "metrics": "Metrics"},
    Step.EVALUATE: {
        "evaluation": "Artifact",
        "metrics": "Metrics",
        "curves": "ClassificationMetrics",
        "report": "HTML",
        "summary": "Markdown",
    },
}
"""The output artifacts of each component and their KFP types."""

PLATFORM_INPUTS: Mapping[str, tuple[str, str]] = {
    "spark": ("str", "where Spark runs: operator, or local[*] on one machine"),
    "spark_settings": (
        "dict",
        'resources for this run, STEP (or all) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}',
    ),
}
"""The inputs of every component beside those of the contract: type and meaning."""

DATA_VERSION = "data_version"
"""A further input of load."""

PASSED_ON = [
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.RESOURCES),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_TOLERATIONS),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR),
    dsl.TaskConfigPassthrough(dsl.TaskConfigField.ENV, apply_to_task=True),
]
"""What a pipeline's author sets on a task and its SparkApplication gets; see `runtime.task_config`."""


def inputs_of(step: Step) -> list[Field[Any]]:
    """The fields of the step's arguments that are inputs of its component: all but the outputs."""
    return [item for item in fields(ARGUMENTS[step]) if item.name not in OUTPUT_ARTIFACTS[step]]  # type: ignore[arg-type]


def platform_inputs_of(step: Step) -> dict[str, tuple[str, str]]:
    """The inputs of a step's component that the contract does not have: type and meaning."""
    about = "version of the data and the specification, so that KFP's cache knows them"
    return {**PLATFORM_INPUTS, **({DATA_VERSION: ("str", about)} if step == Step.LOAD else {})}


def component_source(step: Step) -> str:
    """The source of a component's function: the contract's fields in, the artifacts and a URI out."""
    inputs = inputs_of(step)
    needed = [f"{item.name}: {item.type}" for item in inputs if item.default is MISSING]
    platform = platform_inputs_of(step)
    optional = [f"{item.name}: {item.type} = {item.default!r}" for item in inputs if item.default is not MISSING]
    outputs = [f"{name}: dsl.Output[dsl.{kind}]" for name, kind in OUTPUT_KINDS[step].items()]
    helps = [f"        {item.name}: {item.metadata['about']}." for item in inputs]
    typed = [f"{name}: {kind}" for name, (kind, _) in platform.items()]
    given = [*needed, *typed, "task_config: dsl.TaskConfig", *outputs, *optional]
    return "\n".join(
        [
            f"def {step}({', '.join(given)}) -> str:",
            f'    """{(ARGUMENTS[step].__doc__ or "").strip()}',
            "",
            "    Args:",
            *helps,
            *[f"        {name}: {about}." for name, (_, about) in platform.items()],
            "        task_config: filled in by KFP.",
            '    """',
            "    inputs = dict(locals())",
            "    from kfp_pipeline.runtime.step import run_task",
            "",
            f"    return run_task({str(step)!r}, inputs)",
            "",
        ]
    )


def make_component(step: Step) -> Any:
    """The component of a step."""
    source, file_name = component_source(step), f"<component {step}>"
    # inspect.getsource, which KFP calls, finds the source here.
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    namespace: dict[str, Any] = {"dsl": dsl}
    exec(compile(source, file_name, "exec", dont_inherit=True), namespace)  # noqa: S102 - the contract is ours
    return described(task_config_passthroughs=PASSED_ON)(namespace[str(step)])


described = functools.partial(dsl.component, base_image=TASK_IMAGE, install_kfp_package=False)
COMPONENTS: Mapping[Step, Any] = {step: make_component(step) for step in Step}


@described()  # type: ignore[untyped-decorator]
def find_data(data_uri: str, specification_uri: str, scheduled_time: str) -> NamedTuple(
    "Found", [("uri", str), ("version", str)]
):
    """Fills in the date in the data's URI, and asks the object store for the data's version.

    Args:
        data_uri: of the table; it may hold {{date}}.
        specification_uri: of the data specification; may be empty.
        scheduled_time: when the run was due, like 2026-12-31T23:59:59Z; KFP fills it in.
    """
    from kfp_pipeline.runtime.around import find

    return find(data_uri, specification_uri, scheduled_time)


@described()  # type: ignore[untyped-decorator]
def finish(status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Ends what still runs of the run, and says how it went.

    Args:
        status: how the tasks ended, filled in by KFP.
        summary: how the run went.
    """
    from kfp_pipeline.runtime.around import finish

    finish(status.state, status.error_message or "", summary)
