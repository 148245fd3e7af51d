"""The steps of a run in one Spark session, `spark: shared`, on a real cluster: the whole pipeline, and what disturbs it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import E2E, TaskRun, compile_pipeline, kubectl, new_root, rolled_out, until
from faults import (
    START_SECONDS,
    STOP,
    TERMINATE,
    Note,
    changed,
    error_of,
    is_running,
    kill,
    nothing_goes_on,
    to_the_step,
)
from ir import CompiledTask
from whole_run import STEPS, Whole

from benchmarks.cluster import request_counts
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS
from kfp_pipeline.runtime.spark_operator.manifest import RUN_LABEL

pytestmark = pytest.mark.cluster
SHARED = {"spark": "shared"}


@pytest.fixture(scope="module")
def e2e(e2e: E2E) -> E2E:
    """With a root of its own: below the others' root load would take over what they have loaded."""
    return replace(e2e, root=new_root())


@pytest.fixture
def fresh(e2e: E2E) -> E2E:
    """With a root below which no test has loaded anything, so that load runs too."""
    return replace(e2e, root=new_root())


def applications_of(whole: Whole) -> list[dict[str, Any]]:
    return whole.e2e.cluster.list(APPLICATIONS, labelSelector=f"{RUN_LABEL}={whole.run_id}")


def running_step(e2e: E2E, run: TaskRun) -> str:
    """Which step the session runs now; empty for none."""
    application = e2e.application(run)
    uri = (application or {"metadata": {}})["metadata"].get("annotations", {}).get("spark-kfp/output-uri", "")
    steps = json.loads(object_store.read_text(f"{uri}/steps.json") or "{}") if uri else {}
    return next((name.rpartition("-")[0] for name, found in steps.items() if found["state"] == "running"), "")


METRICS_SECONDS = 12
"""MinIO counts requests anew every ten seconds."""
COUNTS: dict[str, int] = {}
"""The object store's number of requests at the start of each task of the run that nothing disturbs."""


@pytest.fixture(scope="module")
def finished(e2e: E2E) -> Whole:
    """A run that nothing disturbs."""

    def count(task: CompiledTask, _: TaskRun) -> None:
        if task.name == "finish":
            time.sleep(METRICS_SECONDS)
        COUNTS[task.name] = sum(request_counts().values())

    whole = Whole(e2e, {}, SHARED, count).run()
    assert whole.state == "SUCCEEDED", (whole.walker.states, whole.logs)
    return whole


@pytest.mark.selection
def test_one_application_runs_all_steps_with_the_metrics_of_one_for_each(finished: Whole, fresh: E2E) -> None:
    (application,) = applications_of(finished)
    until(lambda: finished.e2e.state(finished.runs["train"][0]) == "COMPLETED", 60, "the session goes on")
    assert application["metadata"]["labels"]["spark-kfp/step"] == "session"
    for step in STEPS:
        assert f"INFO spark_jobs: step {step}:" in finished.logs[step]
        others = [other for other in STEPS if other != step]
        assert not any(f"INFO spark_jobs: step {other}:" in finished.logs[step] for other in others)
    summary = finished.summary()
    assert summary["status"] == "SUCCEEDED"
    assert summary["metrics"] == finished.artifact("evaluate", "metrics")["metadata"]
    assert summary["report"] == finished.artifact("evaluate", "report")["uri"]
    isolated = Whole(fresh, {}).run()
    remote = isolated.artifact("evaluate", "metrics")["metadata"]
    shared = finished.artifact("evaluate", "metrics")["metadata"]
    assert {name: abs(shared[name] - remote[name]) < 1e-12 for name in remote} == dict.fromkeys(remote, True)


@pytest.mark.selection
@pytest.mark.usefixtures("finished")
def test_a_run_needs_few_requests_to_the_object_store() -> None:
    """With an application for each step, which saves models by S3A, it is more than a thousand."""
    assert 100 < COUNTS["finish"] - COUNTS["load"] < 450, COUNTS


def test_no_executor_is_started(finished: Whole) -> None:
    (application,) = applications_of(finished)
    assert not (application.get("status") or {}).get("executorState")


def test_the_driver_is_killed_in_each_step_and_each_step_is_repeated_in_a_new_session(fresh: E2E, note: Note) -> None:
    told: dict[str, str] = {}
    seconds: list[float] = []

    def disturb(task: CompiledTask, run: TaskRun) -> None:
        if task.name not in STEPS:
            return
        until(lambda: running_step(fresh, run) == task.name, START_SECONDS, f"{task.name} does not run")
        began = time.monotonic()
        kill(f"{run.application}-driver")
        found = until(lambda: re.search(r".*; trying again in 30 s", kubectl("logs", run.pod)), 90, "not told")
        told[task.name] = found[0]
        seconds.append(time.monotonic() - began)

    whole = Whole(fresh, {}, SHARED, disturb).run()
    assert whole.state == "SUCCEEDED", (whole.walker.states, whole.logs)
    assert list(told) == list(STEPS)
    note(
        "shared session: driver's pod killed in each step",
        f"{told['train']}; then the step succeeds in a new session",
        max(seconds),
    )


