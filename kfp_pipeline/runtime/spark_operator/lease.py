"""Leases on SparkApplications: the task renews the lease of its application, and the reaper deletes an application whose lease expires.

If a task is killed and KFP does not start it again, nothing would stop its application. The reaper, a small Deployment in the namespace,
does. It compares no clocks of two machines: a lease has expired if it has not changed during its whole duration by the reaper's own clock.
The duration is an annotation of the application (`Settings.lease_seconds`).
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, LEASES, PODS, Cluster, ConflictError
from kfp_pipeline.runtime.spark_operator.application import (
    DRIVER_EXISTS_ERROR,
    TERMINAL_STATES,
    driver_pod_name,
    error_of,
    is_alive,
    state_of,
)
from kfp_pipeline.runtime.spark_operator.manifest import LEASE_ANNOTATION, MANAGED_BY
from kfp_pipeline.settings import Settings

log = logging.getLogger(__name__)
LONGEST_PAUSE_SECONDS = 30.0
RENEWALS = 6
"""A lease is renewed at least this often in its duration, so that a few failed requests do not let it expire."""


def lease_seconds_of(application: Mapping[str, Any]) -> int:
    """The duration of an application's lease, from its annotation; without one the default."""
    noted = str((application["metadata"].get("annotations") or {}).get(LEASE_ANNOTATION, ""))
    return int(noted) if noted.isdecimal() else Settings.lease_seconds


class Lease:
    """The lease of one task on its application."""

    def __init__(self, cluster: Cluster, application: Mapping[str, Any], holder: str) -> None:
        """Makes the lease; the first `renew` creates it in the cluster.

        Args:
            cluster: the namespace.
            application: as the API server returned it, with its UID.
            holder: name of the task's pod or of this machine.
        """
        self._cluster, self._holder = cluster, holder
        self._name: str = application["metadata"]["name"]
        self._seconds = lease_seconds_of(application)
        self._owner = {
            "apiVersion": application["apiVersion"],
            "kind": application["kind"],
            "name": self._name,
            "uid": application["metadata"]["uid"],
        }
        self._renewed = float("-inf")

    def renew(self) -> None:
        """Renews the lease if a part of its duration has passed; creates it if it does not exist."""
        if time.monotonic() - self._renewed < min(LONGEST_PAUSE_SECONDS, self._seconds / RENEWALS):
            return
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": self._seconds, "renewTime": _now()}
        try:
            found = self._cluster.get(LEASES, self._name)
            if found and any(o.get("uid") == self._owner["uid"] for o in found["metadata"].get("ownerReferences", [])):
                self._cluster.replace(LEASES, {**found, "spec": {**found["spec"], **spec}})
            else:
                if found:  # it belongs to an earlier application of this name
                    self._cluster.delete(LEASES, self._name, found["metadata"]["uid"])
                metadata = {"name": self._name, "labels": MANAGED_BY, "ownerReferences": [self._owner]}
                body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
                self._cluster.create(LEASES, body)
        except ConflictError:  # another task that follows the same application renewed it at the same moment
            log.debug("lease %s was renewed by another", self._name)
        self._renewed = time.monotonic()


@dataclass
class Reaper:
    """Deletes the applications of one namespace whose lease has expired.

    Attributes:
        cluster: the namespace.
        clock: a monotonic clock, in seconds.
        longest_gap_seconds: if the API server was unavailable for longer, the durations of all leases start again.
    """

    cluster: Cluster
    clock: Callable[[], float] = time.monotonic
    longest_gap_seconds: float = 30.0
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _last: float = float("-inf")

    def delete_expired(self) -> list[str]:
        """Checks all leases once, deletes the applications whose lease has expired, and returns their names."""
        selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
        applications = self.cluster.list(APPLICATIONS, labelSelector=selector)
        leases = {item["metadata"]["name"]: item for item in self.cluster.list(LEASES, labelSelector=selector)}
        now = self.clock()
        if now - self._last > self.longest_gap_seconds:  # the tasks could not renew their leases either
            self._seen.clear()
        self._last = now
        expired, alive = [], set()
        for application in applications:
            name, uid = application["metadata"]["name"], application["metadata"]["uid"]
            if self._has_ended(application) or application["metadata"].get("deletionTimestamp"):
                continue
            alive.add(uid)
            renewed = str(leases.get(name, {}).get("spec", {}).get("renewTime", ""))
            # An application without a lease has as long as one with: its task may be about to create it.
            before, since = self._seen.get(uid, (None, now))
            if before != renewed:
                self._seen[uid] = (renewed, now)
            elif now - since > lease_seconds_of(application):
                self.cluster.delete(APPLICATIONS, name, uid)
                log.warning(
                    "deleted %s: its lease was not renewed for %.0f s (last %s)", name, now - since, renewed or "never"
                )
                expired.append(name)
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in alive}
        return expired

    def _has_ended(self, application: Mapping[str, Any]) -> bool:
        if state_of(application) == "FAILED" and DRIVER_EXISTS_ERROR in error_of(
            application
        ):  # the driver may run: kubeflow/spark-operator#2788
            return not is_alive(self.cluster.get(PODS, driver_pod_name(application)))
        return state_of(application) in TERMINAL_STATES

    def run(self, interval_seconds: float) -> None:
        """Checks the leases again and again, and never returns."""
        while True:
            try:
                self.delete_expired()
            except StepError as error:
                log.warning("%s", error)
            time.sleep(interval_seconds)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
