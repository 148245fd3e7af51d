"""The runner for the operator against a fake API server over real HTTP: submits once, believes only what is true, never hangs."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fake_operator import COMPLETED, LINES, NEW, SUBMITTED, SUCCEEDED, Stage
from kubernetes import client, config

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.failures import save_on_error
from kfp_pipeline.runtime.kubernetes_api import Cluster
from kfp_pipeline.runtime.spark_operator import lease
from kfp_pipeline.runtime.spark_operator.application import state_of
from kfp_pipeline.runtime.spark_operator.manifest import SPEC_HASH_ANNOTATION, application_name
from kfp_pipeline.runtime.spark_operator.runner import SparkOperatorRunner
from kfp_pipeline.runtime.spark_operator.tracking import Limits
from spark_jobs import object_store as door
from spark_jobs.arguments import from_argv
from spark_jobs.contract import ARGUMENTS, LoadArgs, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Failure, Result

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

PROJECT = Path(__file__).resolve().parents[4]
ARGS = LoadArgs(data_uri="s3://data/bank.csv", label="deposit", output_uri="minio://kfp/run-1/load/table")
NAME = application_name(Step.LOAD, ARGS.output_uri)
FAST = {
    "submitted_seconds": 1.5,
    "scheduled_seconds": 1.5,
    "running_seconds": 20,
    "unknown_seconds": 1.5,
    "start_problem_seconds": 0.3,
    "watch_request_seconds": 1,
    "check_interval_seconds": 0.2,
    "read_interval_seconds": 1,
    "deletion_seconds": 5,
}


class Store:
    """An object store in memory."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    def read_text(self, uri: str) -> str | None:
        found = self.documents.get(uri)
        return found.decode() if found is not None else None

    def write_bytes(self, uri: str, content: bytes, *, brief: bool = False) -> None:  # noqa: ARG002 - never away
        self.documents[uri] = content


class Bench:
    """A runner in front of the fake server."""

    def __init__(self, server: FakeKubernetes, folder: Path, **limits: float) -> None:
        self.server, self.folder, self.store = server, folder, Store()
        self.documents: object_store.Documents = self.store
        self.said: list[str] = []
        template = (PROJECT / "spark-operator/base/spark-application.yaml").read_text()
        data = {"spark-application.yaml": template, "steps.yaml": "{}", "limits.yaml": yaml.safe_dump(FAST | limits)}
        server.put("configmaps", {"metadata": {"name": "spark-kfp"}, "data": data})
        server.update(
            "configmaps", "spark-kfp", lambda _: None
        )  # a stale answer knows it too: it was there long before
        server.operator.on_driver_end = self.end_driver
        self.failure: Failure | None = None

    def end_driver(self, _: str, application: dict[str, Any]) -> str | None:
        """What the step does at its end: leaves its result, or its last word."""
        step, *argv = application["spec"]["arguments"]
        args = from_argv(ARGUMENTS[Step(step)], argv)
        if self.failure:
            return json.dumps({**vars(self.failure), "frames": []})
        if application["status"]["applicationState"]["state"] in ("SUCCEEDING", "FAILED"):
            result = Result(
                step=step,
                status="succeeded",
                arguments=dict(vars(args)),
                rows_out={"rows": 7},
                uris={"output": vars(args)["output_uri"]},
            )
            self.store.documents[f"{vars(args)['output_uri']}/result.json"] = result.to_json().encode()
        return None

    def cluster(self, patience_seconds: float = 5.0) -> Cluster:
        settings = client.Configuration()
        config.load_kube_config(str(self.server.kubeconfig(self.folder / "kubeconfig")), client_configuration=settings)
        settings.retries = False
        return Cluster(client.ApiClient(settings), "spark-kfp", patience_seconds)

    def runner(self, **more: Any) -> SparkOperatorRunner:
        patience = more.pop("patience_seconds", 5.0)
        return SparkOperatorRunner(self.cluster(patience), documents=self.documents, log_line=self.said.append, **more)

    def run(self, args: LoadArgs = ARGS, by: SparkOperatorRunner | None = None, **more: Any) -> Result:
        return (by or self.runner(**more)).run(Step.LOAD, args, self.folder / "driver.log")

    @property
    def starts(self) -> int:
        return self.server.operator.driver_starts[NAME]


@pytest.fixture
def bench(server: FakeKubernetes, tmp_path: Path) -> Bench:
    server.operator.speed = 20
    return Bench(server, tmp_path)


