"""A Kubernetes watch on one object, in a background thread: a request lasts for minutes and is resumed when it breaks.

The waiting thread learns of a change at once and sends no requests meanwhile, which matters with many tasks on one API server.
"""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType

from kubernetes.client.exceptions import ApiException

from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.kubernetes_api import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Cluster,
    Document,
    GoneError,
    api_error,
    transient_errors_ignored,
)

READS_BEFORE_GONE = 4
"""How often a read must fail with 404 in a row before the object counts as deleted."""
SHORT_SECONDS = 1.0
"""A watch request that ends sooner counts as failed, even without an error, and the next one waits."""


class ObjectWatch:
    """A watch on one object; a context manager that starts the thread and stops it."""

    def __init__(self, cluster: Cluster, kind: str, found: Document, window_seconds: float) -> None:
        """Makes the watch.

        Args:
            cluster: the object's namespace.
            kind: path of the object's kind.
            found: the object as it was read; the watch continues from its resource version.
            window_seconds: duration of one watch request.
        """
        self._cluster, self._kind, self._window = cluster, kind, window_seconds
        self._name: str = found["metadata"]["name"]
        self._latest: Document | None = found
        self._returned: Document | None = found
        self._read_at = time.monotonic()
        self._version: str | None = found["metadata"]["resourceVersion"]
        self._error: Exception | None = None
        self._changed, self._stop = threading.Event(), threading.Event()

    def __enter__(self) -> ObjectWatch:
        threading.Thread(target=self._run, name=f"watch {self._name}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    @property
    def latest(self) -> Document | None:
        """The object as the watch last reported it; None if it was deleted."""
        return self._latest

    def current(self, read_interval_seconds: float, pause_seconds: float) -> Document | None:
        """The object as the watch last reported it; it is read if the watch reports no change for long, or its deletion.

        Args:
            read_interval_seconds: time without a change after which it is read.
            pause_seconds: longest pause between reads that find nothing.

        Returns:
            The object; None only if several reads in a row find nothing, because a wrong 404 would fail hours of work.
        """
        found = self._latest
        if found and found != self._returned:
            self._read_at = time.monotonic()
        if not found or time.monotonic() - self._read_at >= read_interval_seconds:
            self._read_at = time.monotonic()
            found = self._read(pause_seconds)
        self._returned = found
        return found

    def _read(self, pause_seconds: float) -> Document | None:
        for _ in range(READS_BEFORE_GONE):
            found = self._cluster.get(self._kind, self._name)
            if found:
                return found
            time.sleep(min(0.3, pause_seconds))
        return None

    def wait(self, seconds: float) -> bool:
        """Waits until the object changes, at most `seconds`; returns whether it has changed.

        Raises:
            StepError: the API server refuses the watch, or was unavailable for longer than `Cluster.patience_seconds`.
        """
        changed = self._changed.wait(seconds)
        self._changed.clear()
        if self._error:
            raise self._error
        return changed

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with transient_errors_ignored():
                    self._watch_once()
            except ApiException as error:
                self._fail(api_error(error, self._cluster.namespace))
                return
            except StepError as error:
                self._fail(error)
                return
            pause = FIRST_PAUSE_SECONDS if time.monotonic() - began > SHORT_SECONDS else pause
            if time.monotonic() - began < SHORT_SECONDS:
                self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, so that not all tasks come back at once
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _watch_once(self) -> None:
        """Sends one watch request from the last resource version; first reads the object if it was deleted or that version was too old."""
        if self._version is None:
            self._publish(self._cluster.get(self._kind, self._name))
        if self._version is None:
            return
        try:
            for event_type, item in self._cluster.watch(self._kind, self._name, self._version, self._window):
                if self._stop.is_set():
                    return
                if event_type == "BOOKMARK":  # no change up to this version
                    self._version = item["metadata"]["resourceVersion"]
                else:
                    self._publish(None if event_type == "DELETED" else item)
        except GoneError:
            self._version = None

    def _publish(self, item: Document | None) -> None:
        self._latest, self._version = item, item["metadata"]["resourceVersion"] if item else None
        self._changed.set()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._changed.set()
