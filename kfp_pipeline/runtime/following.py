"""Follows one SparkApplication to its end: by watching, with reading it anew as the fallback, within a time limit for each stage.

The operator's word that an application has failed is checked against its driver before it is believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from kfp_pipeline.runtime.application import (
    ENDED,
    Stage,
    Trouble,
    belongs_to,
    driver_name,
    error_of,
    executors_waiting,
    has_started,
    is_alive,
    stage_of,
    state_of,
    trouble,
)
from kfp_pipeline.runtime.driver_log import DriverLog
from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, EVENTS, PODS, Cluster, blinks_allowed
from kfp_pipeline.runtime.lease import Lease
from kfp_pipeline.runtime.manifest import LIMITS_KEY
from spark_jobs.contract import Failure, InputError

Document = dict[str, Any]
TELL_SECONDS = 30.0
TIMES_MISSING = 4


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long each stage of an application may take, in seconds; `limits.yaml` of the ConfigMap sets them.

    Attributes:
        submitted: until the operator has made the driver's pod.
        scheduled: until the driver's container runs, from then on.
        running: until the end, from then on.
        unknown: that the operator may not know the state.
        trouble: that an image or a secret which cannot be had may take to appear.
        window: of one watch; also how often everything is looked at anew.
        deleted: until a deleted application is gone.
    """

    submitted: float = 300.0
    scheduled: float = 900.0
    running: float = 86400.0
    unknown: float = 180.0
    trouble: float = 30.0
    window: float = 5.0
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
class Following:
    """One application that is being followed.

    Attributes:
        cluster: where it is.
        application: as it was last seen.
        limits: of time.
        log: its driver's.
        lease: what keeps it alive.
        say: takes a line for the task's log.
    """

    cluster: Cluster
    application: Document
    limits: Limits
    log: DriverLog
    lease: Lease
    say: Callable[[str], None]
    _stage: Stage = Stage.SUBMITTED
    _stage_began: float = field(default_factory=time.monotonic)
    _trouble: Trouble | None = None
    _trouble_began: float = 0.0
    _told_state: str | None = None
    _told_line: str = ""
    _told_at: float = 0.0

    def to_its_end(self) -> Document:
        """Follows until the application has ended, and returns it.

        Raises:
            StepError: it is gone, or did not start or end in time; in the latter cases it is deleted first.
        """
        name, uid = self.application["metadata"]["name"], self.application["metadata"]["uid"]
        while True:
            found = self._found(name)
            if not found or found["metadata"]["uid"] != uid:
                message = f"SparkApplication {name} was deleted while it ran; run the step again"
                raise TemporaryError(Failure(kind="fault", type="Deleted", message=message), self.log.tail)
            self.application = found
            driver = None if state_of(found) == "" else driver_of(self.cluster, found)
            if self._has_ended(driver):
                return found
            over = self._is_over(driver)
            if over:
                self.cluster.delete(APPLICATIONS, name, uid)
                raise over
            self.lease.renew()
            self._wait_for_change(name)

    def _found(self, name: str) -> Document | None:
        """The application; that it is gone is believed only when it is said several times in a row."""
        for _ in range(TIMES_MISSING):
            found = self.cluster.get(APPLICATIONS, name)
            if found:
                return found
            time.sleep(min(0.3, self.limits.window))
        return None

    def _has_ended(self, driver: Document | None) -> bool:
        state, more = state_of(self.application), error_of(self.application)
        wrong = state == "FAILED" and is_alive(driver)
        if wrong:
            more += "; but its driver runs, so it is followed further (kubeflow/spark-operator#2788)"
        self._tell(state or "new", more)
        if driver and has_started(driver):
            self.log.start(driver["metadata"]["name"])
        return state in ENDED and not wrong

    def _is_over(self, driver: Document | None) -> StepError | None:
        """Why there is no use in waiting any longer, if there is none."""
        now = time.monotonic()
        stage = stage_of(self.application, driver)
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        found = trouble(driver) if driver else None
        if found is None or self._trouble is None or found.failure.type != self._trouble.failure.type:
            self._trouble_began = now
        self._trouble = found
        if found:
            self._tell(state_of(self.application), found.failure.message)
            if not found.passing and now - self._trouble_began > self.limits.trouble:
                return PermanentError(found.failure)
        if waiting := executors_waiting(self.application):
            self._tell(state_of(self.application), f"no executor runs yet, {waiting} wait for room")
        limit = getattr(self.limits, Stage.RUNNING if stage == Stage.ENDED else stage)
        if now - self._stage_began <= limit:
            return None
        reason = found.failure.message if found else error_of(self.application) or "the cluster gives no reason"
        message = f"{_WAITED_FOR[stage]} for {limit:.0f} s: {reason}"
        return TemporaryError(Failure(kind="fault", type="TimeLimit", message=message), self.log.tail)

    def _wait_for_change(self, name: str) -> None:
        """Returns when the state has changed, a window has passed, or the server blinked."""
        began = time.monotonic()
        version, before = self.application["metadata"]["resourceVersion"], state_of(self.application)
        if before != "FAILED":  # then its driver is looked at
            with blinks_allowed():
                for changed in self.cluster.watch(APPLICATIONS, name, version, self.limits.window):
                    if state_of(changed) != before:
                        return
        rest = min(1.0, self.limits.window) - (time.monotonic() - began)
        if rest > 0:  # a watch that ends at once must not turn into a storm of requests
            time.sleep(rest)

    def _tell(self, state: str, more: str) -> None:
        """Says a new state at once, and more about the same state only now and then."""
        line, now = f"{state}: {more}" if more else state, time.monotonic()
        if state != self._told_state or (line != self._told_line and now - self._told_at > TELL_SECONDS):
            self.say(f"SparkApplication {self.application['metadata']['name']}: {line}")
            self._told_state, self._told_line, self._told_at = state, line, now


_WAITED_FOR = {
    Stage.SUBMITTED: "the operator has made no driver",
    Stage.SCHEDULED: "the driver did not start",
    Stage.RUNNING: "the driver has not ended",
    Stage.UNKNOWN: "the operator has not known the state",
    Stage.ENDED: "the driver has not ended",
}


def driver_of(cluster: Cluster, application: Document) -> Document | None:
    """The driver's pod of this very application, if it is there."""
    pod = cluster.get(PODS, driver_name(application))
    return pod if pod and belongs_to(pod, application) else None


def events_of(cluster: Cluster, application: Document) -> list[Document]:
    """What the cluster has noted about an application and its driver, oldest first."""
    names = (application["metadata"]["name"], driver_name(application))
    found = [event for name in names for event in cluster.list(EVENTS, fieldSelector=f"involvedObject.name={name}")]
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
