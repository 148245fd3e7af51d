"""Faults on a real cluster, for real: what the user sees, after how long, what is left behind and what is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import BUCKET, E2E, NAMESPACE, TaskRun, kubectl, until
from faults import (
    CONTINUE,
    KILL_ALL,
    KILL_FOLLOWER,
    START_SECONDS,
    STOP,
    TERMINATE,
    Note,
    changed,
    error_of,
    is_running,
    kill,
    nothing_goes_on,
    platform_says,
    store_away,
    to_the_step,
)

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.kubernetes_api import LEASES

pytestmark = pytest.mark.cluster
BACKOFF_SECONDS = (30, 60)
"""KFP's waits before it repeats a task with `set_retry(2, "30s", 2.0)`: processNodeRetries in Argo's workflow/controller/operator.go."""


def start(e2e: E2E, run_id: str, variables: Mapping[str, str] | None = None, **more: Any) -> TaskRun:
    """Starts load, the shortest step, with other values of its task's variables if they are given."""
    return e2e.start("load", e2e.inputs(**more), run_id, variables or {})


@pytest.mark.parametrize("phase", ["SUBMITTED", "RUNNING"])
def test_a_task_that_is_killed_and_comes_back_follows_the_same_application(
    e2e: E2E, run_id: str, note: Note, phase: str
) -> None:
    """The pods come back after KFP's own waits; meanwhile nobody follows the application, which is kept from ending."""
    run = start(e2e, run_id)
    until(lambda: e2e.state(run) == phase, START_SECONDS, f"not {phase}")
    uid = (e2e.application(run) or {})["metadata"]["uid"]
    began = time.monotonic()
    for wait in BACKOFF_SECONDS:
        kill(run.pod)
        to_the_step(run, STOP)
        time.sleep(wait)
        run = start(e2e, run_id)
        until(
            lambda run=run: "found, following it" in kubectl("logs", run.pod, check=False),
            START_SECONDS,
            "not followed",
        )
    to_the_step(run, CONTINUE)
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    assert (e2e.application(run) or {})["metadata"]["uid"] == uid
    note(f"task's pod killed while its application is {phase}, and its successor too; another comes after KFP's 30 s and 60 s",
         "each follows the same application, the last one succeeds", time.monotonic() - began)  # fmt: skip


@pytest.mark.selection
def test_a_task_that_is_killed_for_good_takes_its_application_with_it(e2e: E2E, run_id: str, note: Note) -> None:
    seconds = 90  # what a platform may set; as shipped it is ten minutes
    run = start(e2e, run_id, variables={"SPARK_KFP_LEASE_SECONDS": str(seconds)})
    until(is_running(e2e, run), START_SECONDS, "does not run")
    kill(run.pod)
    began = time.monotonic()
    to_the_step(run, STOP)  # it must not end by itself
    until(lambda: e2e.application(run) is None, seconds + 60, "the application is still there")
    note(
        f"task's pod killed for good, with a lease of {seconds} s",
        "the reaper deletes the application: its lease is not renewed",
        time.monotonic() - began,
    )
    nothing_goes_on(e2e, run)
    assert e2e.cluster.get(LEASES, run.application) is None


