"""Steps as clients of a real Spark Connect server, in an environment with the extra `connect`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kfp_pipeline.runtime.spark_connect.runner import SparkConnectRunner
from spark_jobs.errors import InputError

PROJECT = Path(__file__).resolve().parents[4]
DATA = [str(PROJECT / "data/bank_sample.csv"), "--spec", str(PROJECT / "data/bank.toml")]
TOKEN = "token-of-the-test"


@pytest.mark.parametrize("url", ["sc://", "sc://host:port", "sc://host:123456", "sc://host:70000", "sc://user@host:1"])
def test_a_url_that_is_none_is_refused_with_one_that_is(url: str) -> None:
    with pytest.raises(InputError, match="write sc://HOST:PORT, such as sc://localhost:15002"):
        SparkConnectRunner(url)


def test_a_token_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="SPARK_CONNECT_AUTHENTICATE_TOKEN") as caught:
        SparkConnectRunner(f"sc://host:15002/;use_ssl=true;token={TOKEN}")
    assert TOKEN not in str(caught.value)


def test_without_the_packages_of_a_client_they_are_named(tmp_path: Path) -> None:
    done = kfp_run(sys.executable, tmp_path, "sc://localhost:15002")
    assert (done.returncode, "pip install" in done.stderr, "grpcio" in done.stderr) == (2, True, True)


@dataclass
class Server:
    """A Spark Connect server.

    Attributes:
        python: of an environment with the extra.
        process: the server.
        port: its port.
    """

    python: str
    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"sc://localhost:{self.port}"  # to another name PySpark sends a token over TLS only


def kfp_run(python: str, folder: Path, spark: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "kfp_pipeline", "run", *DATA, "--json", "--spark", spark, *words]
    environment = {**os.environ, "SPARK_CONNECT_AUTHENTICATE_TOKEN": TOKEN, **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with the extra, in the locked versions."""
    program = shutil.which("uv") or shutil.which(PROJECT / ".tools/uv/bin/uv")
    if not program:
        pytest.skip("uv is not on PATH")
    folder = tmp_path_factory.mktemp("connect") / "environment"
    command = [program, "sync", "--quiet", "--frozen", "--no-dev", "--extra", "connect", "--python", sys.executable]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and re.search("error sending request|[Ff]ailed to fetch|dns error", done.stderr):
        pytest.skip("no package index answers")
    assert done.returncode == 0, done.stderr
    return str(folder / "bin/python")


@contextlib.contextmanager
def running_server(python: str, folder: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = subprocess.run(
        [python, "-c", "import pyspark; print(pyspark.__path__[0])"], capture_output=True, text=True, check=True
    )
    conf = {
        "spark.connect.grpc.binding.address": "localhost",
        "spark.connect.grpc.binding.port": port,
        "spark.connect.authenticate.token": TOKEN,
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
    }
    command = [
        f"{home.stdout.strip()}/bin/spark-submit",
        "--class=org.apache.spark.sql.connect.service.SparkConnectServer",
        "--master=local[2]",
        "--driver-memory=1g",
        *[word for key, value in conf.items() for word in ("--conf", f"{key}={value}")],
        "spark-internal",
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.3)
        yield Server(python, process, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def server(environment: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(environment, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.mark.slow
def test_the_metrics_are_those_of_a_classic_session(server: Server, tmp_path: Path) -> None:
    connect = kfp_run(server.python, tmp_path, server.url)
    assert connect.returncode == 0, connect.stderr
    classic = kfp_run(sys.executable, tmp_path, "local[2]", "--no-cache")
    assert json.loads(connect.stdout)["metrics"] == json.loads(classic.stdout)["metrics"]


@pytest.mark.slow
def test_a_wrong_token_is_told(server: Server, tmp_path: Path) -> None:
    done = kfp_run(server.python, tmp_path, server.url, SPARK_CONNECT_AUTHENTICATE_TOKEN="another")
    assert done.returncode == 2, done.stderr
    assert "refuses the token; set SPARK_CONNECT_AUTHENTICATE_TOKEN" in done.stderr
    assert "another" not in done.stderr


@pytest.mark.slow
def test_a_server_that_is_not_there_is_told_at_once(environment: str, tmp_path: Path) -> None:
    began = time.monotonic()
    done = kfp_run(environment, tmp_path, "sc://127.0.0.1:1")
    assert (done.returncode, time.monotonic() - began < 30) == (2, True), done.stderr
    assert "no Spark Connect server answers there (Connection refused)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_falls_silent_in_a_step_is_told(
    environment: str, tmp_path: Path, blow: signal.Signals
) -> None:
    """PySpark notices a silent one after 80 s, a time that the test makes short."""
    with running_server(environment, tmp_path) as server:

        def strike() -> None:
            log = tmp_path / "runs"
            while not list(log.rglob("preprocess.log")):
                time.sleep(0.2)
            time.sleep(4)
            os.killpg(server.process.pid, blow)

        threading.Thread(target=strike, daemon=True).start()
        began = time.monotonic()
        url = f"{server.url}/;grpc_keepalive_time_ms=10000;grpc_keepalive_timeout_ms=5000"
        done = kfp_run(environment, tmp_path, url, "--no-cache")
        assert done.returncode == 1, done.stdout
        assert "the Spark Connect server does not answer" in done.stderr
        assert time.monotonic() - began < 300
