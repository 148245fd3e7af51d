"""Runs one step by its command line: parses it, executes the step and reports how it ended.

The last file that a step writes is the result document: the step's result, or why the step failed.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from spark_jobs.arguments import StepArgs, from_argv
from spark_jobs.contract import ARGUMENTS, Step
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, InputError, UnavailableError
from spark_jobs.failure_reasons import describe_failure
from spark_jobs.result import write_termination_message

log = logging.getLogger("spark_jobs")


def run_step(argv: list[str], session: Any = None) -> int:
    """Runs a step and returns the exit code: 0, 2 for bad input, 1 for a fault.

    Args:
        argv: the step's name and its arguments.
        session: the Spark session to use; None: the step builds its own.
    """
    began = time.perf_counter()
    start_log()
    try:
        step, args = parse(argv)
    except InputError as error:
        write_termination_message(describe_failure(error))
        print(f"spark-kfp: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    try:
        from spark_jobs.step_execution import execute  # noqa: PLC0415 - a wrong argument is reported without pyspark

        result = execute(step, args, began, session)
    except Exception as error:  # every failure becomes a result document
        return report_failure(step, args, error)
    for warning in result.warnings:
        log.warning("%s", warning)
    log.info(
        "step %s: %d rows in, %s rows out, %.1f s", step, result.rows_in, dict(result.rows_out), result.seconds["total"]
    )
    return 0


def start_log() -> None:
    """Lets the messages of this process go to its standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for name in ("py4j", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


def parse(argv: list[str]) -> tuple[Step, StepArgs]:
    """Parses the name of a step and its arguments.

    Raises:
        InputError: there is no such step, or an argument is wrong.
    """
    steps = ", ".join(Step)
    if not argv or argv[0] not in list(Step):
        raise InputError(f"name a step: {steps}" + (f"; there is no {argv[0]!r}" if argv else ""))
    return Step(argv[0]), from_argv(ARGUMENTS[Step(argv[0])], argv[1:], f"python -m spark_jobs {argv[0]}")


def places_written(args: StepArgs) -> list[Path]:
    """Lists the local directories to which a step writes: its output, and the temporary files of Spark and Python."""
    from spark_jobs.local_files import local_path  # noqa: PLC0415

    output = str(vars(args)["output_uri"])
    is_local = output.startswith("file:") or "://" not in output
    return [*([local_path(output)] if is_local else []), Path(tempfile.gettempdir())]


def report_failure(step: Step, args: StepArgs, error: Exception) -> int:
    """Reports why a step failed in the log, the termination message and the result document; returns the exit code."""
    from spark_jobs.step_execution import write_failure  # noqa: PLC0415

    failure = describe_failure(error, step, places_written(args))
    log.error("step %s failed: %s: %s", step, failure.type, failure.message)
    if failure.frames:
        log.error("".join(failure.frames))
    write_termination_message(failure)
    if not isinstance(error, UnavailableError):  # a store that does not answer takes no result document either
        write_failure(step, args, failure)
    print(f"spark-kfp: error: {failure.message}", file=sys.stderr)
    return EXIT_INPUT if failure.kind == "input" else EXIT_FAULT
