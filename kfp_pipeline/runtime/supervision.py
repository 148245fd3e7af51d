"""Retries inside a task: the runner works in a child process that is restarted if it is killed, and a disturbed step is submitted again.

What KFP retries depends on its version and setup: 2.17 retries a task whose pod is gone, but not one whose program failed or was killed;
older versions do the opposite (see `kubeflow_checks`). So a task retries by itself whatever needs no new pod. It does not retry what would
fail again: bad input, a fault of the code, too little memory.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from kfp_pipeline.runtime.errors import StepError, TemporaryError
from kfp_pipeline.runtime.processes import die_with_parent, first_signal_raises_interrupt
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import EXIT_FAULT, InputError
from spark_jobs.result import Result

MAX_RESTARTS = 3
"""How often a killed child process is restarted. After more kills the cause is not chance: too little memory, or a person."""
RETRY_WAITS_SECONDS = (30.0, 60.0)
"""Pause before each retry of a step; their number is the number of retries."""
RETRYABLE_TYPES = (
    "Killed", "Evicted", "Preempting", "NodeLost", "DeadlineExceeded", "DriverGone", "QuotaExceeded", "NotGone", "ApiServerAway",
    "SessionEnded", "SessionSilent",
)  # fmt: skip
"""Failure types that the cluster caused and not the step. `Deleted` is not among them: the application was deleted on purpose."""


class RestartableRunner(Protocol):
    """A `Runner` that may be called again in a new process: it then follows the step that it had started."""

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""


class SupervisedRunner:
    """A `Runner` that calls another one in a child process and retries what the cluster disturbed."""

    def __init__(self, make_runner: Callable[[], RestartableRunner], log_line: Callable[[str], None] = print) -> None:
        """Makes the runner.

        Args:
            make_runner: makes the inner runner, once for each attempt; a restarted child process goes on with the same one.
            log_line: writes a line to the task's log.
        """
        self._make_runner, self._log_line = make_runner, log_line

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""
        for wait in (*RETRY_WAITS_SECONDS, None):
            try:
                return self._run_attempt(self._make_runner(), step, args, log_path)
            except TemporaryError as error:
                if wait is None or error.failure.type not in RETRYABLE_TYPES:
                    raise
                self._log_line(f"{error}; trying again in {wait:.0f} s")
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _run_attempt(self, runner: RestartableRunner, step: Step, args: StepArgs, log_path: Path) -> Result:
        for restarts_left in reversed(range(MAX_RESTARTS + 1)):
            outcome = _run_in_child(runner, step, args, log_path)
            if isinstance(outcome, Result):
                return outcome
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome >= 0 or not restarts_left:  # a fault of this program; its traceback is in the log
                raise SystemExit(EXIT_FAULT)
            log_path.unlink(missing_ok=True)  # the next process reads the driver's log from its beginning
            name = signal.Signals(-outcome).name
            self._log_line(
                f"the process that follows the step was killed by {name}; another follows it, and tells the driver's log again"
            )
        raise AssertionError("the last start returns or raises")


def _run_in_child(
    runner: RestartableRunner, step: Step, args: StepArgs, log_path: Path
) -> Result | BaseException | int:
    """Runs the step in a child process.

    Returns:
        The result, or the exception that the runner raised. If the child ended without sending either: its exit code, or the negative
        number of the signal that killed it.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_child_main, args=(sender, runner, step, args, log_path))
    process.start()
    sender.close()
    try:
        try:
            outcome: str | BaseException = receiver.recv()
        except EOFError:
            process.join()
            return process.exitcode or 0
        process.join()
    except KeyboardInterrupt:  # the task is cancelled, so the child must delete the application
        process.terminate()
        process.join()
        raise
    finally:
        receiver.close()
    return outcome if isinstance(outcome, BaseException) else Result.from_json(outcome)


def _child_main(sender: Connection, runner: RestartableRunner, step: Step, args: StepArgs, log_path: Path) -> None:
    """Runs the step in the child process, and sends the result or the exception to the parent.

    If the parent is killed, the child is killed too and cannot delete the application: a retry of the task goes on with it.
    """
    die_with_parent(signal.SIGKILL)
    outcome: str | BaseException
    try:
        with first_signal_raises_interrupt():
            outcome = runner.run(step, args, log_path).to_json()
    except (StepError, InputError, OSError, KeyboardInterrupt) as error:
        outcome = error
    sender.send(outcome)
