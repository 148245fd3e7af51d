"""One Spark session for all steps of a run, and a session that is kept for later runs.

The session lives in a process of its own, `spark_jobs.session_driver`, which listens at a Unix socket in a folder that only this user can
open. So no port and no token are needed. A file in the run's folder says where the socket is; the tasks of the run find it there.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kfp_pipeline.runtime.processes import child_process
from kfp_pipeline.runtime.scratch import locked_folder

SESSION_NAME = "session.json"
"""File in a run's folder, and for the kept session in the cache, that says where the session's socket is."""
SOCKET_NAME = "socket"
ANSWER_SECONDS = 5.0
"""Time within which a session must answer how it is; it does so while a step runs, too."""


class Submit(Protocol):
    """What knows the options and the environment of spark-submit: `SparkSubmitRunner`."""

    def options(self, folder: str, *, short: bool) -> list[str]:
        """The options of spark-submit; `folder` is for Spark's temporary files."""

    def environment(self) -> dict[str, str]:
        """The environment of spark-submit."""


@dataclass(frozen=True)
class SharedSession:
    """Where a session is.

    Attributes:
        folder: its temporary folder, with the socket.
        log: path of its log.
        identity: digest of what it runs: the code, Spark, the memory; a run uses a kept session only if its own is equal.
        idle_minutes: after this time without a step it ends; 0: with its run.
    """

    folder: str
    log: str
    identity: str = ""
    idle_minutes: float = 0

    def save(self, path: Path) -> None:
        """Writes the file that tells where the session is; only this user can read it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> SharedSession | None:
        """Reads that file; None if there is none, or if it is damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def state(self) -> str:
        """Asks the session: `starting`, `idle` or `busy`; `ended` if it does not answer."""
        with suppress(OSError, ValueError, KeyError), self._connection() as connection:
            connection.settimeout(ANSWER_SECONDS)
            ask(connection, ask="status")
            return str(json.loads(connection.makefile("rb").readline())["state"])
        return "ended"

    def stop(self) -> None:
        """Asks the session to end, and waits until it has ended."""
        with suppress(OSError), self._connection() as connection:
            ask(connection, ask="stop")
            connection.settimeout(2 * ANSWER_SECONDS)
            connection.recv(1)  # the kernel closes the connection when the process ends
        shutil.rmtree(self.folder, ignore_errors=True)

    def run_step(self, program_arguments: Sequence[str], log_path: Path) -> int | None:
        """Runs a step in the session and waits for its end.

        Args:
            program_arguments: the step and its arguments.
            log_path: file to which the step's log is appended.

        Returns:
            The exit code, or -9 if the session was killed while the step ran; None if the session did not take the step: it has ended,
            or another run uses it.
        """
        started = False
        with suppress(OSError), self._connection() as connection:
            ask(connection, ask="step", argv=list(program_arguments), log=str(log_path.absolute()))
            for line in connection.makefile("rb"):
                answer = json.loads(line)
                if "exit_code" in answer:
                    return int(answer["exit_code"])
                if "busy" in answer:
                    return None
                started = True
        return -signal.SIGKILL if started else None

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection, short_path(Path(self.folder)) as folder:
            connection.connect(f"{folder}/{SOCKET_NAME}")
            yield connection


@contextmanager
def run_session(submit: Submit, log_path: Path, *, short: bool) -> Iterator[SharedSession]:
    """Starts the session of one run, and ends it after the block.

    A step that comes before the session is ready waits for it. If the session cannot start, its log says why, and the steps start Spark
    themselves.

    Args:
        submit: knows the options of spark-submit.
        log_path: path of its log.
        short: whether the steps of the run are short, see `SparkSubmitRunner.is_short`.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ends:
        with _prepared(submit, log_path, 0, short=short) as (session, start):
            ends.callback(shutil.rmtree, session.folder, ignore_errors=True)
            log = ends.enter_context(log_path.open("wb"))
            ends.enter_context(child_process(**start, output=log, leads_group=True))
        yield session


def start_kept_session(submit: Submit, log_path: Path, identity: str, idle_minutes: float) -> SharedSession:
    """Starts a session that outlives this process, and returns at once.

    Args:
        submit: see `run_session`.
        log_path: see `run_session`.
        identity: see `SharedSession`.
        idle_minutes: see `SharedSession`; at least 1.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with _prepared(submit, log_path, idle_minutes, short=True) as (session, start), log_path.open("wb") as log:
        subprocess.Popen(
            start["command"],
            env=start["environment"],
            pass_fds=start["inherited_fds"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return replace(session, identity=identity)


@contextmanager
def _prepared(
    submit: Submit, log_path: Path, idle_minutes: float, *, short: bool
) -> Iterator[tuple[SharedSession, dict[str, Any]]]:
    """Makes the folder and the socket of a session; yields the session and the arguments that start its process.

    This process makes the socket, so that a client can connect before the session's process listens. That process inherits the socket and
    the lock of the folder, so that both last as long as it does.
    """
    folder, lock = locked_folder()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            with short_path(folder) as path:
                listener.bind(f"{path}/{SOCKET_NAME}")
            listener.listen()
            words = [str(listener.fileno()), str(log_path.absolute()), str(60 * idle_minutes)]
            arguments = shlex.join([*submit.options(str(folder), short=short), "pyspark-shell"])
            start = {
                "command": [sys.executable, "-m", "spark_jobs.session_driver", *words],
                "environment": {**submit.environment(), "PYSPARK_SUBMIT_ARGS": arguments, "TMPDIR": str(folder)},
                "inherited_fds": [listener.fileno(), lock],
            }
            yield SharedSession(str(folder), str(log_path.absolute()), idle_minutes=idle_minutes), start
    finally:
        os.close(lock)


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Yields a path of the folder that fits into the address of a Unix socket, which holds 108 bytes on Linux and 104 on macOS."""
    if len(os.fsencode(folder)) < 90 or sys.platform != "linux":
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def ask(connection: socket.socket, **words: Any) -> None:
    """Sends one request."""
    connection.sendall(json.dumps(words).encode() + b"\n")
