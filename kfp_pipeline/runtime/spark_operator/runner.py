"""Runs a step as a SparkApplication of the Kubeflow Spark operator: submits it, follows it to its end and reads the step's result.

It can be retried and interrupted at any moment. The application's name is computed from the URI of the task's output, so a second attempt
finds the application of the first and adopts it.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    SPEC_HASH_ANNOTATION,
    build_application,
    driver_memory,
    read_config,
)
from kfp_pipeline.runtime.spark_operator.tracking import ApplicationTracker, Limits, driver_pod_of, events_of
from kfp_pipeline.runtime.time_limits import LIMITS_KEY
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Failure, Result

Document = dict[str, Any]
LOG_NAME = "driver.log"
LOG_SECONDS = 3.0
"""How long to wait for the last lines of the driver's log after the application has ended."""
CANCEL_SECONDS = 10.0
"""How long to retry the deletion after SIGTERM; by default the kubelet kills the task's pod 30 s after it."""


class SparkOperatorRunner:
    """A `Runner` that submits one SparkApplication for each step."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        config_name: str = "spark-kfp",
        lease_seconds: int = Settings.lease_seconds,
        run: str = "",
        overrides: Mapping[str, Any] | None = None,
        task_config: Mapping[str, Any] | None = None,
        owners: Sequence[Mapping[str, str]] | None = None,
        documents: object_store.Documents = object_store,
        log_line: Callable[[str], None] = print,
    ) -> None:
        """Makes a runner.

        Args:
            cluster: the namespace of the applications.
            config_name: name of the platform's ConfigMap.
            lease_seconds: duration of the application's lease, in seconds.
            run: the run's id.
            overrides: the run's Spark settings, see `build_application`.
            task_config: what the pipeline's author set on the KFP task.
            owners: owner references of the application; None: those of the task's pod.
            documents: the object store.
            log_line: writes a line to the task's log.
        """
        self._cluster, self._config_name, self._run, self._lease_seconds = cluster, config_name, run, lease_seconds
        self._changes = {"overrides": overrides or {}, "task_config": task_config or {}}
        self._owners, self._documents, self._log_line = owners, documents, log_line
        self._attempt = uuid.uuid4().hex

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`. On KeyboardInterrupt, which SIGTERM raises too, it deletes the application."""
        output = str(vars(args)["output_uri"])
        if not object_store.is_object_store_uri(output):
            raise InputError(f"{output}: --spark=operator writes to an object store; give a URI like s3://BUCKET/NAME")
        config = read_config(self._cluster, self._config_name)
        limits = Limits.from_yaml(config.get(LIMITS_KEY, ""))
        desired, settings_name = self._build(config, step, args)
        desired["metadata"]["annotations"] |= {
            ATTEMPT_ANNOTATION: self._attempt,
            LEASE_ANNOTATION: str(self._lease_seconds),
        }
        self._add_owners(desired)
        self._log_line(f"driver memory: {driver_memory(desired, config, settings_name, **self._changes)}")
        with DriverLog(self._cluster, log_path, self._log_line) as log:
            try:
                application = self._submit(desired, output, limits)
                lease = Lease(self._cluster, application, platform.node())
                tracker = ApplicationTracker(self._cluster, application, limits, log, lease, self._log_line)
                return self._follow(tracker, step, args)
            except StepError as error:
                raise type(error)(error.failure, error.log, str(log_path)) from error
            except KeyboardInterrupt:
                self._log_line(f"interrupted: deleting SparkApplication {desired['metadata']['name']}")
                cancel(self._cluster, desired["metadata"]["name"], CANCEL_SECONDS)
                raise
            finally:
                log.finish(LOG_SECONDS)
                self._archive_log(log_path, output)

    def _build(self, config: Mapping[str, str], step: Step, args: StepArgs) -> tuple[Document, str]:
        """Builds the application that runs the step; returns also the name under which its resources are set."""
        return build_application(config, step, args, run=self._run, **self._changes), step

    def _follow(self, tracker: ApplicationTracker, _: Step, args: StepArgs) -> Result:
        """Follows the application to its end and reads the step's result."""
        return self._read_result(tracker.wait_until_ended(), tracker.log, args)

    def _add_owners(self, desired: Document) -> None:
        """Adds the owner references: if an owner is deleted, so is the application."""
        owners = owners_of_this_pod(self._cluster) if self._owners is None else self._owners
        if owners:
            desired["metadata"]["ownerReferences"] = [dict(owner) for owner in owners]

    def _submit(self, desired: Document, output: str, limits: Limits) -> Document:
        """Creates the application, or adopts the one that an earlier attempt created."""
        name, namespace = desired["metadata"]["name"], self._cluster.namespace
        while True:
            try:
                created = self._cluster.create(APPLICATIONS, desired)
                self._log_line(f"SparkApplication {name} in namespace {namespace}: created")
                return created
            except ConflictError:
                existing = self._cluster.get(APPLICATIONS, name)
            if existing is None:  # deleted between the two requests
                continue
            if existing["metadata"].get("deletionTimestamp"):
                self._wait_until_gone(existing, limits)
            elif self._can_adopt(existing, desired, output):
                self._log_line(f"SparkApplication {name} in namespace {namespace}: found, following it")
                return existing
            else:
                self._log_line(
                    f"SparkApplication {name} in namespace {namespace}: an earlier attempt failed, replacing it"
                )
                self._cluster.delete(APPLICATIONS, name, existing["metadata"]["uid"])
                self._wait_until_gone(existing, limits)

    def _can_adopt(self, existing: Document, desired: Document, output: str) -> bool:
        """Whether an existing application does the desired work.

        Returns:
            True if it runs with the same spec, or has completed with a result. False if it has ended and must be replaced.

        Raises:
            PermanentError: an application with another spec runs under this name, or the same application failed, and a retry cannot help.
        """
        annotations = existing["metadata"].get("annotations") or {}
        if annotations.get(ATTEMPT_ANNOTATION) == self._attempt:
            return True  # this process created it, but the response was lost
        ended = state_of(existing) in TERMINAL_STATES and not is_alive(driver_pod_of(self._cluster, existing))
        same = annotations.get(SPEC_HASH_ANNOTATION) == desired["metadata"]["annotations"][SPEC_HASH_ANNOTATION]
        if not same and not ended:
            name = existing["metadata"]["name"]
            message = (
                f"SparkApplication {name} runs with another spec ({annotations.get(SPEC_HASH_ANNOTATION, 'none of ours')}, wanted "
                f"{desired['metadata']['annotations'][SPEC_HASH_ANNOTATION]}); wait for it, or end it: spark-kfp cancel {name}"
            )
            raise PermanentError(Failure(kind="input", type="AnotherSpec", message=message))
        return not ended or (same and self._counts_although_ended(existing, output))

    def _counts_although_ended(self, existing: Document, output: str) -> bool:
        """Whether an application of an earlier attempt that has ended has done the step.

        Raises:
            PermanentError: it failed, and a retry cannot help.
        """
        if state_of(existing) == "COMPLETED":
            return self._documents.read_text(f"{output}/{RESULT_NAME}") is not None
        error = self._explain(existing, "")
        if isinstance(error, PermanentError):
            raise error
        return False

    def _wait_until_gone(self, existing: Document, limits: Limits) -> None:
        """Waits until the application and its driver pod are deleted; a new driver could not be created before."""
        name, uid = existing["metadata"]["name"], existing["metadata"]["uid"]
        give_up = time.monotonic() + limits.deletion_seconds
        while time.monotonic() < give_up:
            found = self._cluster.get(APPLICATIONS, name)
            driver = self._cluster.get(PODS, driver_pod_name(existing))
            if (not found or found["metadata"]["uid"] != uid) and not (driver and belongs_to(driver, existing)):
                return
            time.sleep(min(1.0, limits.deletion_seconds / 10))
        message = (
            f"SparkApplication {name} is deleted but does not go away; see: kubectl describe sparkapplication {name}"
        )
        raise TemporaryError(Failure(kind="fault", type="NotGone", message=message))

    def _read_result(self, application: Document, log: DriverLog, args: StepArgs) -> Result:
        """Reads the result document of an application that has ended: the step succeeded only if the document says so.

        The operator may report FAILED although the driver succeeded. The step has succeeded all the same if the driver's exit code is not
        an error and the result document is for these arguments.

        Raises:
            StepError: the driver failed, or left no result.
        """
        driver = driver_pod_of(self._cluster, application)
        log.finish(LOG_SECONDS)
        if exit_code_of(driver) not in (None, 0):
            raise self._explain(application, log.tail)
        result = self._result_document(args)
        if result and result.status == "succeeded" and dict(result.arguments) == vars(args):
            return result
        if state_of(application) == "FAILED" and exit_code_of(driver) is None:
            raise self._explain(application, log.tail)
        raise self._no_result(args, log)

    def _result_document(self, args: StepArgs) -> Result | None:
        """Reads the step's result document; None if there is none.

        Raises:
            PermanentError: it is damaged.
        """
        uri = f"{vars(args)['output_uri']}/{RESULT_NAME}"
        text = self._documents.read_text(uri)
        try:
            return Result.from_json(text) if text else None
        except ValueError as error:
            raise PermanentError(Failure(kind="fault", type="DamagedResult", message=f"{uri}: {error}")) from error

    def _no_result(self, args: StepArgs, log: DriverLog) -> TemporaryError:
        uri = f"{vars(args)['output_uri']}/{RESULT_NAME}"
        message = f"the driver ended well but left no result document at {uri}; what it was to do is not done"
        return TemporaryError(Failure(kind="fault", type="NoResult", message=message), log.tail)

    def _explain(self, application: Document, log: str) -> StepError:
        return explain_failure(
            application, driver_pod_of(self._cluster, application), events_of(self._cluster, application), log
        )

    def _archive_log(self, log_path: Path, output: str) -> None:
        """Copies the driver's log beside the step's output; if the object store is unavailable, the step's outcome stays the same."""
        try:
            if log_path.exists():
                self._documents.write_bytes(f"{output}/{LOG_NAME}", log_path.read_bytes(), brief=True)
        except (StepError, InputError) as error:
            self._log_line(f"the driver's log could not be kept: {error}")


def owners_of_this_pod(cluster: Cluster) -> list[dict[str, str]]:
    """Returns the owner references of the task's pod, such as KFP's workflow; none on a laptop."""
    pod = cluster.get(PODS, platform.node()) if IN_CLUSTER_NAMESPACE.exists() else None
    owners = (pod or {}).get("metadata", {}).get("ownerReferences", [])
    return [{key: owner[key] for key in ("apiVersion", "kind", "name", "uid")} for owner in owners]


def cancel(cluster: Cluster, name: str, patience_seconds: float | None = None) -> None:
    """Deletes an application; its driver and executors go with it."""
    cluster.delete(APPLICATIONS, name, patience_seconds=patience_seconds)
