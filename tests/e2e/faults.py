"""What the tests of faults share: the table of faults, and ways to disturb a cluster and a run.

Each test notes a line; SPARK_KFP_FAULT_TABLE names the file that gets them all as a table (`make e2e` writes docs/faults.md).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import E2E, TaskRun, kubectl, until

Note = Callable[..., None]
STORE = ("-n", "minio")
ROWS: list[dict[str, str]] = []
START_SECONDS = 240
"""How long a test waits for a pod that starts: on a machine with other work on it that takes minutes, and says nothing about the fault."""


@contextmanager
def fault_table() -> Iterator[Note]:
    """Yields a function that notes a line of the table of faults; the table is written at the end."""

    def add(fault: str, seen: str, seconds: float | None, *, lost: str = "nothing", left: str = "nothing") -> None:
        after = "" if seconds is None else f"{seconds:.0f} s"
        seen = re.sub(r"-[0-9a-f]{12}\b", "-HASH", re.sub(r"minio://\S+/", "minio://…/", seen))[:240]
        ROWS.append({"fault": fault, "what the user sees": seen, "after": after, "left behind": left, "lost": lost})

    yield add
    if os.environ.get("SPARK_KFP_FAULT_TABLE") and ROWS:
        path = Path(os.environ["SPARK_KFP_FAULT_TABLE"])
        earlier = _rows(path.read_text(encoding="utf-8")) if path.exists() else []
        new = {row["fault"]: row for row in ROWS}
        kept = [new.pop(row["fault"], row) for row in earlier]
        path.write_text(_table([*kept, *new.values()]), encoding="utf-8")


def _rows(text: str) -> list[dict[str, str]]:
    """The lines of a table that was written before; a run of some tests replaces only theirs."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def _table(rows: list[dict[str, str]]) -> str:
    """Markdown; what is seen comes from the run's own output."""
    head = (PREFACE, f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}")
    lines = [f"| {' | '.join(value.replace('|', '/') for value in row.values())} |" for row in rows]
    return "\n".join([*head, *lines]) + "\n"


PREFACE = """# Faults

Each line is a test in `tests/e2e`, and was written by `make e2e` from what it saw on a real cluster (one node, two
cores). "After" counts from the fault to the moment at which the task said so, or at which all was well again. "Left behind" means
SparkApplications, pods and leases that go on; an ended application stays for a day, for its log.
"""


def error_of(log: str) -> str:
    """The error that the task ended with, shortened for a table."""
    found = [line for line in log.splitlines() if line.startswith("spark-kfp: error: ")]
    assert found, log[-2000:]
    return found[-1].removeprefix("spark-kfp: error: ")


def is_running(e2e: E2E, run: TaskRun) -> Callable[[], bool]:
    return lambda: e2e.state(run) == "RUNNING"


def nothing_goes_on(e2e: E2E, run: TaskRun) -> None:
    """No application, driver or executor of this run is alive, and none comes to life."""

    def dead() -> bool:
        live = json.loads(
            kubectl("get", "pods", "-l", f"sparkoperator.k8s.io/app-name={run.application}", "-o", "json")
        )["items"]
        going = [pod for pod in live if pod["status"].get("phase") in ("Pending", "Running")]
        return not going and e2e.state(run) in ("", "COMPLETED", "FAILED")

    until(dead, 60, f"{run.application} goes on")


def kill(pod: str) -> None:
    kubectl("delete", "pod", pod, "--grace-period=0", "--force", check=False)


@contextmanager
def changed(kind: str, name: str, patch: dict[str, Any], *where: str) -> Iterator[None]:
    """Merges a change into an object, and takes it back."""
    before = json.loads(kubectl(*where, "get", kind, name, "-o", "json"))
    kubectl(*where, "patch", kind, name, "--type=merge", "-p", json.dumps(patch))
    try:
        yield
    finally:
        back = {key: before[key] for key in ("data", "spec") if key in before}
        kubectl(*where, "patch", kind, name, "--type=merge", "-p", json.dumps(back))


@contextmanager
def platform_says(change: dict[str, Any]) -> Iterator[None]:
    """Changes the platform's steps.yaml."""
    import yaml

    data = json.loads(kubectl("get", "configmap", "spark-kfp", "-o", "json"))["data"]
    steps = yaml.safe_load(data["steps.yaml"]) or {}
    steps["load"] = change
    with changed("configmap", "spark-kfp", {"data": {"steps.yaml": yaml.safe_dump(steps)}}):
        yield


@contextmanager
def store_away() -> Iterator[None]:
    """The object store's service leads nowhere; what is in the store stays."""
    service = json.loads(kubectl(*STORE, "get", "service", "minio", "-o", "json"))["spec"]["selector"]
    nowhere = {**dict.fromkeys(service, None), "app": "nobody"}
    kubectl(*STORE, "patch", "service", "minio", "--type=merge", "-p", json.dumps({"spec": {"selector": nowhere}}))
    try:
        yield
    finally:
        back = {"app": None, **service}
        kubectl(*STORE, "patch", "service", "minio", "--type=merge", "-p", json.dumps({"spec": {"selector": back}}))


def to_the_step(run: TaskRun, program: str) -> None:
    """Sends a signal to the Python of the application's driver."""
    driver = f"{run.application}-driver"
    until(
        lambda: "sent" in kubectl("exec", driver, "--", "python", "-c", program, check=False),
        START_SECONDS,
        "no step to signal",
    )


def signal_to(name: str, part: str, *, only_the_youngest: bool = False) -> str:
    """A program that sends a signal to the Python processes whose command line has a part; the youngest is the child of the others."""
    return f"""
import os, pathlib, signal
found = [
    int(entry.name) for entry in pathlib.Path("/proc").iterdir()
    if entry.name.isdecimal() and int(entry.name) != os.getpid()
    and (entry / "comm").read_text().startswith("python") and b"{part}" in (entry / "cmdline").read_bytes()
]
for number in found if not {only_the_youngest} else [max(found)]:
    os.kill(number, signal.{name})
print("sent" if found else "nobody")
"""


TERMINATE = signal_to("SIGTERM", "kfp.dsl.executor_main")
KILL_ALL = signal_to("SIGKILL", "kfp.dsl.executor_main")
KILL_FOLLOWER = signal_to("SIGKILL", "kfp.dsl.executor_main", only_the_youngest=True)
STOP = signal_to("SIGSTOP", "main.py")
CONTINUE = signal_to("SIGCONT", "main.py")
