"""Measures the step load on wide tables, and compares it with Spark alone: it reads the CSV, infers the types and writes Parquet.

python -m benchmarks.wide_tables 100 400
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession

from spark_jobs.contract import LoadArgs
from spark_jobs.session import build_session
from spark_jobs.steps import load

ROWS = 1_000


def write_table(path: Path, columns: int, rows: int = ROWS) -> Path:
    """Writes a CSV with a label; half of the other columns are numbers, half have one of four letters."""
    chance = random.Random(columns)
    lines = [",".join([*(f"x{i}" for i in range(columns)), "label"])]
    for _ in range(rows):
        cells = [f"{chance.gauss(50, 20):.2f}" if i % 2 else chance.choice("abcd") for i in range(columns)]
        lines.append(",".join([*cells, chance.choice(["yes", "no"])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_alone(session: SparkSession, path: Path) -> None:
    """Reads a table with Spark alone, which infers the types of the columns, and writes it as Parquet."""
    session.read.csv(str(path), header=True, inferSchema=True).write.mode("overwrite").parquet(f"{path}.alone")


def processor_seconds(session: SparkSession) -> float:
    """Returns the CPU seconds of this process and its JVM, which depend less than wall time on other load.

    Without `/proc`, as on macOS, it returns the wall time.
    """
    stat = Path(f"/proc/{session.sparkContext._gateway.proc.pid}/stat")  # type: ignore[union-attr]
    if not stat.exists():
        return time.perf_counter()
    user, system = stat.read_text().rsplit(")", 1)[1].split()[11:13]
    return time.process_time() + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def seconds(session: SparkSession, work: Callable[[], object]) -> tuple[float, float]:
    """Measures the wall seconds and the CPU seconds of some work."""
    began, before = time.perf_counter(), processor_seconds(session)
    work()
    return time.perf_counter() - began, processor_seconds(session) - before


def main(widths: list[int]) -> None:
    """Prints one line for each width; the first width is measured twice, because the first run warms up the JVM."""
    session = build_session("benchmark")
    print("columns    load: clock, processors    Spark alone: clock, processors    ratio of each", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for columns in (widths[0], *widths):
            path = write_table(Path(folder, f"{columns}.csv"), columns)
            args = LoadArgs(data_uri=str(path), label="label", output_uri=f"{folder}/out")
            ours = seconds(session, lambda args=args: load.run(session, args))  # type: ignore[misc]
            alone = seconds(session, lambda path=path: read_alone(session, path))  # type: ignore[misc]
            ratios = ", ".join(f"{a / b:.1f}" for a, b in zip(ours, alone, strict=True))
            shown = [f"{clock:.1f} s, {used:.1f} s" for clock, used in (ours, alone)]
            print(f"{columns:>7}    {shown[0]}    {shown[1]}    {ratios}", flush=True)
    session.stop()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100, 1_000])
