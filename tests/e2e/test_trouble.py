"""What a test says when pods do not run; no cluster is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from trouble import MOST_EVENTS, last_warnings, trouble_of_nodes


def node(conditions: dict[str, str], *taints: dict[str, str]) -> dict[str, Any]:
    listed = [{"type": kind, "status": status, "message": f"about {kind}"} for kind, status in conditions.items()]
    return {"metadata": {"name": "one"}, "spec": {"taints": list(taints)}, "status": {"conditions": listed}}


def event(kind: str, name: str, time: str) -> dict[str, Any]:
    involved = {"kind": "Pod", "name": name}
    return {
        "type": kind,
        "reason": "Evicted",
        "message": "low on disk",
        "involvedObject": involved,
        "lastTimestamp": time,
    }


def test_a_full_disk_is_named_with_the_taint_that_it_brings() -> None:
    full = node(
        {"DiskPressure": "True", "MemoryPressure": "False", "Ready": "True"},
        {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"},
        {"key": "spread", "effect": "PreferNoSchedule"},
    )
    assert trouble_of_nodes([full]) == [
        "node one: DiskPressure is True (about DiskPressure)",
        "node one: taint node.kubernetes.io/disk-pressure:NoSchedule",
    ]


def test_a_node_that_is_away_is_named_and_a_healthy_one_is_not() -> None:
    assert trouble_of_nodes([node({"Ready": "Unknown"})]) == ["node one: Ready is Unknown (about Ready)"]
    assert trouble_of_nodes([node({"Ready": "True", "DiskPressure": "False"})]) == []


def test_the_last_warnings_are_told_the_newest_last() -> None:
    events = [event("Normal", "fine", "2026-01-01T00:00:09Z")]
    events += [event("Warning", f"pod-{number}", f"2026-01-01T00:00:{number:02}Z") for number in range(11, -1, -1)]
    told = last_warnings(events)
    assert len(told) == MOST_EVENTS
    assert told[-1] == "Pod pod-11: Evicted: low on disk"
