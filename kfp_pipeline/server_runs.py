"""Runs on a KFP server: made, followed, told. Takes and returns the server's documents."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kfp_pipeline import runs
from kfp_pipeline.kfp_server import ConflictError, Document, Server
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.uploading import Package, Uploaded
from spark_jobs.contract import InputError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
EVENTS = {"RUNNING": "running", "SUCCEEDED": "done", "FAILED": "failed", "SKIPPED": "skipped", "CANCELED": "cancelled"}
CANCELING = "CANCELING"
POLL_SECONDS = 3.0
HIDDEN = ("root", "executor")
"""Nodes of Argo's that the server lists among the tasks; each task has a driver and an executor of its own."""
SUMMARY_NAME = "summary.json"
"""The document that the pipeline's last task writes."""


class StillRunningError(Exception):
    """The time for waiting is over, and the run is not."""


def experiment_id(server: Server, name: str) -> str:
    """The experiment of a name; it is made if it is missing."""

    def look() -> Document | None:
        found = server.named("experiments", "experiments", name)
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
    made: Package, reference: Document, config: Document, *, experiment: str, service_account: str = ""
) -> Document:
    """What makes a run; its name is one of a kind, so that it is found again if the answer is lost."""
    return {
        "display_name": f"{made.own_name} {runs.new_id()}",
        "experiment_id": experiment,
        "pipeline_version_reference": reference,
        "runtime_config": config,
        **({"service_account": service_account} if service_account else {}),
    }


def create(server: Server, body: Document) -> Document:
    """Makes a run, once."""

    def look() -> Document | None:
        found = server.named("runs", "runs", body["display_name"])
        return found[0] if found else None

    try:
        return server.create("runs", look, body)
    except ConflictError as error:
        raise InputError(f"the server {server.url} refuses the run: {error}") from error


def reference_of(uploaded: Uploaded | None, made: Package) -> Document:
    """How a run names its pipeline; in words, when nothing is sent."""
    if uploaded:
        return uploaded.reference
    return {"pipeline_id": f"(of {made.name})", "pipeline_version_id": f"(of {made.version_name})"}


def follow(server: Server, run_id: str, show: Callable[[Document], None], timeout_seconds: float) -> Document:
    """Waits for the end of a run and shows each change of a task, as a run on this machine does.

    Args:
        server: where it runs.
        run_id: of the run.
        show: takes an event: `step`, `state`, `rows` (none: the server does not know them), `seconds`.
        timeout_seconds: longest wait; 0: as long as it takes.

    Raises:
        StillRunningError: the time is over; the run goes on.
        TemporaryError: the server stayed away longer than its patience; the run goes on.
    """
    give_up = time.monotonic() + timeout_seconds if timeout_seconds else float("inf")
    shown: dict[str, str] = {}
    while True:
        run = server.get(f"runs/{run_id}")
        for event in events(run):
            if shown.get(event["step"]) != event["state"]:
                shown[event["step"]] = event["state"]
                show(event)
        if run.get("state") in ENDED:
            return run
        if time.monotonic() + POLL_SECONDS > give_up:
            raise StillRunningError
        time.sleep(POLL_SECONDS)


def events(run: Document) -> Iterator[Document]:
    """The states of a run's tasks, in the order in which they began."""
    known = [item for item in tasks(run) if is_shown(run, item) and item.get("state") in EVENTS]
    for item in sorted(known, key=lambda item: str(item.get("start_time", ""))):
        yield {
            "step": item["display_name"].lower(),
            "state": EVENTS[item["state"]],
            "rows": {},
            "seconds": seconds_between(item.get("start_time"), item.get("end_time")),
        }


def terminate(server: Server, run_id: str) -> Document:
    """Asks for the end of a run, unless it has ended or is being ended: then the server refuses.

    Returns:
        The run as it was before, or as it is if it ended meanwhile.
    """
    run = server.get(f"runs/{run_id}")
    if run.get("state") in (*ENDED, CANCELING):
        return run
    try:
        server.act(f"runs/{run_id}:terminate")
    except InputError:
        now = server.get(f"runs/{run_id}")
        if now.get("state") not in (*ENDED, CANCELING):
            raise
        return now if now["state"] in ENDED else run
    return run


def wait_for_end(server: Server, run_id: str, timeout_seconds: float) -> Document:
    """Waits until a run has ended.

    Raises:
        StillRunningError: it has not within the time.
    """
    return follow(server, run_id, lambda _: None, timeout_seconds)


def tasks(run: Document) -> list[Document]:
    """All tasks that the server lists."""
    return list((run.get("run_details") or {}).get("task_details") or [])


def is_shown(run: Document, item: Document) -> bool:
    """Whether a task is one of the pipeline's, not one of Argo's nodes below or above it."""
    name = str(item.get("display_name", "")).partition("(")[0]
    if not name or name in HIDDEN or name.endswith("-driver"):
        return False
    # The node of the whole run is called after its workflow, which ends with a random word, and is nobody's child.
    children = {child.get("pod_name") for other in tasks(run) for child in other.get("child_tasks") or []}
    return not re.fullmatch(r".+-[a-z0-9]{5}", name) or item.get("pod_name") in children


def seconds_between(start: str | None, end: str | None) -> float:
    """Seconds; 0 if one of the times is not known."""
    if not start or not end:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def why_failed(run: Document) -> str:
    """Which tasks failed, and the error of the innermost: the others only say that a child of theirs did."""
    failed = [item for item in tasks(run) if item.get("state") == "FAILED"]
    names = [item["display_name"] for item in failed if is_shown(run, item)]
    told = [
        str((item.get("error") or {}).get("message", "")) for item in sorted(failed, key=lambda i: is_shown(run, i))
    ]
    message = next((text for text in told if text), str((run.get("error") or {}).get("message", "")))
    where = f"at {', '.join(names)}" if names else ""
    return (
        " ".join(part for part in (where, f"({message})" if message else "") if part) or "for no reason that it tells"
    )


def link(server: Server, run_id: str) -> str:
    """Where people see the run."""
    return f"{server.url}/#/runs/details/{run_id}"


def summary(run: Document, pipeline_name: str, pipeline_root: str) -> tuple[Document | None, str]:
    """What the last task wrote, or None and why it cannot be had here."""
    root = (pipeline_root or str((run.get("runtime_config") or {}).get("pipeline_root", ""))).rstrip("/")
    if not object_store.is_stored(root):
        return None, "without --pipeline-root it is not known where they lie"
    uri = f"{root}/{pipeline_name}/{run['run_id']}/{SUMMARY_NAME}"
    try:
        text = object_store.read_text(uri)
        found = json.loads(text) if text else None
    except (InputError, StepError, ValueError) as error:
        return None, str(error)
    return (found, "") if isinstance(found, dict) else (None, f"{uri} is not there")


def _namespace(server: Server) -> Document:
    return {"namespace": server.namespace} if server.namespace else {}
