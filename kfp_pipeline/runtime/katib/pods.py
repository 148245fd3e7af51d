"""Why a trial failed: what its program has left in the object store, else what its pod says, else what Katib says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.katib.experiment import TRIAL_CONTAINER
from kfp_pipeline.runtime.katib.status import condition_of
from kfp_pipeline.runtime.katib.trial_plan import FAILURE_NAME
from kfp_pipeline.runtime.kubernetes_api import PODS, Cluster
from kfp_pipeline.runtime.object_store import Documents
from kfp_pipeline.runtime.spark_operator.application import failure_from_termination_message

Document = Mapping[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"


def why_failed(cluster: Cluster, documents: Documents, trials_uri: str, trial: Document) -> str:
    """Returns why a trial failed, in one sentence. Katib may have deleted the trial's pod already."""
    name = str(trial["metadata"]["name"])
    reason = _left_behind(documents, f"{trials_uri}/{name}/{FAILURE_NAME}") or _of_pods(cluster, name)
    if reason:
        return reason
    if condition_of(trial, "MetricsUnavailable"):
        return "it ended well but printed no metrics; its log shows why"
    said = (condition_of(trial, "Failed") or {}).get("message", "Katib does not say why")
    return f"{said}; its pod is gone"


def _left_behind(documents: Documents, uri: str) -> str:
    try:
        return str(json.loads(documents.read_text(uri) or "{}").get("message", ""))
    except (StepError, ValueError):
        return ""


def _of_pods(cluster: Cluster, job: str) -> str:
    """Returns what the trial's container says of its end; empty if there is no pod any more."""
    for pod in cluster.list(PODS, labelSelector=f"{JOB_LABEL}={job}"):
        status = pod.get("status") or {}
        container: Document = next(
            (item for item in status.get("containerStatuses") or [] if item.get("name") == TRIAL_CONTAINER), {}
        )
        ended = (container.get("state") or {}).get("terminated") or {}
        own = failure_from_termination_message(str(ended.get("message") or ""))
        if own:
            return own.message
        if ended.get("reason") == "OOMKilled":
            return f"the trial's own program, not Spark's, needed more memory than its limit; raise it in {job}'s template experiment.yaml"
        if status.get("reason"):
            return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
        if ended.get("exitCode"):
            return f"the trial's program ended with exit code {ended['exitCode']} and left no reason"
    return ""
