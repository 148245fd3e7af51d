"""Measures what a person waits for who changes a hyperparameter and runs again.

    make bench, once, for scikit-learn's environment; then
    python -m benchmarks.inner_loop DATA [ROUNDS]

The contenders take turns. "kept" uses `spark-kfp session start`; it and "own" reuse load and preprocess, as a run does whose table has not
changed. "kept, all steps" runs all four. "notebook" is the whole hand-written script in a session that stays, warmed up like the kept one,
with Java's defaults and no start of a program. scikit-learn reads the table, fits and judges one model in a new process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.run import PROJECT, WITH_PANDAS, describe_machine

SPARK_KFP = str(Path(sys.executable).with_name("spark-kfp"))
WARM_UP_RUNS = 3
"""Java compiles what it has run some times; these runs of the kept session are not counted."""


def seconds(command: list[str], environment: Mapping[str, str]) -> float:
    """Runs a command and returns its wall time."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


class Notebook:
    """The hand-written script in a session that stays; see `benchmarks.notebook`."""

    def __init__(self, data: str, folder: str) -> None:
        command = [sys.executable, "-m", "benchmarks.notebook", data, folder]
        self._process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def seconds(self, what: str) -> float:
        """Does all steps, or train and evaluate, and returns the time."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the session."""
        self._process.communicate(timeout=60)


def main(data: str, rounds: int = 5) -> None:
    """Prints the medians of all contenders in seconds."""
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="spark-kfp-bench-") as folder:
        run = [SPARK_KFP, "run", data, "--spec", str(PROJECT / "data/bank.toml"), f"--runs={folder}/runs"]
        # The kept session is found in the cache: another cache hides it from the runs that shall start their own.
        kept = dict(os.environ)
        own = {**kept, "SPARK_KFP_CACHE": f"{folder}/cache"}
        cache = Path(kept.get("SPARK_KFP_CACHE", "~/.cache/spark-kfp")).expanduser()
        Path(own["SPARK_KFP_CACHE"]).mkdir()
        for archive in cache.glob("*.jsa"):
            (Path(own["SPARK_KFP_CACHE"]) / archive.name).symlink_to(archive)
        subprocess.run([SPARK_KFP, "session", "start"], check=True, stdout=subprocess.DEVNULL)
        notebook = Notebook(data, f"{folder}/notebook")
        try:
            for _ in range(WARM_UP_RUNS):
                seconds([*run, "--no-cache"], kept)
                notebook.seconds("all")
            found: dict[str, list[float]] = {}
            for number in range(rounds):
                change = f"--reg-param=0.00{number + 1}"
                contenders = {
                    "kept, train and evaluate": ([*run, change], kept),
                    "kept, all steps": ([*run, "--no-cache"], kept),
                    "own, train and evaluate": ([*run, change, "--max-iter=99"], own),
                    "own, all steps": ([*run, "--no-cache"], own),
                    "scikit-learn": (
                        [str(WITH_PANDAS), str(PROJECT / "benchmarks/sklearn_baseline.py"), data, folder],
                        kept,
                    ),
                }
                for name, (command, environment) in contenders.items():
                    found.setdefault(name, []).append(seconds(command, environment))
                for what in ("train", "all"):
                    found.setdefault(f"notebook, {what}", []).append(notebook.seconds(what))
        finally:
            notebook.close()
            subprocess.run([SPARK_KFP, "session", "stop"], check=True, stdout=subprocess.DEVNULL)
        for name, times in found.items():
            print(f"{name:26}{statistics.median(times):6.1f} s   ({min(times):.1f} to {max(times):.1f})")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
