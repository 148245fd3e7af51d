"""Finds the states of a run's tasks in the documents of a KFP server. Takes documents and returns plain values; sends no requests.

For a run the server lists the nodes of the Argo workflow: for each task its KFP driver, the task, its pods and every attempt, under Argo's
names and in no order (backend/src/common/util/workflow.go, NodeStatuses, in kubeflow/pipelines). The specification of the pipeline's
version, which the server keeps, says which nodes are tasks, what the tasks are called, and in which order they run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

Document = dict[str, Any]
EVENTS = {"RUNNING": "running", "SUCCEEDED": "done", "FAILED": "failed", "SKIPPED": "skipped", "CANCELED": "cancelled"}


@dataclass(frozen=True)
class Task:
    """A task: its key in the specification, which is also the name of its Argo node, and its display name."""

    key: str
    name: str


def specification(document: Mapping[str, Any]) -> Document:
    """Returns the pipeline's specification from the document of a version, or of a run that was created without one; empty if missing.

    If the pipeline has settings of kfp-kubernetes, the specification is nested one level deeper (backend/src/apiserver/server/api_util.go,
    YamlStringToPipelineSpecStruct).
    """
    found: Document = document.get("pipeline_spec") or {}
    return dict(found.get("pipeline_spec") or found)


def tasks_of(spec: Mapping[str, Any]) -> list[Task]:
    """Lists the tasks in topological order; a group, such as an exit handler's, is replaced by its tasks."""
    return list(_tasks_in(spec, spec.get("root") or {}))


def _tasks_in(spec: Mapping[str, Any], component: Mapping[str, Any]) -> Iterator[Task]:
    tasks = (component.get("dag") or {}).get("tasks") or {}
    order = TopologicalSorter({key: tasks[key].get("dependentTasks") or () for key in sorted(tasks)})
    for key in order.static_order():
        inner = (spec.get("components") or {}).get((tasks[key].get("componentRef") or {}).get("name"), {})
        if "dag" in inner:
            yield from _tasks_in(spec, inner)
        else:
            yield Task(key, str((tasks[key].get("taskInfo") or {}).get("name") or key))


def task_events(run: Mapping[str, Any], tasks: Sequence[Task]) -> Iterator[Document]:
    """Yields an event for each task that has begun, with the keys `step`, `state`, `rows` and `seconds`; `rows` is empty on a server.

    The node of the task's own name has the state after all attempts. If the task's KFP driver failed, the task itself never began.
    """
    nodes = {str(item.get("display_name", "")): item for item in nodes_of(run)}
    for task in tasks:
        driver = nodes.get(f"{task.key}-driver", {})
        item = driver if driver.get("state") == "FAILED" else nodes.get(task.key, {})
        if item.get("state") in EVENTS:
            seconds = seconds_between(item.get("start_time"), item.get("end_time"))
            yield {"step": task.name, "state": EVENTS[item["state"]], "rows": {}, "seconds": seconds}


def failed_tasks(run: Mapping[str, Any], tasks: Sequence[Task]) -> list[str]:
    """Lists the display names of the failed tasks."""
    return [event["step"] for event in task_events(run, tasks) if event["state"] == "failed"]


def nodes_of(run: Mapping[str, Any]) -> list[Document]:
    """Returns the nodes of the Argo workflow that the server lists for a run."""
    return list((run.get("run_details") or {}).get("task_details") or [])


def pending_pods(run: Mapping[str, Any]) -> str:
    """Names the pods that are pending, or the run as a whole if it has none yet; empty if all have started.

    The server does not say why a pod is pending; see `run_outcome.pending_reason`.
    """
    nodes = nodes_of(run)
    if not nodes:
        return "the run"
    pending = [
        f"{item.get('display_name')} {item.get('start_time')}" for item in nodes if item.get("state") == "PENDING"
    ]
    return ", ".join(sorted(pending))


def seconds_between(start: str | None, end: str | None) -> float:
    """Returns the seconds between two of the server's times; 0 if one is unknown, which the server writes as the year 1 or 1970."""
    if not start or not end:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
