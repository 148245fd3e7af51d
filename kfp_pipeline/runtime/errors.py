"""What can go wrong with a step. The class says whether to repeat it: only a TemporaryError may pass by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, InputError
from spark_jobs.result import Failure


class StepError(Exception):
    """A step did not end well.

    Attributes:
        failure: what went wrong, as data.
        log: last lines of the driver's log, empty for bad input.
        log_path: where the whole log is.
    """

    def __init__(self, failure: Failure, log: str = "", log_path: str = "") -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log
        self.log_path = log_path

    def __reduce__(self) -> tuple[type[StepError], tuple[Failure, str, str]]:
        """For another process: by what it was made of, not by its text."""
        return type(self), (self.failure, self.log, self.log_path)


class PermanentError(StepError):
    """Repeating the step as it is cannot help: the input, a setting or the code must change."""


class TemporaryError(StepError):
    """The step was stopped from outside, for example killed; repeating it may help."""


@contextmanager
def exits_with_message(before: Callable[[StepError], None] = lambda _: None) -> Iterator[None]:
    """Lets what goes wrong in a task end it with one line for the log pane of KFP's UI, and an exit code: 2 for bad input, else 1.

    Args:
        before: called with the error first.
    """
    try:
        yield
    except Exception as raised:
        error = as_step_error(raised)
        if not error:
            raise
        before(error)
        print(f"spark-kfp: error: {error}", flush=True)  # noqa: T201 - the log pane
        raise SystemExit(EXIT_INPUT if error.failure.kind == "input" else EXIT_FAULT) from raised


def as_step_error(raised: Exception) -> StepError | None:
    """The error as one of a step; None if it is a fault of this program, which needs its stack."""
    if isinstance(raised, StepError):
        return raised
    if isinstance(raised, InputError):
        return StepError(Failure(kind="input", type="InputError", message=str(raised)))
    if isinstance(raised, OSError):  # a full disk, most often
        message = f"{raised.filename or 'this machine'}: {raised.strerror or raised}"
        return StepError(Failure(kind="input", type=type(raised).__name__, message=message))
    return None
