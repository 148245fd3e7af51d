"""The KFP components: one for each step, its inputs taken from the contract.

A lightweight component is compiled from the source text of its function, so a signature that follows the contract needs a source that
follows the contract: `component_source` writes it. Each body is one call into `runtime`. A component declares output artifacts, for the UI
and the lineage, lets Spark write to their URIs, and returns the URI as text: an artifact as input would make KFP's launcher copy the whole
table into the task's pod.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from importlib.metadata import version
from typing import Any

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
    },
}
"""The output artifacts of each component and their KFP types."""

PLATFORM_INPUTS: Mapping[str, tuple[str, str]] = {
    "spark": ("str", "where Spark runs: operator, or local[*] on one machine"),
    "spark_settings": (
        "dict",
        'resources for this run, STEP (or all) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}',
    ),
    "run_id": ("str", "name of the run, under which its outputs lie"),
}
"""The inputs of every component beside those of the contract: type and meaning."""


def inputs_of(step: Step) -> list[Field[Any]]:
    """The fields of the step's arguments that are inputs of its component: all but the outputs."""
    return [item for item in fields(ARGUMENTS[step]) if item.name not in OUTPUT_ARTIFACTS[step]]  # type: ignore[arg-type]


def component_source(step: Step) -> str:
    """The source of a component's function: the contract's fields in, the artifacts and a URI out."""
    inputs = inputs_of(step)
    needed = [f"{item.name}: {item.type}" for item in inputs if item.default is MISSING]
    platform = [f"{name}: {kind}" for name, (kind, _) in PLATFORM_INPUTS.items()]
    optional = [f"{item.name}: {item.type} = {item.default!r}" for item in inputs if item.default is not MISSING]
    outputs = [f"{name}: dsl.Output[dsl.{kind}]" for name, kind in OUTPUT_KINDS[step].items()]
    helps = [f"        {item.name}: {item.metadata['about']}." for item in inputs]
    return "\n".join(
        [
            f"def {step}({', '.join([*needed, *platform, *outputs, *optional])}) -> str:",
            f'    """{(ARGUMENTS[step].__doc__ or "").strip()}',
            "",
            "    Args:",
            *helps,
            *[f"        {name}: {about}." for name, (_, about) in PLATFORM_INPUTS.items()],
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
    return dsl.component(base_image=TASK_IMAGE, install_kfp_package=False)(namespace[str(step)])


COMPONENTS: Mapping[Step, Any] = {step: make_component(step) for step in Step}
