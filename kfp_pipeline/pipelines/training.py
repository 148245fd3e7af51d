"""The training pipeline: from a table to an evaluated model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from kfp import dsl

from kfp_pipeline.components import CACHED, CODE_VERSION, COMPONENTS, PLATFORM_INPUTS, finish, inputs_of
from kfp_pipeline.task_settings import Platform, prepared
from spark_jobs.contract import TYPES, Step

NAME = "spark-kfp-training"
BETWEEN_TASKS = ("load_uri", "preprocess_uri", "train_uri")
"""Inputs that one task gets from another; all others are inputs of the pipeline."""
GROUP = "Training, with curves and report"
"""What KFP's UI calls the group of the steps; one opens it to see the report."""


def training_graph(given: Mapping[str, Any], platform: Platform) -> None:
    """The graph: what follows what. `given` holds the pipeline's inputs by name."""
    if not platform.cluster:
        steps_graph(given, platform)
        return
    with dsl.ExitHandler(prepared(finish(), platform, "Finish"), name=GROUP):
        steps_graph(given, platform)


def steps_graph(given: Mapping[str, Any], platform: Platform) -> None:
    """The steps, each after those whose output it reads."""
    # Of a recurring run the time for which it was due, else that at which it was made; KFP's runner on one machine does not know it.
    due = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER if platform.cluster else ""
    loaded = task(Step.LOAD, given, platform, scheduled_time=due)
    code = {CODE_VERSION: loaded.outputs[CODE_VERSION]}
    preprocessed = task(Step.PREPROCESS, given, platform, load_uri=loaded.outputs["uri"], **code)
    trained = task(Step.TRAIN, given, platform, preprocess_uri=uri(preprocessed), **code)
    task(Step.EVALUATE, given, platform, preprocess_uri=uri(preprocessed), train_uri=uri(trained))


def task(step: Step, given: Mapping[str, Any], platform: Platform, **between: Any) -> Any:
    """One step's task, with the pipeline's inputs that its component knows."""
    inputs = {item.name: given[item.name] for item in inputs_of(step) if item.name not in BETWEEN_TASKS}
    inputs |= {name: given[name] for name in PLATFORM_INPUTS}
    return prepared(COMPONENTS[step](**inputs, **between), platform, step.capitalize(), cached=step in CACHED)


def uri(finished: Any) -> Any:
    """The URI that a task returned."""
    return finished.outputs["Output"]


def parameters() -> dict[str, inspect.Parameter]:
    """The inputs of the pipeline: `data_uri`, and every setting of the contract's steps."""
    found = {}
    for step in Step:
        for item in inputs_of(step):
            if item.name not in BETWEEN_TASKS:
                default = inspect.Parameter.empty if item.default is MISSING else item.default
                kind = TYPES[str(item.type)]
                found[item.name] = inspect.Parameter(
                    item.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind
                )
    for name, default in {"spark": "operator", "spark_settings": {}}.items():
        kind = type(default)
        found[name] = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
    return found


def make_pipeline(platform: Platform) -> Any:
    """The pipeline as KFP takes it: `training_graph` with a signature made from the contract."""
    inputs = parameters()

    def training_pipeline(*channels: Any) -> None:
        training_graph(dict(zip(inputs, channels, strict=True)), platform)

    helps = {item.name: item.metadata["about"] for step in Step for item in inputs_of(step)} | {
        name: about for name, (_, about) in PLATFORM_INPUTS.items()
    }
    listed = "\n".join(f"    {name}: {helps[name]}." for name in inputs)
    training_pipeline.__doc__ = f"Trains and evaluates a Spark ML model.\n\nArgs:\n{listed}\n"
    training_pipeline.__signature__ = inspect.Signature(list(inputs.values()))  # type: ignore[attr-defined]
    training_pipeline.__annotations__ = {name: item.annotation for name, item in inputs.items()}
    kept = {"ttl_seconds_after_finished": platform.workflow_ttl_seconds} if platform.workflow_ttl_seconds else {}
    described = dsl.pipeline(
        name=NAME,
        display_name="Train a Spark ML model",
        description="Load, preprocess, train, evaluate.",
        pipeline_config=dsl.PipelineConfig(**kept),
    )
    return described(training_pipeline)


training_pipeline = make_pipeline(Platform())
