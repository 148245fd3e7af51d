"""Follows one SparkApplication to its end: by watching, with reading it now and then as the fallback, within a time limit for each stage.

The operator's word that an application has failed is checked against its driver before it is believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

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
from kfp_pipeline.runtime.spark_operator.manifest import LIMITS_KEY
from kfp_pipeline.runtime.spark_operator.watch import ObjectWatch
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

Document = dict[str, Any]
REPEAT_STATE_SECONDS = 30.0
READS_BEFORE_GONE = 4


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long each stage of an application may take, in seconds; `limits.yaml` of the ConfigMap sets them.

    Attributes:
        submitted: until the operator has made the driver's pod.
        scheduled: until the driver's container runs, from then on.
        running: until the end, from then on.
        unknown: that the operator may not know the state.
        trouble: that an image or a secret which cannot be had may take to appear.
        window: of one request that watches the application; the next one goes on where it ended.
        look: between two looks at a driver that does not run yet, at the time limits and at the lease.
        poll: after which the application is read although the watch tells of no change.
        deleted: until a deleted application is gone.
    """

    submitted: float = 300.0
    scheduled: float = 900.0
    running: float = 86400.0
    unknown: float = 180.0
    trouble: float = 30.0
    window: float = 300.0
    look: float = 5.0
    poll: float = 60.0
    deleted: float = 90.0

    @classmethod
    def from_yaml(cls, text: str) -> Limits:
        """Reads the document; what it leaves out keeps its default."""
        try:
            given = yaml.safe_load(text) or {}
            return replace(cls(), **{name: float(value) for name, value in given.items()})
        except (TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise InputError(f"{LIMITS_KEY} of the ConfigMap must hold seconds by stage: {error}") from error


@dataclass
class ApplicationTracker:
    """One application that is being followed.

    Attributes:
        cluster: where it is.
        application: as it was last seen.
        limits: of time.
        log: its driver's.
        lease: what keeps it alive.
        log_line: takes a line for the task's log.
    """

    cluster: Cluster
    application: Document
    limits: Limits
    log: DriverLog
    lease: Lease
    log_line: Callable[[str], None]
    _stage: Stage = Stage.SUBMITTED
    _stage_began: float = field(default_factory=time.monotonic)
    _problem: StartProblem | None = None
    _problem_began: float = 0.0
    _told_state: str | None = None
    _told_line: str = ""
    _told_at: float = 0.0
    _driver: Document | None = None
    _read_at: float = field(default_factory=time.monotonic)

    def wait_until_ended(self) -> Document:
        """Follows until the application has ended, and returns it.

        Raises:
            StepError: it is gone, or did not start or end in time; in the latter cases it is deleted first.
        """
        name, uid = self.application["metadata"]["name"], self.application["metadata"]["uid"]
        with ObjectWatch(self.cluster, APPLICATIONS, self.application, self.limits.window) as watched:
            while True:
                found = self._seen(watched, name)
                if not found or found["metadata"]["uid"] != uid:
                    message = f"SparkApplication {name} was deleted while it ran; run the step again"
                    raise TemporaryError(Failure(kind="fault", type="Deleted", message=message), self.log.tail)
                self._driver = self._driver_of(found)
                self.application = found
                if self._has_ended(self._driver):
                    return found
                over = self._is_over(self._driver)
                if over:
                    self.cluster.delete(APPLICATIONS, name, uid)
                    raise over
                self.lease.renew()
                self._wait_for_change(watched)

    def _seen(self, watched: ObjectWatch, name: str) -> Document | None:
        """The application as the watch has it, or read again if the watch has told of nothing for long, or of its end."""
        found = watched.latest
        if found and found != self.application:
            self._read_at = time.monotonic()
        if found and time.monotonic() - self._read_at < self.limits.poll:
            return found
        self._read_at = time.monotonic()
        return self._found(name)

    def _driver_of(self, found: Document) -> Document | None:
        """The driver's pod; while the operator says that it runs, and it was seen to run, it is not asked for again."""
        if state_of(found) == "":
            return None
        known = self._driver
        if state_of(found) == state_of(self.application) == "RUNNING" and known and phase_of(known) == "Running":
            return known
        return driver_pod_of(self.cluster, found)

    def _found(self, name: str) -> Document | None:
        """The application; that it is gone is believed only when it is said several times in a row."""
        for _ in range(READS_BEFORE_GONE):
            found = self.cluster.get(APPLICATIONS, name)
            if found:
                return found
            time.sleep(min(0.3, self.limits.look))
        return None

    def _has_ended(self, driver: Document | None) -> bool:
        state, more = state_of(self.application), error_of(self.application)
        wrong = state == "FAILED" and is_alive(driver)
        if wrong:
            more += "; but its driver runs, so it is followed further (kubeflow/spark-operator#2788)"
        self._tell(state or "new", more)
        if driver and has_started(driver):
            self.log.start(driver["metadata"]["name"])
        return state in TERMINAL_STATES and not wrong

    def _is_over(self, driver: Document | None) -> StepError | None:
        """Why there is no use in waiting any longer, if there is none."""
        now = time.monotonic()
        stage = stage_of(self.application, driver)
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        found = start_problem(driver) if driver else None
        if found is None or self._problem is None or found.failure.type != self._problem.failure.type:
            self._problem_began = now
        self._problem = found
        if found:
            self._tell(state_of(self.application), found.failure.message)
            if not found.passing and now - self._problem_began > self.limits.trouble:
                return PermanentError(found.failure)
        if waiting := executors_waiting(self.application):
            self._tell(state_of(self.application), f"no executor runs yet, {waiting} wait for room")
        limit = getattr(self.limits, Stage.RUNNING if stage == Stage.ENDED else stage)
        if now - self._stage_began <= limit:
            return None
        reason = found.failure.message if found else error_of(self.application) or "the cluster gives no reason"
        message = f"{_WAITED_FOR[stage]} for {limit:.0f} s: {reason}"
        return TemporaryError(Failure(kind="fault", type="TimeLimit", message=message), self.log.tail)

    def _wait_for_change(self, watched: ObjectWatch) -> None:
        """Returns when the application has changed, or when it is time to look at what the watch does not tell."""
        failed = state_of(self.application) == "FAILED"  # and its driver runs: its end is not told by the application
        watched.wait(min(1.0, self.limits.look) if failed else self.limits.look)

    def _tell(self, state: str, more: str) -> None:
        """Says a new state at once, and more about the same state only now and then."""
        line, now = f"{state}: {more}" if more else state, time.monotonic()
        if state != self._told_state or (line != self._told_line and now - self._told_at > REPEAT_STATE_SECONDS):
            self.log_line(f"SparkApplication {self.application['metadata']['name']}: {line}")
            self._told_state, self._told_line, self._told_at = state, line, now


_WAITED_FOR = {
    Stage.SUBMITTED: "the operator has made no driver",
    Stage.SCHEDULED: "the driver did not start",
    Stage.RUNNING: "the driver has not ended",
    Stage.UNKNOWN: "the operator has not known the state",
    Stage.ENDED: "the driver has not ended",
}


def driver_pod_of(cluster: Cluster, application: Document) -> Document | None:
    """The driver's pod of this very application, if it is there."""
    pod = cluster.get(PODS, driver_pod_name(application))
    return pod if pod and belongs_to(pod, application) else None


def events_of(cluster: Cluster, application: Document) -> list[Document]:
    """What the cluster has noted about an application and its driver, oldest first."""
    names = (application["metadata"]["name"], driver_pod_name(application))
    found = [event for name in names for event in cluster.list(EVENTS, fieldSelector=f"involvedObject.name={name}")]
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
