"""Measures batch scoring: the step predict, a plain PySpark script, and the scorecard in Spark's Python workers, by turns.

    make bench, once, for the environment with pyarrow; then
    python -m benchmarks.batch_scoring MODEL [ROWS] [ROUNDS]

Each is a process of its own. MODEL is the output of a train step on the bundled sample. The table is the sample's rows repeated, without
the label, in one CSV.
"""

from __future__ import annotations

import csv
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.run import PROJECT, SUBMIT, WITH_PANDAS, describe_machine
from kfp_pipeline.runtime.spark_submit.runner import spark_home

SAMPLE = PROJECT / "data" / "bank_sample.csv"
LABEL = "deposit"


def write_rows(path: Path, rows: int) -> None:
    """Writes the table."""
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    place = head.index(LABEL)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for line in itertools.chain([head], itertools.islice(itertools.cycle(lines), rows)):
            writer.writerow(line[:place] + line[place + 1 :])


def seconds(command: list[str], python: str) -> float:
    """Runs a command with the Python for Spark's driver and workers, and returns its wall time."""
    began = time.perf_counter()
    pythons = {"PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python, "PYTHONPATH": str(PROJECT)}
    environment = {**os.environ, **pythons, "SPARK_HOME": str(spark_home())}
    subprocess.run(
        command, env=environment, check=True, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def main(model: str, rows: int = 1_000_000, rounds: int = 3) -> None:
    """Prints the median seconds and rows a second of each."""
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.csv"
        write_rows(data, rows)
        contenders = {
            "step predict": [
                "spark_jobs/__main__.py", "predict", f"--data-uri={data}", f"--model-uri={model}", f"--output-uri={folder}/ours",
            ],
            "plain script": ["benchmarks/handwritten_scoring.py", str(data), f"{model}/model", f"{folder}/plain"],
            "scorecard by Arrow": ["benchmarks/arrow_scoring.py", str(data), f"{model}/scorecard.json", f"{folder}/arrow"],
        }  # fmt: skip
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, words in contenders.items():
                subprocess.run(["rm", "-rf", f"{folder}/ours"], check=True)  # else the step finds the file scored
                # Spark imports pandas where it is installed, which would slow down the other two.
                python = str(WITH_PANDAS) if "Arrow" in name else sys.executable
                taken[name].append(seconds([*SUBMIT, *words], python))
    print(f"{rows:,} rows, {rounds} rounds")
    for name, found in taken.items():
        median = statistics.median(found)
        print(
            f"{name:<20}{median:>8.1f} s {rows / median:>10,.0f} rows a second  ({min(found):.1f} to {max(found):.1f} s)"
        )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
