"""The whole pipeline on a real cluster, from the compiled YAML alone: the tasks' own commands in pods, Spark by the real operator."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, DATA, E2E, LocalRun, TaskRun, compile_pipeline, kubectl, new_root, until
from ir import CompiledTask
from whole_run import STEPS, TASKS, Whole

from kfp_pipeline.runtime import object_store

pytestmark = [pytest.mark.cluster, pytest.mark.selection]


@pytest.fixture(scope="module")
def e2e(e2e: E2E) -> E2E:
    """With a root of its own: below the others' root the tests of faults have loaded the same data, and load would take that over."""
    return replace(e2e, root=new_root())


@pytest.fixture(scope="module")
def cache() -> dict[str, Any]:
    """KFP's cache, shared by the runs."""
    return {}


@pytest.fixture(scope="module")
def finished(e2e: E2E, cache: dict[str, Any]) -> Whole:
    """A run that nothing disturbs."""
    whole = Whole(e2e, cache).run()
    assert whole.state == "SUCCEEDED", (whole.walker.states, whole.logs)
    return whole


def test_the_metrics_are_those_of_a_run_on_one_machine(finished: Whole, local_run: LocalRun) -> None:
    local = local_run.document["metrics"]
    remote = finished.artifact("evaluate", "metrics")["metadata"]
    assert remote.keys() == local.keys()
    assert {name: abs(remote[name] - local[name]) < 1e-9 for name in local} == dict.fromkeys(local, True)


def test_each_artifact_keeps_its_uri_and_can_be_read(finished: Whole) -> None:
    for task in (*STEPS, "finish"):
        for name, item in finished.outputs[task]["artifacts"].items():
            assert item["artifacts"][0]["uri"].startswith(f"{finished.e2e.root}/{finished.run_id}/{task}/"), name
    assert "<html" in finished.document("evaluate", "report")
    assert "| areaUnderROC | 0." in finished.document("evaluate", "summary")
    curves = finished.artifact("evaluate", "curves")["metadata"]
    assert "confidenceMetrics" in curves
    assert "confusionMatrix" in curves


def test_the_drivers_log_is_in_the_tasks_log_and_beside_the_artifacts(finished: Whole) -> None:
    for step in STEPS:
        assert f"INFO spark_jobs: step {step}:" in finished.logs[step]
        kept = object_store.read_text(f"{finished.runs[step][0].output_uri}/driver.log") or ""
        assert f"INFO spark_jobs: step {step}:" in kept


def test_the_last_task_says_how_it_went(finished: Whole) -> None:
    summary = finished.summary()
    assert summary["status"] == "SUCCEEDED"
    assert [(item["step"], item["state"]) for item in summary["applications"]] == [(s, "COMPLETED") for s in STEPS]
    assert summary["metrics"] == finished.artifact("evaluate", "metrics")["metadata"]
    assert summary["report"] == finished.artifact("evaluate", "report")["uri"]
    assert "# SUCCEEDED" in finished.document("finish", "summary")


def test_no_secret_is_in_any_object_event_or_log(finished: Whole) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    shown = kubectl("get", "sparkapplications,pods,configmaps,events,leases", "-o", "yaml")
    assert len(shown) > 1000
    assert secret not in shown
    for step in STEPS:
        assert secret not in finished.logs[step]
        for pod in (finished.runs[step][0].pod, f"{finished.runs[step][0].application}-driver"):
            assert secret not in kubectl("logs", pod)


def test_with_the_same_data_only_the_evaluation_is_made_again(finished: Whole, cache: dict[str, Any]) -> None:
    again = Whole(finished.e2e, cache).run()
    assert again.state == "SUCCEEDED", again.logs
    assert list(again.runs) == ["load", "evaluate", "finish"]
    assert finished.e2e.application(again.runs["load"][0]) is None
    earlier = finished.runs["load"][0].output_uri
    assert again.artifact("load", "table")["metadata"]["reused_from"] == earlier
    assert f"loaded by an earlier run, taken over: {earlier}" in again.logs["load"]
    assert again.artifact("evaluate", "metrics")["metadata"] == finished.artifact("evaluate", "metrics")["metadata"]
    assert again.artifact("evaluate", "report")["uri"] != finished.artifact("evaluate", "report")["uri"]


def test_every_task_is_killed_once_and_repeated_and_nothing_is_submitted_twice(e2e: E2E, tmp_path: Path) -> None:
    """As somebody has it who sets `retries`."""
    made: dict[str, str] = {}
    (tmp_path / "platform.yaml").write_text("retries: 1\n", encoding="utf-8")
    retried = compile_pipeline(tmp_path, e2e.image, "--platform", str(tmp_path / "platform.yaml"))

    def disturb(task: CompiledTask, run: TaskRun) -> None:
        """Kills the pod: a step's once its application is there, another's once it runs."""
        if run.application:
            found = until(lambda: e2e.application(run), 240, f"{task.name} has submitted nothing")
            made[task.name] = found["metadata"]["uid"]
        else:
            until(lambda: e2e.phase(run) != "Pending", 240, f"{task.name} does not run")
        kubectl("delete", "pod", run.pod, "--grace-period=0", "--force", check=False)

    dated = time.strftime("%Y-%m-%d", time.gmtime())
    object_store.upload(DATA, f"s3://{BUCKET}/e2e/{dated}/{DATA.name}")
    uri = f"s3://{BUCKET}/e2e/{{{{date}}}}/{DATA.name}"
    whole = Whole(replace(e2e, compiled=retried), {}, {"data_uri": uri}, disturb).run()
    assert whole.state == "SUCCEEDED", (whole.walker.states, whole.logs)
    assert {name: len(runs) for name, runs in whole.runs.items()} == dict.fromkeys(TASKS, 2)
    for step in STEPS:
        assert (e2e.application(whole.runs[step][1]) or {})["metadata"]["uid"] == made[step], step
    assert f"data: s3://{BUCKET}/e2e/{dated}/{DATA.name}, version " in whole.logs["load"]


def test_a_run_that_fails_is_ended_and_says_why(e2e: E2E) -> None:
    whole = Whole(e2e, {}, {"label": "nobody"}).run()
    assert whole.state == "FAILED"
    assert list(whole.runs) == ["load", "finish"]
    assert "spark-kfp: error: " in whole.logs["load"]
    summary = whole.summary()
    assert summary["status"] == "FAILED"
    assert summary["message"].startswith("load: ")
    assert f"spark-kfp: error: {summary['message'].removeprefix('load: ')}" in whole.logs["load"]
    assert summary["metrics"] == {}
    assert [item["step"] for item in summary["applications"]] == ["load"]


def test_data_that_are_not_there_are_told_before_anything_is_submitted(e2e: E2E) -> None:
    whole = Whole(e2e, {}, {"data_uri": f"s3://{BUCKET}/nothing/{{{{date}}}}.csv"}).run()
    assert whole.state == "FAILED"
    assert list(whole.runs) == ["load", "finish"]
    assert "there is nothing in the object store" in whole.logs["load"]
    assert whole.summary()["applications"] == []
