"""Why a run on a KFP server failed or does not start, and its metrics: read from the summary of the run's exit task and from the pods.

The server itself does not know why: the field `error` of a run's tasks stays empty (backend/src/apiserver/server/api_converter.go,
toApiPipelineTaskDetail, in kubeflow/pipelines 2.17.0), and so does the message that KFP passes to the exit task.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_pipeline.kfp_server.client import Document
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.kubernetes_api import PODS, connect
from kfp_pipeline.runtime.run_end import SUMMARY_NAME
from spark_jobs.errors import InputError

DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
"""KFP's default pipeline root, unless the run or the ConfigMap kfp-launcher names another (backend/src/v2/config/env.go)."""
KFP_NAMESPACE = "kubeflow"
RUN_LABEL = "pipeline/runid"
"""The label of every pod of a run (backend/src/common/util/consts.go, LabelKeyWorkflowRunId)."""
STARTING = ("PodInitializing", "ContainerCreating")
"""The reasons that Kubernetes reports for a container that is starting normally."""
CLUSTER_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a run, from the summary of its exit task.

    Attributes:
        summary: the summary; None if it could not be read.
        summary_problem: why it could not be read; else empty.
        note: the assumption under which the summary was looked for; may be empty.
    """

    summary: Document | None
    summary_problem: str = ""
    note: str = ""

    @property
    def reason(self) -> str:
        """Why the run failed, in the failed step's words; empty if the summary does not say."""
        found = self.summary or {}
        errors = [
            f"{item.get('step')}: {item['error']}" for item in found.get("applications") or [] if item.get("error")
        ]
        return str(found.get("message") or "") or "; ".join(errors)


def read_outcome(run: Document, spec: Mapping[str, Any], pipeline_root: str = "") -> Outcome:
    """Reads the summary that the exit task of a run wrote into the object store.

    Args:
        run: the server's document of the run.
        spec: the pipeline's specification; the pipeline's name is part of the summary's URI.
        pipeline_root: URI below which the run's outputs lie; empty: that of the run or of the pipeline, else KFP's default.
    """
    known = pipeline_root or (run.get("runtime_config") or {}).get("pipeline_root") or spec.get("defaultPipelineRoot")
    root = str(known or DEFAULT_ROOT).rstrip("/")
    note = "" if known else f"the run names no pipeline root; looked below KFP's default, {root}"
    if not object_store.is_object_store_uri(root):
        return Outcome(summary=None, summary_problem=f"{root} is no object store that can be read here", note=note)
    uri = f"{root}/{(spec.get('pipelineInfo') or {}).get('name', '')}/{run['run_id']}/{SUMMARY_NAME}"
    try:
        text = object_store.read_text(uri)
        found = json.loads(text) if text else None
    except (InputError, StepError, ValueError) as error:
        return Outcome(summary=None, summary_problem=str(error), note=note)
    if not isinstance(found, dict):
        return Outcome(summary=None, summary_problem=f"{uri} is not there", note=note)
    return Outcome(summary=found, note=note)


def was_terminated(run: Mapping[str, Any]) -> bool:
    """Whether a user terminated the run. Its state is then FAILED, and only its history shows why (TerminateRun in resource_manager.go)."""
    history = [item.get("state") for item in run.get("state_history") or []]
    return run.get("state") in ("FAILED", "CANCELED") and bool({"CANCELING", "CANCELED"} & {*history, run["state"]})


def displayed_state(run: Mapping[str, Any]) -> str:
    """The state of a run as it is shown to the user."""
    return f"{run.get('state', '')}{' (terminated)' if was_terminated(run) else ''}"


def log_hint(run_id: str, link: str, namespace: str) -> str:
    """Tells the user how to see the error of a failed task without access to the object store."""
    return (
        f"to see it: kubectl logs -n {namespace or KFP_NAMESPACE} -l {RUN_LABEL}={run_id} -c main --tail=5; or open {link}, "
        "the task that failed, Logs, or the task Finish, Visualization"
    )


def pending_reason(run_id: str, namespace: str) -> str:
    """Says why the pods of a run do not start, if this machine can ask the cluster, and which commands show more."""
    namespace = namespace or KFP_NAMESPACE
    selector = f"{RUN_LABEL}={run_id}"
    look = f"look: kubectl get pods -n {namespace} -l {selector}; kubectl describe pod -n {namespace} NAME"
    try:
        pods = connect(namespace, CLUSTER_PATIENCE_SECONDS).list(PODS, labelSelector=selector)
    except (InputError, StepError) as error:
        return f"KFP does not say why, and the cluster cannot be asked ({error}); {look}"
    reasons = [f"pod {pod['metadata']['name']}: {reason}" for pod in pods for reason in pod_waiting_reasons(pod)]
    if reasons:
        return f"{'; '.join(reasons)}; {look}"
    return f"neither KFP nor its {len(pods)} pods in namespace {namespace} say why; {look}"


def pod_waiting_reasons(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yields the reasons why a pod has not started: a container that cannot be created, an image pull error, no suitable node."""
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, *STARTING):
            yield f"{waiting['reason']}: {waiting.get('message', '')}".removesuffix(": ")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".removesuffix(": ")
