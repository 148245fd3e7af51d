"""Plays Katib's metrics collector in a trial's pod: waits for the trial's process, may stop it early, then prints what it has put out.

It follows cmd/metricscollector/v1beta1/file-metricscollector/main.go and pkg/metricscollector/v1beta1/common/pns.go of Katib 0.19.0. The
pod runs it as `python3 -c`, so it imports the standard library only. Its argument is a rule NAME;VALUE;less;START_STEP, or nothing.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

FOLDER = Path("/var/log/katib")
OUTPUT = FOLDER / "metrics.log"
FILTER = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")


def parent(pid: int) -> int:
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [each for each in found if each != os.getpid() and parent(each) == pid]


def main_process() -> int:
    """`GetMainProcesses`: a process without a parent in the pod whose command writes the mark of a completed trial."""
    for pid in children(0):
        command = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        if f"echo completed > {FOLDER}" in command:
            return pid
    return 0


def reports(name: str) -> list[float]:
    """The values that the trial has printed so far."""
    text = OUTPUT.read_text() if OUTPUT.exists() else ""
    lines = [line for line in text.splitlines() if name in line]
    return [float(match[2]) for line in lines for match in FILTER.finditer(line) if match[1] == name]


def stop_early(pid: int, rule: str) -> bool:
    """`watchMetricsFile`: ends the single child of the trial's shell if the rule holds."""
    name, value, _, start = rule.split(";")
    found = reports(name)
    if len(found) < int(start) or max(found) >= float(value):
        return False
    (child,) = children(pid)  # "Multiple children processes are not supported"
    (FOLDER / f"{pid}.pid").write_text("early-stopped")
    os.kill(child, signal.SIGTERM)
    return True


def main() -> int:
    rule, stopped = (sys.argv[1] if len(sys.argv) > 1 else ""), False
    while not (pid := main_process()):
        time.sleep(0.2)
    while (Path("/proc") / str(pid)).exists():
        if rule and not stopped:
            stopped = stop_early(pid, rule)
        time.sleep(0.2)
    print(OUTPUT.read_text() if OUTPUT.exists() else "", flush=True)
    mark = FOLDER / f"{pid}.pid"
    said = mark.read_text().strip() if mark.exists() else ""
    print(
        "mark: early-stopped" if stopped else f"mark: {said}", flush=True
    )  # the shell overwrites the mark of a stopped trial
    return 0 if said in ("completed", "early-stopped") else 1


if __name__ == "__main__":
    sys.exit(main())