@pytest.mark.selection
def test_the_task_is_killed_in_each_step_and_its_successor_follows_the_same_step(
    fresh: E2E, tmp_path: Path, note: Note
) -> None:
    (tmp_path / "platform.yaml").write_text("retries: 1\n", encoding="utf-8")
    retried = compile_pipeline(tmp_path, fresh.image, "--platform", str(tmp_path / "platform.yaml"))
    began = time.monotonic()

    def disturb(task: CompiledTask, run: TaskRun) -> None:
        if task.name in STEPS:
            until(lambda: running_step(fresh, run) == task.name, START_SECONDS, f"{task.name} does not run")
            kill(run.pod)

    whole = Whole(replace(fresh, compiled=retried), {}, SHARED, disturb).run()
    assert whole.state == "SUCCEEDED", (whole.walker.states, whole.logs)
    assert {name: len(runs) for name, runs in whole.runs.items()} == {**dict.fromkeys(STEPS, 2), "finish": 1}
    (application,) = applications_of(whole)
    uri = application["metadata"]["annotations"]["spark-kfp/output-uri"]
    assert len(json.loads(object_store.read_text(f"{uri}/steps.json") or "{}")) == len(STEPS), "each step ran once"
    note(
        "shared session: task's pod killed in each step",
        "another follows the same step in the same session",
        time.monotonic() - began,
    )


def test_two_runs_at_once_have_a_session_each(fresh: E2E, note: Note) -> None:
    began = time.monotonic()
    wholes = [Whole(replace(fresh, root=new_root()), {}, SHARED) for _ in range(2)]
    threads = [threading.Thread(target=whole.run) for whole in wholes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [whole.state for whole in wholes] == ["SUCCEEDED"] * 2, [whole.logs for whole in wholes]
    names = [[item["metadata"]["name"] for item in applications_of(whole)] for whole in wholes]
    assert [len(found) for found in names] == [1, 1]
    assert names[0] != names[1]
    note("shared session: two runs at once", "each has a session of its own, both succeed", time.monotonic() - began)


def start(e2e: E2E, run_id: str, **more: Any) -> TaskRun:
    return e2e.start("load", e2e.inputs(**SHARED, **more), run_id)


def test_a_session_that_needs_more_memory_than_it_has(fresh: E2E, run_id: str, note: Note) -> None:
    small = {"session": {"driver": {"memory": "480m", "memoryOverhead": "1m"}}}
    run = start(fresh, run_id, spark_settings=small)
    began = time.monotonic()
    ended, log, _ = fresh.wait(run)
    assert ended == "Failed"
    assert "more memory than its" in error_of(log)
    note("shared session: driver out of memory", error_of(log), time.monotonic() - began)
    nothing_goes_on(fresh, run)


def test_a_session_that_runs_but_takes_no_step_is_told_and_deleted(fresh: E2E, run_id: str, note: Note) -> None:
    seconds = 45  # as shipped it is three minutes
    with limits_say({"session_answer_seconds": seconds}):
        run = start(fresh, run_id)
        until(is_running(fresh, run), START_SECONDS, "does not run")
        to_the_step(run, STOP)  # long before Spark has started
        began = time.monotonic()
        told = until(
            lambda: re.search(r".*has not taken the step for 45 s.*", kubectl("logs", run.pod, check=False)),
            seconds + 60,
            "not told",
        )
        note(
            f"shared session: its driver answers nothing, with a limit of {seconds} s",
            told[0],
            time.monotonic() - began,
        )
        ended, log, _ = fresh.wait(run)
        assert ended == "Succeeded", log[-2000:]
    fresh.cluster.delete(APPLICATIONS, run.application)


def test_a_task_that_is_asked_to_stop_deletes_the_session(fresh: E2E, run_id: str, note: Note) -> None:
    run = start(fresh, run_id)
    until(is_running(fresh, run), START_SECONDS, "does not run")
    began = time.monotonic()
    kubectl("exec", run.pod, "--", "python", "-c", TERMINATE)
    until(lambda: fresh.application(run) is None, 30, "the application is still there")
    note("shared session: SIGTERM to the task", "interrupted: deleting SparkApplication", time.monotonic() - began)
    nothing_goes_on(fresh, run)


def test_an_operator_that_is_away_disturbs_no_step_of_a_session_that_runs(fresh: E2E, note: Note) -> None:
    began: list[float] = []

    def disturb(task: CompiledTask, _: TaskRun) -> None:
        if task.name == "preprocess":
            began.append(time.monotonic())
            kubectl("-n", "spark-operator", "scale", "deployment/spark-operator-controller", "--replicas=0")

    try:
        whole = Whole(fresh, {}, SHARED, disturb).run()
    finally:
        kubectl("-n", "spark-operator", "scale", "deployment/spark-operator-controller", "--replicas=1")
    assert whole.state == "SUCCEEDED", (whole.walker.states, whole.logs)
    note("shared session: operator away from the second step on", "the run succeeds", time.monotonic() - began[0])
    rolled_out("spark-operator-controller", namespace="spark-operator")


@contextmanager
def limits_say(change: dict[str, float]) -> Iterator[None]:
    """Changes the platform's limits.yaml."""
    data = json.loads(kubectl("get", "configmap", "spark-kfp", "-o", "json"))["data"]
    limits = (yaml.safe_load(data.get("limits.yaml", "")) or {}) | change
    with changed("configmap", "spark-kfp", {"data": {"limits.yaml": yaml.safe_dump(limits)}}):
        yield
