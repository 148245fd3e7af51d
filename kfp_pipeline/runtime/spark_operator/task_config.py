"""Applies the settings of a KFP task to its SparkApplication: memory, cores, environment variables, node selector, tolerations.

A pipeline's author sets them on the task, for example with `set_memory_limit`. KFP 2.15 and newer passes them to the component as
`dsl.TaskConfig` instead of applying them to the task's own pod, which only waits for Spark.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

from kubernetes.utils import parse_quantity

from spark_jobs.errors import InputError

Document = dict[str, Any]
ROLES = ("driver", "executor")
OVERHEAD_FACTOR = 0.4
"""Memory outside the JVM, mostly Python's, as a fraction of the heap: Spark's default of `spark.kubernetes.memoryOverheadFactor`."""
LEAST_HEAP_MIB = 512
"""Spark does not start with less than 450 MiB."""
MIB = 1024 * 1024
TASK_VARIABLES = re.compile(r"AWS_|SPARK_KFP_|KFP_")
"""Variables of the task's own pod; driver and executors get theirs from the platform's template."""
UNITS_MIB = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


def apply_task_config(spec: Document, given: Mapping[str, Any]) -> None:
    """Applies a task's settings to a SparkApplication's spec, to driver and executors alike.

    Args:
        spec: the spec; changed in place.
        given: fields of `dsl.TaskConfig`; a field that is None or empty changes nothing. The memory limit is for a whole pod, so the heap
            is the limit without the overhead that Spark adds.

    Raises:
        InputError: a resource is neither cpu nor memory, or the memory is too small for Spark.
    """
    for role in ROLES:
        pod = spec.setdefault(role, {})
        _apply_resources(pod, given.get("resources") or {}, _overhead_factor(spec, pod))
        if given.get("tolerations"):
            pod["tolerations"] = copy.deepcopy(given["tolerations"])
        if given.get("node_selector"):
            pod["nodeSelector"] = dict(given["node_selector"])
        environment = [item for item in given.get("env") or [] if not TASK_VARIABLES.match(item["name"])]
        if environment:
            _add_environment(pod, role, environment)


def _overhead_factor(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> float:
    own, whole = pod.get("memoryOverheadFactor"), spec.get("memoryOverheadFactor")
    return float(own or whole or OVERHEAD_FACTOR)


def _apply_resources(pod: Document, resources: Mapping[str, Any], factor: float) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    unknown = sorted({*limits, *requests} - {"cpu", "memory"})
    if unknown:
        raise InputError(
            f"the task asks for {', '.join(unknown)}; a SparkApplication of ours takes cpu and memory only"
        )
    memory = limits.get("memory") or requests.get("memory")
    if memory:
        pod["memory"] = f"{_heap_mib(str(memory), pod.get('memoryOverhead'), factor)}m"
    cores = limits.get("cpu") or requests.get("cpu")
    if cores:
        pod["cores"] = max(1, math.floor(parse_quantity(str(cores))))
        pod["coreRequest"] = str(requests.get("cpu") or cores)
    if limits.get("cpu"):
        pod["coreLimit"] = str(limits["cpu"])


def _heap_mib(pod_memory: str, overhead: str | None, factor: float) -> int:
    whole = float(parse_quantity(pod_memory)) / MIB
    heap = math.floor(whole - _mib(overhead) if overhead else whole / (1 + factor))
    if heap < LEAST_HEAP_MIB:
        least = math.ceil(LEAST_HEAP_MIB + _mib(overhead) if overhead else LEAST_HEAP_MIB * (1 + factor))
        raise InputError(f"the task's memory of {pod_memory} is too little for Spark; give at least {least}Mi")
    return heap


def _mib(jvm_memory: str) -> float:
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", jvm_memory.lower())
    if not found:
        raise InputError(f"memoryOverhead is {jvm_memory!r}; it must be like 512m")
    return int(found[1]) * UNITS_MIB[found[2] or "m"]


def _add_environment(pod: Document, role: str, environment: list[Document]) -> None:
    """Adds variables to Spark's container; a variable of the platform with the same name is kept."""
    name = f"spark-kubernetes-{role}"
    containers = pod.setdefault("template", {}).setdefault("spec", {}).setdefault("containers", [])
    container = next((item for item in containers if item.get("name") == name), None)
    if container is None:
        container = {"name": name}
        containers.append(container)
    existing = container.setdefault("env", [])
    taken = {item["name"] for item in existing}
    existing.extend(copy.deepcopy(item) for item in environment if item["name"] not in taken)
