"""Tracks one SparkApplication to its end, by a watch and, as a fallback, by polling; each stage has a time limit.

If the operator reports FAILED, the driver pod is checked first: after a restart the operator may report it for a driver that runs
(kubeflow/spark-operator#2788).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, EVENTS, PODS, Cluster
from kfp_pipeline.runtime.spark_operator.application import (
    TERMINAL_STATES,
    Stage,
    StartProblem,
    belongs_to,
    driver_pod_name,
    error_of,
    executors_waiting,
    has_started,
    is_alive,
    phase_of,
    stage_of,
    start_problem,
    state_of,
)
from kfp_pipeline.runtime.spark_operator.driver_log import DriverLog
from kfp_pipeline.runtime.spark_operator.lease import Lease
from kfp_pipeline.runtime.spark_operator.watch import ObjectWatch
from kfp_pipeline.runtime.time_limits import parse_limits
from spark_jobs.result import Failure

Document = dict[str, Any]
REPEAT_STATE_SECONDS = 30.0
"""Between two log lines about the same state."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long each stage of an application may take, in seconds; `limits.yaml` of the ConfigMap sets them.

    Attributes:
        submitted_seconds: from submission until the operator has created the driver pod.
        scheduled_seconds: from then until the driver's container runs.
        running_seconds: from then until the application has ended.
        unknown_seconds: how long the operator may report the state UNKNOWN.
        start_problem_seconds: how long an image or a secret may be missing before the step fails.
        watch_request_seconds: duration of one watch request; the next request continues where it ended.
        check_interval_seconds: interval of the checks of a pending driver, of the time limits and of the lease.
        read_interval_seconds: interval after which the application is read although the watch reports no change.
        deletion_seconds: how long a deleted application may still exist.
        session_answer_seconds: how long a shared session whose driver runs, and which runs no step, may leave a request for one
            unanswered; its start counts too.
    """

    submitted_seconds: float = 300.0
    scheduled_seconds: float = 900.0
    running_seconds: float = 86400.0
    unknown_seconds: float = 180.0
    start_problem_seconds: float = 30.0
    watch_request_seconds: float = 300.0
    check_interval_seconds: float = 5.0
    read_interval_seconds: float = 60.0
    deletion_seconds: float = 90.0
    session_answer_seconds: float = 180.0

    @classmethod
    def from_yaml(cls, text: str) -> Limits:
        """Parses `limits.yaml`; see `parse_limits`."""
        return parse_limits(cls, text, "the ConfigMap")


@dataclass
class ApplicationTracker:
    """Tracks one application.

    Attributes:
        cluster: the application's namespace.
        application: the object as it was last read.
        limits: the time limits.
        log: the driver's log; its stream starts with the driver.
        lease: the lease that is renewed meanwhile.
        log_line: writes a line to the task's log.
        step_has_ended: asked about once a second while the driver runs, if the application runs more than this step.
    """

    cluster: Cluster
    application: Document
    limits: Limits
    log: DriverLog
    lease: Lease
    log_line: Callable[[str], None]
    step_has_ended: Callable[[], bool] | None = None
    _stage: Stage = Stage.SUBMITTED
    _stage_began: float = field(default_factory=time.monotonic)
    _problem: StartProblem | None = None
    _problem_began: float = 0.0
    _logged_state: str | None = None
    _logged_line: str = ""
    _logged_at: float = 0.0
    _driver: Document | None = None

    def wait_until_ended(self) -> Document:
        """Waits until the application has ended, in state COMPLETED or FAILED, or until `step_has_ended`.

        Returns:
            The application as it was last read.

        Raises:
            StepError: the application was deleted, or did not start or end within its time limit. In the second case it is deleted first.
        """
        name, uid = self.application["metadata"]["name"], self.application["metadata"]["uid"]
        with ObjectWatch(self.cluster, APPLICATIONS, self.application, self.limits.watch_request_seconds) as watch:
            while True:
                found = watch.current(self.limits.read_interval_seconds, self.limits.check_interval_seconds)
                if not found or found["metadata"]["uid"] != uid:
                    message = f"SparkApplication {name} was deleted while it ran; run the step again"
                    raise TemporaryError(Failure(kind="fault", type="Deleted", message=message), self.log.tail)
                self._driver = self._driver_of(found)
                self.application = found
                if self._has_ended(self._driver):
                    return found
                if self.step_has_ended and phase_of(self._driver or {}) == "Running" and self.step_has_ended():
                    return found
                error = self._limit_error(self._driver)
                if error:
                    self.cluster.delete(APPLICATIONS, name, uid)
                    raise error
                self.lease.renew()
                self._wait_for_change(watch)

    def _driver_of(self, found: Document) -> Document | None:
        """Reads the driver pod, but not again while the application is RUNNING and the pod was seen Running: that saves requests."""
        if state_of(found) == "":
            return None
        known = self._driver
        if state_of(found) == state_of(self.application) == "RUNNING" and known and phase_of(known) == "Running":
            return known
        return driver_pod_of(self.cluster, found)

    def _has_ended(self, driver: Document | None) -> bool:
        state, detail = state_of(self.application), error_of(self.application)
        false_failure = state == "FAILED" and is_alive(driver)
        if false_failure:
            detail += "; but its driver runs, so it is followed further (kubeflow/spark-operator#2788)"
        self._log_state(state or "new", detail)
        if driver and has_started(driver):
            self.log.start(driver["metadata"]["name"])
        return state in TERMINAL_STATES and not false_failure

    def _limit_error(self, driver: Document | None) -> StepError | None:
        """The error to raise if the application has passed a time limit; None if it may go on."""
        now = time.monotonic()
        stage = stage_of(self.application, driver)
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        problem = start_problem(driver) if driver else None
        if problem is None or self._problem is None or problem.failure.type != self._problem.failure.type:
            self._problem_began = now
        self._problem = problem
        if problem:
            self._log_state(state_of(self.application), problem.failure.message)
            if not problem.transient and now - self._problem_began > self.limits.start_problem_seconds:
                return PermanentError(problem.failure)
        if waiting := executors_waiting(self.application):
            self._log_state(state_of(self.application), f"no executor runs yet, {waiting} wait for room")
        # An ended application gets here only while its driver runs, so the limit of a running one applies.
        limit = getattr(self.limits, f"{Stage.RUNNING if stage == Stage.ENDED else stage}_seconds")
        if now - self._stage_began <= limit:
            return None
        reason = problem.failure.message if problem else error_of(self.application) or "the cluster gives no reason"
        message = f"{_WAITED_FOR[stage]} for {limit:.0f} s: {reason}"
        return TemporaryError(Failure(kind="fault", type="TimeLimit", message=message), self.log.tail)

    def _wait_for_change(self, watch: ObjectWatch) -> None:
        """Waits until the application has changed, or until the next check of what the watch does not report: driver, limits, lease."""
        # FAILED here means that the driver runs all the same; its end does not change the application, so the watch does not report it.
        soon = state_of(self.application) == "FAILED" or self.step_has_ended
        watch.wait(min(1.0, self.limits.check_interval_seconds) if soon else self.limits.check_interval_seconds)

    def _log_state(self, state: str, detail: str) -> None:
        """Logs a new state at once, and new details of the same state only now and then."""
        line, now = f"{state}: {detail}" if detail else state, time.monotonic()
        if state != self._logged_state or (line != self._logged_line and now - self._logged_at > REPEAT_STATE_SECONDS):
            self.log_line(f"SparkApplication {self.application['metadata']['name']}: {line}")
            self._logged_state, self._logged_line, self._logged_at = state, line, now


_WAITED_FOR = {
    Stage.SUBMITTED: "the operator has made no driver",
    Stage.SCHEDULED: "the driver did not start",
    Stage.RUNNING: "the driver has not ended",
    Stage.UNKNOWN: "the operator has not known the state",
    Stage.ENDED: "the driver has not ended",
}


def driver_pod_of(cluster: Cluster, application: Document) -> Document | None:
    """Reads the driver pod of an application; None if it does not exist, or belongs to an earlier application of the same name."""
    pod = cluster.get(PODS, driver_pod_name(application))
    return pod if pod and belongs_to(pod, application) else None


def events_of(cluster: Cluster, application: Document) -> list[Document]:
    """Lists the Kubernetes events of an application and its driver pod, oldest first."""
    names = (application["metadata"]["name"], driver_pod_name(application))
    found = [event for name in names for event in cluster.list(EVENTS, fieldSelector=f"involvedObject.name={name}")]
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
