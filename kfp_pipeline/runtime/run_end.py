"""What happens when a run has ended, well or not: ends what still runs of it, and says in one place how it went.

The task of KFP's exit handler; it gets nothing from the other tasks but how they ended, and finds the rest by the run's label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime import failures
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, Cluster
from kfp_pipeline.runtime.spark_operator.application import TERMINAL_STATES, error_of, is_alive, state_of
from kfp_pipeline.runtime.spark_operator.manifest import OUTPUT_URI_ANNOTATION, RUN_LABEL, STEP_LABEL, label_value
from kfp_pipeline.runtime.spark_operator.runner import Documents, cancel
from kfp_pipeline.runtime.spark_operator.tracking import driver_pod_of
from kfp_pipeline.runtime.summary import run_summary
from spark_jobs.contract import Step, outputs_of
from spark_jobs.result import RESULT_NAME, Failure, Result

SUMMARY_NAME = "summary.json"
REPORT_URI = "report_uri"
"""Argument of the step that judges a model: where its report is."""


def end_run(
    cluster: Cluster, documents: Documents, *, run: str, run_folder: str, status: str, message: str, markdown_path: Path
) -> dict[str, Any]:
    """Ends a run's applications that still run, and writes how it went: JSON below the run, Markdown for KFP's UI.

    Args:
        cluster: where its applications are.
        documents: the object store.
        run: its id.
        run_folder: URI below which all of the run lies.
        status: SUCCEEDED, FAILED or CANCELLED, as KFP says.
        message: why, as KFP says, if no task has left its reason; may be empty.
        markdown_path: file for the Markdown.

    Returns:
        What was written: `status`, `message`, `applications`, `metrics`, `report`.
    """
    applications = cluster.list(APPLICATIONS, labelSelector=f"{RUN_LABEL}={label_value(run)}")
    applications.sort(key=lambda item: str(item["metadata"]["creationTimestamp"]))
    for application in applications:
        if state_of(application) not in TERMINAL_STATES or is_alive(driver_pod_of(cluster, application)):
            cancel(cluster, application["metadata"]["name"])
    metrics, report = _evaluation(documents, applications)
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
    step = (application["metadata"].get("labels") or {}).get(STEP_LABEL, "")
    told = [reason.message for name, reason in reasons.items() if name == step and state != "COMPLETED"]
    return {
        "step": step,
        "name": application["metadata"]["name"],
        "state": state if state in TERMINAL_STATES else f"{state}, ended now",
        "error": (told[0] if told else error_of(application)).split("\n")[0],
    }


def _evaluation(documents: Documents, applications: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], str]:
    """The metrics and the report of the run's last evaluation; none if it did not get that far."""
    for application in reversed(applications):
        step = (application["metadata"].get("labels") or {}).get(STEP_LABEL, "")
        if step not in list(Step) or REPORT_URI not in outputs_of(step):
            continue
        uri = (application["metadata"].get("annotations") or {}).get(OUTPUT_URI_ANNOTATION, "")
        text = documents.read_text(f"{uri}/{RESULT_NAME}") if uri else None
        result = Result.from_json(text) if text else None
        if result and result.status == "succeeded":
            return dict(result.metrics), str(result.arguments[REPORT_URI])
    return {}, ""
