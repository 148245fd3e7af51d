"""Watches one object of a cluster in a thread of its own, by one request for minutes that is resumed where it was cut.

Whoever waits hears of a change at once and asks for nothing meanwhile.
"""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType

from kubernetes.client.exceptions import ApiException

from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.kubernetes_api import Cluster, Document, GoneError, api_error, transient_errors_ignored

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 8.0
SHORT_SECONDS = 1.0
"""A watch that ends sooner has not worked, however it ended; the next one waits a moment."""


class ObjectWatch:
    """An object that is being watched; a context that ends the thread."""

    def __init__(self, cluster: Cluster, kind: str, found: Document, window_seconds: float) -> None:
        """Args: cluster; kind, its path; found, the object as it was read; window_seconds, of one request."""
        self._cluster, self._kind, self._window = cluster, kind, window_seconds
        self._name: str = found["metadata"]["name"]
        self._latest: Document | None = found
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
        """The object as it was last seen; None if it was seen to be gone."""
        return self._latest

    def wait(self, seconds: float) -> bool:
        """Waits until the object has changed, or so long; returns whether it has.

        Raises:
            StepError: the server refuses the watch, or has been away for longer than the cluster's patience.
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
                self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come back at once
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _watch_once(self) -> None:
        """One request, from the last version on; the object is read anew if it was gone or that version is too old."""
        if self._version is None:
            self._publish(self._cluster.get(self._kind, self._name))
        if self._version is None:
            return
        try:
            for what, item in self._cluster.watch(self._kind, self._name, self._version, self._window):
                if self._stop.is_set():
                    return
                if what == "BOOKMARK":  # nothing has changed up to that version
                    self._version = item["metadata"]["resourceVersion"]
                else:
                    self._publish(None if what == "DELETED" else item)
        except GoneError:
            self._version = None

    def _publish(self, item: Document | None) -> None:
        self._latest, self._version = item, item["metadata"]["resourceVersion"] if item else None
        self._changed.set()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._changed.set()
