"""Runs on a KFP server: made, followed, told. Takes and returns the server's documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from kfp_pipeline.kfp_server import run_tasks
from kfp_pipeline.kfp_server.client import ConflictError, Document, NotFoundError, Server
from kfp_pipeline.kfp_server.uploads import Package, UploadedVersion
from kfp_pipeline.local import runs
from spark_jobs.errors import InputError

FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
CANCELING = "CANCELING"
POLL_SECONDS = 3.0
STUCK_SECONDS = 60.0
"""After so long without the start of a pod people are told; images are often pulled within it."""


class StillRunningError(Exception):
    """The time for waiting is over, and the run is not."""


def experiment_id(server: Server, name: str) -> str:
    """The experiment of a name; it is made if it is missing."""

    def look() -> Document | None:
        found = server.list_by_name("experiments", "experiments", name)
        return found[0] if found else None

    body = {"display_name": name, "description": "Runs of spark-kfp."}
    try:
        found = look() or server.create("experiments", look, body | _namespace(server))
    except ConflictError as error:
        raise InputError(f"the experiment {name!r} is taken on {server.url}; give another --experiment") from error
    return str(found["experiment_id"])


def runtime_config(parameters: Mapping[str, Any], pipeline_root: str) -> Document:
    """The settings of a run."""
    return {"parameters": dict(parameters), **({"pipeline_root": pipeline_root} if pipeline_root else {})}


def run_body(
    package: Package, reference: Document, config: Document, *, experiment: str, service_account: str = ""
) -> Document:
    """What makes a run; its name is one of a kind, so that it is found again if the answer is lost."""
    return {
        "display_name": f"{package.pipeline_name} {runs.new_id()}",
        "experiment_id": experiment,
        "pipeline_version_reference": reference,
        "runtime_config": config,
        **({"service_account": service_account} if service_account else {}),
    }


def create(server: Server, body: Document) -> Document:
    """Makes a run, once."""

    def look() -> Document | None:
        found = server.list_by_name("runs", "runs", body["display_name"])
        return found[0] if found else None

    try:
        return server.create("runs", look, body)
    except ConflictError as error:
        raise InputError(f"the server {server.url} refuses the run: {error}") from error


def version_reference(uploaded: UploadedVersion | None, package: Package) -> Document:
    """How a run names its pipeline; in words, when nothing is sent."""
    if uploaded:
        return uploaded.reference
    return {"pipeline_id": f"(of {package.name})", "pipeline_version_id": f"(of {package.version_name})"}


def follow(
    server: Server,
    run_id: str,
    timeout_seconds: float,
    on_update: Callable[[Document], None] = lambda _: None,
    on_stuck: Callable[[], None] = lambda: None,
) -> Document:
    """Waits for the end of a run and shows each of its states.

    Args:
        server: where it runs.
        run_id: of the run.
        timeout_seconds: longest wait; 0: as long as it takes.
        show: takes the run each time it was read.
        stuck: called when the same pods have been waiting to start for STUCK_SECONDS, once for these pods.

    Raises:
        StillRunningError: the time is over; the run goes on.
        TemporaryError: the server stayed away longer than its patience; the run goes on.
    """
    give_up = time.monotonic() + timeout_seconds if timeout_seconds else float("inf")
    waiting, look_at = "", float("inf")
    while True:
        run = server.get(f"runs/{run_id}")
        on_update(run)
        if run.get("state") in FINAL_STATES:
            return run
        now = time.monotonic()
        if run_tasks.pending_pods(run) != waiting:
            waiting = run_tasks.pending_pods(run)
            look_at = now + STUCK_SECONDS if waiting else float("inf")
        if now >= look_at:
            on_stuck()
            look_at = float("inf")
        if now + POLL_SECONDS > give_up:
            raise StillRunningError
        time.sleep(POLL_SECONDS)


def specification(server: Server, run: Document) -> Document:
    """The specification of a run's pipeline, as the server keeps it; empty if it is no longer there."""
    reference = run.get("pipeline_version_reference") or {}
    if not reference.get("pipeline_version_id"):
        return run_tasks.specification(run)
    try:
        path = f"pipelines/{reference['pipeline_id']}/versions/{reference['pipeline_version_id']}"
        return run_tasks.specification(server.get(path))
    except NotFoundError:
        return {}


def terminate(server: Server, run_id: str) -> Document:
    """Asks for the end of a run, unless it has ended or is being ended: then the server refuses.

    Returns:
        The run as it was before, or as it is if it ended meanwhile.
    """
    run = server.get(f"runs/{run_id}")
    if run.get("state") in (*FINAL_STATES, CANCELING):
        return run
    try:
        server.call(f"runs/{run_id}:terminate")
    except InputError:
        now = server.get(f"runs/{run_id}")
        if now.get("state") not in (*FINAL_STATES, CANCELING):
            raise
        return now if now["state"] in FINAL_STATES else run
    return run


def link(server: Server, run_id: str) -> str:
    """Where people see the run."""
    return f"{server.url}/#/runs/details/{run_id}"


def run_document(server: Server, run: Document) -> Document:
    """What a program gets of a run."""
    identity = run["run_id"]
    return {"run_id": identity, "link": link(server, identity), "state": run.get("state", "")}


def _namespace(server: Server) -> Document:
    return {"namespace": server.namespace} if server.namespace else {}
