"""Failure documents: a task that fails writes the reason into the object store, and the run's exit handler reads it.

KFP tells the exit handler that a task failed, but not why: its driver leaves the message empty (kubeflow/pipelines,
backend/src/v2/driver/resolve.go). The SparkApplications do not always know either: a task may fail before it submits one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError, StepError, as_step_error
from kfp_pipeline.runtime.run_folder import run_folder_of
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

FOLDER = "failures"


@contextmanager
def save_on_error(step: Step, output_uri: str, run: str) -> Iterator[None]:
    """Writes a failure document if the block raises; if the block succeeds, removes the document of an earlier attempt.

    The document is an extra. If the object store is unavailable, the task ends as it would without the document, a few seconds later.

    Args:
        step: the task's step.
        output_uri: URI of the step's output, below the run's folder.
        run: id of the KFP run.
    """
    uri = _uri(step, output_uri, run)
    try:
        yield
    except Exception as error:
        content = json.dumps(asdict(_failure_of(error)), ensure_ascii=False).encode()
        _best_effort(uri, lambda: object_store.write_bytes(uri, content, brief=True))
        raise
    _best_effort(uri, lambda: object_store.remove(uri, brief=True))


def read_failures(documents: object_store.Documents, run_folder: str) -> dict[Step, Failure]:
    """Reads the failure documents of a run, in the order of the steps."""
    texts = {step: documents.read_text(_name(run_folder, step)) for step in Step}
    return {step: Failure(**json.loads(text)) for step, text in texts.items() if text}


def _failure_of(error: Exception) -> Failure:
    known = as_step_error(error)
    if known:
        return known.failure
    name = type(error).__name__
    return Failure(kind="fault", type=name, message=f"{name}: {error}; the task's log shows where")


def _uri(step: Step, output_uri: str, run: str) -> str:
    """The failure document's URI; empty on one machine, where an event tells the reason, and if the run has no folder of its own."""
    try:
        return _name(run_folder_of(output_uri, run), step) if object_store.is_object_store_uri(output_uri) else ""
    except PermanentError:  # the task fails for the same reason and reports it
        return ""


def _name(run_folder: str, step: Step) -> str:
    return f"{run_folder}/{FOLDER}/{step}.json"


def _best_effort(uri: str, act: Callable[[], None]) -> None:
    try:
        if uri:
            act()
    except (StepError, InputError) as error:
        print(f"the failure document of this task could not be updated: {error}", flush=True)  # noqa: T201 - the log pane
