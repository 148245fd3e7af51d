"""The end of a KFP run: ends its SparkApplications that still run, and writes one summary of the run.

The exit handler's task calls it. KFP passes that task only the run's status, so the applications are found by the label of the run and the
rest by their annotations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime import failures
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, Cluster
from kfp_pipeline.runtime.object_store import Documents
from kfp_pipeline.runtime.spark_operator.application import TERMINAL_STATES, error_of, is_alive, state_of
from kfp_pipeline.runtime.spark_operator.manifest import OUTPUT_URI_ANNOTATION, RUN_LABEL, STEP_LABEL, label_value
from kfp_pipeline.runtime.spark_operator.runner import cancel
from kfp_pipeline.runtime.spark_operator.session_runner import say_stop, steps_of
from kfp_pipeline.runtime.spark_operator.tracking import driver_pod_of
from kfp_pipeline.runtime.summary import run_summary
from spark_jobs.contract import REPORT_URI, Step, outputs_of
from spark_jobs.result import RESULT_NAME, Failure, Result
from spark_jobs.session_requests import SESSION

SUMMARY_NAME = "summary.json"


def end_run(
    cluster: Cluster, documents: Documents, *, run: str, run_folder: str, status: str, message: str, markdown_path: Path
) -> dict[str, Any]:
    """Ends the applications of a run that still run, and writes the run's summary: JSON for programs, Markdown for KFP's UI.

    Args:
        cluster: the namespace of the applications.
        documents: the object store.
        run: the run's id.
        run_folder: URI of the folder that holds all of the run's artifacts.
        status: SUCCEEDED, FAILED or CANCELLED, as KFP reports it.
        message: KFP's reason, used if no task has written a failure document; may be empty.
        markdown_path: file for the Markdown.

    Returns:
        The summary: `run`, `status`, `message`, `applications`, `metrics`, `report`.
    """
    applications = cluster.list(APPLICATIONS, labelSelector=f"{RUN_LABEL}={label_value(run)}")
    applications.sort(key=lambda item: str(item["metadata"]["creationTimestamp"]))
    for application in applications:
        # A driver may run although the operator reports FAILED (kubeflow/spark-operator#2788).
        if state_of(application) not in TERMINAL_STATES or is_alive(driver_pod_of(cluster, application)):
            if status == "SUCCEEDED" and _step(application) == SESSION:
                say_stop(documents, application)  # its log stays, as that of a step's application does
            else:
                cancel(cluster, application["metadata"]["name"])
    metrics, report = _metrics_and_report(documents, applications, succeeded=status == "SUCCEEDED")
    reasons = {} if status == "SUCCEEDED" else failures.read_failures(documents, run_folder)
    document = {
        "run": run,
        "status": status,
        "message": "\n".join(f"{step}: {reason.message}" for step, reason in reasons.items()) or message,
        "applications": [_described(item, reasons) for item in applications],
        "metrics": metrics,
        "report": report,
    }
    documents.write_bytes(f"{run_folder}/{SUMMARY_NAME}", json.dumps(document, indent=1, ensure_ascii=False).encode())
    markdown_path.parent.mkdir(parents=True, exist_ok=True)
    markdown_path.write_text(run_summary(document), encoding="utf-8")
    return document


def _described(application: Mapping[str, Any], reasons: Mapping[Step, Failure]) -> dict[str, str]:
    state = state_of(application) or "NEW"
    step = _step(application)
    messages = [reason.message for name, reason in reasons.items() if name == step and state != "COMPLETED"]
    return {
        "step": step,
        "name": application["metadata"]["name"],
        "state": state if state in TERMINAL_STATES else f"{state}, ended now",
        "error": (messages[0] if messages else error_of(application)).split("\n")[0],
    }


def _metrics_and_report(
    documents: Documents, applications: Sequence[Mapping[str, Any]], *, succeeded: bool
) -> tuple[dict[str, float], str]:
    """Metrics and report URI of the run's last evaluation, or the metrics of the last step if the pipeline evaluates no model.

    Of a run that has not succeeded only an evaluation counts: the metrics of a step in the middle would be taken for the run's.
    """
    steps = [found for application in applications for found in _steps(documents, application)]
    own = [found for found in steps if found[0] in list(Step) and found[0] != Step.TUNE]  # a search is no evaluation
    evaluations = [found for found in own if REPORT_URI in outputs_of(found[0])]
    for _, uri in reversed(evaluations or (steps if succeeded else [])):
        text = documents.read_text(f"{uri}/{RESULT_NAME}") if uri else None
        result = Result.from_json(text) if text else None
        if result and result.status == "succeeded":
            return dict(result.metrics), str(result.arguments.get(REPORT_URI, ""))
    return {}, ""


def _steps(documents: Documents, application: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The steps that an application has run, in their order: name and URI of the output."""
    if _step(application) == SESSION:
        return steps_of(documents, application)
    return [(_step(application), (application["metadata"].get("annotations") or {}).get(OUTPUT_URI_ANNOTATION, ""))]


def _step(application: Mapping[str, Any]) -> str:
    return str((application["metadata"].get("labels") or {}).get(STEP_LABEL, ""))
