"""The training pipeline: from a table to an evaluated model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from kfp import dsl

from kfp_pipeline.components import COMPONENTS, PLATFORM_INPUTS, inputs_of
from spark_jobs.contract import Step

NAME = "spark-kfp-training"
BETWEEN_TASKS = ("load_uri", "preprocess_uri", "train_uri")
"""Inputs that one task gets from another; all others are inputs of the pipeline."""


def training_graph(given: Mapping[str, Any]) -> None:
    """The graph: what follows what. `given` holds the pipeline's inputs by name."""
    loaded = task(Step.LOAD, given)
    preprocessed = task(Step.PREPROCESS, given, load_uri=uri(loaded))
    trained = task(Step.TRAIN, given, preprocess_uri=uri(preprocessed))
    task(Step.EVALUATE, given, preprocess_uri=uri(preprocessed), train_uri=uri(trained))


def task(step: Step, given: Mapping[str, Any], **between: Any) -> Any:
    """One task, with the pipeline's inputs that its component knows."""
    inputs = {item.name: given[item.name] for item in inputs_of(step) if item.name not in BETWEEN_TASKS}
    platform = {
        "spark": given["spark"],
        "spark_settings": given["spark_settings"],
        "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    }
    made = COMPONENTS[step](**inputs, **between, **platform)
    # KFP's cache looks at neither the data's contents nor the code of the step; the task itself decides by fingerprints.
    return made.set_caching_options(False).set_display_name(step.capitalize())


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
                kind = {"str": str, "int": int, "float": float, "bool": bool}[str(item.type)]
                found[item.name] = inspect.Parameter(
                    item.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind
                )
    for name, default in {"spark": "operator", "spark_settings": {}}.items():
        kind = type(default)
        found[name] = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
    return found


def make_pipeline() -> Any:
    """The pipeline as KFP takes it: `training_graph` with a signature made from the contract."""
    inputs = parameters()

    def training_pipeline(*channels: Any) -> None:
        training_graph(dict(zip(inputs, channels, strict=True)))

    helps = {item.name: item.metadata["about"] for step in Step for item in inputs_of(step)} | {
        name: about for name, (_, about) in PLATFORM_INPUTS.items()
    }
    listed = "\n".join(f"    {name}: {helps[name]}." for name in inputs)
    training_pipeline.__doc__ = f"Trains and evaluates a Spark ML model.\n\nArgs:\n{listed}\n"
    training_pipeline.__signature__ = inspect.Signature(list(inputs.values()))  # type: ignore[attr-defined]
    training_pipeline.__annotations__ = {name: item.annotation for name, item in inputs.items()}
    described = dsl.pipeline(
        name=NAME, display_name="Train a Spark ML model", description="Load, preprocess, train, evaluate."
    )
    return described(training_pipeline)


training_pipeline = make_pipeline()
