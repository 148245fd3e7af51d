"""Errors of a step. The class says whether a retry can help: it can after a TemporaryError, it cannot after a PermanentError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, InputError
from spark_jobs.result import Failure


class StepError(Exception):
    """A step failed.

    Attributes:
        failure: the kind, the type and the message of the failure.
        log: the last lines of the driver's log; empty for bad input.
        log_path: path of the whole log on this machine.
    """

    def __init__(self, failure: Failure, log: str = "", log_path: str = "") -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log
        self.log_path = log_path

    def __reduce__(self) -> tuple[type[StepError], tuple[Failure, str, str]]:
        """Pickles the error with its three attributes; by default unpickling would call the constructor with the message only."""
        return type(self), (self.failure, self.log, self.log_path)


class PermanentError(StepError):
    """The step fails again however often it is retried: the input, a setting or the code must change."""


class TemporaryError(StepError):
    """The step was stopped from outside, for example killed; a retry may succeed."""


@contextmanager
def exits_with_message(on_error: Callable[[StepError], None] = lambda _: None) -> Iterator[None]:
    """Ends a task that fails with one line for the log pane of KFP's UI and an exit code: 2 for bad input, else 1.

    A fault of this program is raised unchanged, because its stack trace is needed.

    Args:
        on_error: called with the error before the task ends.
    """
    try:
        yield
    except Exception as raised:
        error = as_step_error(raised)
        if not error:
            raise
        on_error(error)
        print(f"spark-kfp: error: {error}", flush=True)  # noqa: T201 - the log pane
        raise SystemExit(EXIT_INPUT if error.failure.kind == "input" else EXIT_FAULT) from raised


def as_step_error(raised: Exception) -> StepError | None:
    """Converts an exception to a StepError; returns None for a fault of this program, whose stack trace is needed."""
    if isinstance(raised, StepError):
        return raised
    if isinstance(raised, InputError):
        return StepError(Failure(kind="input", type="InputError", message=str(raised)))
    if isinstance(raised, OSError):  # a full disk, most often
        message = f"{raised.filename or 'this machine'}: {raised.strerror or raised}"
        return StepError(Failure(kind="input", type=type(raised).__name__, message=message))
    return None
