"""The platform's settings of KFP tasks, the same for every task: image, caching, retries, time limit, credentials of the object store.

The graphs in `kfp_pipeline.pipelines` call `configure_task` for each of their tasks. This module names no step.
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
    """The settings of every task of a pipeline. A user sets them in a YAML file; see `read_platform`.

    Attributes:
        image: container image of the tasks, best named by its digest.
        namespace: namespace of the SparkApplications; empty: the one in which KFP runs the tasks.
        cluster: whether the tasks run in pods. If so, they get the object store's credentials from a Secret, and an exit task cleans up at
            the end of the run. On one machine the process of `spark-kfp run` provides both.
        cache: whether KFP may reuse a task of an earlier run, and the load task an earlier table.
        retries: how often KFP retries a failed task, in addition to its own configuration. With 0, a task itself repeats a step that was
            ended from outside, and KFP 2.17 retries a task whose pod is gone, twice. With more than 0, KFP 2.17 waits before it reports a
            failed task; older versions retry after a user's error too, but also after an eviction of the task's pod.
        backoff_seconds: pause before the first retry; it doubles before each further one.
        lease_seconds: how long a SparkApplication may run without its task; 0: computed from retries and backoff.
        time_limit_seconds: time limit of one attempt of a task, including the wait for its SparkApplication; 0: none.
        workflow_ttl_seconds: how long the Argo workflow of a finished run is kept; 0: as KFP is configured. Needs KFP 2.16.
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
        """KFP's placeholder for the scheduled time of a run; empty on one machine, where KFP's local runner does not fill it in."""
        # KFP fills in the scheduled time of a recurring run, and the creation time of any other run.
        return str(dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER) if self.cluster else ""

    def pipeline_config(self) -> Any:
        """Returns KFP's configuration of the pipeline as a whole."""
        kept = {"ttl_seconds_after_finished": self.workflow_ttl_seconds} if self.workflow_ttl_seconds else {}
        return dsl.PipelineConfig(**kept)


LOCAL_PLATFORM = Platform(cluster=False, cache=False)
"""The settings for a run on one machine, where `spark-kfp run` itself reuses finished steps and cleans up."""


def read_platform(path: str, image: str = "") -> Platform:
    """Reads the settings from a YAML file that maps names of `Platform`'s fields to values; the other fields keep their defaults.

    Args:
        path: path of the file; empty: all defaults.
        image: image of the tasks; overrides the file's.

    Raises:
        InputError: the file is missing or holds no mapping, a field is unknown or has the wrong type, or the image's name is not valid.
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
    """Groups the tasks of a pipeline under an exit handler, whose task `finish` runs at the end whether they succeed or fail.

    On one machine there is no exit handler: `spark-kfp run` itself cleans up.

    Args:
        platform: the settings of the tasks.
        group: name of the group in KFP's UI.
    """
    return (
        dsl.ExitHandler(configure_task(finish(), platform, "Finish"), name=group) if platform.cluster else nullcontext()
    )


def configure_task(task: Any, platform: Platform, name: str, *, cached: bool = False) -> Any:
    """Sets the platform's settings on a task: image, caching, retries, time limit, and the environment variables of its pod.

    Args:
        task: the task.
        platform: the settings.
        name: name of the task in KFP's UI.
        cached: whether KFP may cache the task.

    Returns:
        The same task.
    """
    task.set_caching_options(cached and platform.cache).set_display_name(name).set_container_image(platform.image)
    if platform.retries:
        task.set_retry(platform.retries, backoff_duration=f"{platform.backoff_seconds}s", backoff_factor=2.0)
    if platform.cluster:
        kubernetes.use_secret_as_env(
            task, OBJECT_STORE, {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
        )
        kubernetes.use_config_map_as_env(task, OBJECT_STORE, {"endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"})
        # The run's id is a variable and not an input: it differs in every run, so KFP's cache would never find an entry.
        kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, RUN_ID_LABEL)
        if not platform.cache:  # KFP never caches load, which looks for an earlier table by itself
            task.set_env_variable(f"{PREFIX}REUSE", "false")
        if platform.namespace:
            task.set_env_variable(f"{PREFIX}NAMESPACE", platform.namespace)
        lease = platform.lease_seconds or lease_seconds_for(platform.retries, platform.backoff_seconds)
        task.set_env_variable(f"{PREFIX}LEASE_SECONDS", str(lease))
        kubernetes.set_timeout(task, platform.time_limit_seconds)
    return task
