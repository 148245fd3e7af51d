"""Streams a driver's log into the task's log and into a file, without losing or repeating a line.

The API server puts a timestamp before each line. When the connection breaks, the log is read again from the last timestamp, and the lines
with that timestamp that were read already are skipped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from kubernetes.client.exceptions import ApiException

from kfp_pipeline.runtime.kubernetes_api import Cluster, transient_errors_ignored
from kfp_pipeline.runtime.spark_operator.application import DRIVER_CONTAINER

PAUSE_SECONDS = 0.5
"""Before the log is requested again."""
LAST_LINES = 30
"""How many lines an error message shows."""


class DriverLog:
    """The log of one driver pod, streamed by a background thread. A context manager, which stops the thread."""

    def __init__(self, cluster: Cluster, path: Path, on_line: Callable[[str], None]) -> None:
        """Makes the stream; `start` begins to read.

        Args:
            cluster: the namespace of the pod.
            path: file to which the lines are appended.
            on_line: called with each line.
        """
        self._cluster, self._path, self._on_line = cluster, path, on_line
        self._since, self._seen_at_since = "", set[str]()
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._begin, self._end = "", ""
        self._inside = True
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DriverLog:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def start(self, pod: str) -> None:
        """Starts the thread, unless it was started before."""
        if self._thread is None:
            arguments = (pod, self._stop.is_set)
            self._thread = threading.Thread(target=self.follow, args=arguments, name="driver-log", daemon=True)
            self._thread.start()

    def take_only_between(self, begin: str, end: str) -> None:
        """Takes only the lines after one that contains `begin` up to one that contains `end`, which ends the stream.

        The other lines of a shared session's driver belong to other tasks. They stay in `tail`, as they may say why the session ended.
        """
        self._begin, self._end, self._inside = begin, end, False

    def finish(self, seconds: float) -> None:
        """Waits at most `seconds` until the last line was read; the driver must have ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def tail(self) -> str:
        """The last lines, for an error message."""
        return "\n".join(self._last)

    def follow(self, pod: str, has_ended: Callable[[], bool]) -> None:
        """Reads the log until `has_ended`, and then once more without following, so that no last line is missing."""
        with self._path.open("a", encoding="utf-8") as file:
            while True:
                stopping, complete = has_ended(), False
                with transient_errors_ignored():
                    try:
                        for line in self._cluster.log(pod, DRIVER_CONTAINER, self._since, follow=not stopping):
                            if self._end and self._end in line:
                                file.flush()
                                return
                            self._take(line, file.write)
                        complete = True
                    except ApiException as error:
                        if error.status == 404:  # the pod was deleted, and its log with it
                            return
                        raise
                file.flush()
                if stopping and complete:
                    return
                self._stop.wait(PAUSE_SECONDS)

    def _take(self, stamped: str, write: Callable[[str], object]) -> None:
        time, _, line = stamped.partition(" ")
        if time < self._since or (time == self._since and stamped in self._seen_at_since):
            return
        if time != self._since:
            self._since, self._seen_at_since = time, set()
        self._seen_at_since.add(stamped)
        self._last.append(line)
        if self._inside:
            write(line + "\n")
            self._on_line(line)
        self._inside = self._inside or self._begin in line
