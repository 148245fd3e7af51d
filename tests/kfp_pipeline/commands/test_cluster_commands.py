"""The commands that talk to a cluster, called as a person calls them, against a fake API server over real HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kfp_pipeline.commands import parser
from kfp_pipeline.commands.main import main
from kfp_pipeline.runtime import kubernetes_api, object_store
from kfp_pipeline.runtime.spark_operator.manifest import (
    MANAGED_BY,
    OUTPUT_URI_ANNOTATION,
    RUN_LABEL,
    STEP_LABEL,
    label_value,
)
from spark_jobs.contract import TRAINING, Pipeline, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

PROJECT = Path(__file__).resolve().parents[3]
TEMPLATE = (PROJECT / "spark-operator/base/spark-application.yaml").read_text()
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[FakeKubernetes]:
    from fake_kubernetes import FakeKubernetes

    with FakeKubernetes(speed=0) as running:
        yield running


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the client looks: it reads KUBECONFIG only once, when it is imported."""
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr(kubernetes_api, "IN_CLUSTER_NAMESPACE", tmp_path / "no-such-file")
    monkeypatch.setattr(kubernetes_api, "FIRST_PAUSE_SECONDS", 0.02)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def call(kubeconfig: Path, server: FakeKubernetes, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the command; its exit code, output and errors."""
    server.kubeconfig(kubeconfig)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def submit(server: FakeKubernetes, name: str, script: Any = "success", steps: int = 0, *, run: str = "r1") -> None:
    """Submits an application and moves it by hand."""
    server.operator.script(name, script)
    metadata = {
        "name": name,
        "labels": {**MANAGED_BY, STEP_LABEL: "load", RUN_LABEL: label_value(run)},
        "annotations": {OUTPUT_URI_ANNOTATION: f"s3://kfp/{run}/load"},
    }
    server.create(
        "sparkapplications",
        "spark-kfp",
        {"metadata": metadata, "spec": {"mainApplicationFile": "local:///x.py"}},
        dry_run=False,
    )
    server.operator.step(name, steps)


def test_status_lists_what_is_there_with_its_state_and_error(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-new")
    submit(server, "app-dead", "oom", 5, run="r2")
    server.put("sparkapplications", {"metadata": {"name": "of-another"}})
    code, out, _ = call("status")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["name", "step", "run", "state", "created", "error"]
    assert {line.split()[0] for line in lines[1:]} == {"app-new", "app-dead"}
    (dead,) = [line for line in lines if line.startswith("app-dead")]
    assert dead.split()[1:4] == ["load", "r2", "FAILED"]
    assert "OOMKilled" in dead


def test_status_of_a_namespace_with_nothing_says_so(call: Call) -> None:
    code, out, err = call("status", "--namespace", "nope")
    assert (code, out) == (0, "")
    assert err == "no SparkApplications of spark-kfp in namespace nope\n"


PIPELINE = ("submit", "pipeline", "s3://kfp/x.csv", "--label", "y", "--output", "s3://kfp/runs")


def test_nothing_is_submitted_if_this_machine_cannot_read_the_results(server: FakeKubernetes, call: Call) -> None:
    object_store.from_environment.cache_clear()
    code, _, err = call(*PIPELINE)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(
        "spark-kfp: error: AWS_ENDPOINT_URL is not set, and there are no keys for Amazon S3: set AWS_ACCESS"
    )
    assert not server.applications


def test_a_pipeline_that_makes_no_report_ends_with_the_metrics_of_its_last_step(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp_pipeline.commands import cluster_commands

    loading = Pipeline(name="loading", title="Load", about="Loads a table.", group="Loading", steps=(Step.LOAD,))
    monkeypatch.setattr(parser, "PIPELINES", {"loading": loading, "training": TRAINING})
    seen: list[Any] = []

    def submit(_: object, pipeline: Pipeline, inputs: Any, *__: object, **___: object) -> list[Result]:
        seen.extend([pipeline, sorted(inputs)])
        return [Result(step="load", status="succeeded", metrics={"rows": 8.0})]

    monkeypatch.setattr(cluster_commands, "submit_pipeline", submit)
    code, out, err = call(*PIPELINE, "--pipeline=loading")
    assert (code, json.loads(out), err) == (0, {"rows": 8.0}, "")
    assert seen == [loading, sorted(loading.inputs())]


@pytest.mark.parametrize("step", ["pipeline", "load"])
def test_nothing_is_submitted_without_the_bucket(
    server: FakeKubernetes, call: Call, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(object_store, "bucket_exists", lambda _: False)
    one = ("submit", "load", "--data-uri", "s3://kfp/x.csv", "--label", "y", "--output-uri", "s3://kfp/runs")
    code, _, err = call(*(PIPELINE if step == "pipeline" else one))
    assert code == 2
    assert "s3://kfp/runs: there is no such bucket; make it first: spark-kfp data make-bucket kfp" in err
    assert not server.applications


def test_settings_that_are_not_yaml_are_told_in_one_line(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("all:\n  driver: [1,\n")
    code, _, err = call(*PIPELINE, "--spark-settings", str(path))
    assert code == 2
    assert err.startswith(f"spark-kfp: error: {path}, line 3 is not YAML: ")
    assert err.count("\n") == 1


def test_status_as_json_is_one_document(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-new")
    code, out, _ = call("status", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["created"]
    assert {key: row[key] for key in row if key != "created"} == {
        "name": "app-new",
        "step": "load",
        "run": "r1",
        "state": "NEW",
        "error": "",
        "output": "s3://kfp/r1/load",
    }


def test_status_of_an_empty_namespace_is_empty(call: Call) -> None:
    assert call("status", "--json") == (0, "[]\n", "")
    assert call("status", "--namespace", "other", "--json")[1] == "[]\n"


def test_logs_of_a_failed_application_end_with_the_reason_and_exit_code_1(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-1", "python_error", 5)
    code, out, err = call("logs", "app-1")
    assert code == 1
    assert "INFO Step: line 19\n" in out
    assert "ValueError: no column x\n" in out
    assert err == "spark-kfp: error: the driver ended with exit code 1\n"


def test_logs_of_a_driver_that_has_just_failed_tell_the_line_of_the_log_that_names_the_error(
    server: FakeKubernetes, call: Call
) -> None:
    from fake_operator import NEW, RUNNING, SUBMITTED, Stage

    last = Stage(1, "FAILING", "Failed", log=("Caused by: no column x", "INFO the end"), reason="Error", exit_code=1)
    submit(server, "app-1", [NEW, SUBMITTED, RUNNING, last], 4)
    code, _, err = call("logs", "app-1")
    assert (code, err) == (1, "spark-kfp: error: the driver ended with exit code 1: Caused by: no column x\n")


def test_logs_do_not_call_an_application_failed_whose_driver_runs(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-1", "operator_restart", 4)
    code, out, err = call("logs", "app-1")
    assert (code, out.count("INFO Step"), err) == (0, 20, "")


def test_logs_of_one_that_succeeded_and_of_one_that_runs_are_exit_code_0(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-done", "success", 5)
    submit(server, "app-runs", "success", 3)
    for name in ("app-done", "runs"):
        code, out, err = call("logs", name)
        assert (code, out.count("INFO Step"), err) == (0, 20, "")


def test_logs_of_a_driver_that_is_gone_are_those_that_were_kept(
    server: FakeKubernetes, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(server, "app-1", "oom", 5)
    server.remove("pods", "app-1-driver")
    kept = {"s3://kfp/r1/load/driver.log": "line of the past"}
    monkeypatch.setattr(object_store, "read_text", kept.get)
    code, out, err = call("logs", "app-1")
    assert (code, out) == (1, "line of the past\n")
    assert "OOMKilled" in err


def test_logs_of_a_driver_that_has_not_started_say_so(
    server: FakeKubernetes, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(server, "app-1", "image_missing", 2)
    monkeypatch.setattr(object_store, "read_text", lambda _: None)
    assert call("logs", "app-1") == (0, "no log: the driver app-1-driver has not started\n", "")


def test_logs_tell_why_an_application_failed_even_if_the_kept_log_cannot_be_had(
    server: FakeKubernetes, call: Call
) -> None:
    submit(server, "app-1", "quota_exceeded", 3)
    object_store.from_environment.cache_clear()
    code, _, err = call("logs", "app-1")
    assert code == 1
    assert "quota is used up" in err


def test_logs_that_follow_to_the_end_of_a_failing_driver_tell_why(
    server: FakeKubernetes, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(server, "app-1", "python_error", 3)
    log = kubernetes_api.Cluster.log

    def fails_meanwhile(self: Any, *given: Any, **more: Any) -> Iterator[str]:
        if server.applications["app-1"]["status"]["applicationState"]["state"] == "RUNNING":
            server.operator.step("app-1", 2)
        return log(self, *given, **more)

    monkeypatch.setattr(kubernetes_api.Cluster, "log", fails_meanwhile)
    code, out, err = call("logs", "-f", "app-1")
    assert "ValueError: no column x" in out
    assert code == 1
    assert "exit code 1" in err


def test_an_application_is_cancelled_by_name_or_by_the_end_of_it(server: FakeKubernetes, call: Call) -> None:
    for name in ("app-1", "app-2"):
        submit(server, name, "success", 3)
    assert call("cancel", "app-1") == (0, "cancelled app-1\n", "")
    assert call("cancel", "2") == (0, "cancelled app-2\n", "")
    assert not server.applications
    assert not server.list("pods")


def test_a_run_is_cancelled_whole_but_for_what_has_ended(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-1", "success", 5)
    submit(server, "app-2", "success", 3)
    submit(server, "app-3", "success", 3, run="r2")
    assert call("cancel", "--run", "r1") == (0, "cancelled app-2\n", "")
    assert list(server.applications) == ["app-1", "app-3"]


@pytest.mark.parametrize("run", ["täglich", "_nightly", "n" * 70])
def test_a_run_whose_id_no_label_can_hold_is_found_by_its_id(server: FakeKubernetes, call: Call, run: str) -> None:
    submit(server, "app-1", "success", 3, run=run)
    submit(server, "app-2", "oom", 5, run=run)
    submit(server, "app-3", "success", 3, run=run.replace("ä", "-").strip("_")[:63])
    assert label_value(run) in call("status")[1]
    assert call("cancel", "--run", run) == (0, "cancelled app-1\n", "")
    assert call("clean", "--run", run)[:2] == (0, "deleted app-2\n")
    assert list(server.applications) == ["app-3"]


def test_a_failed_application_whose_driver_runs_can_be_cancelled(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-1", "operator_restart", 4)
    assert call("cancel", "app-1") == (0, "cancelled app-1\n", "")
    assert not server.applications


@pytest.mark.parametrize("argv", [("cancel",), ("cancel", "app-1", "--run", "r1")])
def test_cancel_wants_a_name_or_a_run(server: FakeKubernetes, call: Call, argv: tuple[str, ...]) -> None:
    submit(server, "app-1")
    code, _, err = call(*argv)
    assert code == 2
    assert "spark-kfp status lists them" in err
    assert list(server.applications) == ["app-1"]


@pytest.mark.parametrize(
    "argv", [("logs", "nobody"), ("cancel", "nobody"), ("cancel", "--run", "nobody"), ("clean", "--run", "nobody")]
)
def test_an_unknown_name_is_exit_code_2_and_says_what_lists_the_known(
    server: FakeKubernetes, call: Call, argv: tuple[str, ...]
) -> None:
    submit(server, "app-1", "success", 5)
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert "nobody" in err
    assert "spark-kfp status lists them" in err
    assert list(server.applications) == ["app-1"]


def test_an_end_that_fits_two_names_touches_neither(server: FakeKubernetes, call: Call) -> None:
    for name in ("a-same", "b-same"):
        submit(server, name)
    code, _, err = call("cancel", "same")
    assert code == 2
    assert "a-same, b-same" in err
    assert len(server.applications) == 2


def test_clean_deletes_what_has_ended_and_a_dry_run_only_says_so(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-done", "success", 5)
    submit(server, "app-dead", "oom", 5, run="r2")
    submit(server, "app-runs", "success", 3)
    code, out, _ = call("clean", "--dry-run")
    assert (code, sorted(out.splitlines())) == (0, ["would delete app-dead", "would delete app-done"])
    assert len(server.applications) == 3
    assert call("clean", "--run", "r2")[:2] == (0, "deleted app-dead\n")
    assert call("clean")[:2] == (0, "deleted app-done\n")
    assert list(server.applications) == ["app-runs"]


def test_clean_leaves_a_failed_application_whose_driver_runs(server: FakeKubernetes, call: Call) -> None:
    submit(server, "app-1", "operator_restart", 4)
    assert call("clean") == (0, "", "")
    assert list(server.applications) == ["app-1"]


@pytest.mark.parametrize("argv", [("status",), ("logs", "x"), ("cancel", "x"), ("clean",), ("doctor",)])
def test_without_a_kubeconfig_every_command_says_what_to_do(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    assert not kubeconfig.exists()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "; set KUBECONFIG to the file that names your cluster" in error
    assert "--spark" not in error, "none of these commands has it"


def test_a_server_that_stays_away_is_a_fault_not_bad_input(
    server: FakeKubernetes, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_KFP_PATIENCE_SECONDS", "0")
    server.faults.add("503", times=10**6)
    code, _, err = call("status")
    assert code == 1
    assert "the API server has not answered" in err


def test_rights_that_lack_are_bad_input_with_advice(server: FakeKubernetes, call: Call) -> None:
    server.denied.add(("list", "sparkapplications"))
    code, _, err = call("status")
    assert code == 2
    assert "apply spark-operator/ in this namespace" in err


KFP_HEALTH = "/api/v1/namespaces/spark-kfp/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz"


def kfp_elsewhere(server: FakeKubernetes) -> None:
    server.remove("services", "ml-pipeline")
    server.put("services", {"metadata": {"name": "ml-pipeline", "namespace": "kubeflow"}})
    server.proxied[KFP_HEALTH.replace("spark-kfp", "kubeflow")] = {"tag_name": "2.15.0", "multi_user": False}


def kfp_says(**health: Any) -> Callable[[FakeKubernetes], None]:
    return lambda server: server.proxied.update({KFP_HEALTH: health})


@pytest.fixture
def healthy(server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> FakeKubernetes:
    """A cluster that lacks nothing."""
    container = {"image": "ghcr.io/kubeflow/spark-operator/controller:2.5.2", "args": ["--namespaces=spark-kfp,other"]}
    server.put(
        "pods",
        {
            "metadata": {
                "name": "spark-operator-controller-1",
                "namespace": "spark-operator",
                "labels": {"app.kubernetes.io/name": "spark-operator"},
            },
            "spec": {"containers": [container]},
            "status": {"phase": "Running"},
        },
    )
    reaper = {"metadata": {"name": "reaper-1", "labels": {"spark-kfp/role": "reaper"}}, "status": {"phase": "Running"}}
    server.put("pods", reaper)
    server.put("configmaps", {"metadata": {"name": "spark-kfp"}, "data": {"spark-application.yaml": TEMPLATE}})
    server.put("serviceaccounts", {"metadata": {"name": "spark-kfp-driver"}})
    secret = {"metadata": {"name": "spark-kfp-object-store"}, "data": {"accesskey": "YQ==", "secretkey": "Yg=="}}
    server.put("secrets", secret)
    image = {"names": ["docker.io/library/spark-kfp-spark:0.1.0"]}
    server.put("nodes", {"metadata": {"name": "node-1"}, "status": {"images": [image]}})
    workflows = {"metadata": {"name": "workflows.argoproj.io"}, "spec": {"versions": [{"name": "v1", "served": True}]}}
    server.put("customresourcedefinitions", workflows)
    server.put("services", {"metadata": {"name": "ml-pipeline", "namespace": "spark-kfp"}})
    server.proxied[KFP_HEALTH] = {"tag_name": "2.17.0", "multi_user": False}
    server.put("services", {"metadata": {"name": "seaweedfs", "namespace": "spark-kfp"}})
    endpoint = {"endpoint": "http://seaweedfs.spark-kfp:9000"}
    server.put("configmaps", {"metadata": {"name": "spark-kfp-object-store"}, "data": endpoint})
    server.put("configmaps", {"metadata": {"name": "workflow-controller-configmap"}, "data": argo(OF_2_17)})
    monkeypatch.setattr(object_store, "bucket_exists", lambda _: True)
    return server


OF_2_17 = {"limit": "2", "retryPolicy": "OnError"}
"""KFP 2.17.0's manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml; 2.16.1 has no workflowDefaults."""


def argo(strategy: dict[str, str] | None) -> dict[str, str]:
    """The data of Argo's ConfigMap with a retry strategy for all templates, or without any."""
    spec = {"templateDefaults": {"retryStrategy": strategy}} if strategy is not None else {}
    return {"workflowDefaults": json.dumps({"spec": {"ttlStrategy": {"secondsAfterCompletion": 3600}, **spec}})}


def argo_says(strategy: dict[str, str] | None) -> Callable[[FakeKubernetes], None]:
    return changed("configmaps", "workflow-controller-configmap", data=argo(strategy))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (argo(OF_2_17), "a task whose pod is gone, 2 times; none that failed"),
        (argo({"retryPolicy": "OnError"}), "a task whose pod is gone, without a limit; none"),
        (argo(None), "nothing, unless the platform's file sets retries: then every task that fails"),
        ({}, "nothing, unless the platform's file sets retries"),
        (argo({"limit": "3"}), "every task that fails, a user's error too, 3 times"),
        (argo({"retryPolicy": "OnTransientError"}), "takes for a passing one"),
    ],
)
def test_the_doctor_says_what_kfp_repeats(healthy: FakeKubernetes, call: Call, data: dict[str, str], told: str) -> None:
    changed("configmaps", "workflow-controller-configmap", data=data)(healthy)
    code, out, _ = call("doctor")
    line = line_of(out, "KFP's retries")
    assert (code, line[:3]) == (0, "ok ")
    assert told in line


