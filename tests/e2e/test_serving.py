"""The server as a Deployment on a real cluster: it waits for a champion, follows it under load, and is restarted under load."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from conftest import BUCKET, DATA, E2E, PROJECT, LocalRun, kubectl, rolled_out, until

from benchmarks.scoring import read_rows
from benchmarks.serving import MODEL, register_twice
from kfp_pipeline.runtime.kubernetes_api import PODS
from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place, place_of

pytestmark = [pytest.mark.cluster, pytest.mark.selection]
NAME = "spark-kfp-serving"
OVERLAY = PROJECT / "tests/e2e/serving"
ROLE = "spark-kfp/role=serving"
CALLER = (PROJECT / "tests/e2e/calls.py").read_text(encoding="utf-8")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Served:
    """The Deployment, and the registry that it follows.

    Attributes:
        registry: the registry, in the object store.
        known: its two versions; the first was the champion when the server got ready.
        log_before: a pod's log from before there was a champion.
        ready_before: the number of ready pods then.
    """

    registry: Place
    known: list[str]
    log_before: str
    ready_before: int


def apply(registry_uri: str) -> None:
    """Applies the overlay, with a registry of its own."""
    objects = list(yaml.safe_load_all(kubectl("kustomize", str(OVERLAY))))
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    (place,) = [item for item in environment if item["name"] == "SPARK_KFP_SERVE_REGISTRY"]
    place["value"] = registry_uri
    kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))


@pytest.fixture(scope="module")
def served(e2e: E2E, local_run: LocalRun) -> Iterator[Served]:
    """The Deployment with a champion, after it had none."""
    del e2e  # its manifests, bucket and object store
    uri = f"s3://{BUCKET}/e2e/{uuid.uuid4().hex[:8]}/models"
    apply(uri)
    try:
        log_line = "there is no champion.json yet"
        until(lambda: log_line in kubectl("logs", f"deployment/{NAME}", check=False), 60, "no server has started")
        time.sleep(2)  # two looks at a server that is not ready
        log, ready = kubectl("logs", f"deployment/{NAME}"), ready_pods()
        known = register_twice(place_of(uri), local_run.evaluate_output)
        rolled_out(NAME)
        yield Served(place_of(uri), known, log, ready)
    finally:
        kubectl("delete", "-k", str(OVERLAY), "--wait=false")


def body_of_a_request(served: Served) -> str:
    where = f"{versions.folder_of(MODEL, served.known[0])}/scorecard.json"
    return json.dumps({"instances": read_rows(DATA, json.loads(served.registry.read(where)))[:1]})


def ready_pods() -> int:
    found = json.loads(kubectl("get", f"deployment/{NAME}", "-o", "json"))
    return int(found["status"].get("readyReplicas", 0))


@dataclass(frozen=True)
class Caller:
    """A pod that calls the server without a pause."""

    pod: str

    def counts(self) -> dict[str, dict[str, int]]:
        """The answers by version, and the failures, from the pod's start until now."""
        last = kubectl("logs", self.pod, "--tail=1", check=False)
        return json.loads(last) if last else {"answers": {}, "failures": {}}

    def wait_for(self, version: str) -> None:
        """Waits until all answers of a second come from a version."""

        def alone() -> bool:
            before = self.counts()["answers"]
            time.sleep(1.5)
            after = self.counts()["answers"]
            gained = {name for name, count in after.items() if count > before.get(name, 0)}
            return gained == {version}

        until(alone, 60, f"the answers do not come from {version} alone")


@contextmanager
def calling(e2e: E2E, served: Served) -> Iterator[Caller]:
    """Starts a pod that calls the server; at the end no request may have failed."""
    name = f"caller-{uuid.uuid4().hex[:8]}"
    command = ["python", "-c", CALLER, NAME, f"/v1/models/{MODEL}:predict", body_of_a_request(served)]
    container = {"name": "caller", "image": e2e.image, "command": command, "securityContext": RESTRICTED}
    spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    e2e.cluster.create(PODS, body)
    caller = Caller(name)
    try:
        until(lambda: caller.counts()["answers"], 60, "no request is answered")
        yield caller
        time.sleep(1.5)
        counts = caller.counts()
        assert counts["failures"] == {}
        assert sum(counts["answers"].values()) > 500
    finally:
        e2e.cluster.delete(PODS, name)


def test_without_a_champion_no_pod_is_ready_and_the_log_says_why(served: Served) -> None:
    assert served.ready_before == 0
    assert "/v2/health/live" not in served.log_before, "the probes that go well are not logged"
    assert '"error": "there is no champion.json yet; promote a version"' in served.log_before


def test_a_new_champion_is_taken_over_under_load_without_a_failed_request(e2e: E2E, served: Served) -> None:
    first, second = served.known
    with calling(e2e, served) as caller:
        caller.wait_for(first)
        pointer.promote(served.registry, MODEL, second)
        caller.wait_for(second)


def server_pods() -> set[str]:
    """The names of the pods, those that end among them."""
    return set(kubectl("get", "pods", "-l", ROLE, "-o", "name").split())


def disturb_by_rollout() -> None:
    kubectl("rollout", "restart", f"deployment/{NAME}")
    rolled_out(NAME)


def disturb_by_deletion() -> None:
    kubectl("delete", min(server_pods()))
    rolled_out(NAME)


@pytest.mark.parametrize("disturb", [disturb_by_rollout, disturb_by_deletion])
def test_servers_are_replaced_under_load_without_a_failed_request(
    e2e: E2E, served: Served, disturb: Callable[[], None]
) -> None:
    before = server_pods()
    with calling(e2e, served):
        disturb()
        until(lambda: len(server_pods()) == 2, 60, "the pods that end are still there")
    assert server_pods() != before
