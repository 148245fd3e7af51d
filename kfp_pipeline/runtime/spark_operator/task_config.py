"""Carries what a pipeline's author sets on a KFP task over to its SparkApplication: memory, cores, environment, placement.

KFP hands it over as `dsl.TaskConfig` (2.15 and newer) instead of setting it on the task's own pod, which only waits.
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
"""Share of the heap that Spark adds for what is not the JVM, for Python: its `spark.kubernetes.memoryOverheadFactor`."""
LEAST_HEAP_MIB = 512
"""Spark does not start below 450 MiB."""
MIB = 1024 * 1024
OURS = re.compile(r"AWS_|SPARK_KFP_|KFP_")
"""Variables of the task itself, which driver and executors have from the platform's template."""
UNITS_MIB = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


def apply_task_config(spec: Document, given: Mapping[str, Any]) -> None:
    """Changes a SparkApplication's spec as the task's author wants it.

    Args:
        spec: the platform's; changed in place, driver and executor alike.
        given: fields of `dsl.TaskConfig`; what is None or empty changes nothing. The memory limit is that of a whole pod: the heap is
            what remains after the overhead that Spark adds.

    Raises:
        InputError: a resource is not known, or too small for Spark.
    """
    for role in ROLES:
        pod = spec.setdefault(role, {})
        _apply_resources(pod, given.get("resources") or {}, _factor(spec, pod))
        if given.get("tolerations"):
            pod["tolerations"] = copy.deepcopy(given["tolerations"])
        if given.get("node_selector"):
            pod["nodeSelector"] = dict(given["node_selector"])
        environment = [item for item in given.get("env") or [] if not OURS.match(item["name"])]
        if environment:
            _add_environment(pod, role, environment)


def _factor(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> float:
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
    """Adds variables to Spark's container; the platform's own of the same name win."""
    name = f"spark-kubernetes-{role}"
    containers = pod.setdefault("template", {}).setdefault("spec", {}).setdefault("containers", [])
    container = next((item for item in containers if item.get("name") == name), None)
    if container is None:
        container = {"name": name}
        containers.append(container)
    there = container.setdefault("env", [])
    taken = {item["name"] for item in there}
    there.extend(copy.deepcopy(item) for item in environment if item["name"] not in taken)
