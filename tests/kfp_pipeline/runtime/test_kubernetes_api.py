"""The door to the API server: patient with one that blinks, quick and plain with one that refuses."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kfp_pipeline.runtime import kubernetes_api
from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.kubernetes_api import (
    APPLICATIONS,
    CONFIG_MAPS,
    Cluster,
    ConflictError,
    GoneError,
    connect,
    transient_errors_ignored,
)
from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

BODY = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}


def reach(server: FakeKubernetes, folder: Path, patience_seconds: float = 3.0) -> Cluster:
    settings = client.Configuration()
    config.load_kube_config(str(server.kubeconfig(folder / "kubeconfig")), client_configuration=settings)
    settings.retries = False
    return Cluster(client.ApiClient(settings), "spark-kfp", patience_seconds)


@pytest.fixture
def cluster(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(kubernetes_api, "FIRST_PAUSE_SECONDS", 0.02)
    return reach(server, tmp_path)


def refuse(server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    """Lets the server answer every request so."""
    from fake_refusals import ApiError

    def answer(*_: Any) -> None:
        raise ApiError(status, "Refused", message)

    monkeypatch.setattr(server, "check_rights", answer)


@pytest.mark.parametrize("kind", ["429", "500", "503", "cut_before"])
def test_a_server_that_blinks_is_asked_again(server: FakeKubernetes, cluster: Cluster, kind: str) -> None:
    server.put("configmaps", BODY)
    server.faults.add(kind, times=3)
    found = cluster.get(CONFIG_MAPS, "a")
    assert found is not None
    assert found["data"] == {"x": "1"}
    assert len(server.requests) == 4


@pytest.mark.parametrize("kind", ["429", "503", "cut_before"])
def test_a_server_that_stays_away_is_given_up_after_the_patience_and_what_runs_is_not_lost(
    server: FakeKubernetes, cluster: Cluster, kind: str
) -> None:
    server.faults.add(kind, times=10**6)
    cluster.patience_seconds = 0.3
    began = time.monotonic()
    with pytest.raises(TemporaryError, match="what runs goes on") as caught:
        cluster.get(CONFIG_MAPS, "a")
    assert caught.value.failure.type == "ApiServerAway"
    assert 0.05 < time.monotonic() - began < 3
    assert len(server.requests) >= 3


def test_a_server_that_is_not_there_at_all_is_away_too(server: FakeKubernetes, cluster: Cluster) -> None:
    server.__exit__(None, None, None)
    cluster.patience_seconds = 0.1
    with pytest.raises(TemporaryError, match="the API server has not answered"):
        cluster.list(CONFIG_MAPS)


def test_without_patience_a_server_is_asked_once(server: FakeKubernetes, cluster: Cluster) -> None:
    server.faults.add("503", times=10**6)
    with pytest.raises(TemporaryError):
        cluster.delete(CONFIG_MAPS, "a", patience_seconds=0.0)
    assert len(server.requests) == 1


def test_pauses_between_requests_grow_but_not_without_end(
    cluster: Cluster, server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, time_of: Callable[..., None]
) -> None:
    monkeypatch.setattr(kubernetes_api, "LONGEST_PAUSE_SECONDS", 0.04)
    pauses: list[float] = []
    time_of(kubernetes_api, sleep=pauses.append)
    server.faults.add("503", times=8)
    cluster.get(CONFIG_MAPS, "a")
    assert len(pauses) == 8
    assert 0.01 <= pauses[0] <= 0.02
    assert all(0.02 <= pause <= 0.04 for pause in pauses[2:])


def test_an_answer_that_is_not_json_is_a_blink_of_something_in_between(cluster: Cluster) -> None:
    cluster.patience_seconds = 0.05
    with pytest.raises(TemporaryError, match="not answered"):
        cluster.retry_while_unavailable(lambda: cluster.text("/healthz"))


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "renew those of the kubeconfig"),
        (403, "the service account may not do this"),
        (404, "check with: spark-kfp doctor"),
        (422, "the API server refuses it"),
    ],
)
def test_a_refusal_is_permanent_told_at_once_and_with_advice(
    server: FakeKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, status: int, advice: str
) -> None:
    refuse(server, monkeypatch, status, "it is so")
    with pytest.raises(PermanentError, match=f"namespace spark-kfp: it is so: .*{advice}") as caught:
        cluster.create(CONFIG_MAPS, BODY)
    assert (caught.value.failure.kind, caught.value.failure.type) == ("input", f"ApiServer{status}")
    assert len(server.requests) == 1


def test_a_missing_right_is_named(server: FakeKubernetes, cluster: Cluster) -> None:
    server.denied.add(("get", "configmaps"))
    with pytest.raises(PermanentError, match='cannot get resource "configmaps"'):
        cluster.get(CONFIG_MAPS, "a")


def test_a_used_up_quota_is_also_a_403_but_may_pass(server: FakeKubernetes, cluster: Cluster) -> None:
    server.limit_applications(0)
    body = {"metadata": {"name": "app"}, "spec": {"mainApplicationFile": "local:///x.py"}}
    with pytest.raises(TemporaryError, match="exceeded quota: quota, requested") as caught:
        cluster.create(APPLICATIONS, body)
    assert caught.value.failure.type == "QuotaExceeded"
    assert not server.created


def test_what_is_not_there_is_none_and_an_empty_list(server: FakeKubernetes, cluster: Cluster) -> None:
    assert cluster.get(CONFIG_MAPS, "a") is None
    assert cluster.list(CONFIG_MAPS) == []
    cluster.delete(CONFIG_MAPS, "a")
    assert len(server.requests) == 3


def test_a_list_is_narrowed_down_by_selectors(server: FakeKubernetes, cluster: Cluster) -> None:
    for name in ("a", "b"):
        server.put("configmaps", {"metadata": {"name": name, "labels": {"of": name}}})
    (found,) = cluster.list(CONFIG_MAPS, labelSelector="of=b")
    assert found["metadata"]["name"] == "b"


def test_an_object_that_is_there_already_is_a_conflict_as_is_one_whose_answer_was_lost(
    server: FakeKubernetes, cluster: Cluster
) -> None:
    server.faults.add("cut_after", method="POST")
    with pytest.raises(ConflictError):
        cluster.create(CONFIG_MAPS, BODY)
    assert server.get("configmaps", "a") is not None
    with pytest.raises(ConflictError, match="already exists"):
        cluster.create(CONFIG_MAPS, BODY)


def test_an_object_that_has_changed_since_it_was_read_is_not_replaced(server: FakeKubernetes, cluster: Cluster) -> None:
    read = cluster.create(CONFIG_MAPS, BODY)
    server.update("configmaps", "a", lambda item: item.update(data={"x": "2"}))
    with pytest.raises(ConflictError, match="has been modified"):
        cluster.replace(CONFIG_MAPS, {**read, "data": {"x": "3"}})
    found = server.get("configmaps", "a")
    assert found is not None
    assert found["data"] == {"x": "2"}


def test_an_object_of_the_same_name_but_another_uid_is_not_deleted(server: FakeKubernetes, cluster: Cluster) -> None:
    made = server.put("configmaps", BODY)
    cluster.delete(CONFIG_MAPS, "a", "another-uid")
    assert server.get("configmaps", "a") is not None
    cluster.delete(CONFIG_MAPS, "a", made["metadata"]["uid"])
    assert server.get("configmaps", "a") is None


def states(cluster: Cluster, version: str, seconds: float = 0.6) -> Iterator[str]:
    for what, item in cluster.watch(CONFIG_MAPS, "a", version, seconds):
        if what == "DELETED":
            return
        if what != "BOOKMARK":
            yield item["data"]["x"]


def test_a_watch_shows_the_states_of_one_object_after_a_version_and_its_end(
    server: FakeKubernetes, cluster: Cluster
) -> None:
    version = server.put("configmaps", BODY)["metadata"]["resourceVersion"]
    server.put("configmaps", {"metadata": {"name": "b"}, "data": {"x": "other"}})
    for text in ("2", "3"):
        server.update("configmaps", "a", lambda item, text=text: item.update(data={"x": text}))  # type: ignore[misc]
    server.remove("configmaps", "a")
    began = time.monotonic()
    assert list(states(cluster, version, 30)) == ["2", "3"]
    assert time.monotonic() - began < 10


def test_a_watch_in_which_nothing_happens_ends_with_its_time(server: FakeKubernetes, cluster: Cluster) -> None:
    version = server.put("configmaps", BODY)["metadata"]["resourceVersion"]
    assert list(states(cluster, version)) == []


def test_a_watch_tells_from_which_version_the_next_one_goes_on(server: FakeKubernetes, cluster: Cluster) -> None:
    version = server.put("configmaps", BODY)["metadata"]["resourceVersion"]
    server.update("configmaps", "a", lambda item: item.update(data={"x": "2"}))
    *_, (what, item) = cluster.watch(CONFIG_MAPS, "a", version, 0.6)
    assert what == "BOOKMARK"
    found = server.get("configmaps", "a")
    assert found
    assert item["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


@pytest.mark.parametrize("how", ["compacted", "watch_gone"])
def test_a_watch_from_a_version_that_is_forgotten_says_so(server: FakeKubernetes, cluster: Cluster, how: str) -> None:
    version = server.put("configmaps", BODY)["metadata"]["resourceVersion"]
    if how == "compacted":
        server.compact()
    else:
        server.faults.add(how)
    with pytest.raises(GoneError, match="too old resource version"):
        list(states(cluster, version))


def test_a_watch_is_never_repeated_here(server: FakeKubernetes, cluster: Cluster) -> None:
    server.faults.add("410")
    with pytest.raises(GoneError, match="too old"):
        list(states(cluster, "1"))
    assert len(server.requests) == 1


def test_half_an_event_of_a_watch_that_was_cut_is_not_taken_for_one(server: FakeKubernetes, cluster: Cluster) -> None:
    version = server.put("configmaps", BODY)["metadata"]["resourceVersion"]
    server.update("configmaps", "a", lambda item: item.update(data={"x": "2"}))
    server.faults.add("watch_cut")
    seen: list[str] = []
    with pytest.raises(urllib3.exceptions.HTTPError):
        seen.extend(states(cluster, version))
    assert seen == []


@pytest.mark.parametrize(
    "error",
    [
        GoneError("x"),
        urllib3.exceptions.ProtocolError("cut"),
        *(ApiException(status=status) for status in (None, 0, 400, 404, 408, 410, 429, 500, 503)),
    ],
    ids=repr,
)
def test_whoever_follows_may_meet_a_blink(error: Exception) -> None:
    with transient_errors_ignored():
        raise error


@pytest.mark.parametrize("status", [401, 403, 422])
def test_whoever_follows_is_told_of_a_refusal(status: int) -> None:
    with pytest.raises(ApiException), transient_errors_ignored():
        raise ApiException(status=status)


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig's path that the client reads; the client itself reads KUBECONFIG only once, when it is imported."""
    path = tmp_path / "config"
    monkeypatch.setattr(kubernetes_api, "IN_CLUSTER_NAMESPACE", tmp_path / "no-such-file")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


