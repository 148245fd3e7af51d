"""Runs the steps of a run in one SparkApplication, whose Spark session they share.

The first step's task submits the application, as `SparkOperatorRunner` would submit one for its step alone; the tasks after it find it by
its name. A task asks for its step by a document in the run's folder and reads the answer there (`spark_jobs.session_requests`). The
application ends with the run: by `end_session`, by the deletion of the run's applications, or because nobody renews its lease.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from kfp_pipeline.runtime.errors import PermanentError, TemporaryError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, Cluster
from kfp_pipeline.runtime.object_store import Documents
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.runtime.spark_operator.application import is_alive, state_of
from kfp_pipeline.runtime.spark_operator.driver_log import DriverLog
from kfp_pipeline.runtime.spark_operator.manifest import (
    OUTPUT_URI_ANNOTATION,
    STEPS_KEY,
    application_name,
    build_session_application,
    steps_with_settings,
)
from kfp_pipeline.runtime.spark_operator.runner import LOG_SECONDS, Document, SparkOperatorRunner
from kfp_pipeline.runtime.spark_operator.tracking import ApplicationTracker, driver_pod_of
from spark_jobs.arguments import StepArgs, from_argv, to_argv
from spark_jobs.contract import ARGUMENTS, Step
from spark_jobs.result import Failure, Result
from spark_jobs.session_requests import (
    ENDED,
    RUNNING,
    SESSION,
    STEPS_NAME,
    STOP,
    StepRequest,
    StepState,
    begin_line,
    end_line,
    request_name,
    request_uri,
    steps_from_json,
)


class SharedSessionRunner(SparkOperatorRunner):
    """A `Runner` that submits one SparkApplication for a run and asks it for each step."""

    def _build(self, config: Mapping[str, str], _: Step, args: StepArgs) -> tuple[Document, str]:
        folder = run_folder_of(str(vars(args)["output_uri"]), self._run)
        if steps := steps_with_settings(config):
            self._log_line(
                f"a shared session takes all and {SESSION} of the platform's {STEPS_KEY}, not {', '.join(steps)}"
            )
        session_uri = f"{folder}/{SESSION}/{uuid.uuid4().hex[:12]}"
        return build_session_application(config, session_uri, folder, run=self._run, **self._changes), SESSION

    def _counts_although_ended(self, *_: object) -> bool:
        return False  # a session that has ended runs no step

    def _follow(self, tracker: ApplicationTracker, step: Step, args: StepArgs) -> Result:
        asked = StepOfSession(self._documents, tracker.application, step, args, tracker.limits.session_answer_seconds)
        request = asked.ask(self._attempt)
        tracker.log.take_only_between(begin_line(asked.name, request), end_line(asked.name, request))
        tracker.step_has_ended = asked.has_ended
        try:
            application = tracker.wait_until_ended()
        except SessionSilentError:
            metadata = tracker.application["metadata"]
            self._cluster.delete(APPLICATIONS, metadata["name"], metadata["uid"])
            raise
        tracker.log.finish(LOG_SECONDS)
        state = asked.state()
        if state and state.exit_code is not None:
            return self._result_of(state.exit_code, args, tracker.log)
        if state_of(application) == "COMPLETED" and not is_alive(driver_pod_of(self._cluster, application)):
            message = f"the run's session ended before it took the step {step}; run the step again"
            raise TemporaryError(Failure(kind="fault", type="SessionEnded", message=message), tracker.log.tail)
        raise self._explain(application, tracker.log.tail)

    def _result_of(self, code: int, args: StepArgs, log: DriverLog) -> Result:
        """Reads the result of a step that has ended; only its document says that it has succeeded."""
        result = self._result_document(args)
        if result and dict(result.arguments) == vars(args):
            if code == 0 and result.status == "succeeded":
                return result
            if result.failure and result.failure.kind == "input":
                raise PermanentError(result.failure)
            if result.failure:
                raise TemporaryError(result.failure, log.tail)
        if code == 0:
            raise self._no_result(args, log)
        message = f"the step ended with exit code {code} and left no result document"
        raise TemporaryError(Failure(kind="fault", type="StepFailed", message=message), log.tail)


class SessionSilentError(TemporaryError):
    """The session's driver runs, but does not take the request."""


class StepOfSession:
    """One step, as the documents of the session's folder tell of it."""

    def __init__(
        self, documents: Documents, application: Document, step: Step, args: StepArgs, answer_seconds: float
    ) -> None:
        """Makes it.

        Args:
            documents: the object store.
            application: the SparkApplication of the session.
            step: the step.
            args: its arguments.
            answer_seconds: how long an idle session may leave the request unanswered.
        """
        self.name = request_name(step, str(vars(args)["output_uri"]))
        self._documents, self._application, self._answer_seconds = documents, application, answer_seconds
        self._uri = str(application["metadata"]["annotations"][OUTPUT_URI_ANNOTATION])
        self._argv = (str(step), *to_argv(args))
        self._request: StepRequest | None = None
        self._last_sign = 0.0

    def ask(self, attempt: str) -> StepRequest:
        """Writes the request, unless an earlier attempt of the task has asked for the same and the step has not failed since."""
        uri = request_uri(self._uri, self.name)
        text = self._documents.read_text(uri)
        earlier = StepRequest.from_json(text) if text else None
        if earlier and earlier.argv == self._argv:
            self._request = earlier
            state = self.state()
            if state is None or state.exit_code in (None, 0):
                return earlier
        self._request = StepRequest(self._argv, attempt)
        self._documents.write_bytes(uri, self._request.to_json().encode())
        return self._request

    def state(self) -> StepState | None:
        """The state of this attempt; None if the session has not taken the request."""
        found = self._steps().get(self.name)
        return found if found and found.request == self._request else None

    def has_ended(self) -> bool:
        """Whether the step has ended; asked only while the session's driver runs.

        Raises:
            SessionSilentError: the session runs no step and has not taken the request for too long.
        """
        steps, now = self._steps(), time.monotonic()
        state = steps.get(self.name)
        if state and state.request == self._request and state.state == ENDED:
            return True
        if not self._last_sign or any(other.state == RUNNING for other in steps.values()):
            self._last_sign = now
        if now - self._last_sign > self._answer_seconds:
            message = f"the run's session has not taken the step for {self._answer_seconds:.0f} s; it is deleted"
            raise SessionSilentError(Failure(kind="fault", type="SessionSilent", message=message))
        return False

    def _steps(self) -> dict[str, StepState]:
        return steps_from_json(self._documents.read_text(f"{self._uri}/{STEPS_NAME}"))


def end_session(cluster: Cluster, documents: Documents, run_folder: str) -> None:
    """Lets the session of a run end, if it has one that runs; its application and log stay for a while, as those of a step do."""
    application = cluster.get(APPLICATIONS, application_name(SESSION, run_folder))
    if application:
        say_stop(documents, application)


def steps_of(documents: Documents, application: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the steps that a session has taken, in their order: name and URI of the output."""
    uri = str(application["metadata"]["annotations"][OUTPUT_URI_ANNOTATION])
    commands = [state.request.argv for state in steps_from_json(documents.read_text(f"{uri}/{STEPS_NAME}")).values()]
    return [
        (step, str(vars(from_argv(ARGUMENTS[Step(step)], arguments))["output_uri"])) for step, *arguments in commands
    ]


def say_stop(documents: Documents, application: Mapping[str, Any]) -> None:
    """Asks a session to end after its current step."""
    uri = str(application["metadata"]["annotations"][OUTPUT_URI_ANNOTATION])
    documents.write_bytes(request_uri(uri, STOP), b"{}")
