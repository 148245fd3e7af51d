"""The driver of a Spark session that the steps of one run on a cluster share.

    spark-submit spark_jobs/__main__.py session s3://BUCKET/RUN/session/ID

It takes the requests of the run's tasks from the object store and runs one step after another; `session_requests` describes the documents.
So the start of the operator, of a pod, of the JVM and of Spark is paid once for a run instead of once for each step.

Documents and not a connection, because both sides reach the object store anyway. The driver opens no port to the tasks, so there is none
to protect by a token and a network policy. Whoever can write a request can also write the run's outputs, and a request can name nothing but
a step. And a task that was killed is followed by another which finds the request and the answer of the first.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from spark_jobs import object_store, storage
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, InputError
from spark_jobs.failure_reasons import describe_failure
from spark_jobs.object_names import is_object_store_uri
from spark_jobs.result import Failure, write_termination_message
from spark_jobs.session import build_session, local_checkpoints
from spark_jobs.session_requests import (
    ENDED,
    REQUESTS,
    RUNNING,
    SESSION,
    STEPS_NAME,
    STOP,
    StepRequest,
    StepState,
    begin_line,
    end_line,
    request_uri,
    steps_to_json,
)
from spark_jobs.step_command import run_step, start_log

log = logging.getLogger("spark_jobs")
MASTER = "local[*]"
"""Spark runs in the driver's pod alone, without executors. The session is for small data: an executor would take longer to start than its
work, and could not write a model to this pod's disk, from which it is uploaded with a tenth of the requests."""
POLL_SECONDS = 1.0
"""Between two looks for a new request. Each is one request to the object store."""
IDLE_SECONDS = 900.0
"""After this time without a step the session ends: its run has been forgotten."""


class ClusterSession:
    """Runs the steps that the tasks of one run ask for."""

    def __init__(self, uri: str, session: Any, run: Callable[[list[str], Any], int] = run_step) -> None:
        """Makes it.

        Args:
            uri: URI of the session's folder.
            session: the Spark session.
            run: runs a step in the session and returns its exit code.
        """
        self._uri, self._session, self._run = uri, session, run
        self._taken: dict[str, str] = {}  # version of each request that was taken, by name
        self._steps: dict[str, StepState] = {}

    def serve(self, idle_seconds: float = IDLE_SECONDS) -> int:
        """Runs steps until the run's last task says stop, or none comes for a time, or a step has a fault; returns the exit code.

        After a fault the JVM may be short of memory or broken, so the next step gets a new session.
        """
        since = time.monotonic()
        while time.monotonic() - since < idle_seconds:
            name = self._next()
            if name == STOP:
                log.info("session: the run has ended")
                return 0
            if name is None:
                time.sleep(POLL_SECONDS)
                continue
            if self._execute(name) == EXIT_FAULT:
                return EXIT_FAULT
            since = time.monotonic()
        log.info("session: no step came for %.0f minutes", idle_seconds / 60)
        return 0

    def _next(self) -> str | None:
        """Returns the name of the first request that is new or has changed, STOP, or None."""
        listed = object_store.from_environment().list_objects(f"{self._uri}/{REQUESTS}")
        names = {key.rpartition("/")[2].removesuffix(".json"): f"{etag} {version}" for key, _, etag, version in listed}
        if STOP in names:
            return STOP
        new = next((name for name, version in names.items() if self._taken.get(name) != version), None)
        if new:
            self._taken[new] = names[new]
        return new

    def _execute(self, name: str) -> int:
        try:
            request = StepRequest.from_json(storage.read_text(request_uri(self._uri, name)))
        except ValueError as error:  # of somebody else; an InputError is one too
            log.warning("session: %s is passed over: %s", name, error)
            return EXIT_INPUT
        self._tell(name, StepState(request, RUNNING))
        log.info(begin_line(name, request))
        code = self._run(list(request.argv), self._session)
        if code == EXIT_FAULT and not self._spark_runs():
            # The pod is being deleted, and Spark has ended before Python: no fault of the step, which another session can do.
            write_termination_message(
                Failure(kind="fault", type="Killed", message=f"Spark was stopped while step {request.argv[0]} ran")
            )
            return EXIT_FAULT
        self._session.catalog.clearCache()
        log.info(end_line(name, request))
        self._tell(name, StepState(request, ENDED, code))
        return code

    def _spark_runs(self) -> bool:
        try:
            return bool(self._session.range(1).count())
        except Exception:  # whatever Py4J and a stopped context raise
            return False

    def _tell(self, name: str, state: StepState) -> None:
        self._steps[name] = state
        storage.write_text(storage.join(self._uri, STEPS_NAME), steps_to_json(self._steps))


def serve(argv: Sequence[str]) -> int:
    """Builds the session and serves the run until its end; returns the exit code.

    Args:
        argv: the URI of the session's folder.
    """
    start_log()
    try:
        if len(argv) != 1 or not is_object_store_uri(argv[0]):
            raise InputError(
                f"{SESSION} takes one argument, the URI of its folder in an object store: s3://BUCKET/RUN/session/ID"
            )
        storage.check_reachable(argv)
        session = build_session(SESSION, storage.session_settings(argv), MASTER, local_checkpoints())
        try:
            return ClusterSession(argv[0], session).serve()
        finally:
            session.stop()
    except Exception as error:  # the task shows the reason
        failure = describe_failure(error)
        log.exception("session: %s", failure.message)
        write_termination_message(failure)
        print(f"spark-kfp: error: {failure.message}", file=sys.stderr)
        return EXIT_INPUT if failure.kind == "input" else EXIT_FAULT
