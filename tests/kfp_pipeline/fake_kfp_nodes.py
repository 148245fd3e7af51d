"""What a KFP 2.17.0 lists as a run's `task_details`: not the pipeline's tasks, but the nodes of Argo's workflow, with Argo's names.

Sources, of kubeflow/pipelines 2.17.0 unless named otherwise:
- backend/src/common/util/workflow.go, NodeStatuses: every node of the workflow, out of a Go map and so in any order; no message.
- backend/src/apiserver/server/api_converter.go, toApiPipelineTaskDetail: neither `error` nor `pod_name` is filled in; children are Argo's
  node ids; a time that is not known is Argo's zero, the year 1; a phase that KFP does not know (Omitted) is RUNTIME_STATE_UNSPECIFIED.
- backend/src/v2/compiler/argocompiler/dag.go and container.go: the nodes `root`, TASK-driver, TASK and, in each task, `executor`.
- backend/src/v2/compiler/argocompiler/common.go, addExitTask: the exit handler's task is an exit hook of the group's task; and
  argo-workflows 4.0.5, workflow/controller/exit_handler.go, runOnExitNode, with workflow/common/util.go, GenerateOnExitNodeName: its
  node is GROUP.onExit.
- argo-workflows, workflow/controller/dag.go, executeDAGTask: a group whose condition does not hold is a node of the phase Skipped,
  without attempts, and the tasks in it have no nodes.
- manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml: `templateDefaults.retryStrategy` makes of each node X
  a node X that repeats and its attempts X(0), X(1) ...
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

Document = dict[str, Any]
WORKFLOW = "spark-kfp-training-x7k2p"
FIRST, LAST, NEVER = "2026-11-23T10:00:00Z", "2026-11-23T10:00:30Z", "0001-01-01T00:00:00Z"
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED")


def node_list(spec: Document, states: Mapping[str, str], attempts: Mapping[str, int] | None = None) -> list[Document]:
    """The nodes of a run.

    Args:
        spec: the pipeline's IR.
        states: of each task that has begun, by its key in the IR; one named `TASK-driver` or `TASK/executor` is for that node of it. A
            group runs while one of its tasks does, unless it is SKIPPED here.
        attempts: how often a task's pod was started, by its key; 1 for the others.
    """
    whole = "RUNNING" if "RUNNING" in states.values() or "PENDING" in states.values() else "SUCCEEDED"
    whole = "FAILED" if "FAILED" in states.values() and whole != "RUNNING" else whole
    found = [*_repeated(WORKFLOW, whole), *_repeated("root-driver", "SUCCEEDED"), *_repeated("root", whole)]
    for key, group in _tasks(spec, "root"):
        if group and states.get(key) == "SKIPPED":
            found += [*_repeated(f"{key}-driver", "SUCCEEDED"), _node(key, "SKIPPED")]
        elif group:
            found += [*_repeated(f"{key}-driver", "SUCCEEDED"), *_repeated(key, whole)]
            if "finish" in states:
                found += _repeated(f"{key}.onExit", states["finish"])
        else:
            found += _nodes_of(key, states, (attempts or {}).get(key, 1))
    return sorted(found, key=lambda node: hashlib.sha256(node["display_name"].encode()).hexdigest())


def _nodes_of(key: str, states: Mapping[str, str], attempts: int) -> Iterator[Document]:
    driver = states.get(f"{key}-driver", "SUCCEEDED" if key in states else "")
    if driver:
        yield from _repeated(f"{key}-driver", driver)
    if key not in states:
        return
    yield from _repeated(key, states[key])
    if states[key] in ("SUCCEEDED", "FAILED", "RUNNING", "PENDING"):
        inner = states.get(f"{key}/executor", states[key])
        yield _node("executor", inner)
        for number in range(attempts):
            yield _node(f"executor({number})", inner if number == attempts - 1 else "FAILED")


def _repeated(name: str, state: str) -> Iterator[Document]:
    yield _node(name, state)
    yield _node(f"{name}(0)", state)


def _node(name: str, state: str) -> Document:
    return {
        "task_id": str(uuid.uuid4()),
        "display_name": name,
        "state": state,
        "create_time": FIRST,
        "start_time": FIRST,
        "end_time": LAST if state in ENDED else NEVER,
        "child_tasks": [{"pod_name": f"{WORKFLOW}-{int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)}"}],
    }


def _tasks(spec: Document, component: str) -> Iterator[tuple[str, bool]]:
    """The keys of all tasks, and whether each is a group."""
    dag = (spec["root"] if component == "root" else spec["components"][component]).get("dag", {})
    for key, task in dag.get("tasks", {}).items():
        inner = task["componentRef"]["name"]
        group = "dag" in spec["components"][inner]
        yield key, group
        if group:
            yield from _tasks(spec, inner)
