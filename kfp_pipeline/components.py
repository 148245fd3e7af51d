"""The KFP components: one for each step, its inputs taken from the contract, and one that ends a run.

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

SCHEDULED_TIME, CODE_VERSION = "scheduled_time", "code_version"
"""A further input of load, and one of the cached steps, which load puts out."""
CACHED = (Step.PREPROCESS, Step.TRAIN)
"""Steps that KFP takes over from an earlier run with the same inputs and image. Load decides itself; every run has its own evaluation."""
LOADED = 'NamedTuple("Loaded", [("uri", str), ("code_version", str)])'
"""What load returns; see `runtime.loading.Loaded`. The other steps return a URI."""

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
    if step == Step.LOAD:
        about = "when the run was due, like 2026-12-31T23:59:59Z, for {{date}} in data_uri; KFP fills it in"
        return {**PLATFORM_INPUTS, SCHEDULED_TIME: ("str", about)}
    about = "version of the steps' code, so that KFP's cache knows it"
    return {**PLATFORM_INPUTS, **({CODE_VERSION: ("str", about)} if step in CACHED else {})}


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
    load = step == Step.LOAD
    module, call = ("loading", "run_load(inputs)") if load else ("step", f"run_task({str(step)!r}, inputs)")
    return "\n".join(
        [
            f"def {step}({', '.join(given)}) -> {LOADED if load else 'str'}:",
            f'    """{(ARGUMENTS[step].__doc__ or "").strip()}',
            "",
            "    Args:",
            *helps,
            *[f"        {name}: {about}." for name, (_, about) in platform.items()],
            "        task_config: filled in by KFP.",
            '    """',
            "    inputs = dict(locals())",
            f"    from kfp_pipeline.runtime.{module} import {call.partition('(')[0]}",
            "",
            f"    return {call}",
            "",
        ]
    )


def make_component(step: Step) -> Any:
    """The component of a step."""
    source, file_name = component_source(step), f"<component {step}>"
    # inspect.getsource, which KFP calls, finds the source here.
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    namespace: dict[str, Any] = {"dsl": dsl, "NamedTuple": NamedTuple}
    exec(compile(source, file_name, "exec", dont_inherit=True), namespace)  # noqa: S102 - the contract is ours
    return described(task_config_passthroughs=PASSED_ON)(namespace[str(step)])


described = functools.partial(dsl.component, base_image=TASK_IMAGE, install_kfp_package=False)
COMPONENTS: Mapping[Step, Any] = {step: make_component(step) for step in Step}


@described()  # type: ignore[untyped-decorator]
def finish(status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Ends what still runs of the run, and says how it went.

    Args:
        status: how the tasks ended, filled in by KFP.
        summary: how the run went.
    """
    from kfp_pipeline.runtime.finish import finish

    finish(status.state, status.error_message or "", summary)
