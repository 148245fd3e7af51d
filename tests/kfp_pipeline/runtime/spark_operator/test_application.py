"""What states of an application and of its driver mean, over documents as a cluster shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.spark_operator.application import (
    DRIVER_CONTAINER,
    Stage,
    belongs_to,
    driver_pod_name,
    error_line,
    error_of,
    executors_waiting,
    explain_failure,
    failure_from_termination_message,
    has_started,
    is_alive,
    stage_of,
    start_problem,
    state_of,
)
from spark_jobs.result import Failure

BEFORE = ("", "SUBMITTED", "SUBMISSION_FAILED", "PENDING_RERUN", "INVALIDATING", "RESUMING")
LATER = ("RUNNING", "SUCCEEDING", "FAILING", "SUSPENDING", "SUSPENDED")
WORD = {"kind": "input", "type": "InputError", "message": "no column x", "frames": ["a.py:1"]}


def application(state: str = "RUNNING", error: str = "", **status: Any) -> dict[str, Any]:
    told = {"applicationState": {"state": state} | ({"errorMessage": error} if error else {})}
    return {"metadata": {"name": "app", "uid": "u1"}, "status": {**told, **status}}


def pod(phase: str = "Running", state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A driver's pod; its own container comes after a sidecar's."""
    containers = [{"name": "sidecar", "state": {"running": {}}}, {"name": DRIVER_CONTAINER, "image": "spark:1"}]
    containers[1]["state"] = state or {}
    spec = {
        "containers": [
            {"name": "sidecar", "resources": {"limits": {"memory": "9Gi"}}},
            {"name": DRIVER_CONTAINER, "resources": {"limits": {"memory": "3Gi"}}},
        ]
    }
    return {
        "metadata": {"name": "app-driver"},
        "spec": spec,
        "status": {"phase": phase, "containerStatuses": containers, **more},
    }


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return pod("Failed", {"terminated": {"exitCode": code, "reason": reason, "message": message}})


def why(driver: dict[str, Any] | None, error: str = "", events: Any = (), log: str = "") -> StepError:
    return explain_failure(application("FAILED", error), driver, list(events), log)


@pytest.mark.parametrize("state", [*BEFORE, *LATER, "UNKNOWN", "COMPLETED", "FAILED"])
def test_every_state_of_the_operator_is_a_stage_with_and_without_a_driver(state: str) -> None:
    fixed = {"UNKNOWN": Stage.UNKNOWN, "COMPLETED": Stage.ENDED, "FAILED": Stage.ENDED}.get(state)
    document = application(state)
    assert stage_of(document, None) == (fixed or (Stage.SUBMITTED if state in BEFORE else Stage.RUNNING))
    assert stage_of(document, pod("Pending")) == (fixed or Stage.SCHEDULED)
    for phase in ("Running", "Succeeded", "Failed"):
        assert stage_of(document, pod(phase)) == (fixed or Stage.RUNNING)


@pytest.mark.parametrize("document", [{}, {"status": None}, {"status": {"applicationState": None}}], ids=str)
def test_an_application_that_the_operator_has_not_seen_is_new(document: dict[str, Any]) -> None:
    assert (state_of(document), error_of(document), executors_waiting(document)) == ("", "", 0)
    assert stage_of(document, None) == Stage.SUBMITTED


def test_the_drivers_name_is_the_operators_word_else_the_usual_one() -> None:
    assert driver_pod_name(application()) == "app-driver"
    assert driver_pod_name(application(driverInfo={"podName": "other"})) == "other"


@pytest.mark.parametrize(
    ("metadata", "mine"),
    [
        ({"ownerReferences": [{"uid": "u0"}, {"uid": "u1"}]}, True),
        ({"ownerReferences": [{"uid": "u0"}]}, False),
        ({"labels": {"sparkoperator.k8s.io/submission-id": "s1"}}, True),
        ({"labels": {"sparkoperator.k8s.io/submission-id": "s0"}, "ownerReferences": None}, False),
        ({"labels": None}, False),
        ({}, False),
    ],
)
def test_a_pod_of_an_earlier_application_of_the_name_is_anothers(metadata: dict[str, Any], mine: bool) -> None:
    assert belongs_to({"metadata": metadata}, application(submissionID="s1")) is mine


