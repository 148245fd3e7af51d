"""Why pods do not run, from what Kubernetes knows: the conditions and taints of the nodes, and the warnings of the last minutes.

"timed out waiting for the condition", as kubectl says it, may be a full disk of a node or an image that is not there.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

MOST_EVENTS = 10


def trouble_of_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each condition of a node that is not as it should be, and for each taint that keeps pods away."""
    lines: list[str] = []
    for node in nodes:
        name = node["metadata"]["name"]
        for condition in node["status"].get("conditions", []):
            good = "True" if condition["type"] == "Ready" else "False"
            if condition["status"] != good:
                why = condition.get("message", "")
                lines.append(f"node {name}: {condition['type']} is {condition['status']} ({why})")
        lines += [
            f"node {name}: taint {taint['key']}:{taint['effect']}"
            for taint in node["spec"].get("taints", [])
            if taint["effect"] != "PreferNoSchedule"
        ]
    return lines


def last_warnings(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each of the last warnings, the newest last."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    warnings.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return [
        f"{event['involvedObject']['kind']} {event['involvedObject']['name']}: {event.get('reason')}: {event.get('message')}"
        for event in warnings[-MOST_EVENTS:]
    ]


def trouble(namespace: str) -> str:
    """Returns what Kubernetes says at the moment of the namespace's pods and of the nodes, for a message of a test."""
    pods = subprocess.run(["kubectl", "-n", namespace, "get", "pods"], capture_output=True, text=True, check=False)
    nodes, events = _items("nodes"), _items("events", "-n", namespace)
    lines = [*trouble_of_nodes(nodes), *last_warnings(events)] or ["no node and no event tells of trouble"]
    return "\n".join([pods.stdout + pods.stderr, *lines])


def _items(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "get", *words, "-o", "json"], capture_output=True, text=True, check=False)
    if done.returncode:
        return []
    found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return found
