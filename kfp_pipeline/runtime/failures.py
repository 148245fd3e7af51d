"""Why the steps of a run failed: what a task leaves below the run when it fails, and the run's last task reads.

KFP tells its exit handler that something failed and never what: its driver leaves the message empty (kubeflow/pipelines,
backend/src/v2/driver/resolve.go). A task that fails before it has submitted anything leaves no application to ask either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Protocol

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError, StepError, as_step_error
from kfp_pipeline.runtime.run_folder import run_folder_of
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

FOLDER = "failures"


class Documents(Protocol):
    """Reads the small documents of a run."""

    def read_text(self, uri: str) -> str | None:
        """A document, or None if it is not there."""


@contextmanager
def save_on_error(step: Step, output_uri: str, run: str) -> Iterator[None]:
    """Leaves the reason below the run if what it encloses fails, and removes that of an earlier attempt if it does not.

    The reason is an extra: a store that is away changes nothing in how the task ends, nor, but for seconds, when.

    Args:
        step: whose task this is.
        output_uri: of the step, below the run's own place.
        run: its id.
    """
    uri = _uri(step, output_uri, run)
    try:
        yield
    except Exception as error:
        content = json.dumps(asdict(_failure_of(error)), ensure_ascii=False).encode()
        _if_possible(uri, lambda: object_store.write_bytes(uri, content, brief=True))
        raise
    _if_possible(uri, lambda: object_store.remove(uri, brief=True))


def read_failures(documents: Documents, run_folder: str) -> dict[Step, Failure]:
    """The reasons that the tasks of a run have left, in the order of the steps."""
    texts = {step: documents.read_text(_name(run_folder, step)) for step in Step}
    return {step: Failure(**json.loads(text)) for step, text in texts.items() if text}


def _failure_of(error: Exception) -> Failure:
    known = as_step_error(error)
    if known:
        return known.failure
    name = type(error).__name__
    return Failure(kind="fault", type=name, message=f"{name}: {error}; the task's log shows where")


def _uri(step: Step, output_uri: str, run: str) -> str:
    """Where the reason goes; empty on one machine, where events tell it, and where the run has no place of its own."""
    try:
        return _name(run_folder_of(output_uri, run), step) if object_store.is_stored(output_uri) else ""
    except PermanentError:  # the task itself says so
        return ""


def _name(run_folder: str, step: Step) -> str:
    return f"{run_folder}/{FOLDER}/{step}.json"


def _if_possible(uri: str, act: Callable[[], None]) -> None:
    try:
        if uri:
            act()
    except (StepError, InputError) as error:
        print(f"what the run's summary tells of this task could not be changed: {error}", flush=True)  # noqa: T201 - the log pane