def test_a_pod_without_a_submission_is_not_that_of_an_application_without_one() -> None:
    assert not belongs_to({"metadata": {"labels": {"sparkoperator.k8s.io/submission-id": ""}}}, application())
    assert not belongs_to({"metadata": {}}, application())


def test_a_driver_is_alive_until_it_ends_or_is_being_deleted() -> None:
    assert is_alive(pod("Pending"))
    assert is_alive(pod("Running"))
    assert not any(is_alive(pod(phase)) for phase in ("Succeeded", "Failed", "Unknown"))
    going = pod("Running")
    going["metadata"]["deletionTimestamp"] = "2026-11-23T07:00:00Z"
    assert not is_alive(going)
    assert not is_alive(None)


def test_a_driver_whose_container_has_ended_is_not_alive_whatever_its_phase() -> None:
    driver = pod("Running")
    ended = {"name": "spark-kubernetes-driver", "state": {"terminated": {"exitCode": 2}}}
    driver["status"]["containerStatuses"] = [ended]
    assert not is_alive(driver)


def test_a_driver_has_a_log_once_its_own_container_has_started() -> None:
    assert has_started(pod("Running", {"running": {}}))
    assert has_started(pod("Failed", {"terminated": {}}))
    assert not has_started(pod("Pending", {"waiting": {"reason": "ContainerCreating"}}))
    assert not has_started({"metadata": {}, "status": {"phase": "Pending"}})


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"]
)
def test_an_image_that_cannot_be_had_does_not_pass_by_itself(reason: str) -> None:
    found = start_problem(pod("Pending", {"waiting": {"reason": reason, "message": "not found"}}))
    assert found is not None
    assert (found.transient, found.failure.kind, found.failure.type) == (False, "input", reason)
    assert "'spark:1' cannot be had (not found)" in found.failure.message


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_a_container_that_cannot_be_made_does_not_pass_by_itself(reason: str) -> None:
    found = start_problem(pod("Pending", {"waiting": {"reason": reason, "message": 'secret "s" not found'}}))
    assert found is not None
    assert not found.transient
    assert 'secret "s" not found; check: spark-kfp doctor' in found.failure.message


def test_a_full_cluster_may_pass_by_itself() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    found = start_problem(
        {"metadata": {}, "status": {"phase": "Pending", "conditions": [{"type": "Ready"}, condition]}}
    )
    assert found is not None
    assert (found.transient, found.failure.kind) == (True, "fault")
    assert "0/1 nodes" in found.failure.message


@pytest.mark.parametrize(
    "driver",
    [
        pod("Pending", {"waiting": {"reason": "ContainerCreating"}}),
        pod("Pending", {"waiting": {"reason": "PodInitializing"}}),
        pod("Running", {"running": {}}),
        pod("Pending", conditions=[{"type": "PodScheduled", "status": "True"}]),
        {"metadata": {}, "status": {}},
        {"metadata": {}},
    ],
)
def test_a_driver_that_is_on_its_way_has_no_trouble(driver: dict[str, Any]) -> None:
    assert start_problem(driver) is None


def test_the_steps_own_word_comes_before_all_else() -> None:
    error = why(ended(137, "OOMKilled", json.dumps(WORD)), "exceeded quota")
    assert type(error) is PermanentError
    assert error.failure == Failure(kind="input", type="InputError", message="no column x", frames=("a.py:1",))
    assert not error.log
    error = why(ended(1, message=json.dumps({**WORD, "kind": "fault"})), log="last line")
    assert type(error) is TemporaryError
    assert error.log == "last line"


def test_too_little_memory_is_permanent_and_names_the_drivers_own_limit() -> None:
    error = why(ended(137, "OOMKilled"), log="last line")
    assert type(error) is PermanentError
    assert error.failure.type == "OutOfMemory"
    assert "more memory than its 3Gi" in str(error)


