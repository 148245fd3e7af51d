"""Measures the server and the scorer beside a warm Spark session, on the output of a training step.

python -m benchmarks.serving TRAIN_OUTPUT --table data/bank_sample.csv --seconds 60

TRAIN_OUTPUT holds `model/` and `scorecard.json`. The server is a process of its own on one core; the load comes from this process. While it
is under load its champion changes every ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.columns import Columns
from serving.scorer import Scorer

PORT = 8099
CONNECTIONS = 8
CHANGE_SECONDS = 10
VERSIONS = ("one", "two")


def main() -> None:
    """Prints the tables: one row and 1,000 rows by each contender, then the server under full and half load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train_output", type=Path)
    parser.add_argument("--table", type=Path, default=Path("data/bank_sample.csv"))
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each of the two loads")
    parser.add_argument("--no-spark", action="store_true")
    arguments = parser.parse_args()
    scorecard = json.loads((arguments.train_output / "scorecard.json").read_text(encoding="utf-8"))
    rows = read_rows(arguments.table, scorecard)
    contenders = {"serving.scorer, validated": scored_by_scorer(scorecard)}
    if not arguments.no_spark:
        contenders["PipelineModel.transform, warm session"] = scored_by_spark(arguments.train_output / "model")
    print(f"| contender | one row | {len(rows):,} rows |\n|---|---|---|")
    for name, score in contenders.items():
        print(f"| {name} | {shown(best_seconds(score, rows[:1]))} | {shown(best_seconds(score, rows))} |")
    print(
        "\n| load | requests a second | p50 | p99 | longest | answers | not 200 | champion changes |\n|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        registry = make_registry(Path(folder), scorecard)
        full = measure_server(registry, rows[0], arguments.seconds, None)
        print(f"| full, {CONNECTIONS} connections | {full}")
        half = measure_server(registry, rows[0], arguments.seconds, full.per_second / 2)
        print(f"| half | {half}")


def read_rows(table: Path, scorecard: dict[str, Any]) -> list[dict[str, Any]]:
    """Reads 1,000 rows with the model's columns; numbers are numbers, as a caller sends them in JSON."""
    numeric = [column["name"] for column in scorecard["numeric"]]
    names = Scorer(scorecard).columns
    with table.open(encoding="utf-8", newline="") as file:
        found = [row for row, _ in zip(csv.DictReader(file), range(1000), strict=False)]
    return [{name: float(row[name]) if name in numeric and row[name] else row[name] for name in names} for row in found]


def scored_by_scorer(scorecard: dict[str, Any]) -> Callable[[list[dict[str, Any]]], None]:
    """Returns what the server does with rows: score and check each."""
    scorer, columns = Scorer(scorecard), Columns.of(scorecard)

    def score(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            scorer.score(row)
            columns.check(row)

    return score


def scored_by_spark(model: Path) -> Callable[[list[dict[str, Any]]], None]:
    """Returns what a program with a warm Spark session does: a DataFrame of the rows, transform, collect."""
    from pyspark.ml import PipelineModel  # noqa: PLC0415

    from spark_jobs.session import build_session  # noqa: PLC0415

    session = build_session("benchmark")
    loaded = PipelineModel.load(str(model))

    def score(rows: list[dict[str, Any]]) -> None:
        loaded.transform(session.createDataFrame(rows)).select("probability").collect()

    return score


def best_seconds(score: Callable[[list[dict[str, Any]]], None], rows: list[dict[str, Any]]) -> float:
    """Returns the shortest of many times, for about three seconds after a warm-up: what the machine's other work disturbs least."""
    for _ in range(3):
        score(rows)
    times: list[float] = []
    end = time.perf_counter() + 3
    while time.perf_counter() < end or len(times) < 5:
        began = time.perf_counter()
        score(rows)
        times.append(time.perf_counter() - began)
    return min(times)


def shown(seconds: float) -> str:
    """Formats a time in its own unit."""
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def make_registry(folder: Path, scorecard: dict[str, Any]) -> Path:
    """Writes a registry with two versions of the model `bank`."""
    content = json.dumps(scorecard).encode()
    for version in VERSIONS:
        place = folder / "bank" / "versions" / version
        place.mkdir(parents=True)
        (place / "scorecard.json").write_bytes(content)
        files = [{"path": "scorecard.json", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
        document = {"registry_version": 1, "name": "bank", "version": version, "files": files}
        (place / "version.json").write_text(json.dumps(document), encoding="utf-8")
    point(folder, VERSIONS[0])
    return folder


def point(registry: Path, version: str) -> None:
    """Makes a version the champion."""
    new = registry / "bank" / "new.json"
    new.write_text(
        json.dumps({"registry_version": 1, "name": "bank", "version": version, "canary": None}), encoding="utf-8"
    )
    new.rename(registry / "bank" / "champion.json")


class Load:
    """What a load measured."""

    def __init__(self, request: bytes, seconds: float, rate: float | None) -> None:
        self.request, self.seconds = request, seconds
        self.pause = CONNECTIONS / rate if rate else 0.0
        self.times: list[float] = []
        self.failures = self.changes = 0
        self.end = 0.0

    @property
    def per_second(self) -> float:
        return len(self.times) / self.seconds

    def __str__(self) -> str:
        times = sorted(self.times)
        figures = [times[int(len(times) * share)] * 1000 for share in (0.5, 0.99)] + [times[-1] * 1000]
        milliseconds = " | ".join(f"{each:.2f} ms" for each in figures)
        return f"{self.per_second:,.0f} | {milliseconds} | {len(times):,} | {self.failures} | {self.changes} |"


class Caller(asyncio.Protocol):
    """One connection: sends a request, waits for the whole answer, sends the next."""

    def __init__(self, load: Load, number: int) -> None:
        """Makes a connection.

        Args:
            load: what it sends, how often, and what it finds.
            number: its number; at a given rate the connections take turns.
        """
        self.load, self.answer = load, b""
        self.delay = load.pause * number / CONNECTIONS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.due = time.perf_counter() + self.delay
        asyncio.get_running_loop().call_later(self.delay, self.send)

    def send(self) -> None:
        """Sends the next request. Its time counts from when it was due, so a slow answer also counts for those behind it."""
        if time.perf_counter() >= self.load.end:
            self.transport.close()
            return
        self.began = self.due if self.load.pause else time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self.load.times.append(time.perf_counter() - self.began)
        self.load.failures += head[9:12] != b"200"
        self.answer = b""
        self.due += self.load.pause
        wait = self.due - time.perf_counter()
        if self.load.pause and wait > 0:
            asyncio.get_running_loop().call_later(wait, self.send)
        else:
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.load.failures += error is not None or time.perf_counter() < self.load.end


def measure_server(registry: Path, row: dict[str, Any], seconds: float, rate: float | None) -> Load:
    """Starts the server on the last core, loads it for some seconds, and changes its champion meanwhile."""
    body = json.dumps({"instances": [row]}).encode()
    head = f"POST /v1/models/bank:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    load = Load(head.encode() + body, seconds, rate)
    cores = sorted(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(cores[-1]), sys.executable, "-m", "serving"]
    command += [f"--registry={registry}", "--model=bank", f"--port={PORT}"]
    with (registry / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_until_ready()
            asyncio.run(run_load(load, registry))
        finally:
            server.terminate()
    return load


def wait_until_ready() -> None:
    """Waits until the server answers."""
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/health/ready"):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server does not start")


async def run_load(load: Load, registry: Path) -> None:
    """Sends requests on all connections until the time is over."""
    loop = asyncio.get_running_loop()
    load.end = time.perf_counter() + load.seconds
    for number in range(CONNECTIONS):
        await loop.create_connection(lambda number=number: Caller(load, number), "127.0.0.1", PORT)  # type: ignore[misc]
    while (left := load.end - time.perf_counter()) > CHANGE_SECONDS:
        await asyncio.sleep(min(left, CHANGE_SECONDS))
        load.changes += 1
        point(registry, VERSIONS[load.changes % 2])
    await asyncio.sleep(max(0.0, load.end - time.perf_counter()) + 0.5)


if __name__ == "__main__":
    main()