def log_lines(bench: Bench) -> list[str]:
    return [line for line in (bench.folder / "driver.log").read_text().splitlines() if "INFO Step" in line]


def test_a_step_that_succeeds_brings_back_its_result_its_log_and_no_more(bench: Bench) -> None:
    result = bench.run()
    assert result.rows_out == {"rows": 7}
    assert bench.server.created[NAME] == 1
    assert log_lines(bench) == [f"26/11/23 07:06:{n:02d} INFO Step: line {n}" for n in range(20)]
    assert "driver memory: 2g, from spark-application.yaml of the platform" in bench.said
    kept = bench.store.documents[f"{ARGS.output_uri}/driver.log"].decode().splitlines()
    assert [line for line in kept if "INFO Step" in line] == log_lines(bench)
    lease = bench.server.get("leases", NAME)
    assert lease is not None
    assert lease["metadata"]["ownerReferences"][0]["uid"] == bench.server.applications[NAME]["metadata"]["uid"]


def test_the_name_is_dns_1035_and_short_for_every_step() -> None:
    for step in Step:
        assert len(application_name(step, "minio://x" * 50)) <= 56


@pytest.mark.parametrize(
    "script", ["submission_failed_then_ok", "unknown_then_ok", "suspended_then_ok", "operator_restart"]
)
def test_states_that_pass_do_not_end_a_run(bench: Bench, script: str) -> None:
    bench.server.operator.script("*", script)
    assert bench.run().rows_out == {"rows": 7}
    assert bench.server.created[NAME] == 1


def test_a_failed_application_whose_driver_runs_is_followed_to_the_drivers_end(bench: Bench) -> None:
    bench.server.operator.script("*", "operator_restart")
    bench.run()
    assert len(log_lines(bench)) == 20
    assert any("2788" in line for line in bench.said)


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("oom", PermanentError, "needed more memory than its"),
        ("driver_killed", TemporaryError, "killed from outside"),
        ("python_error", TemporaryError, "exit code 1"),
        ("no_result", TemporaryError, "left no result document at minio://kfp/run-1/load/table/result.json"),
        ("quota_exceeded", TemporaryError, "quota is used up: exceeded quota: quota, requested: limits.memory=1Gi"),
        ("image_missing", PermanentError, "cannot be had"),
        ("secret_missing", PermanentError, 'secret "spark-kfp-object-store" not found'),
        ("unschedulable", TemporaryError, "Insufficient memory"),
        ("never_submitted", TemporaryError, "the operator has made no driver for 2 s"),
        ("unknown_forever", TemporaryError, "the operator has not known the state for 2 s"),
    ],
)
def test_every_failure_is_told_with_its_reason(bench: Bench, script: str, kind: type[StepError], message: str) -> None:
    bench.server.operator.script("*", script)
    with pytest.raises(StepError) as caught:
        bench.run()
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert bench.server.created[NAME] == 1
    if script in ("image_missing", "secret_missing", "unschedulable", "never_submitted", "unknown_forever"):
        assert bench.server.applications == {}, "what never ends by itself is deleted"


def test_the_steps_own_word_is_what_is_told(bench: Bench) -> None:
    bench.failure = Failure(kind="input", type="InputError", message="column 'x' is not there; name another")
    bench.server.operator.script("*", "python_error")
    with pytest.raises(PermanentError, match="column 'x' is not there; name another"):
        bench.run()


def test_bad_input_is_not_submitted_again_by_a_retry(bench: Bench) -> None:
    bench.failure = Failure(kind="input", type="InputError", message="no such column")
    bench.server.operator.script("*", "python_error")
    for _ in range(2):
        with pytest.raises(PermanentError, match="no such column"):
            bench.run()
    assert bench.server.created[NAME] == 1


def test_a_retry_replaces_an_application_that_failed_by_a_fault(bench: Bench) -> None:
    bench.server.operator.script("*", "driver_killed", "success")
    with pytest.raises(TemporaryError):
        bench.run()
    assert bench.run().rows_out == {"rows": 7}
    assert bench.server.created[NAME] == 2


def test_a_retry_takes_a_finished_application_as_it_is(bench: Bench) -> None:
    bench.run()
    assert bench.run().rows_out == {"rows": 7}
    assert bench.server.created[NAME] == 1


