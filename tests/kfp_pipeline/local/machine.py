"""`spark-kfp` as a person calls it, in a folder of its own with data and a Spark that does as it is told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEPS = ["load", "preprocess", "train", "evaluate"]
PATIENCE_SECONDS = 60.0


@dataclass
class Machine:
    """A folder with data, and `spark-kfp` in it; `mark` is in the environment of every process that comes of it."""

    folder: Path
    environment: dict[str, str]
    spark: Any
    mark: str = field(default_factory=lambda: f"spark-kfp-test-{uuid.uuid4().hex}")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Starts `spark-kfp` and does not wait."""
        return subprocess.Popen(
            [sys.executable, "-m", "kfp_pipeline", *words],
            cwd=self.folder,
            env={**self.environment, "MARK": self.mark, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Runs `spark-kfp` to its end: exit code, stdout, stderr."""
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, out, err

    def run(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Runs the pipeline over the data to its end."""
        return self.call("run", "data.csv", *words, **environment)

    def processes(self) -> list[str]:
        """The command lines of the processes that carry the mark."""
        found = []
        for path in self._entries():
            with contextlib.suppress(OSError):
                found.append((path / "cmdline").read_text().replace("\0", " "))
        return found

    def _entries(self) -> Iterator[Path]:
        """Where /proc tells of them."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"MARK={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    yield path

    def kill(self) -> None:
        """Ends what a test has left."""
        for path in self._entries():
            with contextlib.suppress(OSError):
                os.kill(int(path.name), signal.SIGKILL)

    def record(self, run_id: str) -> dict[str, Any]:
        """run.json of a run."""
        document: dict[str, Any] = json.loads((self.folder / "runs" / run_id / "run.json").read_text())
        return document


def make_machine(folder: Path, fake_spark: Any, java_home: Path) -> Machine:
    """A machine whose folder's name has spaces, and what KFP's runner looks for in a task's command."""
    folder = folder / "a folder of python3.11"
    folder.mkdir()
    (folder / "data.csv").write_text("x,label\n1,yes\n2,no\n")
    return Machine(folder, {**fake_spark.environment(), "JAVA_HOME": str(java_home)}, fake_spark)


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> bool:
    """Waits until a condition holds; false if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def until_asleep(machine: Machine, step: str, run_id: str = "one") -> None:
    """Waits until the step's spark-submit sleeps."""
    log = machine.folder / "runs" / run_id / "logs" / f"{step}.log"
    assert until(lambda: log.exists() and "asleep" in log.read_text()), f"{step} did not start"
