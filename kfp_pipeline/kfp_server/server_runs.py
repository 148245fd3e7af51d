"""Creates, follows and terminates runs on a KFP server. Takes and returns the server's documents."""

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
"""A user who waits is told about a pod that has been pending this long; most image pulls take less."""


class StillRunningError(Exception):
    """The time limit of the wait is over, and the run has not ended."""


def experiment_id(server: Server, name: str) -> str:
    """Returns the id of the experiment of this name, and creates the experiment if it does not exist.

    Raises:
        InputError: the server has no experiment of this name and yet refuses to create it, because the name is taken.
    """

    def find_existing() -> Document | None:
        found = server.list_by_name("experiments", "experiments", name)
        return found[0] if found else None

    body = {"display_name": name, "description": "Runs of spark-kfp."}
    try:
        found = find_existing() or server.create("experiments", find_existing, body | _namespace(server))
    except ConflictError as error:
        raise InputError(f"the experiment {name!r} is taken on {server.url}; give another --experiment") from error
    return str(found["experiment_id"])


def runtime_config(parameters: Mapping[str, Any], pipeline_root: str) -> Document:
    """Returns the run-time configuration of a run: its parameters and its pipeline root."""
    return {"parameters": dict(parameters), **({"pipeline_root": pipeline_root} if pipeline_root else {})}


def run_body(
    package: Package, reference: Document, config: Document, *, experiment: str, service_account: str = ""
) -> Document:
    """Returns the request body that creates a run. The display name is unique, so that `create` finds the run if the answer is lost."""
    return {
        "display_name": f"{package.pipeline_name} {runs.new_id()}",
        "experiment_id": experiment,
        "pipeline_version_reference": reference,
        "runtime_config": config,
        **({"service_account": service_account} if service_account else {}),
    }


def create(server: Server, body: Document) -> Document:
    """Creates a run exactly once; see `Server.create`."""

    def find_existing() -> Document | None:
        found = server.list_by_name("runs", "runs", body["display_name"])
        return found[0] if found else None

    try:
        return server.create("runs", find_existing, body)
    except ConflictError as error:
        raise InputError(f"the server {server.url} refuses the run: {error}") from error


def version_reference(uploaded: UploadedVersion | None, package: Package) -> Document:
    """Returns the reference to the pipeline's version; without an upload, as in a dry run, it holds names in place of ids."""
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
    """Polls a run until it ends, and returns its last document.

    Args:
        server: the server.
        run_id: id of the run.
        timeout_seconds: longest wait; 0: no limit.
        on_update: called with the run's document after each poll.
        on_stuck: called when the same pods have been pending for STUCK_SECONDS, once for each set of pods.

    Raises:
        StillRunningError: the time limit is over; the run continues.
        TemporaryError: the server was unavailable for longer than its patience; the run continues.
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
    """Reads the specification of a run's pipeline; empty if the pipeline's version was deleted."""
    reference = run.get("pipeline_version_reference") or {}
    if not reference.get("pipeline_version_id"):
        return run_tasks.specification(run)
    try:
        path = f"pipelines/{reference['pipeline_id']}/versions/{reference['pipeline_version_id']}"
        return run_tasks.specification(server.get(path))
    except NotFoundError:
        return {}


def terminate(server: Server, run_id: str) -> Document:
    """Terminates a run, unless it has ended or is being terminated, as the server then refuses the request.

    Returns:
        The run's document from before the request, or the current one if the run ended meanwhile.
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
    """Returns the URL of the run in KFP's UI."""
    return f"{server.url}/#/runs/details/{run_id}"


def run_document(server: Server, run: Document) -> Document:
    """Returns what `--json` prints of a run."""
    identity = run["run_id"]
    return {"run_id": identity, "link": link(server, identity), "state": run.get("state", "")}


def _namespace(server: Server) -> Document:
    return {"namespace": server.namespace} if server.namespace else {}
