"""The whole pipeline on a real cluster, from the compiled YAML alone: the tasks' own commands in pods, Spark by the real operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, DATA, E2E, PROJECT, kubectl

from kfp_pipeline.runtime import object_store

pytestmark = [pytest.mark.cluster, pytest.mark.selection]
STEPS = ("load", "preprocess", "train", "evaluate")


@pytest.fixture(scope="module")
def finished(e2e: E2E) -> dict[str, Any]:
    """Every task's log and output of one run."""
    run_id, returned, found = "whole-" + os.urandom(4).hex(), dict[str, str](), dict[str, Any]()
    for step in STEPS:
        run = e2e.start(step, e2e.inputs(), returned, run_id)
        phase, log, output = e2e.wait(run)
        assert phase == "Succeeded", log[-3000:]
        returned[step] = output["parameterValues"]["Output"]
        found[step] = {"run": run, "log": log, "output": output}
    return found


def test_the_metrics_are_those_of_a_run_on_one_machine(finished: dict[str, Any], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "kfp_pipeline",
        "run",
        str(DATA),
        "--spec",
        str(PROJECT / "data/bank.toml"),
        "--json",
    ]
    done = subprocess.run([*command, "--runs", str(tmp_path)], capture_output=True, text=True, check=True)
    local = json.loads(done.stdout)["metrics"]
    artifacts = finished["evaluate"]["output"]["artifacts"]
    remote = artifacts["metrics"]["artifacts"][0]["metadata"]
    assert remote.keys() == local.keys()
    assert {name: abs(remote[name] - local[name]) < 1e-9 for name in local} == dict.fromkeys(local, True)


def test_each_artifact_keeps_its_uri_and_can_be_read(finished: dict[str, Any]) -> None:
    for step in STEPS:
        for name, item in finished[step]["output"]["artifacts"].items():
            assert item["artifacts"][0]["uri"].startswith(f"minio://{BUCKET}/v2/artifacts/"), name
    report = finished["evaluate"]["output"]["artifacts"]["report"]["artifacts"][0]["uri"]
    assert "<html" in (object_store.read_text(report) or "")
    curves = finished["evaluate"]["output"]["artifacts"]["curves"]["artifacts"][0]["metadata"]
    assert "confidenceMetrics" in curves
    assert "confusionMatrix" in curves


def test_the_drivers_log_is_in_the_tasks_log_and_beside_the_artifacts(finished: dict[str, Any]) -> None:
    for step in STEPS:
        assert f"INFO spark_jobs: step {step}:" in finished[step]["log"]
        kept = object_store.read_text(f"{finished[step]['run'].output_uri}/driver.log") or ""
        assert f"INFO spark_jobs: step {step}:" in kept


def test_no_secret_is_in_any_object_event_or_log(finished: dict[str, Any]) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    shown = kubectl("get", "sparkapplications,pods,configmaps,events,leases", "-o", "yaml")
    assert len(shown) > 1000
    assert secret not in shown
    for step in STEPS:
        assert secret not in finished[step]["log"]
        for pod in (finished[step]["run"].pod, f"{finished[step]['run'].application}-driver"):
            assert secret not in kubectl("logs", pod)


def test_a_second_attempt_of_a_finished_task_takes_it_as_it_is(e2e: E2E, finished: dict[str, Any]) -> None:
    before = finished["load"]["run"]
    uid = (e2e.application(before) or {})["metadata"]["uid"]
    run_id = before.output_uri.split("/")[-3]
    again = e2e.start("load", e2e.inputs(), {}, run_id)
    phase, log, _ = e2e.wait(again)
    assert phase == "Succeeded"
    assert "found, following it" in log
    assert (e2e.application(before) or {})["metadata"]["uid"] == uid
