"""Leases and the reaper: what nobody follows is deleted, what somebody follows never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client, config

from kfp_pipeline.runtime import kubernetes_api
from kfp_pipeline.runtime.errors import TemporaryError
from kfp_pipeline.runtime.kubernetes_api import Cluster
from kfp_pipeline.runtime.spark_operator import lease
from kfp_pipeline.runtime.spark_operator.lease import Lease, Reaper
from kfp_pipeline.runtime.spark_operator.manifest import LEASE_ANNOTATION, MANAGED_BY
from kfp_pipeline.settings import NEW_POD_SECONDS, NODE_LOST_SECONDS, Settings, lease_seconds_for
from kfp_pipeline.task_settings import Platform

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

LOOK = 10.0
LEASE_SECONDS = Settings().lease_seconds


@pytest.fixture
def cluster(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(kubernetes_api, "FIRST_PAUSE_SECONDS", 0.02)
    settings = client.Configuration()
    config.load_kube_config(str(server.kubeconfig(tmp_path / "kubeconfig")), client_configuration=settings)
    settings.retries = False
    return Cluster(client.ApiClient(settings), "spark-kfp", patience_seconds=0.1)


def application(server: FakeKubernetes, name: str = "app", state: str = "RUNNING", **metadata: Any) -> dict[str, Any]:
    """Puts an application there that no operator moves."""
    status = {"applicationState": {"state": state}} if state else {}
    return server.put(
        "sparkapplications", {"metadata": {"name": name, "labels": MANAGED_BY, **metadata}, "status": status}
    )


def renewed(server: FakeKubernetes, at: str, name: str = "app") -> None:
    """Puts a lease there as its holder's clock would write it."""
    spec = {"renewTime": at, "holderIdentity": "task"}
    server.put("leases", {"metadata": {"name": name, "labels": MANAGED_BY}, "spec": spec})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watchman:
    """A reaper and its clock."""

    def __init__(self, cluster: Cluster) -> None:
        self.clock = Clock()
        self.reaper = Reaper(cluster, clock=self.clock)

    def looks(self, seconds: float) -> list[str]:
        """Looks every ten seconds for so long; the names that were deleted."""
        found: list[str] = []
        for _ in range(round(seconds / LOOK)):
            self.clock.now += LOOK
            found += self.reaper.delete_expired()
        return found


@pytest.fixture
def watchman(cluster: Cluster) -> Watchman:
    return Watchman(cluster)


def test_a_lease_is_made_owned_by_its_application_and_found_by_the_reaper(
    server: FakeKubernetes, cluster: Cluster
) -> None:
    made = application(server)
    Lease(cluster, made, "task-1").renew()
    found = server.get("leases", "app")
    assert found is not None
    assert found["metadata"]["labels"] == MANAGED_BY
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("SparkApplication", "app", made["metadata"]["uid"])
    assert (found["spec"]["holderIdentity"], found["spec"]["leaseDurationSeconds"]) == ("task-1", LEASE_SECONDS)


