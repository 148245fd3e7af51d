"""A run's tasks as the pipeline's author sees them, out of what a KFP server lists. Pure: documents in, plain values out.

A server lists the nodes of Argo's workflow: for each task its driver, the task, its pods and every attempt of each, by Argo's names and in
any order (backend/src/common/util/workflow.go, NodeStatuses, in kubeflow/pipelines). Which of them are tasks, what they are called and in
which order they come is in the specification of the pipeline's version, which the server keeps.
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
    """A task: its key in the specification, after which Argo's node is called, and its name for people."""

    key: str
    name: str


def specification(document: Mapping[str, Any]) -> Document:
    """The pipeline's specification in a version, or in a run that was made without one; empty if there is none.

    With settings of kfp-kubernetes it is one level further in (backend/src/apiserver/server/api_util.go, YamlStringToPipelineSpecStruct).
    """
    found: Document = document.get("pipeline_spec") or {}
    return dict(found.get("pipeline_spec") or found)


def tasks_of(spec: Mapping[str, Any]) -> list[Task]:
    """The tasks in the graph's order, each after those it depends on; instead of a group those that are in it."""
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
    """The states of the tasks that have begun: `step`, `state`, `rows` (none: the server does not know them), `seconds`.

    The node of a task's name holds the end of all its attempts. If its driver failed, the task itself never began.
    """
    nodes = {str(item.get("display_name", "")): item for item in nodes_of(run)}
    for task in tasks:
        driver = nodes.get(f"{task.key}-driver", {})
        item = driver if driver.get("state") == "FAILED" else nodes.get(task.key, {})
        if item.get("state") in EVENTS:
            seconds = seconds_between(item.get("start_time"), item.get("end_time"))
            yield {"step": task.name, "state": EVENTS[item["state"]], "rows": {}, "seconds": seconds}


def failed_tasks(run: Mapping[str, Any], tasks: Sequence[Task]) -> list[str]:
    """The names of the tasks that failed."""
    return [event["step"] for event in task_events(run, tasks) if event["state"] == "failed"]


def nodes_of(run: Mapping[str, Any]) -> list[Document]:
    """All nodes that the server lists."""
    return list((run.get("run_details") or {}).get("task_details") or [])


def pending_pods(run: Mapping[str, Any]) -> str:
    """What has not started: the pods that are pending, or the run as a whole; empty if there is no such thing.

    The server tells no more than that: why a pod does not start is in none of its documents.
    """
    nodes = nodes_of(run)
    if not nodes:
        return "the run"
    pending = [
        f"{item.get('display_name')} {item.get('start_time')}" for item in nodes if item.get("state") == "PENDING"
    ]
    return ", ".join(sorted(pending))


def seconds_between(start: str | None, end: str | None) -> float:
    """Seconds; 0 if one of the times is not known, which the server writes as the year 1 or 1970."""
    if not start or not end:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