def test_the_doctor_names_the_store_that_kfp_brought_and_the_one_that_is_configured(
    healthy: FakeKubernetes, call: Call
) -> None:
    line = line_of(call("doctor")[1], "object store endpoint")
    assert "http://seaweedfs.spark-kfp:9000; KFP brought http://seaweedfs.spark-kfp:9000" in line
    changed("configmaps", "spark-kfp-object-store", data={"endpoint": "https://s3.example.com"})(healthy)
    line = line_of(call("doctor")[1], "object store endpoint")
    assert line.startswith("ok ")
    assert "https://s3.example.com; KFP brought http://seaweedfs.spark-kfp:9000" in line


def line_of(out: str, name: str) -> str:
    (found,) = [line for line in out.splitlines() if line[8:].startswith(f"{name}:")]
    return found


@pytest.mark.usefixtures("healthy")
def test_the_doctor_finds_nothing_missing_where_nothing_is(call: Call) -> None:
    code, out, _ = call("doctor")
    assert code == 0
    assert len(out.splitlines()) == 14
    assert all(line.startswith("ok ") for line in out.splitlines()), out


def without(plural: str, name: str) -> Callable[[FakeKubernetes], None]:
    return lambda server: server.remove(plural, name)


def deny(verb: str, resource: str) -> Callable[[FakeKubernetes], None]:
    return lambda server: server.denied.add((verb, resource))


