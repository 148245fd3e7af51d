"""A Spark driver that runs steps one after another in one Spark session, for a run or for several runs.

The start of a JVM, of Spark and the first use of its classes take most of the time of a step on small data. A session that stays pays for
them once.

    python -m spark_jobs.session_driver LISTENER LOG IDLE_SECONDS

The program takes requests at a Unix socket, each a line of JSON, and answers each by lines of JSON:

| request | answers |
|---|---|
| `{"ask": "status"}` | `{"state": "starting"}`, or `idle`, or `busy` |
| `{"ask": "stop"}` | none; the driver ends, and a step in progress with it |
| `{"ask": "step", "argv": [...], "log": PATH}` | `{"busy": true}`; or `{"started": true}` and later `{"exit_code": N}` |

A client that closes its connection cancels its step. A driver whose step had a fault ends, because its JVM may be short
of memory or broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spark_jobs.contract import Step
from spark_jobs.errors import EXIT_FAULT
from spark_jobs.step_command import run_step

MAX_REQUEST_BYTES = 1 << 20
REQUEST_SECONDS = 5.0
"""Time within which a client must have sent its request."""
CANCEL_SECONDS = 0.2
"""Between two attempts to cancel the Spark jobs of a step: a step may start another job after the first attempt."""


class Work:
    """A step that waits for the session or runs in it, and the connection of the client that asked for it."""

    def __init__(self, connection: socket.socket, argv: list[str], log_path: Path) -> None:
        """Makes it; see the module's table for the arguments."""
        self.connection, self.argv, self.log_path = connection, argv, log_path
        self.cancelled, self.ended = False, threading.Event()


class SessionDriver:
    """Holds the session and runs the steps in the main thread; each connection has a thread of its own."""

    def __init__(self, listener: socket.socket, log_path: Path, idle_seconds: float) -> None:
        """Makes the driver.

        Args:
            listener: Unix socket that listens already, so that a client can connect before the session has started.
            log_path: file to which this process and its JVM write; the lines of a step are copied into the step's log.
            idle_seconds: after this time without a step the driver ends; 0: never.
        """
        self._listener, self._log_path, self._idle_seconds = listener, log_path, idle_seconds
        self._free = threading.Lock()
        self._waiting: queue.Queue[Work] = queue.Queue()
        self._session: Any = None
        self._ready = False

    def serve(self) -> str:
        """Runs steps until it is idle for too long or a step has had a fault; returns why it ended."""
        threading.Thread(target=self._accept, daemon=True).start()
        from spark_jobs.session import build_session, local_checkpoints  # noqa: PLC0415 - a client can connect while pyspark is imported
        from spark_jobs.step_execution import step_module  # noqa: PLC0415

        self._session = build_session("session", checkpoints=local_checkpoints())
        try:
            for step in Step:
                step_module(step)
            self._ready = True
            while True:
                try:
                    work = self._waiting.get(timeout=self._idle_seconds or None)
                except queue.Empty:
                    return f"no step came for {self._idle_seconds / 60:.0f} minutes"
                if self._execute(work) == EXIT_FAULT and not work.cancelled:
                    return f"step {work.argv[0]} had a fault"
        finally:
            self._session.stop()

    def _execute(self, work: Work) -> int:
        """Runs a step and returns its exit code.

        If the JVM has ended, this raises an error, and the driver ends without an answer, as a killed driver does.
        """
        self._session.conf.get("spark.app.id")
        code = EXIT_FAULT
        if not work.cancelled:
            answer(work.connection, started=True)
            with self._output_goes_to(work.log_path):
                code = run_step(work.argv, self._session)
            self._session.catalog.clearCache()
        work.ended.set()
        self._free.release()  # before the answer: the client's next step may come at once
        answer(work.connection, exit_code=code)
        return code

    @contextlib.contextmanager
    def _output_goes_to(self, path: Path) -> Iterator[None]:
        """Lets this process write to another file for a while, to which then what the JVM has written is added.

        If that fails, for example because the disk is full, the step runs all the same: its own writing will say why.
        """
        position = self._log_path.stat().st_size
        try:
            target = path.open("ab")
        except OSError:
            yield
            return
        own = os.dup(sys.stderr.fileno())
        with contextlib.suppress(OSError), target:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(target.fileno(), stream.fileno())
            try:
                yield
            finally:
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError):
                        stream.flush()
                    os.dup2(own, stream.fileno())
                os.close(own)
                with self._log_path.open("rb") as of_jvm:
                    of_jvm.seek(position)
                    target.write(of_jvm.read())

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve_client, args=(connection,), daemon=True).start()

    def _serve_client(self, connection: socket.socket) -> None:
        # A client may go away at any moment, or send anything; then nobody is left to be answered.
        with connection, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            connection.settimeout(REQUEST_SECONDS)
            request = json.loads(connection.makefile("rb").readline(MAX_REQUEST_BYTES))
            connection.settimeout(None)
            if request["ask"] == "status":
                answer(connection, state="starting" if not self._ready else "busy" if self._free.locked() else "idle")
            elif request["ask"] == "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            elif request["ask"] == "step":
                self._take(Work(connection, request["argv"], Path(request["log"])))

    def _take(self, work: Work) -> None:
        """Hands a step to the main thread, and cancels it if the client closes the connection before its end."""
        if not self._free.acquire(blocking=False):
            answer(work.connection, busy=True)
            return
        self._waiting.put(work)
        work.connection.recv(1)  # returns when the client closes the connection
        self._cancel(work)

    def _cancel(self, work: Work) -> None:
        """Ends a step by cancelling its Spark jobs, if it has not ended."""
        work.cancelled = not work.ended.is_set()
        while not work.ended.wait(CANCEL_SECONDS):
            self._session.sparkContext.cancelAllJobs()


def answer(connection: socket.socket, **words: Any) -> None:
    """Sends one answer, unless the client has gone."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(words).encode() + b"\n")


def main(listener: str, log_path: str, idle_seconds: str) -> int:
    """Serves until the end; on SIGTERM this process and its JVM are killed."""
    if os.getpgrp() != os.getpid():  # never kill the group of the parent process
        os.setpgrp()
    # A JVM that is still starting would not notice that this process has ended, and stay.
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    began = time.strftime("%H:%M:%S")
    driver = SessionDriver(socket.socket(fileno=int(listener)), Path(log_path), float(idle_seconds))
    reason = driver.serve()
    sys.stderr.write(f"the session that was started at {began} ends: {reason}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
