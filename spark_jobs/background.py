"""Runs one Spark job in a background thread while the main thread runs another.

A small table lies in one partition, so one Spark job keeps only one core busy, and saving a model mostly waits for storage. A large table
keeps all cores busy, so two jobs at a time would gain nothing and need twice the memory; there the work runs later, in the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pyspark.sql import is_remote

Value = TypeVar("Value")


class BackgroundWork(Generic[Value]):
    """Work that runs in a thread for a small table, and for a large one when its value is asked for."""

    def __init__(self, work: Callable[[], Value], *, small: bool) -> None:
        """Starts a thread if the table is small.

        Args:
            work: the function to call.
            small: whether the table is small.
        """
        self._work = work
        self._value: Value
        self._error: BaseException | None = None
        # A daemon thread: if the main thread fails, the process ends without waiting for this one.
        self._thread = threading.Thread(target=self._run, daemon=True)
        if small and not is_remote():  # a session of Spark Connect belongs to the thread that has built it
            self._thread.start()

    def value(self) -> Value:
        """Waits until the work is done and returns its value, or raises its error."""
        if self._thread.ident is None:
            self._run()
        else:
            self._thread.join()
        if self._error:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