def test_a_cancelled_run_leaves_nothing(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    began = time.monotonic()
    command = [sys.executable, "-m", "kfp_pipeline", "cancel", run.application, "--namespace", NAMESPACE]
    subprocess.run(command, check=True, capture_output=True)
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    note("`spark-kfp cancel`", error_of(log), time.monotonic() - began)
    nothing_goes_on(e2e, run)


def test_a_task_that_is_asked_to_stop_deletes_its_application(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    began = time.monotonic()
    kubectl("exec", run.pod, "--", "python", "-c", TERMINATE)
    until(lambda: e2e.application(run) is None, 30, "the application is still there")
    note("SIGTERM to the task", "interrupted: deleting SparkApplication", time.monotonic() - began)
    nothing_goes_on(e2e, run)


@pytest.mark.selection
def test_a_driver_that_is_killed_is_told_and_the_step_repeated(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    began = time.monotonic()
    kill(f"{run.application}-driver")
    told = until(lambda: re.search(r".*; trying again in 30 s", kubectl("logs", run.pod)), 60, "not told")
    note("driver's pod killed", f"{told[0]}; then the step succeeds", time.monotonic() - began)
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    assert "an earlier attempt failed, replacing it" in log


@pytest.mark.selection
def test_a_follower_that_is_killed_outright_is_replaced_in_the_same_pod(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    uid = (e2e.application(run) or {})["metadata"]["uid"]
    began = time.monotonic()
    assert "sent" in kubectl("exec", run.pod, "--", "python", "-c", KILL_FOLLOWER)
    told = until(
        lambda: re.search(r"the process that follows the step was .*", kubectl("logs", run.pod)), 30, "not told"
    )
    note(
        "the task's Python that follows the application killed by SIGKILL",
        f"{told[0]}; the run ends well",
        time.monotonic() - began,
    )
    ended, log, output = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    assert (e2e.application(run) or {})["metadata"]["uid"] == uid, "the same application went on"
    assert output["parameterValues"]["uri"] == run.output_uri


def test_a_task_whose_python_is_killed_altogether_leaves_its_application_to_the_next_one(
    e2e: E2E, run_id: str, note: Note
) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    uid = (e2e.application(run) or {})["metadata"]["uid"]
    began = time.monotonic()
    to_the_step(run, STOP)
    kubectl("exec", run.pod, "--", "python", "-c", KILL_ALL, check=False)
    assert e2e.wait(run, 60)[0] == "Failed"
    again = start(e2e, run_id)
    until(lambda: "found, following it" in kubectl("logs", again.pod, check=False), START_SECONDS, "not followed")
    to_the_step(run, CONTINUE)
    ended, log, _ = e2e.wait(again)
    assert ended == "Succeeded", log[-2000:]
    assert (e2e.application(run) or {})["metadata"]["uid"] == uid
    note(
        "all of the task's Python killed by SIGKILL, another pod comes",
        "it follows the same application and succeeds",
        time.monotonic() - began,
    )


def test_an_executor_that_is_killed_is_replaced(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    label = f"spark-role=executor,sparkoperator.k8s.io/app-name={run.application}"
    found = until(lambda: kubectl("get", "pods", "-l", label, "-o", "name"), START_SECONDS, "no executor")
    began = time.monotonic()
    kill(found.split()[0].removeprefix("pod/"))
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    note("executor killed", "Spark makes another, the step succeeds", time.monotonic() - began)


def test_an_operator_that_restarts_in_the_middle_of_a_submission_loses_nothing(
    e2e: E2E, run_id: str, note: Note
) -> None:
    run = start(e2e, run_id)
    until(lambda: e2e.application(run), START_SECONDS, "no application")
    began = time.monotonic()
    pods = kubectl("-n", "spark-operator", "get", "pods", "-o", "name").split()
    controller = next(pod for pod in pods if "controller" in pod)
    kubectl("-n", "spark-operator", "delete", controller, "--grace-period=0", "--force")
    ended, log, _ = e2e.wait(run, 400)
    assert ended == "Succeeded", log[-2000:]
    note(
        "operator killed during the submission", "the step succeeds once the operator is back", time.monotonic() - began
    )


def test_an_object_store_that_is_away_for_half_a_minute_fails_nothing(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    until(lambda: "SparkContext: Running Spark" in kubectl("logs", run.pod), START_SECONDS, "no session")
    began = time.monotonic()
    with store_away():
        time.sleep(30)
    ended, log, _ = e2e.wait(run, 500)
    assert ended == "Succeeded", log[-3000:]
    note("object store away for 30 s", "the step waits and succeeds", time.monotonic() - began)


def test_an_object_store_that_is_away_for_good_is_told_soon(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    with store_away():
        began = time.monotonic()
        ended, log, _ = e2e.wait(run, 900)
        seconds = time.monotonic() - began
        assert ended == "Failed"
        # The driver gives up after a minute; what the task keeps besides, its log and the reason, must not wait as long again.
        assert seconds < 180
        note("object store away for good", error_of(log), seconds)
    nothing_goes_on(e2e, run)


@pytest.mark.selection
def test_a_wrong_key_is_told_within_seconds(e2e: E2E, run_id: str, note: Note) -> None:
    with changed("secret", "spark-kfp-object-store", {"stringData": {"secretkey": "not-the-key"}}):
        began = time.monotonic()
        run = start(e2e, run_id)
        ended, log, _ = e2e.wait(run)
        seconds = time.monotonic() - began
    assert ended == "Failed"
    assert "refuses (SignatureDoesNotMatch)" in error_of(log)
    assert e2e.application(run) is None, "nothing is submitted"
    assert seconds < 40
    note("wrong key in the secret", error_of(log), seconds)


def test_a_key_that_becomes_wrong_after_the_task_has_begun_is_told_by_the_step(
    e2e: E2E, run_id: str, note: Note
) -> None:
    run = start(e2e, run_id)
    until(lambda: e2e.application(run), START_SECONDS, "no application")
    with changed("secret", "spark-kfp-object-store", {"stringData": {"secretkey": "not-the-key"}}):
        until(is_running(e2e, run), START_SECONDS, "does not run")
        began = time.monotonic()
        ended, log, _ = e2e.wait(run)
        seconds = time.monotonic() - began
    assert ended == "Failed"
    assert "refuses (SignatureDoesNotMatch)" in error_of(log)
    assert seconds < 120
    note("wrong key in the secret since the task began", error_of(log), seconds)


def test_a_key_that_the_secret_lacks_is_told_by_its_name(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(lambda: e2e.application(run), START_SECONDS, "no application")
    with changed("secret", "spark-kfp-object-store", {"data": {"secretkey": None}}):
        began = time.monotonic()
        ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "couldn't find key secretkey in Secret spark-kfp/spark-kfp-object-store" in error_of(log)
    note("key missing in the secret", error_of(log), time.monotonic() - began)
    nothing_goes_on(e2e, run)


@pytest.mark.selection
def test_a_missing_bucket_is_told_by_its_name(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id, data_uri="s3://no-such-bucket/bank.csv")
    began = time.monotonic()
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "s3://no-such-bucket/bank.csv: there is no such bucket" in error_of(log)
    assert e2e.application(run) is None, "nothing is submitted"
    note("bucket missing", error_of(log), time.monotonic() - began)


@pytest.mark.selection
def test_an_image_that_does_not_exist_is_told_by_its_name(e2e: E2E, run_id: str, note: Note) -> None:
    with platform_says({"image": "localhost/no-such-image:1"}):
        run = start(e2e, run_id)
        began = time.monotonic()
        ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "image 'localhost/no-such-image:1' cannot be had" in error_of(log)
    note("image missing", error_of(log), time.monotonic() - began)
    nothing_goes_on(e2e, run)


def test_a_driver_that_needs_more_memory_than_it_has(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id, spark_settings={"load": {"driver": {"memory": "480m", "memoryOverhead": "1m"}}})
    began = time.monotonic()
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "more memory than its" in error_of(log)
    note("driver out of memory", error_of(log), time.monotonic() - began)


def test_a_step_whose_python_raises_is_told_with_its_error(e2e: E2E, run_id: str, note: Note) -> None:
    object_store.write_bytes(f"s3://{BUCKET}/e2e/broken.parquet", b"PAR1 is not enough")
    run = start(e2e, run_id, data_uri=f"s3://{BUCKET}/e2e/broken.parquet")
    began = time.monotonic()
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "broken.parquet" in error_of(log)
    note("the step's Python raises (a damaged Parquet file)", error_of(log)[:160], time.monotonic() - began)


@pytest.mark.selection
def test_the_same_task_started_twice_at_once_is_one_application(e2e: E2E, run_id: str, note: Note) -> None:
    began = time.monotonic()
    runs = [start(e2e, run_id) for _ in range(2)]
    ended = [e2e.wait(run) for run in runs]
    assert [phase for phase, _, _ in ended] == ["Succeeded"] * 2, ended[0][1][-2000:]
    assert sorted("found, following it" in log for _, log, _ in ended) == [False, True]
    note("the same task started twice at once", "both follow one application and succeed", time.monotonic() - began)


def test_a_quota_that_is_used_up_is_told(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    name = kubectl("get", "resourcequota", "-o", "name").split()[0].partition("/")[2]
    used = json.loads(kubectl("get", "resourcequota", name, "-o", "json"))["status"]["used"]["pods"]
    with changed("resourcequota", name, {"spec": {"hard": {"pods": used}}}):
        began = time.monotonic()
        told = until(
            lambda: re.search(r".*exceeded quota.*; trying again in 30 s", kubectl("logs", run.pod)),
            START_SECONDS,
            "not told",
        )
        note("quota used up", told[0][:200], time.monotonic() - began)
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", f"once there is room, the step succeeds: {log[-2000:]}"