def test_two_at_once_follow_one_application(bench: Bench) -> None:
    results: list[Result] = []
    runners = [bench.runner() for _ in range(2)]
    threads = [threading.Thread(target=lambda one=one: results.append(bench.run(by=one))) for one in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [result.rows_out for result in results] == [{"rows": 7}] * 2
    assert bench.server.created[NAME] == bench.starts == 1


def test_another_spec_under_the_same_name_is_an_error_with_both_hashes(bench: Bench) -> None:
    bench.server.operator.script("*", "never_submitted")
    body = {
        "metadata": {"name": NAME, "annotations": {SPEC_HASH_ANNOTATION: "0123"}},
        "spec": {"mainApplicationFile": "local:///x"},
    }
    bench.server.create("sparkapplications", "spark-kfp", {**body, **KIND}, dry_run=False)
    with pytest.raises(PermanentError, match=r"another spec \(0123, wanted [0-9a-f]{16}\).*spark-kfp cancel"):
        bench.run()


KIND = {"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication"}


@pytest.mark.parametrize("kind", ["cut_after", "cut_before", "500", "503", "429"])
def test_a_lost_answer_to_the_creation_submits_nothing_twice(bench: Bench, kind: str) -> None:
    bench.server.faults.add(kind, method="POST", path="sparkapplications")
    assert bench.run().rows_out == {"rows": 7}
    assert bench.server.created[NAME] == 1


def test_a_server_that_is_away_for_good_ends_the_run_as_temporary(bench: Bench) -> None:
    bench.server.operator.script("*", "never_submitted")
    bench.server.faults.add("503", method="GET", path="sparkapplications", times=10**6)
    with pytest.raises(TemporaryError, match="has not answered for 1 s"):
        bench.run(patience_seconds=1.0)


@pytest.fixture
def absent_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The address of an object store that refuses every connection; if the socket is made to listen, one that never answers."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        keys = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret"}
        for name, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}", **keys}.items():
            monkeypatch.setenv(name, value)
        door.from_environment.cache_clear()
        yield nobody
    door.from_environment.cache_clear()


