"""Generates the source of the KFP components and graphs from the contract; `make generate` runs it.

KFP compiles a lightweight component from the source text of its function, so the function's parameters must be written out in a file. They
follow from the contract, so this program writes that file. The edges of a graph follow from the outputs that its steps declare as inputs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kfp_pipeline.component_settings import (
    CODE_VERSION,
    PLATFORM_INPUTS,
    SCHEDULED_TIME,
    platform_inputs_of,
    reads_external_data,
)
from spark_jobs.arguments import Argument, Role, StepArgs
from spark_jobs.contract import ARGUMENTS, PIPELINES, Pipeline, Step

PROJECT = Path(__file__).parents[1]
NOTICE = "Generated from spark_jobs/contract.py by `make generate`: change that file, not this one."
COMPONENTS = f'''"""The KFP components, one for each step. Their inputs are the arguments of the step and the inputs of the platform.

{NOTICE}
The body of a component is one call into `kfp_pipeline.runtime`. A component declares output artifacts for KFP's UI and its lineage, lets
Spark write to their URIs, and returns the URI as text. It takes no artifact as input, because KFP's launcher would copy the whole table
into the task's pod. The module has no `from __future__ import annotations`: KFP reads the annotations as types, not as text.
"""

from typing import NamedTuple

from kfp import dsl

from kfp_pipeline.component_settings import TASK_CONFIG_PASSTHROUGHS, TASK_IMAGE
'''
LOADED = 'NamedTuple("Loaded", [("uri", str), ("code_version", str)])'
"""Return type of the component of a step that is reused by its data; see `runtime.loading.LoadedTable`. The others return a URI."""
DEFAULTS = {"spark": "operator", "spark_settings": {}}
"""Defaults of the platform's inputs of a pipeline."""


def generated_files() -> dict[str, str]:
    """Returns the text of each generated file by its path in the project, formatted by ruff."""
    made = {"kfp_pipeline/components.py": "\n\n".join([COMPONENTS, *map(component_source, Step)])}
    made |= {f"kfp_pipeline/pipelines/{name}.py": graph_module(pipeline) for name, pipeline in PIPELINES.items()}
    return {path: ruff_format(text, path) for path, text in made.items()}


def component_source(step: Step) -> str:
    """Returns the source of a step's component."""
    kind = ARGUMENTS[step]
    inputs, platform = inputs_of(kind), platform_inputs_of(kind)
    artifacts = {item.artifact: item.kind for item in kind.arguments(Role.OUTPUT)} | dict(kind.UI_ARTIFACTS)
    given = [
        *parameters(item for item in inputs if item.needed),
        *(f"{name}: {type_}" for name, (type_, _) in platform.items()),
        "task_config: dsl.TaskConfig",
        *(f"{name}: dsl.Output[dsl.{type_}]" for name, type_ in artifacts.items()),
        *parameters(item for item in inputs if not item.needed),
    ]
    returned = LOADED if kind.REUSED_BY_DATA else "str"
    call = "loading import run_load" if kind.REUSED_BY_DATA else "step import run_task"
    words = "inputs" if kind.REUSED_BY_DATA else f"{str(step)!r}, inputs"
    about = {item.name: item.about for item in inputs} | {name: text for name, (_, text) in platform.items()}
    lines = [
        "@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)",
        f"def {step}({', '.join(given)},) -> {returned}:",
        *docstring((kind.__doc__ or "").strip(), about | {"task_config": "filled in by KFP"}, indent=4),
        "    inputs = dict(locals())",
        f"    from kfp_pipeline.runtime.{call}",
        "",
        f"    return {call.rsplit(maxsplit=1)[-1]}({words})",
    ]
    return "\n".join(lines)


def inputs_of(kind: type[StepArgs]) -> tuple[Argument, ...]:
    """Returns the arguments of a step that are inputs of its component: all but the outputs."""
    return kind.arguments(Role.GIVEN, Role.FROM_STEP, Role.SETTING)


def parameters(arguments: Iterable[Argument]) -> list[str]:
    """Returns the source of function parameters for these arguments."""
    return [f"{item.name}: {item.type}" + ("" if item.needed else f" = {item.default!r}") for item in arguments]


def docstring(first: str, about: dict[str, str], *, indent: int) -> list[str]:
    """Returns the lines of a docstring with a section `Args`."""
    space = " " * indent
    helps = [f"{space}    {name}: {text}." for name, text in about.items()]
    return [f'{space}"""{first}', "", f"{space}Args:", *helps, f'{space}"""']


