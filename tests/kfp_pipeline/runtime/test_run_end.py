"""When a run has ended, nothing of it goes on, and one document says how it went."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client, config

from kfp_pipeline.runtime import finish as around
from kfp_pipeline.runtime import kubernetes_api
from kfp_pipeline.runtime.errors import PermanentError
from kfp_pipeline.runtime.kubernetes_api import Cluster
from kfp_pipeline.runtime.run_end import end_run
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.runtime.spark_operator.manifest import MANAGED_BY, OUTPUT_URI_ANNOTATION, RUN_LABEL, STEP_LABEL
from spark_jobs.result import Result

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

PLACE = "s3://b/v2/artifacts/training/run-1"


class Documents:
    """An object store of small documents."""

    def __init__(self, **kept: str) -> None:
        self.kept: dict[str, str] = kept

    def read_text(self, uri: str) -> str | None:
        return self.kept.get(uri)

    def write_bytes(self, uri: str, content: bytes, *, brief: bool = False) -> None:  # noqa: ARG002 - never away
        self.kept[uri] = content.decode()


@pytest.fixture
def cluster(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(kubernetes_api, "FIRST_PAUSE_SECONDS", 0.02)
    settings = client.Configuration()
    config.load_kube_config(str(server.kubeconfig(tmp_path / "kubeconfig")), client_configuration=settings)
    settings.retries = False
    return Cluster(client.ApiClient(settings), "spark-kfp", patience_seconds=0.1)


def put(server: FakeKubernetes, step: str, state: str, *, run: str = "run-1", at: str = "01", error: str = "") -> None:
    """Puts an application there that no operator moves."""
    metadata = {
        "name": f"{run}-{step}",
        "labels": {**MANAGED_BY, STEP_LABEL: step, RUN_LABEL: run},
        "annotations": {OUTPUT_URI_ANNOTATION: f"{PLACE}/{step}/salt/out"},
        "creationTimestamp": f"2026-11-23T00:00:{at}Z",
    }
    status = {"applicationState": {"state": state, **({"errorMessage": error} if error else {})}}
    server.put("sparkapplications", {"metadata": metadata, "status": status})


def end(cluster: Cluster, documents: Documents, markdown_path: Path, status: str = "SUCCEEDED") -> dict[str, Any]:
    return end_run(
        cluster, documents, run="run-1", run_folder=PLACE, status=status, message="", markdown_path=markdown_path
    )


def names(cluster: Cluster) -> list[str]:
    return sorted(item["metadata"]["name"] for item in cluster.list(kubernetes_api.APPLICATIONS))


def test_what_still_runs_is_ended_and_what_has_ended_or_is_anothers_stays(
    server: FakeKubernetes, cluster: Cluster, tmp_path: Path
) -> None:
    put(server, "load", "COMPLETED", at="01")
    put(server, "preprocess", "FAILED", at="02", error="boom\nand more")
    put(server, "train", "RUNNING", at="03")
    put(server, "train", "RUNNING", run="run-2")
    document = end(cluster, Documents(), tmp_path / "minio/summary", "FAILED")
    assert names(cluster) == ["run-1-load", "run-1-preprocess", "run-2-train"]
    assert [(item["step"], item["state"]) for item in document["applications"]] == [
        ("load", "COMPLETED"),
        ("preprocess", "FAILED"),
        ("train", "RUNNING, ended now"),
    ]
    assert document["applications"][1]["error"].startswith("boom")
    assert (tmp_path / "minio/summary").read_text().startswith("# FAILED\n")


def test_the_metrics_and_the_report_are_those_of_the_runs_evaluation(
    server: FakeKubernetes, cluster: Cluster, tmp_path: Path
) -> None:
    put(server, "evaluate", "COMPLETED")
    result = Result(step="evaluate", status="succeeded", metrics={"f1": 0.5}, arguments={"report_uri": "s3://b/r"})
    documents = Documents()
    documents.kept[f"{PLACE}/evaluate/salt/out/result.json"] = result.to_json()
    end(cluster, documents, tmp_path / "summary")
    kept = json.loads(documents.kept[f"{PLACE}/summary.json"])
    assert (kept["status"], kept["metrics"], kept["report"]) == ("SUCCEEDED", {"f1": 0.5}, "s3://b/r")


def test_the_reason_that_a_task_has_left_is_told_and_not_the_operators_empty_word(
    server: FakeKubernetes, cluster: Cluster, tmp_path: Path
) -> None:
    put(server, "load", "COMPLETED", at="01")
    put(server, "preprocess", "FAILED", at="02", error="driver container failed with ExitCode: 2, Reason: Error")
    documents = Documents()
    failure = {"kind": "input", "type": "InputError", "message": "no label column 'depositt'; did you mean 'deposit'?"}
    documents.kept[f"{PLACE}/failures/preprocess.json"] = json.dumps({**failure, "frames": []})
    document = end(cluster, documents, tmp_path / "summary", "FAILED")
    assert document["message"] == f"preprocess: {failure['message']}"
    assert [item["error"] for item in document["applications"]] == ["", failure["message"]]
    assert "preprocess: no label column 'depositt'; did you mean 'deposit'?" in (tmp_path / "summary").read_text()
    assert end(cluster, documents, tmp_path / "summary", "SUCCEEDED")["message"] == ""


def test_a_run_whose_evaluation_failed_has_no_metrics(server: FakeKubernetes, cluster: Cluster, tmp_path: Path) -> None:
    put(server, "evaluate", "FAILED")
    assert end(cluster, Documents(), tmp_path / "summary", "FAILED")["metrics"] == {}


def test_the_metrics_of_a_pipeline_that_evaluates_no_model_are_those_of_its_last_step(
    server: FakeKubernetes, cluster: Cluster, tmp_path: Path
) -> None:
    documents = Documents()
    for at, step in (("01", "load"), ("02", "train")):
        put(server, step, "COMPLETED", at=at)
        result = Result(step=step, status="succeeded", metrics={f"of {step}": 2.0})
        documents.kept[f"{PLACE}/{step}/salt/out/result.json"] = result.to_json()
    document = end(cluster, documents, tmp_path / "summary")
    assert (document["metrics"], document["report"]) == ({"of train": 2.0}, "")
    assert end(cluster, documents, tmp_path / "summary", "FAILED")["metrics"] == {}


@pytest.mark.parametrize("uri", ["s3://b/v2/other/finish/x/summary", "s3://b/run-12/finish/summary"])
def test_a_task_outside_of_its_runs_folder_is_refused(uri: str) -> None:
    with pytest.raises(PermanentError, match="does not lie in a folder named after the run"):
        run_folder_of(uri, "run-1")
    with pytest.raises(PermanentError):
        run_folder_of(uri, "")
    assert run_folder_of(f"{PLACE}/finish/x/summary", "run-1") == PLACE


def test_the_task_ends_the_run_that_its_pod_is_labelled_with(
    server: FakeKubernetes,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(server, "train", "RUNNING")
    documents = Documents()
    monkeypatch.setattr(around, "connect", lambda *_: cluster)
    monkeypatch.setenv("SPARK_KFP_RUN_ID", "run-1")
    monkeypatch.setattr(around, "object_store", documents)
    summary = SimpleNamespace(uri=f"{PLACE}/finish/x/summary", path=str(tmp_path / "summary"))
    around.finish("CANCELLED", "stopped by a user", summary)
    assert "train: SparkApplication run-1-train: RUNNING, ended now" in capsys.readouterr().out
    assert json.loads(documents.kept[f"{PLACE}/summary.json"])["message"] == "stopped by a user"
