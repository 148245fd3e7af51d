"""A server as a process, for the tests that need one."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROW = {"age": 30, "income": 700, "kind": "rare"}
Start = Callable[..., tuple[subprocess.Popen[str], int]]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **settings: str) -> tuple[subprocess.Popen[str], int]:
        port = free_port()
        environment = {"PATH": "", "SPARK_KFP_SERVE_POLL_SECONDS": "0.05"}
        environment |= {f"SPARK_KFP_SERVE_{name.upper()}": value for name, value in settings.items()}
        command = [sys.executable, "-P", "-m", "serving", *arguments, f"--port={port}"]
        with (tmp_path / "log").open("w") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True))
        wait_for(lambda: request(port, "GET", "/v2/health/live")[0] == 200)
        return started[-1], port

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_for(happens: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if happens():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s")


def request(port: int, method: str, path: str, document: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, json.dumps(document), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] == b"{" else content.decode()