def test_a_lease_is_renewed_when_it_is_time_and_not_before(
    server: FakeKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(lease.time, "monotonic", clock)
    held = Lease(cluster, application(server), "task-1")
    held.renew()
    before = server.get("leases", "app")
    count = len(server.requests)
    clock.now += 29.9
    held.renew()
    assert len(server.requests) == count
    clock.now += 0.2
    held.renew()
    after = server.get("leases", "app")
    assert before
    assert after
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["renewTime"] > before["spec"]["renewTime"]


def test_a_second_task_takes_the_lease_of_the_same_application_over(server: FakeKubernetes, cluster: Cluster) -> None:
    made = application(server)
    Lease(cluster, made, "task-1").renew()
    Lease(cluster, made, "task-2").renew()
    (found,) = server.list("leases")
    assert found["spec"]["holderIdentity"] == "task-2"


def test_a_lease_of_an_earlier_application_of_the_name_is_replaced(server: FakeKubernetes, cluster: Cluster) -> None:
    Lease(cluster, application(server), "task-1").renew()
    before = server.get("leases", "app")
    server.operator.speed = 0.001  # the garbage collector sleeps
    server.remove("sparkapplications", "app")
    made = application(server)
    Lease(cluster, made, "task-2").renew()
    (found,) = server.list("leases")
    assert before
    assert found["metadata"]["uid"] != before["metadata"]["uid"]
    assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


def test_a_lease_that_another_renews_at_the_same_moment_is_no_error(
    server: FakeKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = application(server)
    Lease(cluster, made, "task-1").renew()
    read = Cluster.get

    def read_then_change(self: Cluster, kind: str, name: str) -> Any:
        found = read(self, kind, name)
        server.update("leases", "app", lambda item: item["spec"].update(holderIdentity="other"))
        return found

    monkeypatch.setattr(Cluster, "get", read_then_change)
    Lease(cluster, made, "task-2").renew()
    found = server.get("leases", "app")
    assert found
    assert found["spec"]["holderIdentity"] == "other"


def test_an_application_whose_lease_nobody_renews_is_deleted_after_its_whole_duration(
    server: FakeKubernetes, watchman: Watchman
) -> None:
    application(server)
    renewed(server, "2026-11-23T07:00:00.0Z")
    assert watchman.looks(LOOK + LEASE_SECONDS) == []
    assert watchman.looks(LOOK) == ["app"]
    assert not server.applications


def test_an_application_whose_lease_is_renewed_lives(server: FakeKubernetes, watchman: Watchman) -> None:
    application(server, annotations={LEASE_ANNOTATION: "60"})
    application(server, "other", annotations={LEASE_ANNOTATION: "60"})
    for number in range(8):
        renewed(server, f"2026-11-23T07:{number:02d}:00.0Z")
        assert "app" not in watchman.looks(5 * LOOK)
    assert list(server.applications) == ["app"]


def test_the_duration_is_noted_on_the_application(server: FakeKubernetes, watchman: Watchman) -> None:
    for name, seconds in (("short", "20"), ("long", "200"), ("odd", "soon")):
        application(server, name, annotations={LEASE_ANNOTATION: seconds})
        renewed(server, "2026-11-23T07:00:00.0Z", name)
    assert watchman.looks(100) == ["short"]
    assert watchman.looks(120) == ["long"]
    assert watchman.looks(LEASE_SECONDS) == ["odd"], "what is no number counts as the platform's"


def test_a_short_lease_is_renewed_often_enough(
    server: FakeKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(lease.time, "monotonic", clock)
    held = Lease(cluster, application(server, annotations={LEASE_ANNOTATION: "60"}), "task-1")
    held.renew()
    count = len(server.requests)
    clock.now += 10
    held.renew()
    assert len(server.requests) > count
    assert (server.get("leases", "app") or {})["spec"]["leaseDurationSeconds"] == 60


@pytest.mark.parametrize(("retries", "waits"), [(0, []), (1, [30]), (2, [30, 60]), (3, [30, 60, 120])])
def test_a_lease_outlives_kfps_patience(
    server: FakeKubernetes, watchman: Watchman, retries: int, waits: list[int]
) -> None:
    seconds = lease_seconds_for(retries, Platform().backoff_seconds)
    application(server, annotations={LEASE_ANNOTATION: str(seconds)})
    for number, wait in enumerate(
        [0, *waits]
    ):  # the task's node is lost, KFP waits, a pod comes back at the last moment
        assert watchman.looks(NODE_LOST_SECONDS + wait + NEW_POD_SECONDS - 2 * LOOK) == []
        renewed(server, f"2026-11-23T07:{number:02d}:00.0Z")
        assert watchman.looks(LOOK) == []
    assert watchman.looks(seconds + LOOK) == ["app"]


def test_an_application_without_a_lease_is_deleted_after_the_usual_duration(
    server: FakeKubernetes, watchman: Watchman
) -> None:
    application(server)
    application(server, "new", state="")
    assert watchman.looks(LOOK + LEASE_SECONDS) == []
    assert watchman.looks(LOOK) == ["app", "new"]


def test_a_lease_that_comes_late_counts_from_then(server: FakeKubernetes, watchman: Watchman) -> None:
    application(server)
    assert watchman.looks(LEASE_SECONDS) == []
    renewed(server, "2026-11-23T07:00:00.0Z")
    assert watchman.looks(LOOK + LEASE_SECONDS) == []
    assert watchman.looks(LOOK) == ["app"]


@pytest.mark.parametrize("times", [("1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"), ("2100-01-01T00:00:00Z", "1999")])
def test_a_wrong_clock_of_the_holder_neither_kills_nor_saves(
    server: FakeKubernetes, watchman: Watchman, times: tuple[str, str]
) -> None:
    application(server)
    for _ in range(3):
        for at in times:
            renewed(server, at)
            assert watchman.looks(LEASE_SECONDS) == []
    assert watchman.looks(2 * LOOK) == ["app"]


def test_a_reaper_that_has_just_started_deletes_nothing_however_old_the_lease(
    server: FakeKubernetes, cluster: Cluster
) -> None:
    application(server)
    renewed(server, "1999-01-01T00:00:00Z", 1)
    assert Reaper(cluster).delete_expired() == []


def test_after_a_gap_without_an_answer_every_lease_counts_as_just_seen(
    server: FakeKubernetes, watchman: Watchman
) -> None:
    application(server)
    renewed(server, "2026-11-23T07:00:00.0Z")
    assert watchman.looks(5 * LOOK) == []
    server.faults.add("503", path="sparkapplications", times=10**6)
    for _ in range(4):
        with pytest.raises(TemporaryError):
            watchman.looks(LOOK)
    server.faults.queue.clear()
    assert watchman.looks(LOOK + LEASE_SECONDS) == []
    assert watchman.looks(LOOK) == ["app"]


def test_a_short_gap_does_not_start_anew(server: FakeKubernetes, watchman: Watchman) -> None:
    application(server)
    renewed(server, "2026-11-23T07:00:00.0Z")
    watchman.looks(LEASE_SECONDS)
    watchman.clock.now += 15
    assert watchman.looks(LOOK) == ["app"]


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED"])
def test_what_has_ended_stays_for_whoever_wants_its_log(server: FakeKubernetes, watchman: Watchman, state: str) -> None:
    application(server, state=state)
    assert watchman.looks(5 * LEASE_SECONDS) == []
    assert list(server.applications) == ["app"]


def test_what_is_being_deleted_is_left_to_it(server: FakeKubernetes, watchman: Watchman) -> None:
    application(server, deletionTimestamp="2026-11-23T07:00:00Z")
    assert watchman.looks(5 * LEASE_SECONDS) == []


def test_an_application_of_someone_else_is_not_touched(server: FakeKubernetes, watchman: Watchman) -> None:
    application(server, labels={"app.kubernetes.io/managed-by": "someone"})
    assert watchman.looks(5 * LEASE_SECONDS) == []


def test_a_re_created_application_of_the_same_name_starts_anew(server: FakeKubernetes, watchman: Watchman) -> None:
    application(server)
    renewed(server, "2026-11-23T07:00:00.0Z")
    assert watchman.looks(LEASE_SECONDS) == []
    server.remove("sparkapplications", "app")
    application(server)
    assert watchman.looks(LOOK + LEASE_SECONDS) == []
    assert watchman.looks(LOOK) == ["app"]


def test_an_application_that_was_re_created_after_the_look_is_not_deleted_in_its_place(
    server: FakeKubernetes, watchman: Watchman, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(server)
    watchman.looks(LOOK + LEASE_SECONDS)
    delete = Cluster.delete

    def replace_then_delete(self: Cluster, kind: str, name: str, uid: str = "", **more: Any) -> None:
        server.remove("sparkapplications", name)
        application(server)
        delete(self, kind, name, uid, **more)

    monkeypatch.setattr(Cluster, "delete", replace_then_delete)
    watchman.looks(LOOK)
    assert list(server.applications) == ["app"]


def test_a_reaper_goes_on_when_the_server_is_away(
    server: FakeKubernetes, cluster: Cluster, time_of: Callable[..., None]
) -> None:
    server.faults.add("500", path="sparkapplications", times=10**6)
    looks: list[float] = []

    class Stopped(Exception):  # noqa: N818 - not an error
        pass

    def sleep(seconds: float) -> None:
        if seconds == 7:
            looks.append(seconds)
        if len(looks) == 2:
            raise Stopped

    for module in (lease, kubernetes_api):
        time_of(module, sleep=sleep)
    with pytest.raises(Stopped):
        Reaper(cluster).run(7)
