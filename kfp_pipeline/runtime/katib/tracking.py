"""Tracks one Experiment to its end, by a watch and, as a fallback, by polling; what Katib does not do in time ends the wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_pipeline.runtime.errors import TemporaryError
from kfp_pipeline.runtime.katib.experiment import CONFIG_NAME
from kfp_pipeline.runtime.katib.status import (
    ENDED,
    EXPERIMENT_LABEL,
    condition_of,
    counts_of,
    failed_trials,
    is_taken_up,
    progress,
)
from kfp_pipeline.runtime.kubernetes_api import EVENTS, EXPERIMENTS, TRIALS, Cluster
from kfp_pipeline.runtime.spark_operator.watch import ObjectWatch
from kfp_pipeline.runtime.time_limits import parse_limits
from spark_jobs.result import Failure

Document = dict[str, Any]
CHECK_CONTROLLER = "kubectl -n kubeflow get deployment katib-controller"


@dataclass(frozen=True, kw_only=True)
class SearchLimits:
    """How long a search may wait, in seconds; `limits.yaml` of the ConfigMap sets them.

    Attributes:
        accepted_seconds: from the creation of the Experiment until Katib's controller has written a status.
        first_trial_seconds: from then until there is a trial: the algorithm's pod must start.
        silent_seconds: how long the status may stay the same; a trial that takes longer ends the search.
        watch_request_seconds: duration of one watch request.
        check_interval_seconds: interval of the checks of the limits and of warning events.
        read_interval_seconds: interval after which the Experiment is read although the watch reports no change.
    """

    accepted_seconds: float = 180.0
    first_trial_seconds: float = 900.0
    silent_seconds: float = 90_000.0
    watch_request_seconds: float = 300.0
    check_interval_seconds: float = 15.0
    read_interval_seconds: float = 60.0

    @classmethod
    def from_yaml(cls, text: str) -> SearchLimits:
        """Parses `limits.yaml`; see `parse_limits`."""
        return parse_limits(cls, text, f"ConfigMap {CONFIG_NAME}")


@dataclass
class ExperimentTracker:
    """Tracks one Experiment.

    Attributes:
        cluster: its namespace.
        experiment: the object as it was last read.
        limits: the time limits.
        objective: the metric by which trials are compared.
        reason_of: finds out why a trial failed; asked once for each, as soon as it has failed, while its pod may still be there.
        log_line: writes a line to the task's log.
    """

    cluster: Cluster
    experiment: Document
    limits: SearchLimits
    objective: str
    reason_of: Callable[[Mapping[str, Any]], str]
    log_line: Callable[[str], None]
    reasons: dict[str, str] = field(default_factory=dict)
    _changed_at: float = field(default_factory=time.monotonic)
    _logged: str = ""
    _warned: set[str] = field(default_factory=set)
    _last_warning: str = ""

    @property
    def name(self) -> str:
        """The name of the Experiment."""
        return str(self.experiment["metadata"]["name"])

    def wait_until_ended(self) -> Document:
        """Waits until the Experiment has succeeded or failed.

        Raises:
            TemporaryError: it was deleted, or Katib did not go on within a time limit; it is then deleted first.
        """
        uid = self.experiment["metadata"]["uid"]
        with ObjectWatch(self.cluster, EXPERIMENTS, self.experiment, self.limits.watch_request_seconds) as watch:
            while True:
                found = watch.current(self.limits.read_interval_seconds, self.limits.check_interval_seconds)
                if not found or found["metadata"]["uid"] != uid or found["metadata"].get("deletionTimestamp"):
                    raise _stopped("Deleted", f"Experiment {self.name} was deleted while it ran; run the step again")
                self._take(found)
                if condition_of(found, *ENDED):
                    return found
                self._check_limits()
                watch.wait(self.limits.check_interval_seconds)
                self._log_warnings()

    def _take(self, found: Document) -> None:
        """Takes over a new version of the Experiment, logs how far it is, and finds out why trials have failed."""
        if found.get("status") != self.experiment.get("status"):
            self._changed_at = time.monotonic()
        self.experiment = found
        line = progress(found, self.objective) if is_taken_up(found) else "new"
        if line != self._logged:
            self.log_line(f"Experiment {self.name}: {line}")
            self._logged = line
        counts = counts_of(found)
        if counts.get("failed", 0) + counts.get("without metrics", 0) > len(self.reasons):
            self.find_reasons(self.trials())

    def find_reasons(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Finds out why trials have failed, for those of which it is not known yet."""
        for trial in failed_trials(trials):
            name = trial["metadata"]["name"]
            if name not in self.reasons:
                self.reasons[name] = self.reason_of(trial)
                self.log_line(f"trial {name} failed: {self.reasons[name]}")

    def trials(self) -> list[Document]:
        """Lists the trials, the first one first."""
        found = self.cluster.list(TRIALS, labelSelector=f"{EXPERIMENT_LABEL}={self.name}")
        return sorted(found, key=lambda item: (item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"]))

    def _check_limits(self) -> None:
        """Checks the time limits.

        Raises:
            TemporaryError: one has passed; the Experiment is deleted.
        """
        silent = time.monotonic() - self._changed_at
        if not is_taken_up(self.experiment):
            limit, what = (
                self.limits.accepted_seconds,
                f"no Katib controller has taken it up; check: {CHECK_CONTROLLER}",
            )
        elif not (self.experiment["status"].get("trials") or 0):
            limit, what = (
                self.limits.first_trial_seconds,
                "Katib has made no trial; its algorithm runs in a pod of its own",
            )
        else:
            limit, what = self.limits.silent_seconds, "its status has not changed"
        if silent <= limit:
            return
        self.cluster.delete(EXPERIMENTS, self.name, self.experiment["metadata"]["uid"])
        reason = f": {self._last_warning}" if self._last_warning else ""
        raise _stopped("TimeLimit", f"Experiment {self.name}: {what}, for {limit:.0f} s{reason}; it is deleted")

    def _log_warnings(self) -> None:
        """Logs what the cluster warns of: the names of all objects of an Experiment begin with its own."""
        for event in self.cluster.list(EVENTS, fieldSelector="type=Warning"):
            place = str((event.get("involvedObject") or {}).get("name", ""))
            line = f"{place}: {event.get('reason')}: {event.get('message')}"
            if place.startswith(self.name) and line not in self._warned:
                self._warned.add(line)
                self._last_warning = line
                self.log_line(f"warning of the cluster: {line}")


def _stopped(kind: str, message: str) -> TemporaryError:
    return TemporaryError(Failure(kind="fault", type=kind, message=message))
