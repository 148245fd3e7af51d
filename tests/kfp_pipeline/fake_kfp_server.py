"""A small KFP API server over real HTTP, which misbehaves when told to.

    with FakeKfp() as server:
        server.faults.append(Fault("status", status=503, times=2, path="runs"))
        main(["runs", "list", "--kfp", server.url])

Requests and answers are checked against the models of `kfp_server_api`: an unknown field or a wrong type is refused. As in a real server,
2.17, a whole number may be 42.5, a cron line may have five fields, and macros in a recurring run's parameters, such as
[[ScheduledTime]], stay as they are (kubeflow/pipelines#12494). Left out: filters other than equality, sorting, roles. Where it
follows the real one's source, the comment names the file in kubeflow/pipelines 2.17.0; `fake_kfp_nodes` makes the tasks that it lists.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import yaml
from fake_kfp_models import Document, Refusal, check, check_parameters

MODELS = {
    "experiments": "V2beta1Experiment",
    "pipelines": "V2beta1Pipeline",
    "versions": "V2beta1PipelineVersion",
    "runs": "V2beta1Run",
    "recurringruns": "V2beta1RecurringRun",
}
KEYS = {"recurringruns": "recurringRuns", "versions": "pipeline_versions"}
IDS = {"versions": "pipeline_version_id"}
LIST_QUERY = {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id"}


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Fault:
    """A fault: `status`, `cut` (before anything is done), `cut_after` (done, not answered), `slow`, `page` (HTML)."""

    kind: str
    status: int = 0
    method: str = ""
    path: str = ""
    times: int = 1


class FakeKfp:
    """The server; a context that runs it.

    Attributes:
        token: that is asked for, if any; `cookies` likewise.
        multi_user: what it says of itself.
        page_limit: most documents on a page.
        faults: how it misbehaves.
        story: what changes in a run each time it is read; the last stays.
        things: documents by kind and id.
        specs: the IR of each version, all its documents.
        workflows: the runs whose workflow is in the cluster; without it nothing about a run changes any more.
    """

    def __init__(self) -> None:
        self.token, self.cookies, self.multi_user, self.page_limit = "", "", False, 2
        self.faults: list[Fault] = []
        self.story: list[Document] = []
        self.requests: list[Request] = []
        self.things: dict[str, dict[str, Document]] = {kind: {} for kind in MODELS}
        self.specs: dict[str, list[Document]] = {}
        self.workflows: set[str] = set()
        self._ending: dict[str, list[str]] = {}
        self.lock = threading.RLock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> FakeKfp:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def sent(self, method: str, path: str = "") -> list[Request]:
        """The requests of a method whose path ends so."""
        return [item for item in self.requests if item.method == method and item.path.endswith(path)]

    def all(self, kind: str) -> list[Document]:
        """The documents of a kind, oldest first."""
        return list(self.things[kind].values())

    def put(self, kind: str, document: Document, **also: Any) -> Document:
        """Keeps a document, with an id and a time of its own."""
        identity = IDS.get(kind, f"{kind.removesuffix('s')}_id".replace("recurringrun", "recurring_run"))
        made = {**document, **also, identity: str(uuid.uuid4()), "created_at": datetime.now(UTC).isoformat()}
        check(MODELS[kind], made)
        self.things[kind][made[identity]] = made
        return made

    def run_of(self, schedule: Document, **also: Any) -> Document:
        """A run that a schedule makes when its time comes.

        backend/src/crd/controller/scheduledworkflow/controller.go, submitNewWorkflowIfNotAlreadySubmitted: the parameters go into the run
        as they stand; a macro such as [[ScheduledTime]] is not filled in.
        """
        kept = ("experiment_id", "pipeline_version_reference", "runtime_config")
        body = {name: schedule[name] for name in kept}
        number = sum(item.get("recurring_run_id") == schedule["recurring_run_id"] for item in self.all("runs")) + 1
        name = f"{schedule['display_name']}-{number}-1234567"
        owner = {"recurring_run_id": schedule["recurring_run_id"]}
        made = self.put("runs", body, display_name=name, **owner, **({"state": "RUNNING"} | also))
        self.workflows.add(made["run_id"])
        return made

    # What the HTTP side asks for.

    def answer(self, request: Request) -> Document:
        with self.lock:
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                raise Refusal(401, "Unauthenticated: no valid token")
            if self.cookies and request.headers.get("cookie") != self.cookies:
                raise Refusal(302, "")
            for pattern, method, act in ROUTES:
                found = re.fullmatch("/apis/v2beta1/" + pattern, request.path)
                if found and method == request.method:
                    return act(self, request, **found.groupdict())
        raise Refusal(404, f"Not Found: {request.method} {request.path}")

    def health(self, _: Request) -> Document:
        return {"multi_user": self.multi_user}

    def list(self, request: Request, kind: str, parent: str = "") -> Document:
        query = request.query
        if unknown := set(query) - (LIST_QUERY - {"namespace"} if kind == "versions" else LIST_QUERY):
            raise Refusal(400, f"unknown query fields: {unknown}")
        found = [item for item in self.all(kind) if not parent or item["pipeline_id"] == parent]
        for each in json.loads(unquote_plus(query.get("filter") or "{}")).get("predicates", []):
            key, wanted = each["key"], each.get("string_value", each.get("stringValue"))
            if each["operation"] not in ("EQUALS", 1) or wanted is None:
                raise Refusal(400, "Invalid filter")
            found = [item for item in found if item.get(key) == wanted]
        if kind == "runs" and query.get("sort_by") == "created_at desc":
            found.reverse()
        start, size = int(query.get("page_token") or 0), min(int(query.get("page_size") or 10), self.page_limit)
        page: Document = {KEYS.get(kind, kind): found[start : start + size], "total_size": len(found)}
        return page | ({"next_page_token": str(start + size)} if start + size < len(found) else {})

    def versions(self, request: Request, parent: str) -> Document:
        self.one("pipelines", parent)
        return self.list(request, "versions", parent)

    def one(self, kind: str, identity: str) -> Document:
        if identity not in self.things[kind]:
            raise Refusal(404, f"{MODELS[kind]} {identity} not found")
        return self.things[kind][identity]

    def read(self, _: Request, kind: str, identity: str) -> Document:
        found = self.one(kind, identity)
        if kind == "runs" and identity in self._ending and identity in self.workflows:
            # resource_manager.go, ReportWorkflowResource: CANCELING while the workflow ends, then the workflow's own phase, Failed;
            # storage/run_store.go, UpdateRun: each state that differs from the last is added to the history.
            found["state"] = self._ending[identity].pop(0) if len(self._ending[identity]) > 1 else "FAILED"
            if not (history := found.setdefault("state_history", [])) or history[-1]["state"] != found["state"]:
                history.append({"state": found["state"], "update_time": datetime.now(UTC).isoformat()})
        elif kind == "runs" and self.story:
            found |= self.story.pop(0) if len(self.story) > 1 else self.story[0]
            check(MODELS[kind], found)
        return found

    def create(self, request: Request, kind: str) -> Document:
        body = request.body
        check(MODELS[kind], body)
        if kind in ("experiments", "pipelines"):
            name = body.get("name") or body.get("display_name")
            if any(name in (item.get("name"), item["display_name"]) for item in self.all(kind)):
                raise Refusal(409, f"Already exist error: The name {name} already exist")
            return self.put(kind, body)
        self.one("experiments", body.get("experiment_id", ""))
        reference = body["pipeline_version_reference"]
        self.one("pipelines", reference["pipeline_id"])
        self.one("versions", reference["pipeline_version_id"])
        check_parameters(self.specs[reference["pipeline_version_id"]][0], body["runtime_config"].get("parameters", {}))
        if kind == "runs":
            made = self.put(kind, body, state="PENDING")
            self.workflows.add(made["run_id"])
            return made
        if len(body["trigger"]["cron_schedule"]["cron"].split()) not in (5, 6):
            raise Refusal(400, "Invalid cron")
        return self.put(kind, {"service_account": "pipeline-runner"} | body)

    def upload(self, request: Request) -> Document:
        query = request.query
        parent = query["pipelineid"]
        self.one("pipelines", parent)
        if any(item["name"] == query["name"] and item["pipeline_id"] == parent for item in self.all("versions")):
            raise Refusal(409, "Failed to create a pipeline version")
        described = {key: query[key] for key in ("name", "display_name", "description")}
        documents = list(yaml.safe_load_all(request.body))
        # server/api_util.go, YamlStringToPipelineSpecStruct: with what kfp-kubernetes adds, the specification is one level further in.
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        made = self.put("versions", described, pipeline_id=parent, pipeline_spec=spec)
        self.specs[made["pipeline_version_id"]] = documents
        return made

    def version(self, _: Request, parent: str, identity: str) -> Document:
        self.one("pipelines", parent)
        return self.one("versions", identity)

    def terminate(self, _: Request, identity: str) -> Document:
        run = self.one("runs", identity)
        # storage/run_store.go, TerminateRun: only a run in one of these states; the history stays as it is.
        if run.get("state") not in ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED"):
            raise Refusal(400, f"Failed to terminate a run {identity}. Row not found")
        run["state"] = "CANCELING"
        # resource_manager.go, TerminateRun: the state is written first, then the workflow is told.
        if identity not in self.workflows:
            raise Refusal(500, f"Failed to terminate run {identity} due to error terminating its workflow")
        self._ending[identity] = ["CANCELING", "CANCELING", "FAILED"]
        return {}

    def switch(self, _: Request, identity: str, action: str) -> Document:
        self.one("recurringruns", identity)["mode"] = action.upper()
        return {}

    def remove(self, _: Request, identity: str) -> Document:
        """Deletes a schedule and, as it owns them, the workflows of its runs, which stay listed in the state that they were in.

        util/workflow.go, SetOwnerReferences, called by resource_manager.go when the schedule's run is made; DeleteJob deletes the
        ScheduledWorkflow, and Kubernetes what that one owns. Without a workflow nobody reports the run's state any more.
        """
        self.one("recurringruns", identity)
        del self.things["recurringruns"][identity]
        self.workflows -= {item["run_id"] for item in self.all("runs") if item.get("recurring_run_id") == identity}
        return {}


ROUTES: tuple[tuple[str, str, Callable[..., Document]], ...] = (
    ("healthz", "GET", FakeKfp.health),
    ("(?P<kind>experiments|pipelines|runs|recurringruns)", "GET", FakeKfp.list),
    ("(?P<kind>experiments|pipelines|runs|recurringruns)", "POST", FakeKfp.create),
    ("pipelines/upload_version", "POST", FakeKfp.upload),
    ("pipelines/(?P<parent>[^/]+)/versions", "GET", FakeKfp.versions),
    ("pipelines/(?P<parent>[^/]+)/versions/(?P<identity>[^/]+)", "GET", FakeKfp.version),
    ("(?P<kind>runs|recurringruns)/(?P<identity>[^/:]+)", "GET", FakeKfp.read),
    ("runs/(?P<identity>[^/:]+):terminate", "POST", FakeKfp.terminate),
    ("recurringruns/(?P<identity>[^/:]+):(?P<action>enable|disable)", "POST", FakeKfp.switch),
    ("recurringruns/(?P<identity>[^/:]+)", "DELETE", FakeKfp.remove),
)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    fake: FakeKfp


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version: ClassVar[str] = "HTTP/1.1"
    wbufsize: ClassVar[int] = -1  # head and body in one packet: two cost 40 ms

    def _any(self) -> None:
        split = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, split.path, dict(parse_qsl(split.query)), headers, self._body(headers))
        fake = self.server.fake
        with fake.lock:
            fake.requests.append(request)
            due = [item for item in fake.faults if item.times and item.method in ("", self.command)]
            fault = next((item for item in due if item.path in self.path), None)
            if fault:
                fault.times -= 1
        kind = fault.kind if fault else ""
        if kind == "cut":
            return self._cut()
        if kind == "slow":
            time.sleep(0.6)
        try:
            if fault and kind == "status":
                raise Refusal(fault.status, f"a fault that was asked for by {headers.get('authorization')}")
            document = fake.answer(request)
        except Refusal as refusal:
            upload = "upload" in split.path
            told = {"error_message": str(refusal)} if upload else {"message": str(refusal), "code": 3, "details": []}
            return self._send(refusal.status, told)
        except Exception as error:  # a fault of the fake's must not look like a server that is away
            return self._send(418, {"message": f"the fake broke: {error!r}"})
        return self._cut() if kind == "cut_after" else self._send(200, document, html=kind == "page")

    do_GET = do_POST = do_DELETE = _any  # noqa: N815 - named by the standard library

    def _body(self, headers: dict[str, str]) -> Any:
        content = self.rfile.read(int(headers.get("content-length") or 0))
        kind = headers.get("content-type", "")
        if kind.startswith("multipart/"):
            message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
            (part,) = message.get_payload()
            assert part.get_param("name", header="content-disposition") == "uploadfile"
            return part.get_payload(decode=True)
        return json.loads(content) if content else None

    def _send(self, status: int, document: Document, *, html: bool = False) -> None:
        content = b"<html>Log in</html>" if html else json.dumps(document).encode()
        with suppress(OSError):  # the client may have lost patience
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/dex/auth")
            self.send_header("Content-Type", "text/html" if html else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the standard library
        """Nothing: the tests read the standard error."""
