"""What the state of a SparkApplication and of its driver means: pure functions over plain documents.

Source of the states: the operator's api/v1beta2/sparkapplication_types.go, version 2.5.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from spark_jobs.result import Failure

Document = Mapping[str, Any]
TERMINAL_STATES = ("COMPLETED", "FAILED")
"""The only two states that end an application; all others move on."""
STATES_BEFORE_DRIVER = ("", "SUBMITTED", "SUBMISSION_FAILED", "PENDING_RERUN", "INVALIDATING", "RESUMING")
DRIVER_EXISTS_ERROR = "already exist"
"""Part of the error with which a restarted operator calls an application failed whose driver runs (kubeflow/spark-operator#2788)."""
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
UNINFORMATIVE_EVENTS = ("FailedMount", "SparkApplicationFailed", "SparkDriverFailed")
"""Warnings that say nothing of why: a volume that comes a moment after its pod, and the operator's own verdict."""
DRIVER_CONTAINER = "spark-kubernetes-driver"


class Stage(StrEnum):
    """How far an application is; each has a time limit of its own."""

    SUBMITTED = "submitted"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    UNKNOWN = "unknown"
    ENDED = "ended"


@dataclass(frozen=True)
class StartProblem:
    """Why a driver does not start.

    Attributes:
        failure: the reason.
        passing: whether it may pass by itself, as a full cluster may; an image that is not there does not.
    """

    failure: Failure
    passing: bool


def state_of(application: Document) -> str:
    """One of the operator's states; empty for a new application."""
    return str(((application.get("status") or {}).get("applicationState") or {}).get("state") or "")


def error_of(application: Document) -> str:
    """The operator's own word on why it failed."""
    return str(((application.get("status") or {}).get("applicationState") or {}).get("errorMessage") or "")


def stage_of(application: Document, driver: Document | None) -> Stage:
    """How far an application is."""
    state = state_of(application)
    if state in TERMINAL_STATES:
        return Stage.ENDED
    if state == "UNKNOWN":
        return Stage.UNKNOWN
    if driver is None:
        return Stage.SUBMITTED if state in STATES_BEFORE_DRIVER else Stage.RUNNING
    return Stage.SCHEDULED if phase_of(driver) == "Pending" else Stage.RUNNING


def phase_of(pod: Document) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def driver_pod_name(application: Document) -> str:
    """The name of the driver's pod."""
    info = (application.get("status") or {}).get("driverInfo") or {}
    return str(info.get("podName") or f"{application['metadata']['name']}-driver")


def belongs_to(pod: Document, application: Document) -> bool:
    """Whether a pod was made for this very application, not for an earlier one of its name."""
    owners = pod["metadata"].get("ownerReferences") or []
    submission = (application.get("status") or {}).get("submissionID")
    label = (pod["metadata"].get("labels") or {}).get("sparkoperator.k8s.io/submission-id")
    return any(owner.get("uid") == application["metadata"]["uid"] for owner in owners) or (
        bool(submission) and label == submission
    )


def is_alive(pod: Document | None) -> bool:
    """Whether a driver may still end well."""
    if pod is None or pod["metadata"].get("deletionTimestamp") or exit_code_of(pod) is not None:
        return False
    return phase_of(pod) in ("Pending", "Running")


def has_started(pod: Document) -> bool:
    """Whether the driver's container runs or has run, so that it has a log."""
    state = _container(pod).get("state") or {}
    return "running" in state or "terminated" in state


def exit_code_of(pod: Document | None) -> int | None:
    """With what the driver's container has ended; None if it has not, or nothing is known of it."""
    code = ((_container(pod).get("state") or {}).get("terminated") or {}).get("exitCode")
    return None if code is None else int(code)


def start_problem(pod: Document) -> StartProblem | None:
    """Why a driver that is still pending does not start, if the cluster says so."""
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    reason, told = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in IMAGE_REASONS:
        image = _container(pod).get("image", "")
        message = f"image {image!r} cannot be had ({told or reason}); make it, load it into the nodes, or name another in spark-operator/"
        return StartProblem(Failure(kind="input", type=reason, message=message), passing=False)
    if reason in CONFIG_REASONS:
        message = f"the driver's container cannot be made: {told or reason}; check: spark-kfp doctor"
        return StartProblem(Failure(kind="input", type=reason, message=message), passing=False)
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = str(condition.get("reason") or "Unschedulable")
            message = f"no node takes the driver: {condition.get('message', reason)}; ask for less in spark-operator/ or wait for room"
            return StartProblem(Failure(kind="fault", type=reason, message=message), passing=True)
    return None


def explain_failure(application: Document, driver: Document | None, events: Sequence[Document], log: str) -> StepError:
    """Why an application failed: the step's own word, else what the cluster did to its driver, else the operator's word.

    Args:
        application: in state FAILED, or gone.
        driver: its pod, if it is still there.
        events: of the application and of the driver.
        log: the driver's last lines.
    """
    ended = (_container(driver).get("state") or {}).get("terminated") or {} if driver else {}
    told = failure_from_termination_message(str(ended.get("message") or ""))
    if told:
        return PermanentError(told) if told.kind == "input" else TemporaryError(told, log)
    code, reason = ended.get("exitCode"), str(ended.get("reason") or "")
    if reason == "OOMKilled":
        limit = ((_spec_container(driver).get("resources") or {}).get("limits") or {}).get("memory", "?")
        message = f"the driver needed more memory than its {limit} and was killed; raise driver.memory or driver.memoryOverhead"
        return PermanentError(Failure(kind="fault", type="OutOfMemory", message=message), log)
    error = error_of(application)
    if "exceeded quota" in error:
        message = f"the namespace's quota is used up: {_quota_part(error)}; wait, ask for less, or raise the quota"
        return TemporaryError(Failure(kind="fault", type="QuotaExceeded", message=message))
    if driver and (driver.get("status") or {}).get("reason") in (
        "Evicted",
        "Preempting",
        "NodeLost",
        "DeadlineExceeded",
    ):
        status = driver["status"]
        message = f"the driver was ended by the cluster: {status['reason']}: {status.get('message', '')}".rstrip(": ")
        return TemporaryError(Failure(kind="fault", type=str(status["reason"]), message=message), log)
    if code in (137, 143):
        message = "the driver was killed from outside; the cluster says no more about it"
        return TemporaryError(Failure(kind="fault", type="Killed", message=message), log)
    if code is not None:
        message = f"the driver ended with exit code {code}" + (f": {line}" if (line := error_line(log)) else "")
    else:
        telling = [
            event
            for event in events
            if event.get("type") == "Warning" and event.get("reason") not in UNINFORMATIVE_EVENTS
        ]
        warnings = [f"{event.get('reason')}: {event.get('message')}" for event in telling]
        gone = "the driver's pod is gone: it was deleted, or its node was lost; run again"
        message = "; ".join([error if error and "pod not found" not in error else gone, *warnings[-3:]])
    kind = "DriverGone" if code is None else "DriverFailed"
    return TemporaryError(Failure(kind="fault", type=kind, message=message[:2000]), log)


def error_line(log: str) -> str:
    """The line of a log that names the error: the step's own, else the last exception of the JVM."""
    signs = ("spark-kfp: error: ", "Exception in thread", "Caused by: ", "Error: ")
    for sign in signs:
        found = [line for line in log.splitlines() if line.startswith(sign)]
        if found:
            return found[-1][:500]
    return ""


def failure_from_termination_message(message: str) -> Failure | None:
    """The failure that a step left as its container's last word; None if the message is anything else."""
    try:
        word = json.loads(message)
        return Failure(kind=word["kind"], type=word["type"], message=word["message"], frames=tuple(word["frames"]))
    except (ValueError, KeyError, TypeError):
        return None


def executors_waiting(application: Document) -> int:
    """How many executors have been asked for and do not run, while none does; 0 if one runs."""
    states = [str(state) for state in ((application.get("status") or {}).get("executorState") or {}).values()]
    return 0 if "RUNNING" in states else sum(state == "PENDING" for state in states)


def _container(pod: Document | None) -> Document:
    found = ((pod or {}).get("status") or {}).get("containerStatuses") or []
    return next((item for item in found if item.get("name") == DRIVER_CONTAINER), found[0] if found else {})


def _spec_container(pod: Document | None) -> Document:
    found = ((pod or {}).get("spec") or {}).get("containers") or []
    return next((item for item in found if item.get("name") == DRIVER_CONTAINER), found[0] if found else {})


def _quota_part(error: str) -> str:
    return (
        error[error.index("exceeded quota") :]
        .split("\n", maxsplit=1)[0]
        .split(". Received status", maxsplit=1)[0][:300]
    )
