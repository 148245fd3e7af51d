"""How a run on a KFP server went, in the pipeline's own words: the summary that its last task wrote, and where to look without it.

The server itself knows no reasons: `error` of a run's tasks stays empty (backend/src/apiserver/server/api_converter.go,
toApiPipelineTaskDetail, in kubeflow/pipelines 2.17.0), and so does the message that the last task gets.
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
"""KFP's own, if neither the run nor the ConfigMap kfp-launcher names another (backend/src/v2/config/env.go)."""
KFP_NAMESPACE = "kubeflow"
RUN_LABEL = "pipeline/runid"
"""Of every pod of a run (backend/src/common/util/consts.go, LabelKeyWorkflowRunId)."""
STARTING = ("PodInitializing", "ContainerCreating")
"""What Kubernetes says of a container that is on its way."""
CLUSTER_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of a run's end.

    Attributes:
        summary: the document of the last task; None if it cannot be had.
        why_not: then why.
        note: what was assumed to find it; may be empty.
    """

    summary: Document | None
    summary_problem: str = ""
    note: str = ""

    @property
    def reason(self) -> str:
        """Why the run failed, as the step that failed says it; empty if nothing tells."""
        found = self.summary or {}
        told = [f"{item.get('step')}: {item['error']}" for item in found.get("applications") or [] if item.get("error")]
        return str(found.get("message") or "") or "; ".join(told)


def read_outcome(run: Document, spec: Mapping[str, Any], pipeline_root: str = "") -> Outcome:
    """Reads what the last task of a run wrote.

    Args:
        run: as the server tells it.
        spec: the pipeline's specification; its name is a part of the address.
        pipeline_root: below which the run's outputs lie; empty: as the run or the pipeline says, else KFP's default.
    """
    known = pipeline_root or (run.get("runtime_config") or {}).get("pipeline_root") or spec.get("defaultPipelineRoot")
    root = str(known or DEFAULT_ROOT).rstrip("/")
    note = "" if known else f"the run names no pipeline root; looked below KFP's default, {root}"
    if not object_store.is_stored(root):
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
    """Whether somebody ended it: its workflow then fails, and only the history tells (TerminateRun in resource_manager.go)."""
    history = [item.get("state") for item in run.get("state_history") or []]
    return run.get("state") in ("FAILED", "CANCELED") and bool({"CANCELING", "CANCELED"} & {*history, run["state"]})


def displayed_state(run: Mapping[str, Any]) -> str:
    """A run's state, as people should read it."""
    return f"{run.get('state', '')}{' (terminated)' if was_terminated(run) else ''}"


def log_hint(run_id: str, link: str, namespace: str) -> str:
    """How to see a failed task's own words without the object store."""
    return (
        f"to see it: kubectl logs -n {namespace or KFP_NAMESPACE} -l {RUN_LABEL}={run_id} -c main --tail=5; or open {link}, "
        "the task that failed, Logs, or the task Finish, Visualization"
    )


def pending_reason(run_id: str, namespace: str) -> str:
    """Why the pods of a run do not start: what the cluster says, if it can be asked, else what to look at."""
    namespace = namespace or KFP_NAMESPACE
    selector = f"{RUN_LABEL}={run_id}"
    look = f"look: kubectl get pods -n {namespace} -l {selector}; kubectl describe pod -n {namespace} NAME"
    try:
        pods = connect(namespace, CLUSTER_PATIENCE_SECONDS).list(PODS, labelSelector=selector)
    except (InputError, StepError) as error:
        return f"KFP does not say why, and the cluster cannot be asked ({error}); {look}"
    told = [f"pod {pod['metadata']['name']}: {reason}" for pod in pods for reason in pod_waiting_reasons(pod)]
    if told:
        return f"{'; '.join(told)}; {look}"
    return f"neither KFP nor its {len(pods)} pods in namespace {namespace} say why; {look}"


def pod_waiting_reasons(pod: Mapping[str, Any]) -> Iterator[str]:
    """Why a pod has not started: a container that cannot be made, an image that cannot be had, no node that takes it."""
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        told = (container.get("state") or {}).get("waiting") or {}
        if told.get("reason") not in (None, *STARTING):
            yield f"{told['reason']}: {told.get('message', '')}".removesuffix(": ")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".removesuffix(": ")
