"""Runs a step in a process of its own: starts that again when it is killed, and repeats a step that was ended from outside.

What KFP repeats depends on how it is set up: 2.17 repeats a task whose pod is gone and not one whose program was killed or has failed,
older ones the other way round (see `kubeflow_checks`). So a task does by itself what needs no new pod. It repeats nothing that would fail
again: bad input, a fault of the code, too little memory.
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
"""How often a process that was killed is started again; whoever kills it more often means it, or memory is too little for it."""
RETRY_WAITS_SECONDS = (30.0, 60.0)
"""Before each repetition of a step that was ended from outside."""
RETRYABLE_TYPES = (
    "Killed", "Evicted", "Preempting", "NodeLost", "DeadlineExceeded", "DriverGone", "QuotaExceeded", "NotGone", "ApiServerAway",
)  # fmt: skip
"""Types of failures that say nothing against the step. A deleted application is not among them: someone wanted it gone."""


class Follower(Protocol):
    """The part of a `Runner` that is supervised."""

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""


class SupervisedRunner:
    """A `Runner` around another."""

    def __init__(self, make: Callable[[], Follower], log_line: Callable[[str], None] = print) -> None:
        """Args: make, gives a runner for a new attempt; log_line, takes a line for the log."""
        self._make, self._log_line = make, log_line

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""
        for wait in (*RETRY_WAITS_SECONDS, None):
            try:
                return self._to_its_end(self._make(), step, args, log_path)
            except TemporaryError as error:
                if wait is None or error.failure.type not in RETRYABLE_TYPES:
                    raise
                self._log_line(f"{error}; trying again in {wait:.0f} s")
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _to_its_end(self, runner: Follower, step: Step, args: StepArgs, log_path: Path) -> Result:
        for restarts_left in reversed(range(MAX_RESTARTS + 1)):
            outcome = _in_a_process(runner, step, args, log_path)
            if isinstance(outcome, Result):
                return outcome
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome >= 0 or not restarts_left:  # a fault of ours; its traceback stands in the log
                raise SystemExit(EXIT_FAULT)
            log_path.unlink(missing_ok=True)  # the next one reads the driver's log from its beginning
            name = signal.Signals(-outcome).name
            self._log_line(
                f"the process that follows the step was killed by {name}; another follows it, and tells the driver's log again"
            )
        raise AssertionError("the last start returns or raises")


def _in_a_process(runner: Follower, step: Step, args: StepArgs, log_path: Path) -> Result | BaseException | int:
    """The result, what was raised, or how the process ended that told neither: the negative number of a signal, or its exit code."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_follow, args=(sender, runner, step, args, log_path))
    process.start()
    sender.close()
    try:
        try:
            outcome: str | BaseException = receiver.recv()
        except EOFError:
            process.join()
            return process.exitcode or 0
        process.join()
    except KeyboardInterrupt:  # whoever stops the task stops the step
        process.terminate()
        process.join()
        raise
    finally:
        receiver.close()
    return outcome if isinstance(outcome, BaseException) else Result.from_json(outcome)


def _follow(sender: Connection, runner: Follower, step: Step, args: StepArgs, log_path: Path) -> None:
    """What the process does. If the task's own process is killed it ends silently: the application stays for the task's repetition."""
    die_with_parent(signal.SIGKILL)
    outcome: str | BaseException
    try:
        with first_signal_raises_interrupt():
            outcome = runner.run(step, args, log_path).to_json()
    except (StepError, InputError, OSError, KeyboardInterrupt) as error:
        outcome = error
    sender.send(outcome)
