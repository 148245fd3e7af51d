"""Measures the server under load while its champion changes every ten seconds.

    python -m benchmarks.serving EVALUATE_OUTPUT [--minutes 10]
    python -m benchmarks.serving EVALUATE_OUTPUT --capture-rounds 10   # the half load without and with --capture, in turns

EVALUATE_OUTPUT is that of a run, such as runs/RUN/pipeline/.../evaluate/evaluation. The run is registered twice in a registry of its own,
and a process promotes the two versions in turn. The server has the last core for itself, the load comes from the first. Each request
holds one of 1,000 rows; what is sent is made before. First all connections send as fast as they are answered, then requests come at half
that rate, at random times. Their time counts from when they were due, so that a slow answer counts for those behind it, too.

The load comes from plain sockets and `select`, whose timer is exact to 0.1 ms; that of an event loop is 1 ms, more than an answer takes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from benchmarks.scoring import read_rows
from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place, place_of
from spark_jobs.registry.version_document import version_id
from spark_jobs.registry.versions import RunOutputs

PORT = 8099
MODEL = "bank"
CONNECTIONS = 8
CHANGE_SECONDS = 10
FULL_SECONDS = 15
ROUND_SECONDS = 15
SUMMED = ("seconds", "times", "failures", "answers", "switches", "server_seconds", "promotions")
GRACE_SECONDS = 10
"""How long the last answers may take; a request without an answer by then has failed."""


@dataclass
class Load:
    """A load, and what came of it.

    Attributes:
        requests: what is sent, in turn.
        seconds: how long.
        rate: requests a second; None: each connection sends as soon as it is answered.
        times: seconds from when a request was due to its answer.
        failures: requests without an answer of status 200 by one of the two versions, and connections that were closed.
        answers: by version.
        switches: how often the version of an answer was another one than that of the answer before.
        server_seconds: processor time of the server.
        promotions: how often the champion was changed.
    """

    requests: Sequence[bytes]
    seconds: float
    rate: float | None = None
    times: array[float] = field(default_factory=lambda: array("d"))
    failures: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    server_seconds: float = 0.0
    promotions: int = 0

    @property
    def per_second(self) -> float:
        return len(self.times) / self.seconds

    def __str__(self) -> str:
        times = sorted(self.times)
        figures = [times[int(len(times) * share)] * 1000 for share in (0.5, 0.99, 0.999)] + [times[-1] * 1000]
        shown = " | ".join(f"{each:.2f} ms" for each in figures)
        processor = f"{self.server_seconds / len(times) * 1e6:.0f} µs"
        return f"{self.per_second:,.0f} | {shown} | {processor} | {len(times):,} | {self.failures} | {self.promotions}, {self.switches} |"


class Connection:
    """A connection to the server, with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=GRACE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began, self._received = 0.0, b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes, began: float) -> None:
        self.began, self._received = began, b""
        self.socket.sendall(request)

    def receive(self) -> tuple[bytes, bytes] | None:
        """Reads what has come; returns head and body once they are whole.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(_header(head, b"content-length")):
            return None
        return head, body


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def drive(load: Load, known: Sequence[str], port: int = PORT) -> None:
    """Sends the requests of a load and waits for their answers.

    Args:
        load: the load; its counts are filled in.
        known: the versions that may answer.
        port: of the server on this machine.
    """
    chance, number, last = random.Random(1), 0, b""
    idle, busy = deque(Connection(port) for _ in range(CONNECTIONS)), set[Connection]()
    due = time.perf_counter()
    end = due + load.seconds
    while (now := time.perf_counter()) < end or (busy and now < end + GRACE_SECONDS):
        while idle and now < end and (load.rate is None or due <= now):
            connection = idle.popleft()
            connection.send(load.requests[number % len(load.requests)], due if load.rate else now)
            number += 1
            busy.add(connection)
            due += chance.expovariate(load.rate) if load.rate else 0.0
        wait = max(0.0, min(due, end) - now) if idle and load.rate and now < end else 1.0
        for connection in select.select(busy, [], [], wait)[0]:
            try:
                answer = connection.receive()
            except ConnectionError:
                load.failures += 1
                busy.remove(connection)
                idle.append(Connection(port))
                continue
            if answer is None:
                continue
            load.times.append(time.perf_counter() - connection.began)
            busy.remove(connection)
            idle.append(connection)
            head, body = answer
            version = _header(head, b"x-model-version")
            load.failures += head[9:12] != b"200" or version.decode() not in known or b'"predictions"' not in body
            load.answers[version.decode()] += 1
            load.switches += version != last != b""
            last = version
    load.failures += len(busy)
    for connection in (*idle, *busy):
        connection.socket.close()


def make_request(row: dict[str, Any]) -> bytes:
    """Returns the bytes of a request of one row."""
    body = json.dumps({"instances": [row]}).encode()
    head = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def register_twice(registry: Place, evaluate_output: Path) -> list[str]:
    """Registers a run as two versions, the second as if it had been evaluated a second later, and promotes the first."""
    first = versions.collect(MODEL, RunOutputs.of_evaluation(str(evaluate_output)))
    later = (datetime.fromisoformat(first.document["created"]) + timedelta(seconds=1)).isoformat()
    identity = version_id(later, first.document["files"])
    second = replace(first, document={**first.document, "created": later, "version": identity})
    for candidate in (first, second):
        versions.write(registry, candidate)
    pointer.promote(registry, MODEL, first.version)
    return [first.version, second.version]


def promote_in_turn(registry_uri: str, known: Sequence[str], stop: Event, count: Any) -> None:
    """Changes the champion every ten seconds until it is told to stop."""
    registry = place_of(registry_uri)
    while not stop.wait(CHANGE_SECONDS):
        count.value += 1
        pointer.promote(registry, MODEL, known[count.value % 2], why="benchmark")


def measure(load: Load, registry: Path, known: Sequence[str], core: int, *options: str) -> Load:
    """Starts the server on a core of its own, with further options, and loads it while another process changes its champion."""
    context = multiprocessing.get_context("spawn")
    stop, count = context.Event(), context.Value("i", 0)
    command = ["taskset", "-c", str(core), sys.executable]
    command += ["-m", "serving", f"--registry={registry}", f"--model={MODEL}", f"--port={PORT}", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        promoter = context.Process(target=promote_in_turn, args=(str(registry), known, stop, count))
        try:
            wait_until_ready()
            promoter.start()
            began = sum(psutil.Process(server.pid).cpu_times()[:2])
            drive(load, known)
            load.server_seconds = sum(psutil.Process(server.pid).cpu_times()[:2]) - began
            load.promotions = count.value
        finally:
            stop.set()
            if promoter.pid:
                promoter.join()
            server.terminate()
    return load


def compare_capture(half: Load, registry: Path, known: Sequence[str], core: int, rounds: int) -> int:
    """Prints a line for the load without and one with --capture, and the ratios; returns the number of failures.

    The two take turns, so that other work on the machine falls on both.
    """
    kinds = {"half, without --capture": (), "half, with --capture": (f"--capture={registry / 'counts'}",)}
    sums = {kind: replace(half, seconds=0.0, times=array("d"), answers=Counter()) for kind in kinds}
    ratios: dict[float, list[float]] = {0.5: [], 0.99: []}
    for _ in range(rounds):
        pair: list[list[float]] = []
        for kind, options in kinds.items():
            one = replace(half, seconds=ROUND_SECONDS, times=array("d"), answers=Counter())
            added, every = vars(measure(one, registry, known, core, *options)), vars(sums[kind])
            every |= {name: every[name] + added[name] for name in SUMMED}
            pair.append(sorted(one.times))
        for share, found in ratios.items():
            without, with_it = (times[int(len(times) * share)] for times in pair)
            found.append(with_it / without)
    for kind, load in sums.items():
        print(f"| {kind} | {load}", flush=True)
    shown = (f"p{100 * share:g} {statistics.median(found):.2f}" for share, found in ratios.items())
    without, with_it = (load.server_seconds / len(load.times) for load in sums.values())
    print(
        f"\nwith --capture by without, median of {rounds} turns of {ROUND_SECONDS} s each: {', '.join(shown)}; "
        f"processor time of the server {with_it / without:.2f}"
    )
    return sum(load.failures for load in sums.values())


def wait_until_ready() -> None:
    """Waits until the server answers."""
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/health/ready"):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server does not start")


def main() -> int:
    """Prints a table of the two loads; returns 1 if a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluate_output", type=Path)
    parser.add_argument("--table", type=Path, default=Path("data/bank_sample.csv"))
    parser.add_argument("--minutes", type=float, default=10.0, help="duration of the half load (default 10)")
    parser.add_argument(
        "--capture-rounds",
        type=int,
        default=0,
        help="compare the half load without and with --capture in so many turns",
    )
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        registry = place_of(folder)
        known = register_twice(registry, arguments.evaluate_output)
        where = f"{versions.folder_of(MODEL, known[0])}/scorecard.json"
        requests = [make_request(row) for row in read_rows(arguments.table, json.loads(registry.read(where)))]
        os.sched_setaffinity(0, cores[:1])
        print(
            f"other work on the machine before: load {os.getloadavg()[0]:.1f} on {len(cores)} processors\n\n"
            "| load | requests a second | p50 | p99 | p99.9 | longest | processor time of the server for a request | answers | failures "
            "| champion changes, seen by callers |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        full = measure(Load(requests, FULL_SECONDS), Path(folder), known, cores[-1])
        print(f"| full, {CONNECTIONS} connections | {full}", flush=True)
        half = Load(requests, arguments.minutes * 60, full.per_second / 2)
        if arguments.capture_rounds:
            failures = compare_capture(half, Path(folder), known, cores[-1], arguments.capture_rounds)
        else:
            failures = measure(half, Path(folder), known, cores[-1]).failures
            print(f"| half | {half}", flush=True)
        print(f"\nload after: {os.getloadavg()[0]:.1f}")
    return int(full.failures + failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
