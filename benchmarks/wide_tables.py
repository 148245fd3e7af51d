"""Measures the step load on wide tables, and compares it with Spark alone: it reads the CSV, infers the types and writes Parquet.

    python -m benchmarks.wide_tables 100 400

Each is measured as a `spark-submit` of its own, as a person starts it, with Java's defaults; and in a session that has done both before,
where the start of Spark and of the JVM, which both have in common, counts for nothing.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.handwritten_reading import read_alone
from benchmarks.run import PROJECT, SUBMIT, describe_machine
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


def seconds_of_process(words: list[str]) -> tuple[float, float]:
    """Measures the wall seconds and the CPU seconds of a `spark-submit` with these words."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*SUBMIT, *words], check=True, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(what: str, columns: int, ours: tuple[float, float], alone: tuple[float, float]) -> None:
    """Prints one line of the table."""
    ratios = ", ".join(f"{a / b:.1f}" for a, b in zip(ours, alone, strict=True))
    shown = [f"{clock:.1f} s, {used:.1f} s" for clock, used in (ours, alone)]
    print(f"{what:<9}{columns:>7}    {shown[0]}    {shown[1]}    {ratios}", flush=True)


def measure_processes(paths: dict[int, Path]) -> None:
    """Prints one line for each table, each step and script in a process of its own."""
    for columns, path in paths.items():
        step = ["spark_jobs/__main__.py", "load", f"--data-uri={path}", "--label=label", f"--output-uri={path}.load"]
        alone = seconds_of_process(["benchmarks/handwritten_reading.py", str(path), f"{path}.alone"])
        show("process", columns, seconds_of_process(step), alone)


def measure_session(paths: dict[int, Path]) -> None:
    """Prints one line for each table; the first table is measured twice, because the first run warms up the JVM."""
    session = build_session("benchmark")
    for columns in (next(iter(paths)), *paths):
        path = paths[columns]
        args = LoadArgs(data_uri=str(path), label="label", output_uri=f"{path}.load")
        ours = seconds(session, partial(load.run, session, args))
        alone = seconds(session, partial(read_alone, session, str(path), f"{path}.alone"))
        show("session", columns, ours, alone)
    session.stop()


def main(widths: list[int]) -> None:
    """Prints the tables of both ways to measure."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    print(describe_machine())
    print("         columns    load: clock, processors    Spark alone: clock, processors    ratio of each", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = {columns: write_table(Path(folder, f"{columns}.csv"), columns) for columns in widths}
        measure_processes(paths)
        measure_session(paths)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100, 1_000])