def changed(plural: str, name: str, **fields: Any) -> Callable[[FakeKubernetes], None]:
    def apply(server: FakeKubernetes) -> None:
        assert server.update(plural, name, lambda item: item.update(fields))

    return apply


def operator_watches(namespaces: str) -> Callable[[FakeKubernetes], None]:
    def apply(server: FakeKubernetes) -> None:
        (pod,) = [item for item in server.list("pods") if "controller" in item["metadata"]["name"]]
        pod["spec"]["containers"][0]["args"] = [f"--namespaces={namespaces}"]
        server.put("pods", pod)

    return apply


def operator_gone(server: FakeKubernetes) -> None:
    (pod,) = [item for item in server.list("pods") if "controller" in item["metadata"]["name"]]
    server.put("pods", {**pod, "status": {"phase": "Pending"}})


def template_lacks_image(server: FakeKubernetes) -> None:
    text = TEMPLATE.replace("IfNotPresent", "Never").replace("spark-kfp-spark:0.1.0", "other:1")
    changed("configmaps", "spark-kfp", data={"spark-application.yaml": text})(server)


def quota_used_up(server: FakeKubernetes) -> None:
    status = {"hard": {"pods": "4", "requests.cpu": "8"}, "used": {"pods": "4", "requests.cpu": "1"}}
    server.put("resourcequotas", {"metadata": {"name": "quota"}, "status": status})


