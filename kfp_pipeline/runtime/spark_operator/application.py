"""Interprets the status of a SparkApplication and of its driver pod: pure functions over the objects as plain dicts.

The states are those of the operator's api/v1beta2/sparkapplication_types.go, version 2.5.2.
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
"""The only two states in which an application stays; it leaves all others by itself."""
STATES_BEFORE_DRIVER = ("", "SUBMITTED", "SUBMISSION_FAILED", "PENDING_RERUN", "INVALIDATING", "RESUMING")
DRIVER_EXISTS_ERROR = "already exist"
"""Part of the error message if the operator reports FAILED although the driver runs (kubeflow/spark-operator#2788)."""
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
UNINFORMATIVE_EVENTS = ("FailedMount", "SparkApplicationFailed", "SparkDriverFailed")
"""Reasons of warning events that do not explain a failure: a volume that is mounted at the second try, and the operator's own report."""
DRIVER_CONTAINER = "spark-kubernetes-driver"


class Stage(StrEnum):
    """How far an application has come; each stage has its own time limit."""

    SUBMITTED = "submitted"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    UNKNOWN = "unknown"
    ENDED = "ended"


@dataclass(frozen=True)
class StartProblem:
    """The reason why a driver pod does not start.

    Attributes:
        failure: the reason.
        transient: whether it may disappear by itself. A full cluster may have room later; a missing image stays missing.
    """

    failure: Failure
    transient: bool


def state_of(application: Document) -> str:
    """The operator's state of the application; empty for a new one."""
    return str(((application.get("status") or {}).get("applicationState") or {}).get("state") or "")


def error_of(application: Document) -> str:
    """The error message that the operator wrote into the status; may be empty."""
    return str(((application.get("status") or {}).get("applicationState") or {}).get("errorMessage") or "")


def stage_of(application: Document, driver: Document | None) -> Stage:
    """Determines how far an application has come, from its state and its driver pod."""
    state = state_of(application)
    if state in TERMINAL_STATES:
        return Stage.ENDED
    if state == "UNKNOWN":
        return Stage.UNKNOWN
    if driver is None:
        return Stage.SUBMITTED if state in STATES_BEFORE_DRIVER else Stage.RUNNING
    return Stage.SCHEDULED if phase_of(driver) == "Pending" else Stage.RUNNING


def phase_of(pod: Document) -> str:
    """The pod's phase: Pending, Running, Succeeded, Failed or Unknown."""
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def driver_pod_name(application: Document) -> str:
    """The name of the driver pod, also before the operator has created it."""
    info = (application.get("status") or {}).get("driverInfo") or {}
    return str(info.get("podName") or f"{application['metadata']['name']}-driver")


def belongs_to(pod: Document, application: Document) -> bool:
    """Whether a pod belongs to this application, and not to an earlier application of the same name."""
    owners = pod["metadata"].get("ownerReferences") or []
    submission = (application.get("status") or {}).get("submissionID")
    label = (pod["metadata"].get("labels") or {}).get("sparkoperator.k8s.io/submission-id")
    return any(owner.get("uid") == application["metadata"]["uid"] for owner in owners) or (
        bool(submission) and label == submission
    )


def is_alive(pod: Document | None) -> bool:
    """Whether a driver pod exists and may still succeed."""
    if pod is None or pod["metadata"].get("deletionTimestamp") or exit_code_of(pod) is not None:
        return False
    return phase_of(pod) in ("Pending", "Running")


def has_started(pod: Document) -> bool:
    """Whether the driver's container runs or has run, and so has a log."""
    state = _container(pod).get("state") or {}
    return "running" in state or "terminated" in state


def exit_code_of(pod: Document | None) -> int | None:
    """The exit code of the driver's container; None if it has not ended or is not known."""
    code = ((_container(pod).get("state") or {}).get("terminated") or {}).get("exitCode")
    return None if code is None else int(code)


def start_problem(pod: Document) -> StartProblem | None:
    """Finds the reason why a pending driver does not start; None if the pod's status gives no reason."""
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    reason, detail = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in IMAGE_REASONS:
        image = _container(pod).get("image", "")
        message = f"image {image!r} cannot be had ({detail or reason}); make it, load it into the nodes, or name another in spark-operator/"
        return StartProblem(Failure(kind="input", type=reason, message=message), transient=False)
    if reason in CONFIG_REASONS:
        message = f"the driver's container cannot be made: {detail or reason}; check: spark-kfp doctor"
        return StartProblem(Failure(kind="input", type=reason, message=message), transient=False)
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = str(condition.get("reason") or "Unschedulable")
            message = f"no node takes the driver: {condition.get('message', reason)}; ask for less in spark-operator/ or wait for room"
            return StartProblem(Failure(kind="fault", type=reason, message=message), transient=True)
    return None


def explain_failure(application: Document, driver: Document | None, events: Sequence[Document], log: str) -> StepError:
    """Explains why an application failed.

    The best source comes first: the step's own failure document, which the container leaves as its termination message; then what the
    cluster did to the driver pod; then the operator's error message and the warning events.

    Args:
        application: an application that failed or was deleted.
        driver: its driver pod; None if it does not exist any more.
        events: events of the application and of the driver pod, oldest first.
        log: the last lines of the driver's log.

    Returns:
        The error to raise; its class says whether a retry may help.
    """
    ended = (_container(driver).get("state") or {}).get("terminated") or {} if driver else {}
    own = failure_from_termination_message(str(ended.get("message") or ""))
    if own:
        return PermanentError(own) if own.kind == "input" else TemporaryError(own, log)
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
    if code in (137, 143):  # 128 + SIGKILL, 128 + SIGTERM
        message = "the driver was killed from outside; the cluster says no more about it"
        return TemporaryError(Failure(kind="fault", type="Killed", message=message), log)
    if code is not None:
        message = f"the driver ended with exit code {code}" + (f": {line}" if (line := error_line(log)) else "")
    else:
        warnings = [
            f"{event.get('reason')}: {event.get('message')}"
            for event in events
            if event.get("type") == "Warning" and event.get("reason") not in UNINFORMATIVE_EVENTS
        ]
        gone = "the driver's pod is gone: it was deleted, or its node was lost; run again"
        message = "; ".join([error if error and "pod not found" not in error else gone, *warnings[-3:]])
    kind = "DriverGone" if code is None else "DriverFailed"
    return TemporaryError(Failure(kind="fault", type=kind, message=message[:2000]), log)


def error_line(log: str) -> str:
    """Finds the line of a log that names the error: the step's own message, else the JVM's last exception; empty if there is none."""
    signs = ("spark-kfp: error: ", "Exception in thread", "Caused by: ", "Error: ")
    for sign in signs:
        found = [line for line in log.splitlines() if line.startswith(sign)]
        if found:
            return found[-1][:500]
    return ""


def failure_from_termination_message(message: str) -> Failure | None:
    """Parses the failure that a step wrote as its container's termination message; None if the message is something else."""
    try:
        found = json.loads(message)
        return Failure(kind=found["kind"], type=found["type"], message=found["message"], frames=tuple(found["frames"]))
    except (ValueError, KeyError, TypeError):
        return None


def executors_waiting(application: Document) -> int:
    """The number of pending executors if no executor runs yet; 0 as soon as one runs."""
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
