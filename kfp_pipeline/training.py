"""The training pipeline: from a table to an evaluated model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from kfp import dsl, kubernetes

from kfp_pipeline.components import COMPONENTS, PLATFORM_INPUTS, TASK_IMAGE, inputs_of
from spark_jobs.contract import Step

NAME = "spark-kfp-training"
OBJECT_STORE = "spark-kfp-object-store"
"""Name of the secret and of the ConfigMap that say where the object store is and who asks; see spark-operator/."""
BETWEEN_TASKS = ("load_uri", "preprocess_uri", "train_uri")
"""Inputs that one task gets from another; all others are inputs of the pipeline."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a task needs beside its inputs.

    Attributes:
        image: of the tasks.
        retries: how often KFP repeats a failed task; a repeated one finds the application that the first has submitted.
        backoff_seconds: before the first repetition; twice as long before each further one.
    """

    image: str = TASK_IMAGE
    retries: int = 2
    backoff_seconds: int = 30


THIS_MACHINE = Platform(retries=0)
"""For a run on one machine: who waits repeats it, and finished steps are reused."""


def training_graph(given: Mapping[str, Any], platform: Platform) -> None:
    """The graph: what follows what. `given` holds the pipeline's inputs by name."""
    loaded = task(Step.LOAD, given, platform)
    preprocessed = task(Step.PREPROCESS, given, platform, load_uri=uri(loaded))
    trained = task(Step.TRAIN, given, platform, preprocess_uri=uri(preprocessed))
    task(Step.EVALUATE, given, platform, preprocess_uri=uri(preprocessed), train_uri=uri(trained))


def task(step: Step, given: Mapping[str, Any], platform: Platform, **between: Any) -> Any:
    """One task, with the pipeline's inputs that its component knows."""
    inputs = {item.name: given[item.name] for item in inputs_of(step) if item.name not in BETWEEN_TASKS}
    inputs |= {name: given[name] for name in ("spark", "spark_settings")} | {"run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    made = COMPONENTS[step](**inputs, **between)
    # KFP's cache looks at neither the data's contents nor the code of the step; the task itself decides by fingerprints.
    made.set_caching_options(False).set_display_name(step.capitalize()).set_container_image(platform.image)
    if platform.retries:
        made.set_retry(platform.retries, backoff_duration=f"{platform.backoff_seconds}s", backoff_factor=2.0)
    kubernetes.use_secret_as_env(
        made, OBJECT_STORE, {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
    )
    kubernetes.use_config_map_as_env(made, OBJECT_STORE, {"endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"})
    return made


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
    described = dsl.pipeline(
        name=NAME, display_name="Train a Spark ML model", description="Load, preprocess, train, evaluate."
    )
    return described(training_pipeline)


training_pipeline = make_pipeline(Platform())