CRD = "sparkapplications.sparkoperator.k8s.io"


@pytest.mark.parametrize(
    ("harm", "name", "detail", "fix"),
    [
        (without("customresourcedefinitions", CRD), "SparkApplication definition", "not there", "install the Kubeflow"),
        (
            changed("customresourcedefinitions", CRD, spec={"versions": [{"name": "v1beta1", "served": True}]}),
            "SparkApplication definition",
            "serves v1beta1, not v1beta2",
            "install the Kubeflow",
        ),
        (operator_gone, "Spark operator", "no controller runs", "spark-operator/README.md"),
        (operator_watches("default,spark-kfp-2"), "Spark operator", "not spark-kfp", "spark.jobNamespaces"),
        (
            deny("create", "sparkapplications"),
            "permissions",
            "may not create sparkapplications",
            "ask who runs",
        ),
        (deny("get", "pods/log"), "permissions", "may not get pods/log", "kubectl apply -k spark-operator/"),
        (deny("update", "leases"), "permissions", "may not update leases", "kubectl apply"),
        (without("configmaps", "spark-kfp"), "template", "no ConfigMap 'spark-kfp'", "kubectl apply"),
        (
            changed("configmaps", "spark-kfp", data={"spark-application.yaml": "a: ["}),
            "template",
            "is not YAML",
            "kubectl apply",
        ),
        (template_lacks_image, "image", "other:1 is on no node, and the template forbids", "load or push it"),
        (without("serviceaccounts", "spark-kfp-driver"), "driver's service account", "not there", "kubectl apply"),
        (without("secrets", "spark-kfp-object-store"), "secret keys", "not there", "make the secret"),
        (
            changed("secrets", "spark-kfp-object-store", data={"accesskey": "YQ=="}),
            "secret keys",
            "secret spark-kfp-object-store lacks secretkey",
            "make the secret",
        ),
        (kfp_says(tag_name="2.14.3"), "Kubeflow Pipelines", "version 2.14.3", "upgrade it to 2.15"),
        (lambda server: server.proxied.clear(), "Kubeflow Pipelines", "not there", "needed for runs"),
        (
            without("services", "ml-pipeline"),
            "Kubeflow Pipelines",
            "there is no service ml-pipeline",
            "install the API",
        ),
        (
            kfp_elsewhere,
            "Kubeflow Pipelines",
            "namespace kubeflow, which has no spark-kfp-object-store",
            "apply spark-op",
        ),
        (argo_says({"retryPolicy": "Always"}), "KFP's retries", "retries whole graphs", "set it to OnError"),
        (argo_says({"expression": "true"}), "KFP's retries", "retries whole graphs", "set it to OnError"),
        (
            changed("configmaps", "spark-kfp-object-store", data={"endpoint": "http://minio-service.spark-kfp:9000"}),
            "object store endpoint",
            "spark-kfp has no service minio-service",
            "set endpoint=http://seaweedfs.spark-kfp:9000",
        ),
        (without("configmaps", "spark-kfp-object-store"), "object store endpoint", "not there", "kubectl apply"),
        (quota_used_up, "quota", "quota: pods is used up (4 of 4)", "raise the quota"),
        (without("pods", "reaper-1"), "reaper", "does not run", "kubectl apply"),
        (
            changed("pods", "reaper-1", status={"phase": "Pending"}),
            "reaper",
            "does not run",
            "kubectl apply",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_doctor_names_what_is_missing_and_the_fix_in_one_line(
    healthy: FakeKubernetes, call: Call, harm: Callable[[FakeKubernetes], None], name: str, detail: str, fix: str
) -> None:
    harm(healthy)
    code, out, _ = call("doctor")
    line = line_of(out, name)
    assert code == 1
    assert line.startswith("missing ")
    assert detail in line
    assert fix in line.partition(detail)[2]


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (deny("get", "secrets"), "secret keys"),
        (deny("list", "nodes"), "image"),
        (without("nodes", "node-1"), "image"),
        (deny("get", "customresourcedefinitions"), "SparkApplication definition"),
        (without("customresourcedefinitions", "workflows.argoproj.io"), "Kubeflow Pipelines"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_doctor_may_not_see_or_what_is_not_always_needed_is_unsure_and_no_fault(
    healthy: FakeKubernetes, call: Call, harm: Callable[[FakeKubernetes], None], name: str
) -> None:
    harm(healthy)
    code, out, _ = call("doctor")
    assert code == 0
    assert line_of(out, name).startswith("unsure ")


@pytest.mark.usefixtures("healthy")
def test_the_doctor_names_the_command_for_a_bucket_that_is_not_there(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "bucket_exists", lambda _: False)
    code, out, _ = call("doctor")
    assert code == 0
    assert line_of(out, "object store").startswith("unsure ")
    assert "spark-kfp data make-bucket spark-kfp" in out


@pytest.mark.usefixtures("healthy")
def test_the_doctor_names_the_variables_of_an_object_store_that_refuses(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> bool:
        raise InputError("the object store at http://x refuses: AccessDenied")

    monkeypatch.setattr(object_store, "bucket_exists", refuse)
    code, out, _ = call("doctor")
    line = line_of(out, "object store")
    assert code == 1
    assert line.startswith("missing ")
    assert "refuses: AccessDenied; set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID" in line


def test_where_the_server_does_not_answer_the_doctor_says_only_that(server: FakeKubernetes, call: Call) -> None:
    server.__exit__(None, None, None)
    code, out, _ = call("doctor")
    assert code == 1
    (line,) = out.splitlines()
    assert line.startswith("missing API server: ")
    assert "check the network and the kubeconfig" in line


def test_where_something_else_than_an_api_server_answers_the_doctor_says_so(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api.Cluster, "text", lambda *_: json.loads("<html>"))
    code, out, _ = call("doctor")
    assert code == 1
    assert "missing API server: " in out


def test_the_doctor_as_json_is_one_document_with_every_finding(healthy: FakeKubernetes, call: Call) -> None:
    healthy.remove("pods", "reaper-1")
    code, out, _ = call("doctor", "--json")
    found = {item["name"]: item for item in json.loads(out)}
    assert code == 1
    assert len(found) == 14
    assert [name for name, item in found.items() if item["ok"] is not True] == ["reaper"]
    assert found["reaper"]["fix"] == "kubectl apply -k spark-operator/"


def test_the_doctor_changes_nothing(healthy: FakeKubernetes, call: Call) -> None:
    before = len(healthy.requests)
    call("doctor")
    changes = [item for item in healthy.requests[before:] if item.method != "GET"]
    assert {item.path for item in changes} == {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}


def test_no_secret_is_printed_by_the_doctor(healthy: FakeKubernetes, call: Call) -> None:
    changed("secrets", "spark-kfp-object-store", data={"accesskey": "c2VjcmV0LXZhbHVl"})(healthy)
    _, out, err = call("doctor", "--json")
    assert "c2VjcmV0LXZhbHVl" not in out + err
    assert "no-secret" not in out + err