def graph_module(pipeline: Pipeline) -> str:
    """Returns the source of a pipeline's module."""
    inputs = sorted(
        pipeline.inputs().values(), key=lambda item: not item.needed
    )  # Python wants those with a default last
    function = f"{pipeline.name}_pipeline"
    platform = [f"{name}: {type_} = {DEFAULTS[name]!r}" for name, (type_, _) in PLATFORM_INPUTS.items()]
    about = {item.name: item.about for item in inputs} | {name: text for name, (_, text) in PLATFORM_INPUTS.items()}
    steps = ", ".join(pipeline.steps)
    head = f'''"""The {pipeline.name} pipeline as a KFP graph: {steps}.

{NOTICE}
"""

from typing import Any

from kfp import dsl

from kfp_pipeline import components
from kfp_pipeline.task_settings import Platform, configure_task, exit_handler


def make_pipeline(platform: Platform) -> Any:
    """Returns the pipeline, with the platform's settings on each of its tasks."""

    @dsl.pipeline(
        name="{pipeline.kfp_name}",
        display_name="{pipeline.title}",
        description="{steps.capitalize()}.",
        pipeline_config=platform.pipeline_config(),
    )
    def {function}({", ".join([*parameters(inputs), *platform])},) -> None:
'''
    body = [
        *docstring(f"{pipeline.about}", about, indent=8),
        f'        with exit_handler(platform, "{pipeline.group}"):',
        *graph_body(pipeline, indent=12),
        "",
        f"    return {function}",
        "",
        "",
        f"{function} = make_pipeline(Platform())",
    ]
    return head + "\n".join(body) + "\n"


def graph_body(pipeline: Pipeline, *, indent: int, begun: int = 0) -> list[str]:
    """Returns the statements that make the tasks of all steps but the first `begun`.

    Those after a task that decides stand below its condition. From an optional step on there are two branches, with the step and without.
    """
    if begun == len(pipeline.steps):
        return []
    step, space = pipeline.steps[begun], " " * indent
    if step in pipeline.optional:
        asked = pipeline.optional[step].name
        # Two conditions and no dsl.Else, for which KFP would start one more pod: the driver of the group of both.
        with_step = replace(pipeline, optional={})
        without = replace(with_step, steps=tuple(each for each in pipeline.steps if each != step))
        words = asked.replace("_", " ")
        return [
            f'{space}with dsl.If({asked} == False, name="if not {words}"):  # noqa: E712 - KFP reads it, not Python',
            *graph_body(without, indent=indent + 4, begun=begun),
            f'{space}with dsl.If({asked} == True, name="if {words}"):  # noqa: E712',
            *graph_body(with_step, indent=indent + 4, begun=begun),
        ]
    lines = [space + line for line in task_statement(pipeline, step)]
    if pipeline.decides(step):
        lines.append(f'{space}with dsl.If({uri_expression(step)} != "", name="if {step} says so"):')
        indent += 4
    return [*lines, *graph_body(pipeline, indent=indent, begun=begun + 1)]


def task_statement(pipeline: Pipeline, step: Step) -> list[str]:
    """Returns the statement that makes a step's task. Its inputs are inputs of the pipeline or outputs of earlier tasks."""
    kind = ARGUMENTS[step]
    sources = {item.name: uri_expression(item.step) for item in kind.arguments(Role.FROM_STEP)}
    taken = pipeline.arguments_of(step, Role.GIVEN, Role.FROM_STEP, Role.SETTING)
    given = {item.name: sources.get(item.name, item.name) for item in taken}
    given |= {
        item.name: uri_expression(item.chosen_by)
        for item in kind.arguments(Role.GIVEN)
        if item.chosen_by in pipeline.steps
    }
    given |= {name: name for name in PLATFORM_INPUTS}
    if reads_external_data(kind):
        given[SCHEDULED_TIME] = "platform.scheduled_time"
    elif kind.REUSED_BY_KFP:
        finder = next(each for each in pipeline.steps if ARGUMENTS[each].REUSED_BY_DATA)
        given[CODE_VERSION] = f'{finder}.outputs["{CODE_VERSION}"]'
    call = f"components.{step}({', '.join(f'{name}={value}' for name, value in given.items())},)"
    cached = ", cached=True" if kind.REUSED_BY_KFP else ""
    read = pipeline.decides(step) or any(
        item.step == step for each in pipeline.steps for item in pipeline.arguments_of(each, Role.FROM_STEP)
    )
    statement = f'{f"{step} = " if read else ""}configure_task({call}, platform, "{step.capitalize()}"{cached})'
    if not kind.RUNS_IF:
        return [statement]
    return [
        f'with dsl.If({kind.RUNS_IF} != "", name="if {kind.RUNS_IF.replace("_", " ")} is given"):',
        f"    {statement}",
    ]


def uri_expression(step: str) -> str:
    """Returns the expression for the text that a step's task returns: the URI of its output, or what it has decided."""
    return f'{step}.outputs["{"uri" if ARGUMENTS[Step(step)].REUSED_BY_DATA else "Output"}"]'


def ruff_format(text: str, path: str) -> str:
    """Formats the source of a file with ruff."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PROJECT / path), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=PROJECT)
    return done.stdout


def main() -> None:
    """Writes the generated files."""
    for path, text in generated_files().items():
        (PROJECT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
