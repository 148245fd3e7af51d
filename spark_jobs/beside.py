"""Work beside other work: one Spark job while another runs.

A small table lies in one partition, so that one job keeps one core busy, and saving a model is mostly waiting. Large tables fill the
machine by themselves and would only need twice the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Beside(Generic[Value]):
    """Work that was started, or for a large table put off until its value is asked for."""

    def __init__(self, work: Callable[[], Value], *, small: bool) -> None:
        """Starts the work in a thread if `small`; the thread does not outlive the program."""
        self._work = work
        self._value: Value
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        if small:
            self._thread.start()

    def value(self) -> Value:
        """Waits for the work; its value, or its error is raised."""
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
