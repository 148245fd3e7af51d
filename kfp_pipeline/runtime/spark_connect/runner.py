"""Runs each step as a thin client of a Spark Connect server that runs already: `--spark sc://HOST:PORT`.

The step's process has no JVM: it reads and writes the small documents, and the server's Spark the tables and models. So both must see the
same files: the server runs on this machine, or the URIs are in an object store for which the server has its settings and keys.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import socket
import sys
from pathlib import Path

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.processes import child_process
from kfp_pipeline.runtime.spark_submit.runner import local_path, packages_of_extra, spark_home, step_error
from spark_jobs.arguments import StepArgs, to_argv
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Result

DEFAULT_PORT = 15002
CONNECT_SECONDS = 5.0
URL = re.compile(r"sc://(?P<host>\[[^]]+\]|[^:/;?@]+)(:(?P<port>[0-9]{1,5}))?(?P<rest>/.*)?")


class SparkConnectRunner:
    """A `Runner` that runs each step in a session of a Spark Connect server."""

    def __init__(self, url: str) -> None:
        """Makes the runner.

        Args:
            url: `sc://HOST:PORT`, and after a `/` the parameters that PySpark knows, such as `;use_ssl=true`. A token is not among them:
                it would be seen in KFP's UI and in logs. PySpark takes it from the variable SPARK_CONNECT_AUTHENTICATE_TOKEN.

        Raises:
            InputError: the URL is not valid or holds a token, or a package is missing.
        """
        found = URL.fullmatch(url)
        if not found or int(found["port"] or DEFAULT_PORT) > 65535:
            raise InputError(f"--spark={url}: write sc://HOST:PORT, such as sc://localhost:{DEFAULT_PORT}")
        if "token=" in (found["rest"] or ""):
            raise InputError("--spark: a token is a secret; leave ;token= out and set SPARK_CONNECT_AUTHENTICATE_TOKEN")
        spark_home()
        if not importlib.util.find_spec("grpc"):
            packages = shlex.join(packages_of_extra("connect"))
            raise InputError(f"--spark={url} needs more packages; install them with `pip install {packages}`")
        self._url, self._address = url, (found["host"].strip("[]"), int(found["port"] or DEFAULT_PORT))

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""
        self._check_server()
        result_uri = f"{vars(args)['output_uri']}/{RESULT_NAME}"
        remove(result_uri)  # an old result must not count as the result of this attempt
        log_path.parent.mkdir(parents=True, exist_ok=True)
        start = log_path.stat().st_size if log_path.exists() else 0
        command = [sys.executable, "-m", "spark_jobs", step, *to_argv(args)]
        environment = {**os.environ, "SPARK_REMOTE": self._url}
        with log_path.open("ab") as log, child_process(command, output=log, environment=environment) as process:
            code = process.wait()
        text = object_store.read_text(result_uri)
        result = Result.from_json(text) if text else None
        if code == 0 and result and result.status == "succeeded":
            return result
        raise step_error(step, code, result, log_path, start)

    def _check_server(self) -> None:
        """Checks that something listens: PySpark alone would try for minutes.

        Raises:
            InputError: nothing does.
        """
        try:
            socket.create_connection(self._address, CONNECT_SECONDS).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"--spark={self._url}: no Spark Connect server answers there ({reason}); start it, or name another"
            ) from error


def remove(uri: str) -> None:
    """Removes a document, if it exists."""
    if object_store.is_object_store_uri(uri):
        object_store.remove(uri)
    else:
        local_path(uri).unlink(missing_ok=True)
