"""Runs one step in a Spark session and writes its result document.

A step is idempotent: what an earlier run of the step has left is removed first, and `result.json` is written last. So a step that is
killed at any moment leaves no result document, and nothing that a later step takes for complete. This module imports pyspark; the entry
point, `step_command`, does so only after it has parsed the command line.
"""

from __future__ import annotations

import importlib
import logging
import time
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

from spark_jobs import storage
from spark_jobs.arguments import Role
from spark_jobs.contract import ARGUMENTS, NEEDS_CHECKPOINTS, Step, TuneArgs, outputs_of
from spark_jobs.errors import InputError
from spark_jobs.provenance import provenance
from spark_jobs.result import RESULT_NAME, Failure, Result
from spark_jobs.session import build_session, stop_session

log = logging.getLogger("spark_jobs")
CHECKPOINTS = "checkpoints"
"""Folder in a step's output; it is removed at the end of the step."""


def step_module(step: Step) -> ModuleType:
    """Imports the module of a step."""
    return importlib.import_module(f"spark_jobs.steps.{step}")


def execute(step: Step, args: Any, began: float, session: Any = None) -> Result:
    """Checks the storage, removes old outputs and runs the step.

    Args:
        step: the step.
        args: its arguments.
        began: time of the start in seconds of `time.perf_counter`.
        session: the Spark session to use; None: one is built for the step and stopped at its end.

    Raises:
        InputError: an URI, the data or a setting is wrong.
        UnavailableError: the object store does not answer.
    """
    uris = [getattr(args, name) for name in args.names(Role.GIVEN, Role.FROM_STEP, Role.OUTPUT)]
    storage.check_reachable(uris)
    remove_outputs(step, args)
    storage.make_directory(args.output_uri)  # if it cannot be written, fail before Spark starts
    if session:
        return run_in_session(session, step, args, began)
    checkpoints = storage.join(args.output_uri, CHECKPOINTS) if needs_checkpoints(args) else ""
    own = build_session(
        step, storage.session_settings(uris), checkpoints=storage.spark_uri(checkpoints) if checkpoints else ""
    )
    try:
        return run_in_session(own, step, args, began)
    finally:
        stop_session(own)
        if checkpoints:
            storage.remove(checkpoints)


def needs_checkpoints(args: Any) -> bool:
    """Whether the step fits an estimator that needs Spark's checkpoints; they are in its output, where all executors can write."""
    fitted = {getattr(args, "estimator", ""), *(args.space() if isinstance(args, TuneArgs) else ())}
    return bool(fitted & set(NEEDS_CHECKPOINTS))


def run_in_session(session: Any, step: Step, args: Any, began: float) -> Result:
    """Runs the step in a session and writes the result document as its last output.

    Args:
        session: the Spark session.
        step: the step.
        args: its arguments.
        began: time of the start in seconds of `time.perf_counter`, for the result's `startup` and `total`.
    """
    module = step_module(step)
    started = time.perf_counter()
    result: Result = module.run(session, args)
    ended = time.perf_counter()
    uris = {
        **result.uris,
        **{name.removesuffix("_uri"): getattr(args, name) for name in outputs_of(step)},
    }
    seconds = {"startup": started - began, "work": ended - started, "total": ended - began}
    result = replace(result, arguments=asdict(args), seconds=seconds, uris=uris, made_by=provenance())
    storage.write_text(storage.join(args.output_uri, RESULT_NAME), result.to_json())
    return result


def write_failure(step: Step, args: Any, failure: Failure) -> None:
    """Removes incomplete outputs and writes a result document that says why the step failed."""
    result = Result(step=step, status="failed", arguments=asdict(args), failure=failure)
    try:
        remove_outputs(step, args)
        storage.write_text(storage.join(args.output_uri, RESULT_NAME), result.to_json())
    except (OSError, InputError) as error:
        log.error("the result document could not be written: %s", error)


def remove_outputs(step: Step, args: Any) -> None:
    """Removes the outputs of an earlier or failed run of this step, and no other file in the output directory."""
    storage.remove(storage.join(args.output_uri, RESULT_NAME))
    for item in ARGUMENTS[step].arguments(Role.OUTPUT):
        uri = getattr(args, item.name)
        for part in [uri] if item.file else [storage.join(uri, name) for name in item.parts]:
            storage.remove(part)