def test_a_used_up_quota_is_told_in_one_line_of_the_operators_many() -> None:
    text = "spark-submit: WARNING\nMessage: pods is forbidden: exceeded quota: quota, requested: memory=1Gi\n\tat io.fabric8"
    error = why(None, text)
    assert type(error) is TemporaryError
    assert error.failure.type == "QuotaExceeded"
    assert "exceeded quota: quota, requested: memory=1Gi;" in str(error)
    assert "fabric8" not in str(error)


@pytest.mark.parametrize("reason", ["Evicted", "Preempting", "NodeLost", "DeadlineExceeded"])
def test_a_driver_that_the_cluster_ended_is_started_again(reason: str) -> None:
    driver = {"metadata": {}, "status": {"phase": "Failed", "reason": reason, "message": "disk pressure"}}
    error = why(driver)
    assert type(error) is TemporaryError
    assert (error.failure.type, str(error)) == (
        reason,
        f"the driver was ended by the cluster: {reason}: disk pressure",
    )
    assert str(why({"metadata": {}, "status": {"reason": reason}})).endswith(f"cluster: {reason}")


@pytest.mark.parametrize("code", [137, 143])
def test_a_signal_from_outside_is_told_as_one(code: int) -> None:
    error = why(ended(code))
    assert (type(error), error.failure.type) == (TemporaryError, "Killed")


def test_any_other_exit_code_is_told_with_the_line_of_the_log_that_names_the_error() -> None:
    error = why(ended(1), log="INFO x\nspark-kfp: error: no such file\nINFO y")
    assert type(error) is TemporaryError
    assert str(error) == "the driver ended with exit code 1: spark-kfp: error: no such file"
    assert str(why(ended(1), log="INFO x")) == "the driver ended with exit code 1"


def test_without_a_driver_the_operator_and_the_last_three_warnings_have_the_word() -> None:
    events = [{"type": "Warning", "reason": f"R{number}", "message": "m"} for number in range(5)]
    events.append({"type": "Normal", "reason": "Fine", "message": "m"})
    assert str(why(None, "spark-submit failed", events)) == "spark-submit failed; R2: m; R3: m; R4: m"
    assert str(why(None)).startswith("the driver's pod is gone: it was deleted")
    assert str(why(None, "driver pod not found")).startswith("the driver's pod is gone: it was deleted")
    assert len(str(why(None, "x" * 9000))) == 2000


def test_of_the_lines_that_name_an_error_the_steps_own_wins_then_the_last_of_its_kind() -> None:
    lines = ["Exception in thread main A", "Caused by: B", "Caused by: C", "Error: D", "  Caused by: inner"]
    assert error_line("\n".join(lines)) == "Exception in thread main A"
    assert error_line("\n".join(lines[1:])) == "Caused by: C"
    assert error_line("\n".join([*lines, "spark-kfp: error: E", "INFO"])) == "spark-kfp: error: E"
    assert error_line("Error: D") == "Error: D"
    assert error_line("all is well\n") == error_line("") == ""
    assert len(error_line("Error: " + "x" * 900)) == 500


@pytest.mark.parametrize(
    "message",
    ["", "Traceback", "[]", "3", "null", '"text"', json.dumps({"kind": "input"}), json.dumps({**WORD, "frames": None})],
)
def test_a_last_word_that_is_not_a_steps_failure_is_none(message: str) -> None:
    assert failure_from_termination_message(message) is None


@pytest.mark.parametrize(
    ("states", "waiting"),
    [
        ({}, 0),
        (None, 0),
        ({"1": "PENDING"}, 1),
        ({"1": "PENDING", "2": "PENDING", "3": "FAILED"}, 2),
        ({"1": "PENDING", "2": "RUNNING"}, 0),
        ({"1": "COMPLETED"}, 0),
    ],
)
def test_executors_wait_only_while_none_runs(states: dict[str, str] | None, waiting: int) -> None:
    assert executors_waiting(application(executorState=states)) == waiting
