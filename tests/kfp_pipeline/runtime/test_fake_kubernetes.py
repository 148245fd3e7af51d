"""The fake cluster behaves as a real one does, seen through the official client."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

kubernetes = pytest.importorskip("kubernetes")

from fake_kubernetes import FakeKubernetes  # noqa: E402
from fake_operator import SCRIPTS, Stage  # noqa: E402
from fake_refusals import Faults  # noqa: E402
from kubernetes import client, config, watch  # noqa: E402
from kubernetes.client.exceptions import ApiException  # noqa: E402

NS = "spark-kfp"
OF_SPARK = ("sparkoperator.k8s.io", "v1beta2", NS, "sparkapplications")


@pytest.fixture
def api(server: FakeKubernetes, tmp_path: Path) -> client.ApiClient:
    settings = client.Configuration()
    config.load_kube_config(str(server.kubeconfig(tmp_path / "kubeconfig")), client_configuration=settings)
    settings.retries = False
    return client.ApiClient(settings)


@pytest.fixture
def custom(api: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(api)


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


def application(name: str = "app", **spec: Any) -> dict[str, Any]:
    spec = {"type": "Python", "sparkVersion": "4.3.0", "mainApplicationFile": "local:///main.py", "image": "i:1"} | spec
    spec |= {"driver": {"memory": "512m"}, "executor": {}}
    metadata = {"name": name, "labels": {"team": "credit"}}
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": metadata,
        "spec": spec,
    }


def until(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def state(server: FakeKubernetes, name: str = "app") -> str:
    return str(server.applications[name].get("status", {}).get("applicationState", {}).get("state", ""))


def refused(call: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    with pytest.raises(ApiException) as caught:
        call()
    return caught.value.status, json.loads(caught.value.body)


def test_success_goes_through_the_states(server: FakeKubernetes, custom: Any, core: Any) -> None:
    ends: list[tuple[str, str]] = []
    server.operator.on_driver_end = lambda name, app: ends.append((name, app["status"]["applicationState"]["state"]))
    made = custom.create_namespaced_custom_object(*OF_SPARK, application())
    assert made["metadata"]["uid"]
    assert "status" not in made
    seen = []
    for event in watch.Watch().stream(custom.list_namespaced_custom_object, *OF_SPARK, timeout_seconds=5):
        seen.append((event["object"].get("status") or {}).get("applicationState", {}).get("state", ""))
        if seen[-1] == "COMPLETED":
            break
    assert seen == ["", "SUBMITTED", "RUNNING", "SUCCEEDING", "COMPLETED"]
    assert ends == [("app", "SUCCEEDING")]
    pod = core.list_namespaced_pod(NS, label_selector="spark-role=driver,sparkoperator.k8s.io/app-name=app").items[0]
    assert (pod.metadata.name, pod.status.phase) == ("app-driver", "Succeeded")
    assert pod.metadata.owner_references[0].uid == made["metadata"]["uid"]
    assert pod.status.container_statuses[0].state.terminated.exit_code == 0
    status = server.applications["app"]["status"]
    assert status["driverInfo"]["podName"] == "app-driver"
    assert status["terminationTime"]
    assert status["executorState"] == {
        "app-exec-1": "FAILED"
    }  # as on a real cluster: the driver kills its executors at its end
    reasons = {e.reason for e in core.list_namespaced_event(NS, field_selector="involvedObject.name=app").items}
    assert "SparkApplicationSubmitted" in reasons
    assert (server.created["app"], server.operator.driver_starts["app"]) == (1, 1)


def test_refusals_have_the_real_bodies(server: FakeKubernetes, custom: Any) -> None:
    def create(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return refused(lambda: custom.create_namespaced_custom_object(*OF_SPARK, body))

    custom.create_namespaced_custom_object(*OF_SPARK, application())
    code, body = create(application())
    details = {"name": "app", "group": "sparkoperator.k8s.io", "kind": "sparkapplications"}
    message = 'sparkapplications.sparkoperator.k8s.io "app" already exists'
    assert code == 409
    assert body == {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                    "reason": "AlreadyExists", "details": details, "code": 409}  # fmt: skip
    assert server.created == {"app": 1}
    code, body = refused(lambda: custom.get_namespaced_custom_object(*OF_SPARK, "none"))
    missing = 'sparkapplications.sparkoperator.k8s.io "none" not found'
    assert (code, body["reason"], body["message"]) == (404, "NotFound", missing)
    assert create(application("Big"))[0] == 422
    assert create(application("1digit"))[1]["reason"] == "Forbidden"
    assert "no more than 63 characters" in create(application("a" * 64))[1]["message"]
    assert create(application("new", type="Perl"))[0] == 422
    for key in ("spark.master", "spark.kubernetes.driver.container.image"):
        code, body = create(application("new", sparkConf={key: "x"}))
        assert (code, f'sparkConf key "{key}" is not allowed' in body["message"]) == (403, True)
    server.limit_applications(1)
    assert "exceeded quota" in create(application("second"))[1]["message"]
    server.denied.add(("delete", "sparkapplications"))
    code, body = refused(lambda: custom.delete_namespaced_custom_object(*OF_SPARK, "app"))
    assert (code, "cannot delete resource" in body["message"]) == (403, True)


def test_watch_from_a_forgotten_version_is_gone_and_resumes(server: FakeKubernetes, custom: Any) -> None:
    server.operator.script("app", "never_submitted")
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    old = custom.list_namespaced_custom_object(*OF_SPARK)["metadata"]["resourceVersion"]
    server.update("sparkapplications", "app", lambda app: app["metadata"].update(labels={"a": "b"}))
    server.compact()

    def stream(version: str) -> Iterator[dict[str, Any]]:
        given = {"resource_version": version, "timeout_seconds": 1, "field_selector": "metadata.name=app"}
        return watch.Watch().stream(custom.list_namespaced_custom_object, *OF_SPARK, **given)

    with pytest.raises(ApiException) as gone:
        next(stream(old))
    assert gone.value.status == 410
    fresh = custom.list_namespaced_custom_object(*OF_SPARK)
    assert fresh["items"][0]["metadata"]["labels"] == {"a": "b"}
    events = stream(fresh["metadata"]["resourceVersion"])
    server.update("sparkapplications", "app", lambda app: app["metadata"].update(labels={"a": "c"}))
    event = next(events)
    assert (event["type"], event["object"]["metadata"]["labels"]) == ("MODIFIED", {"a": "c"})


def test_log_is_followed_to_the_end_and_read_again_from_a_time(server: FakeKubernetes, custom: Any, core: Any) -> None:
    server.operator.lines_per_stamp = 3
    server.operator.script("app", [(0, ""), (60, "SUBMITTED", "Pending"), *SCRIPTS["success"][2:]])
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    until(lambda: state(server) == "SUBMITTED")
    code, body = refused(lambda: core.read_namespaced_pod_log("app-driver", NS))
    assert (code, "is waiting to start: ContainerCreating" in body["message"]) == (400, True)
    until(lambda: state(server) == "RUNNING")
    answer = core.read_namespaced_pod_log("app-driver", NS, follow=True, timestamps=True, _preload_content=False)
    lines = b"".join(answer.stream()).decode().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == list(SCRIPTS["success"][2].log)
    stamps = [line.split(" ", 1)[0] for line in lines]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == 7
    assert len(core.read_namespaced_pod_log("app-driver", NS, tail_lines=2).splitlines()) == 2
    assert len(core.read_namespaced_pod_log("app-driver", NS, limit_bytes=9)) == 9


def test_log_since_a_time_goes_back_to_the_whole_second(
    server: FakeKubernetes, custom: Any, api: Any, core: Any
) -> None:
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    until(lambda: state(server) == "COMPLETED")
    stamped = core.read_namespaced_pod_log("app-driver", NS, timestamps=True).splitlines()
    since = stamped[10].split(" ")[0]
    path = f"/api/v1/namespaces/{NS}/pods/app-driver/log"
    query = [("sinceTime", since), ("timestamps", "true")]
    again = api.call_api(path, "GET", query_params=query, _preload_content=False, _return_http_data_only=True)
    assert again.data.decode().splitlines() == [line for line in stamped if line[:19] >= since[:19]]


def test_delete_keeps_to_its_precondition_and_takes_what_is_owned(
    server: FakeKubernetes, custom: Any, api: Any
) -> None:
    server.operator.script("*", [(0, ""), (0, "SUBMITTED", "Pending"), (1e9, "RUNNING", "Running")])
    made = custom.create_namespaced_custom_object(*OF_SPARK, application())
    until(lambda: state(server) == "RUNNING")
    owner = {"apiVersion": made["apiVersion"], "kind": made["kind"], "name": "app", "uid": made["metadata"]["uid"]}
    lease = {"metadata": {"name": "app", "ownerReferences": [owner]}, "spec": {"holderIdentity": "t"}}
    client.CoordinationV1Api(api).create_namespaced_lease(NS, lease)

    def delete(uid: str) -> Any:
        return custom.delete_namespaced_custom_object(*OF_SPARK, "app", body={"preconditions": {"uid": uid}})

    code, body = refused(lambda: delete("other"))
    assert (code, body["reason"]) == (409, "Conflict")
    assert "the UID in the precondition (other) does not match the UID in record" in body["message"]
    assert delete(owner["uid"])["status"] == "Success"
    assert server.applications == {}
    until(lambda: not server.list("pods") and not server.list("leases"))


def test_foreground_deletion_shows_the_object_until_it_is_gone(custom: Any, server: FakeKubernetes) -> None:
    server.operator.speed = 4
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    custom.delete_namespaced_custom_object(*OF_SPARK, "app", body={"propagationPolicy": "Foreground"})
    assert server.applications["app"]["metadata"]["deletionTimestamp"]
    until(lambda: not server.applications)


def test_lease_is_replaced_only_from_its_last_version(server: FakeKubernetes, api: Any) -> None:
    leases = client.CoordinationV1Api(api)
    renewed = datetime.datetime.now(datetime.UTC)
    spec = client.V1LeaseSpec(holder_identity="a", lease_duration_seconds=60, renew_time=renewed)
    made = leases.create_namespaced_lease(NS, client.V1Lease(metadata=client.V1ObjectMeta(name="l"), spec=spec))
    assert made.spec.renew_time == renewed
    made.spec.holder_identity = "b"
    assert leases.replace_namespaced_lease("l", NS, made).spec.holder_identity == "b"
    code, body = refused(lambda: leases.replace_namespaced_lease("l", NS, made))
    assert (code, body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in body["message"]
    assert leases.patch_namespaced_lease("l", NS, {"spec": {"holderIdentity": "c"}}).spec.lease_duration_seconds == 60
    assert leases.list_namespaced_lease(NS).items[0].spec.holder_identity == "c"
    leases.delete_namespaced_lease("l", NS)
    assert server.list("leases") == []


def test_questions_a_doctor_asks(server: FakeKubernetes, api: Any, core: Any) -> None:
    assert client.VersionApi(api).get_code().git_version == "v1.34.4"
    found = client.ApiextensionsV1Api(api).read_custom_resource_definition
    assert found("sparkapplications.sparkoperator.k8s.io").spec.versions[0].name == "v1beta2"
    assert refused(lambda: found("none"))[0] == 404
    assert "sparkoperator.k8s.io" in [group.name for group in client.ApisApi(api).get_api_versions().groups]
    server.put("configmaps", {"metadata": {"name": "spark-kfp"}, "data": {"steps.yaml": "{}"}})
    assert core.read_namespaced_config_map("spark-kfp", NS).data == {"steps.yaml": "{}"}
    assert core.list_namespaced_resource_quota(NS).items == []
    server.denied.add(("get", "pods/log"))
    for subresource, allowed in (("log", False), (None, True)):
        asked = {"namespace": NS, "verb": "get", "resource": "pods", "subresource": subresource}
        review = {"spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}}}
        assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed is allowed


@pytest.mark.parametrize(
    ("kind", "made"), [("cut_before", 0), ("500", 0), ("429", 0), ("cut_after", 1), ("500_after", 1)]
)
def test_faults_strike_before_or_after_the_effect(server: FakeKubernetes, custom: Any, kind: str, made: int) -> None:
    server.faults.add(kind, method="POST", path="sparkapplications")
    with pytest.raises((ApiException, urllib3.exceptions.HTTPError)) as caught:
        custom.create_namespaced_custom_object(*OF_SPARK, application())
    if isinstance(caught.value, ApiException):
        assert str(caught.value.status) == kind[:3]
        assert (caught.value.headers.get("Retry-After") == "1") is (kind == "429")
    assert server.created["app"] == made
    if made:
        assert refused(lambda: custom.create_namespaced_custom_object(*OF_SPARK, application()))[0] == 409
    else:
        custom.create_namespaced_custom_object(*OF_SPARK, application())
    assert server.created["app"] == 1
    assert [request.method for request in server.requests] == ["POST", "POST"]
    assert [done[0] for done in server.faults.done] == [kind]


def test_faults_of_a_watch(server: FakeKubernetes, custom: Any, api: Any) -> None:
    server.operator.script("*", "never_submitted")
    custom.create_namespaced_custom_object(*OF_SPARK, application())

    def types(kind: str, changes: int = 2, **fault: Any) -> list[str]:
        version = custom.list_namespaced_custom_object(*OF_SPARK)["metadata"]["resourceVersion"]
        for number in range(changes):
            server.update(
                "sparkapplications", "app", lambda app, n=number: app["metadata"].update(labels={"n": f"{n}"})
            )
        server.faults.add(kind, path="watch=", **fault)
        query = [
            ("watch", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", "1"),
            ("allowWatchBookmarks", "true"),
        ]
        path = "/apis/sparkoperator.k8s.io/v1beta2/namespaces/spark-kfp/sparkapplications"
        options = {"_preload_content": False, "_request_timeout": (1, 1.5), "_return_http_data_only": True}
        return [
            json.loads(line)["type"]
            for line in api.call_api(path, "GET", query_params=query, **options).data.splitlines()
        ]

    assert types("watch_lost") == ["MODIFIED", "BOOKMARK"]
    assert types("watch_twice") == ["MODIFIED"] * 4 + ["BOOKMARK"]
    assert types("watch_gone") == ["ERROR"]
    assert types("watch_ends", changes=0) == ["BOOKMARK"]
    with pytest.raises(ApiException):
        types("410")
    with pytest.raises(urllib3.exceptions.HTTPError):
        types("watch_cut")
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        types("watch_hangs")


def test_a_stale_list_shows_the_past(server: FakeKubernetes, custom: Any) -> None:
    server.operator.script("*", "never_submitted")
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    server.faults.add("stale")
    assert custom.list_namespaced_custom_object(*OF_SPARK)["items"] == []
    assert len(custom.list_namespaced_custom_object(*OF_SPARK, label_selector="team=credit")["items"]) == 1
    assert custom.list_namespaced_custom_object(*OF_SPARK, label_selector="team!=credit")["items"] == []


def test_random_faults_are_the_same_for_a_seed(server: FakeKubernetes, custom: Any) -> None:
    def play(seed: int) -> list[str]:
        server.faults = Faults(seed=seed, rate=0.5, only=("500", "503", "cut_before", "stale"))
        for _ in range(30):
            try:
                custom.list_namespaced_custom_object(*OF_SPARK)
            except (ApiException, urllib3.exceptions.HTTPError):
                continue
        return [kind for kind, _, _ in server.faults.done]

    assert play(1) == play(1) != play(2)
    assert 5 < len(play(1)) < 25


ENDS = {
    "python_error": ("FAILED", "Failed"), "oom": ("FAILED", "Failed"), "driver_killed": ("FAILED", "Failed"),
    "no_result": ("COMPLETED", "Succeeded"), "submission_failed_then_ok": ("COMPLETED", "Succeeded"),
    "unknown_then_ok": ("COMPLETED", "Succeeded"), "suspended_then_ok": ("COMPLETED", "Succeeded"),
    "operator_restart": ("FAILED", "Succeeded"), "quota_exceeded": ("FAILED", None), "image_missing": ("SUBMITTED", "Pending"),
    "secret_missing": ("SUBMITTED", "Pending"), "unschedulable": ("SUBMITTED", "Pending"), "never_submitted": ("", None),
    "unknown_forever": ("UNKNOWN", None), "success": ("COMPLETED", "Succeeded"),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_comes_to_its_end(server: FakeKubernetes, custom: Any, core: Any, script: str) -> None:
    told: list[str] = []
    server.operator.on_driver_end = lambda name, _: told.append(name)
    server.operator.script("a*", script)
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    end, phase = ENDS[script]

    def arrived() -> bool:
        pods = {pod.metadata.name: pod.status.phase for pod in core.list_namespaced_pod(NS).items}
        return state(server) == end and pods.get("app-driver") == phase

    until(arrived)
    ended_itself = script in ("success", "python_error", "operator_restart") or script.endswith("_then_ok")
    assert told == (["app"] if ended_itself else [])
    pod = server.get("pods", "app-driver")
    if script == "oom":
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"
    if script == "unschedulable":
        assert core.read_namespaced_pod_log("app-driver", NS) == "", "no node has it, so the real answer is 204"
        assert pod["status"]["conditions"][0]["reason"] == "Unschedulable"
    if script == "image_missing":
        waiting = until(lambda: server.get("pods", "app-driver")["status"]["containerStatuses"][0]["state"]["waiting"])
        assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")


def test_stages_can_be_taken_one_by_one(tmp_path: Path) -> None:
    with FakeKubernetes(speed=0) as slow:
        slow.operator.script(
            "*", [Stage(9, ""), Stage(9, "SUBMITTED", "Pending"), Stage(9, "RUNNING", "Running", log=("hello",))]
        )
        custom = client.CustomObjectsApi(config.new_client_from_config(str(slow.kubeconfig(tmp_path / "config"))))
        custom.create_namespaced_custom_object(*OF_SPARK, application())
        slow.operator.step("app", 2)
        assert state(slow) == "SUBMITTED"
        slow.operator.step("app")
        assert state(slow) == "RUNNING"
        assert [line for _, line in slow.operator.log(slow.get("pods", "app-driver")["metadata"]["uid"])] == ["hello"]


def test_a_driver_pod_that_is_deleted_or_left_over_fails_the_application(server: FakeKubernetes, custom: Any) -> None:
    def error() -> str:
        return str((server.applications["app"].get("status") or {}).get("applicationState", {}).get("errorMessage", ""))

    told: list[str] = []
    server.operator.on_driver_end = lambda name, _: told.append(name)
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    until(lambda: server.get("pods", "app-driver"))
    server.remove("pods", "app-driver")
    until(lambda: state(server) == "FAILED")
    assert (error(), told) == ("driver pod not found", [])
    stale = {
        "metadata": {"name": "app-driver", "ownerReferences": [{"uid": "of-another"}]},
        "status": {"phase": "Running"},
    }
    server.put("pods", stale)
    server.remove("sparkapplications", "app")
    custom.create_namespaced_custom_object(*OF_SPARK, application())
    until(lambda: state(server) == "FAILED")
    assert (error(), server.created["app"], server.operator.driver_starts["app"]) == ("driver pod already exist", 2, 1)
