"""What can go wrong with a step. The class says whether to repeat it: only a TemporaryError may pass by itself."""

from __future__ import annotations

from spark_jobs.contract import Failure


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


class PermanentError(StepError):
    """Repeating the step as it is cannot help: the input, a setting or the code must change."""


class TemporaryError(StepError):
    """The step was stopped from outside, for example killed; repeating it may help."""
