"""The training pipeline: from a table to an evaluated model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from kfp import dsl, kubernetes

from kfp_pipeline.components import COMPONENTS, PLATFORM_INPUTS, TASK_IMAGE, find_data, finish, inputs_of
from kfp_pipeline.settings import PREFIX
from spark_jobs.contract import Step

NAME = "spark-kfp-training"
OBJECT_STORE = "spark-kfp-object-store"
"""Name of the secret and of the ConfigMap that say where the object store is and who asks; see spark-operator/."""
BETWEEN_TASKS = ("load_uri", "preprocess_uri", "train_uri", "data_version")
"""Inputs that one task gets from another; all others are inputs of the pipeline."""
SCHEDULED_TIME = "scheduled_time"
FIND_DATA = ("data_uri", "specification_uri", SCHEDULED_TIME)
RUN_ID_VARIABLE = f"{PREFIX}RUN_ID"
RUN_ID_LABEL = "metadata.labels['pipeline/runid']"
CACHED = (Step.LOAD, Step.PREPROCESS, Step.TRAIN)
"""Steps that KFP takes over from an earlier run with the same inputs, data and image. Every run has its own evaluation and report."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a task needs beside its inputs.

    Attributes:
        image: of the tasks, best by its digest.
        cluster: whether tasks run in pods: then they find the store by a secret, and the run is watched over from its first task to its
            last. On one machine whoever waits does both.
        cache: whether KFP may take a step over from an earlier run.
        retries: how often KFP repeats a failed task; a repeated one finds the application that the first has submitted.
        backoff_seconds: before the first repetition; twice as long before each further one.
        time_limit_seconds: of one attempt of a task, the waiting for its SparkApplication included; 0: none.
        workflow_ttl_seconds: how long the workflow of an ended run stays in the cluster; 0: as KFP is set up. Needs KFP 2.16.
    """

    image: str = TASK_IMAGE
    cluster: bool = True
    cache: bool = True
    retries: int = 2
    backoff_seconds: int = 30
    time_limit_seconds: int = 86_400
    workflow_ttl_seconds: int = 0


THIS_MACHINE = Platform(cluster=False, cache=False, retries=0)
"""For a run on one machine: who waits repeats it, and finished steps are reused."""


def training_graph(given: Mapping[str, Any], platform: Platform) -> None:
    """The graph: what follows what. `given` holds the pipeline's inputs by name."""
    if not platform.cluster:
        steps_graph(given, platform)
        return
    with dsl.ExitHandler(prepared(finish(), platform, "Finish"), name="Steps"):
        found = prepared(find_data(**{name: given[name] for name in FIND_DATA}), platform, "Find the data")
        steps_graph({**given, "data_uri": found.outputs["uri"], "data_version": found.outputs["version"]}, platform)


def steps_graph(given: Mapping[str, Any], platform: Platform) -> None:
    """The steps, each after those whose output it reads."""
    loaded = task(Step.LOAD, given, platform, data_version=given.get("data_version", ""))
    preprocessed = task(Step.PREPROCESS, given, platform, load_uri=uri(loaded))
    trained = task(Step.TRAIN, given, platform, preprocess_uri=uri(preprocessed))
    task(Step.EVALUATE, given, platform, preprocess_uri=uri(preprocessed), train_uri=uri(trained))


def task(step: Step, given: Mapping[str, Any], platform: Platform, **between: Any) -> Any:
    """One step's task, with the pipeline's inputs that its component knows."""
    inputs = {item.name: given[item.name] for item in inputs_of(step) if item.name not in BETWEEN_TASKS}
    inputs |= {name: given[name] for name in PLATFORM_INPUTS}
    return prepared(COMPONENTS[step](**inputs, **between), platform, step.capitalize(), cached=step in CACHED)


def prepared(made: Any, platform: Platform, name: str, *, cached: bool = False) -> Any:
    """A task as the platform wants it: image, cache, retries, time limit, and what it needs to know in a pod."""
    made.set_caching_options(cached and platform.cache).set_display_name(name).set_container_image(platform.image)
    if platform.retries:
        made.set_retry(platform.retries, backoff_duration=f"{platform.backoff_seconds}s", backoff_factor=2.0)
    if platform.cluster:
        kubernetes.use_secret_as_env(
            made, OBJECT_STORE, {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
        )
        kubernetes.use_config_map_as_env(made, OBJECT_STORE, {"endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"})
        # Not an input: it differs from run to run, and KFP's cache would never find a task again.
        kubernetes.use_field_path_as_env(made, RUN_ID_VARIABLE, RUN_ID_LABEL)
        kubernetes.set_timeout(made, platform.time_limit_seconds)
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
    for name, default in {SCHEDULED_TIME: "", "spark": "operator", "spark_settings": {}}.items():
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
    helps[SCHEDULED_TIME] = "when the run was due, YYYYMMDDhhmmss in UTC, for {{date}} in data_uri; empty: now"
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
