"""What the platform gives to every task of a pipeline: image, retries, time limit, the object store, the run's id.

Knows no step and no graph.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl, kubernetes

from kfp_pipeline.component_settings import TASK_IMAGE
from kfp_pipeline.finish import finish
from kfp_pipeline.settings import OBJECT_STORE, PREFIX, lease_seconds_for
from spark_jobs.errors import InputError

RUN_ID_VARIABLE = f"{PREFIX}RUN_ID"
RUN_ID_LABEL = "metadata.labels['pipeline/runid']"
IMAGE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a task needs beside its inputs.

    Attributes:
        image: of the tasks, best by its digest.
        namespace: of the SparkApplications; empty: that in which KFP runs the tasks.
        cluster: whether tasks run in pods: then they find the store by a secret, and the run is watched over from its first task to its
            last. On one machine whoever waits does both.
        cache: whether a step may be taken over from an earlier run.
        retries: how often KFP repeats a task that failed, beside what it is set up to repeat. 0: a task repeats by itself what was ended
            from outside, and KFP 2.17 a task whose pod is gone, twice. More than 0 makes that KFP wait before it says that a task has
            failed, and older ones repeat a user's error too; but these then repeat a task whose pod was evicted.
        backoff_seconds: before the first repetition; twice as long before each further one.
        lease_seconds: how long a SparkApplication goes on whose task does not come back; 0: what follows from retries and backoff.
        time_limit_seconds: of one attempt of a task, the waiting for its SparkApplication included; 0: none.
        workflow_ttl_seconds: how long the workflow of an ended run stays in the cluster; 0: as KFP is set up. Needs KFP 2.16.
    """

    image: str = TASK_IMAGE
    namespace: str = ""
    cluster: bool = True
    cache: bool = True
    retries: int = 0
    backoff_seconds: int = 30
    lease_seconds: int = 0
    time_limit_seconds: int = 86_400
    workflow_ttl_seconds: int = 0

    @property
    def scheduled_time(self) -> str:
        """The time for which a run was due, which KFP fills in; its runner on one machine does not know it."""
        # Of a recurring run the time for which it was due, else that at which it was made.
        return str(dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER) if self.cluster else ""

    def pipeline_config(self) -> Any:
        """What KFP must know of the pipeline as a whole."""
        kept = {"ttl_seconds_after_finished": self.workflow_ttl_seconds} if self.workflow_ttl_seconds else {}
        return dsl.PipelineConfig(**kept)


LOCAL_PLATFORM = Platform(cluster=False, cache=False)
"""For a run on one machine: who waits repeats it, and finished steps are reused."""


def read_platform(path: str, image: str = "") -> Platform:
    """The platform as a YAML file says: a mapping of fields of `Platform`; the others keep their defaults.

    Args:
        path: the file; empty: all defaults.
        image: of the tasks; it comes before the file's.

    Raises:
        InputError: it is not there, holds no mapping, or a field is not known or not of its type; or the image is no name of one.
    """
    given = _read_mapping(path) if path else {}
    known: dict[str, type] = {item.name: type(item.default) for item in fields(Platform)}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{path}: {name!r} is no setting of a task; there are {', '.join(known)}")
        kind = known[name]
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            wanted = {int: "a whole number, 0 or more", bool: "true or false", str: "a text"}[kind]
            raise InputError(f"{path}: {name} is {value!r}; it must be {wanted}")
    platform = Platform(**{**given, **({"image": image} if image else {})})
    if not IMAGE.fullmatch(platform.image):
        raise InputError(f"image is {platform.image!r}; it must be like {TASK_IMAGE} or NAME@sha256:DIGEST")
    return platform


def _read_mapping(path: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must map settings to values, like retries: 3")
    return found


def exit_handler(platform: Platform, group: str) -> AbstractContextManager[Any]:
    """The group of a pipeline's tasks, after which, however they end, a last task ends the run; on one machine whoever waits does that.

    Args:
        platform: what tasks get.
        group: what KFP's UI calls it.
    """
    return (
        dsl.ExitHandler(configure_task(finish(), platform, "Finish"), name=group) if platform.cluster else nullcontext()
    )


def configure_task(task: Any, platform: Platform, name: str, *, cached: bool = False) -> Any:
    """A task as the platform wants it: image, cache, retries, time limit, and what it needs to know in a pod."""
    task.set_caching_options(cached and platform.cache).set_display_name(name).set_container_image(platform.image)
    if platform.retries:
        task.set_retry(platform.retries, backoff_duration=f"{platform.backoff_seconds}s", backoff_factor=2.0)
    if platform.cluster:
        kubernetes.use_secret_as_env(
            task, OBJECT_STORE, {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
        )
        kubernetes.use_config_map_as_env(task, OBJECT_STORE, {"endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"})
        # Not an input: it differs from run to run, and KFP's cache would never find a task again.
        kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, RUN_ID_LABEL)
        if not platform.cache:  # load decides by itself
            task.set_env_variable(f"{PREFIX}REUSE", "false")
        if platform.namespace:
            task.set_env_variable(f"{PREFIX}NAMESPACE", platform.namespace)
        lease = platform.lease_seconds or lease_seconds_for(platform.retries, platform.backoff_seconds)
        task.set_env_variable(f"{PREFIX}LEASE_SECONDS", str(lease))
        kubernetes.set_timeout(task, platform.time_limit_seconds)
    return task
