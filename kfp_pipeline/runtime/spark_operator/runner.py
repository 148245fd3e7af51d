"""Runs a step as a SparkApplication of the Kubeflow Spark operator.

Safe to repeat and to interrupt at any moment: the name follows from the task's output, so a second attempt finds what the first has
submitted and follows it.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, IN_CLUSTER_NAMESPACE, PODS, Cluster, ConflictError
from kfp_pipeline.runtime.spark_operator.application import (
    TERMINAL_STATES,
    belongs_to,
    driver_pod_name,
    exit_code_of,
    explain_failure,
    is_alive,
    state_of,
)
from kfp_pipeline.runtime.spark_operator.driver_log import DriverLog
from kfp_pipeline.runtime.spark_operator.lease import Lease
from kfp_pipeline.runtime.spark_operator.manifest import (
    ATTEMPT_ANNOTATION,
    LEASE_ANNOTATION,
    LIMITS_KEY,
    SPEC_HASH_ANNOTATION,
    build_application,
    driver_memory,
    read_config,
)
from kfp_pipeline.runtime.spark_operator.tracking import ApplicationTracker, Limits, driver_pod_of, events_of
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Failure, Result

Document = dict[str, Any]
LOG_NAME = "driver.log"
LOG_SECONDS = 3.0
"""How long the verdict waits for the last lines of the log."""
CANCEL_SECONDS = 10.0


class Documents(Protocol):
    """Reads and writes the small documents of a run."""

    def read_text(self, uri: str) -> str | None:
        """A document, or None if it is not there."""

    def write_bytes(self, uri: str, content: bytes, *, brief: bool = False) -> None:
        """Writes a document; one that is an extra waits seconds only for a store that is away."""


class SparkOperatorRunner:
    """A `Runner`: each step is a SparkApplication of its own."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        config_name: str = "spark-kfp",
        lease_seconds: int = Settings.lease_seconds,
        run: str = "",
        overrides: Mapping[str, Any] | None = None,
        task_config: Mapping[str, Any] | None = None,
        documents: Documents = object_store,
        log_line: Callable[[str], None] = print,
    ) -> None:
        """Makes a runner.

        Args:
            cluster: the namespace.
            config_name: of the platform's ConfigMap.
            lease_seconds: how long an application goes on that nobody follows.
            run: its name.
            overrides: the run's Spark settings.
            task_config: what the pipeline's author has set on the task.
            documents: the object store.
            log_line: takes a line for whoever waits.
        """
        self._cluster, self._config_name, self._run, self._lease_seconds = cluster, config_name, run, lease_seconds
        self._changes = {"overrides": overrides or {}, "task_config": task_config or {}}
        self._documents, self._log_line = documents, log_line
        self._attempt = uuid.uuid4().hex

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`. A KeyboardInterrupt deletes the application."""
        output = str(vars(args)["output_uri"])
        if not object_store.is_stored(output):
            raise InputError(f"{output}: --spark=operator writes to an object store; give a URI like s3://BUCKET/NAME")
        config = read_config(self._cluster, self._config_name)
        limits = Limits.from_yaml(config.get(LIMITS_KEY, ""))
        wanted = build_application(config, step, args, run=self._run, **self._changes)
        wanted["metadata"]["annotations"] |= {
            ATTEMPT_ANNOTATION: self._attempt,
            LEASE_ANNOTATION: str(self._lease_seconds),
        }
        self._add_owners(wanted)
        self._log_line(f"driver memory: {driver_memory(wanted, config, step, **self._changes)}")
        with DriverLog(self._cluster, log_path, self._log_line) as log:
            try:
                application = self._submit(wanted, output, limits)
                lease = Lease(self._cluster, application, platform.node())
                application = ApplicationTracker(
                    self._cluster, application, limits, log, lease, self._log_line
                ).wait_until_ended()
                return self._conclude(application, log, args)
            except StepError as error:
                raise type(error)(error.failure, error.log, str(log_path)) from error
            except KeyboardInterrupt:
                self._log_line(f"interrupted: deleting SparkApplication {wanted['metadata']['name']}")
                cancel(self._cluster, wanted["metadata"]["name"], CANCEL_SECONDS)
                raise
            finally:
                log.finish(LOG_SECONDS)
                self._archive(log_path, output)

    def _add_owners(self, wanted: Document) -> None:
        """Whatever owns the task's pod, such as KFP's workflow, owns the application: when it is deleted, both go."""
        pod = self._cluster.get(PODS, platform.node()) if IN_CLUSTER_NAMESPACE.exists() else None
        owners = (pod or {}).get("metadata", {}).get("ownerReferences", [])
        kept = [{key: owner[key] for key in ("apiVersion", "kind", "name", "uid")} for owner in owners]
        if kept:
            wanted["metadata"]["ownerReferences"] = kept

    def _submit(self, wanted: Document, output: str, limits: Limits) -> Document:
        """Creates the application, or finds the one that an earlier attempt has created."""
        name, namespace = wanted["metadata"]["name"], self._cluster.namespace
        while True:
            try:
                created = self._cluster.create(APPLICATIONS, wanted)
                self._log_line(f"SparkApplication {name} in namespace {namespace}: created")
                return created
            except ConflictError:
                there = self._cluster.get(APPLICATIONS, name)
            if there is None:
                continue
            if there["metadata"].get("deletionTimestamp"):
                self._wait_until_gone(there, limits)
            elif self._can_be_followed(there, wanted, output):
                self._log_line(f"SparkApplication {name} in namespace {namespace}: found, following it")
                return there
            else:
                self._log_line(
                    f"SparkApplication {name} in namespace {namespace}: an earlier attempt failed, replacing it"
                )
                self._cluster.delete(APPLICATIONS, name, there["metadata"]["uid"])
                self._wait_until_gone(there, limits)

    def _can_be_followed(self, there: Document, wanted: Document, output: str) -> bool:
        """Whether an application that is there is the one that is wanted; False if it has ended and is to be replaced.

        Raises:
            PermanentError: another one runs under this name, or the same one has failed in a way that repeating cannot help.
        """
        annotations = there["metadata"].get("annotations") or {}
        if annotations.get(ATTEMPT_ANNOTATION) == self._attempt:
            return True  # our own: the answer to its creation was lost
        ended = state_of(there) in TERMINAL_STATES and not is_alive(driver_pod_of(self._cluster, there))
        same = annotations.get(SPEC_HASH_ANNOTATION) == wanted["metadata"]["annotations"][SPEC_HASH_ANNOTATION]
        if not same and not ended:
            name = there["metadata"]["name"]
            message = (
                f"SparkApplication {name} runs with another spec ({annotations.get(SPEC_HASH_ANNOTATION, 'none of ours')}, wanted "
                f"{wanted['metadata']['annotations'][SPEC_HASH_ANNOTATION]}); wait for it, or end it: spark-kfp cancel {name}"
            )
            raise PermanentError(Failure(kind="input", type="AnotherSpec", message=message))
        if not ended:
            return True
        if not same:
            return False
        if state_of(there) == "COMPLETED":
            return self._documents.read_text(f"{output}/{RESULT_NAME}") is not None
        error = self._why(there, "")
        if isinstance(error, PermanentError):
            raise error
        return False

    def _wait_until_gone(self, there: Document, limits: Limits) -> None:
        name, uid = there["metadata"]["name"], there["metadata"]["uid"]
        give_up = time.monotonic() + limits.deleted
        while time.monotonic() < give_up:
            found = self._cluster.get(APPLICATIONS, name)
            driver = self._cluster.get(PODS, driver_pod_name(there))
            if (not found or found["metadata"]["uid"] != uid) and not (driver and belongs_to(driver, there)):
                return
            time.sleep(min(1.0, limits.deleted / 10))
        message = (
            f"SparkApplication {name} is deleted but does not go away; see: kubectl describe sparkapplication {name}"
        )
        raise TemporaryError(Failure(kind="fault", type="NotGone", message=message))

    def _conclude(self, application: Document, log: DriverLog, args: StepArgs) -> Result:
        """The result document: the step is done only if it is there and says so.

        An application that the operator calls failed is done all the same if its driver did not fail and has left one for these arguments.
        """
        driver = driver_pod_of(self._cluster, application)
        log.finish(LOG_SECONDS)
        if exit_code_of(driver) not in (None, 0):
            raise self._why(application, log.tail)
        uri = f"{vars(args)['output_uri']}/{RESULT_NAME}"
        text = self._documents.read_text(uri)
        try:
            result = Result.from_json(text) if text else None
        except ValueError as error:
            raise PermanentError(Failure(kind="fault", type="DamagedResult", message=f"{uri}: {error}")) from error
        if result and result.status == "succeeded" and dict(result.arguments) == vars(args):
            return result
        if state_of(application) == "FAILED" and exit_code_of(driver) is None:
            raise self._why(application, log.tail)
        message = f"the driver ended well but left no result document at {uri}; what it was to do is not done"
        raise TemporaryError(Failure(kind="fault", type="NoResult", message=message), log.tail)

    def _why(self, application: Document, log: str) -> StepError:
        return explain_failure(
            application, driver_pod_of(self._cluster, application), events_of(self._cluster, application), log
        )

    def _archive(self, log_path: Path, output: str) -> None:
        """Keeps the log beside the step's output; a store that is away does not change the verdict, nor hold it up."""
        try:
            if log_path.exists():
                self._documents.write_bytes(f"{output}/{LOG_NAME}", log_path.read_bytes(), brief=True)
        except (StepError, InputError) as error:
            self._log_line(f"the driver's log could not be kept: {error}")


def cancel(cluster: Cluster, name: str, patience_seconds: float | None = None) -> None:
    """Deletes an application; its driver and executors go with it."""
    cluster.delete(APPLICATIONS, name, patience_seconds=patience_seconds)
