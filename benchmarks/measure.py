"""Runs a command and measures its wall time and the peak memory of all its processes together."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_EVERY_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run of one contender.

    Attributes:
        total: wall seconds from the start of the first process to the end of the last.
        steps: seconds of work by step, without start-up, as the contender measured them.
        metrics: the model's metrics, which show that all contenders trained the same model.
        peak_mib: largest memory of the process and all its children at one moment, in MiB.
    """

    total: float
    steps: Mapping[str, float]
    metrics: Mapping[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0

    @property
    def work(self) -> float:
        return sum(self.steps.values())

    @property
    def startup(self) -> float:
        return self.total - self.work


class CommandFailedError(RuntimeError):
    """A contender failed; the message names the command and the file with its output."""


def run_and_sample(command: Sequence[str], environment: Mapping[str, str], log: Path) -> tuple[float, float]:
    """Runs a command and returns its wall seconds and its peak memory in MiB.

    Raises:
        CommandFailedError: the exit code is not 0.
    """
    with log.open("ab") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        peak = [0.0]
        sampler = threading.Thread(target=_sample, args=(process, peak), daemon=True)
        sampler.start()
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        total = time.perf_counter() - began
        sampler.join()
    if code != 0:
        raise CommandFailedError(f"exit code {code} of: {' '.join(command)}\nits output is in {log}")
    return total, peak[0]


def read_measured(out: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Reads the seconds by step and the metrics from the `measured.json` of a script."""
    measured = json.loads((out / "measured.json").read_text(encoding="utf-8"))
    return measured["seconds"], measured["metrics"]


def read_pipeline(out: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Reads the seconds of work by step and the metrics from the result documents of the run below `out`."""
    seconds: dict[str, float] = {}
    metrics: dict[str, float] = {}
    for path in sorted(out.rglob("result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        seconds[result["step"]] = result["seconds"]["work"]
        if result["step"] == "evaluate":
            metrics = result["metrics"]
    if len(seconds) != 4:
        raise CommandFailedError(
            f"the run below {out} has results of {sorted(seconds) or 'no step'}, not of four steps"
        )
    return seconds, metrics


def _sample(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    root = psutil.Process(process.pid)
    while process.poll() is None:
        peak[0] = max(peak[0], _held_mib(root))
        time.sleep(SAMPLE_EVERY_SECONDS)


def _held_mib(root: psutil.Process) -> float:
    held = 0
    try:
        for each in [root, *root.children(recursive=True)]:
            held += _own_bytes(each)
    except psutil.NoSuchProcess:  # the root process has just ended
        pass
    return held / 2**20


def _own_bytes(process: psutil.Process) -> int:
    """Returns the proportional set size, which counts a shared page once; the resident set size if the system has no such number."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup")
        if rollup.exists():
            line = next(line for line in rollup.read_text(encoding="ascii").splitlines() if line.startswith("Pss:"))
            return int(line.split()[1]) * 1024
        return int(process.memory_info().rss)
    except (psutil.Error, OSError, StopIteration):  # the process has ended
        return 0