def test_the_namespace_is_the_given_one_else_the_kubeconfigs(server: FakeKubernetes, kubeconfig: Path) -> None:
    server.kubeconfig(kubeconfig)
    assert connect().namespace == "spark-kfp"
    assert connect("other").namespace == "other"
    assert connect(patience_seconds=7).patience_seconds == 7


def test_a_kubeconfig_without_a_namespace_asks_for_one(server: FakeKubernetes, kubeconfig: Path) -> None:
    server.namespace = ""
    server.kubeconfig(kubeconfig)
    with pytest.raises(InputError, match="--namespace"):
        connect()
    assert connect("other").namespace == "other"


@pytest.mark.parametrize("text", [None, "{}", "", "kind: Config\ncontexts: []\n"])
def test_without_a_cluster_it_is_told_what_to_do(kubeconfig: Path, text: str | None) -> None:
    if text is not None:
        kubeconfig.write_text(text)
    with pytest.raises(InputError, match=r"no cluster to talk to .* set KUBECONFIG"):
        connect()


def test_a_kubeconfig_that_is_not_yaml_is_told(kubeconfig: Path) -> None:
    kubeconfig.write_text("a: [")
    with pytest.raises(InputError, match="no cluster to talk to"):
        connect()


def test_a_last_line_of_a_log_without_an_end_is_not_lost(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    answer = urllib3.HTTPResponse(io.BytesIO(b"t1 first\nt2 las" + b"t"), preload_content=False)
    monkeypatch.setattr(cluster, "_call", lambda *_: answer)
    assert list(cluster.log("pod", "c", "", follow=False)) == ["t1 first", "t2 last"]


def test_a_token_that_is_no_longer_known_is_never_printed(
    server: FakeKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(server, monkeypatch, 401, "Unauthorized")
    with pytest.raises(StepError) as caught:
        cluster.list(CONFIG_MAPS)
    assert "no-secret" not in f"{caught.value!r} {caught.value.failure}"