@pytest.mark.parametrize("hangs", [False, True])
def test_the_verdict_on_a_driver_that_lost_its_store_waits_seconds_for_that_store(
    bench: Bench, absent_store: socket.socket, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Two extras go to the store: the driver's log, and the reason for the run's summary."""
    monkeypatch.setattr(door, "FIRST_CONTACT_SECONDS", 20.0)
    monkeypatch.setattr(door, "BRIEF_SECONDS", 1.0)
    if hangs:
        absent_store.listen(100)
    bench.failure = Failure(kind="fault", type="UnavailableError", message="the store does not answer")
    bench.server.operator.script("*", "python_error")
    bench.documents = object_store
    began = time.monotonic()
    with (
        pytest.raises(TemporaryError, match="the store does not answer"),
        save_on_error(Step.LOAD, ARGS.output_uri, "run-1"),
    ):
        bench.run()
    assert time.monotonic() - began < 10
    assert any("the driver's log could not be kept" in line for line in bench.said)


def test_a_result_document_of_other_arguments_is_not_taken_for_this_steps(bench: Bench) -> None:
    other = Result(step="load", status="succeeded", arguments={**vars(ARGS), "label": "y"})
    bench.store.documents[f"{ARGS.output_uri}/result.json"] = other.to_json().encode()
    bench.server.operator.script("*", "quota_exceeded")
    with pytest.raises(TemporaryError, match="quota is used up"):
        bench.run()


def test_what_someone_deletes_is_told_as_deleted(bench: Bench) -> None:
    bench.server.operator.script("*", [NEW, SUBMITTED, Stage(1e9, "RUNNING", "Running")])

    def delete_while_it_runs() -> None:
        while state_of(bench.server.applications.get(NAME, {})) != "RUNNING":
            time.sleep(0.01)
        bench.server.remove("sparkapplications", NAME)

    threading.Thread(target=delete_while_it_runs, daemon=True).start()
    with pytest.raises(TemporaryError, match="was deleted while it ran"):
        bench.run()


def test_an_interrupt_deletes_the_application(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.server.operator.script("*", "never_submitted")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kfp_pipeline.runtime.spark_operator.tracking.ApplicationTracker._wait_for_change", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert bench.server.applications == {}


@pytest.mark.parametrize("lines_per_stamp", [1, 5])
def test_no_log_line_is_lost_or_doubled_by_cut_streams(bench: Bench, lines_per_stamp: int) -> None:
    bench.server.operator.lines_per_stamp = lines_per_stamp
    bench.server.faults.add("log_cut", path="/log", times=4)
    bench.run()
    assert log_lines(bench) == [f"26/11/23 07:06:{n:02d} INFO Step: line {n}" for n in range(20)]


def test_the_verdict_is_seen_within_a_third_of_a_second(server: FakeKubernetes, tmp_path: Path) -> None:
    server.operator.speed = 20
    bench = Bench(server, tmp_path, check_interval_seconds=5, watch_request_seconds=300, read_interval_seconds=60)
    seen: dict[str, float] = {}
    said: list[float] = []
    update = server.update

    def note_then_update(plural: str, name: str, change: Any) -> bool:
        done = update(plural, name, change)
        if plural == "sparkapplications":
            seen.setdefault(state_of(server.applications[name]), time.monotonic())
        return done

    server.update = note_then_update  # type: ignore[method-assign]
    runner = bench.runner()
    runner._log_line = lambda line: said.append(time.monotonic()) if line.endswith(": COMPLETED") else None
    bench.run(by=runner)
    assert said[0] - seen["COMPLETED"] < 0.3


def test_a_run_of_minutes_asks_the_server_for_little(
    server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes, thirty times as fast: 10 s, a window of 300 s is one of 10 s, and so on."""
    faster = 30
    monkeypatch.setattr(lease, "LONGEST_PAUSE_SECONDS", lease.LONGEST_PAUSE_SECONDS / faster)
    given = {
        name: getattr(Limits(), name) / faster
        for name in ("watch_request_seconds", "check_interval_seconds", "read_interval_seconds")
    }
    bench = Bench(server, tmp_path, running_seconds=60, **given)
    server.operator.speed = 1
    running = Stage(10, "RUNNING", "Running", log=LINES, executors=("RUNNING",))
    server.operator.script(
        NAME, [Stage(0.1, ""), Stage(0.1, "SUBMITTED", "Pending"), running, replace(SUCCEEDED, seconds=0.2), COMPLETED]
    )
    bench.run()
    asked = Counter(kind_of(request) for request in server.requests)
    assert asked["watch"] <= 2
    assert asked["application"] <= 8, "once a minute, and when it begins"
    assert asked["driver"] <= 8, "until it runs, and at its end"
    assert asked["lease"] <= 2 * 12, "twice each half minute: read and replaced"
    assert sum(asked.values()) < 50, asked


def kind_of(request: Any) -> str:
    if "watch=true" in request.path:
        return "watch"
    for part, kind in (
        ("/log?", "log"),
        ("/pods/", "driver"),
        ("/leases", "lease"),
        ("/sparkapplications/", "application"),
    ):
        if part in request.path:
            return kind
    return "other"


@pytest.mark.parametrize("fault", ["watch_gone", "410", "watch_cut", "watch_ends", "500", "429"])
def test_a_watch_goes_on_where_it_was_cut_and_the_verdict_comes_without_waiting_for_the_next_poll(
    server: FakeKubernetes, tmp_path: Path, fault: str
) -> None:
    server.operator.speed = 20
    bench = Bench(server, tmp_path, check_interval_seconds=60, watch_request_seconds=300, read_interval_seconds=600)
    server.faults.add(fault, path="watch=true", times=2)
    began = time.monotonic()
    assert bench.run().rows_out == {"rows": 7}
    assert time.monotonic() - began < 15


def test_a_watch_that_is_refused_is_told_with_what_to_do(bench: Bench) -> None:
    bench.server.denied.add(("watch", "sparkapplications"))
    with pytest.raises(PermanentError, match="may not do this; apply spark-operator/"):
        bench.run()


def test_a_local_output_is_refused_before_anything_is_asked_of_the_cluster(bench: Bench, tmp_path: Path) -> None:
    args = LoadArgs(data_uri="s3://data/bank.csv", label="x", output_uri=str(tmp_path))
    with pytest.raises(InputError, match="writes to an object store"):
        bench.run(args)
    assert not bench.server.requests


def test_a_namespace_without_the_template_is_told_what_to_apply(bench: Bench) -> None:
    bench.server.remove("configmaps", "spark-kfp")
    with pytest.raises(InputError, match="kubectl apply -k spark-operator/"):
        bench.run()


def test_the_limits_are_read_from_the_config_map() -> None:
    assert Limits.from_yaml("{submitted_seconds: 7}") == Limits(submitted_seconds=7.0)
    with pytest.raises(InputError, match=r"limits\.yaml"):
        Limits.from_yaml("{nonsense: 7}")


def test_no_secret_is_in_what_is_submitted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    bench.run()
    assert "hush-hush" not in json.dumps([request.body for request in bench.server.requests])
