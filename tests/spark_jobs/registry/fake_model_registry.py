"""A Kubeflow Model Registry in memory, with as much of its REST API as the mirror uses; any other request is refused.

`test_kubeflow_mirror.py` runs the same tests against a real one if there is one. The paths and the required fields are those of
api/openapi/model-registry.yaml in https://github.com/kubeflow/model-registry.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/api/model_registry"
KINDS = {
    "registered_models": {"name", "customProperties", "state"},
    "model_versions": {"name", "customProperties", "state", "registeredModelId"},
    "artifacts": {"name", "customProperties", "state", "artifactType", "uri", "modelFormatName", "modelFormatVersion"},
}
PARENTS = {"registered_models": "", "model_versions": "registeredModelId", "artifacts": "versionId"}
TERM = re.compile(r'(\w+) = "([^"]*)"')


class RefusedError(Exception):
    """The request is answered with this code and text."""


@dataclass
class Things:
    """What is there, by kind and ID, and the requests that changed it."""

    there: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    changes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listed(self, kind: str, parent: str, query: str) -> list[dict[str, Any]]:
        terms = [TERM.fullmatch(term) for term in query.split(" OR ")]
        if not all(terms):
            raise RefusedError(400, f"invalid filter query syntax: {query}")
        pairs = [match.groups() for match in terms if match]
        found = (item for item in self.there[kind].values() if item.get(PARENTS[kind], "") == parent)
        return [item for item in found if any(self._is(item, name, value) for name, value in pairs)]

    def _is(self, item: dict[str, Any], name: str, value: str) -> bool:
        if name == "name":
            return bool(item["name"] == value)
        return bool(item["customProperties"].get(name, {}).get("string_value") == value)

    def make(self, kind: str, parent: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check(kind, body)
        if kind == "model_versions" and body.get("registeredModelId") not in self.there["registered_models"]:
            raise RefusedError(404, "no registered model found")
        if kind == "artifacts" and parent not in self.there["model_versions"]:
            raise RefusedError(404, f"no model version found for id {parent}")
        parent = body.get(PARENTS[kind], parent)
        for item in self.there[kind].values():
            if item["name"] == body["name"] and item.get(PARENTS[kind], "") == parent:
                raise RefusedError(409, f"{body['name']} already exists: conflict")
        number = str(sum(map(len, self.there.values())) + 1)
        # A state that is not said is LIVE: pkg/openapi/model_model_version_create.go
        made = {"customProperties": {}, "state": "LIVE", PARENTS[kind]: parent, "id": number} | body
        self.there[kind][number] = made
        self.changes.append(f"make {kind}")
        return made

    def change(self, kind: str, number: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check(kind, {"name": "unchanged", **body})
        if number not in self.there[kind]:
            raise RefusedError(404, f"nothing found for id {number}")
        # Custom properties are replaced as a whole, and a state that is not said is LIVE: pkg/openapi/model_model_version_update.go
        self.changes.append(f"change {kind}")
        self.there[kind][number] |= {"state": "LIVE", "lastUpdateTimeSinceEpoch": str(len(self.changes))} | body
        return self.there[kind][number]

    def _check(self, kind: str, body: dict[str, Any]) -> None:
        if unknown := body.keys() - KINDS[kind]:
            raise RefusedError(400, f"unknown field {sorted(unknown)}")
        if not body.get("name"):
            raise RefusedError(422, "required field 'name' is zero value.")
        for name, value in body.get("customProperties", {}).items():
            kinds = {"MetadataStringValue": ("string_value", str), "MetadataDoubleValue": ("double_value", int | float)}
            key, wanted = kinds.get(value.get("metadataType"), ("", str))
            if value.keys() != {"metadataType", key} or not isinstance(value[key], wanted):
                raise RefusedError(400, f"property {name} is {value}")


class Handler(BaseHTTPRequestHandler):
    """Answers as the real server does; a subclass says what is there."""

    things: Things
    version = "v1alpha3"

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PATCH(self) -> None:
        self.answer()

    def answer(self) -> None:
        url = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        try:
            with self.things.lock:
                code, found = self.route(
                    url.path.removeprefix(f"{API}/{self.version}/").split("/"), parse_qs(url.query), body
                )
        except RefusedError as error:
            code, found = error.args[0], {"code": "refused", "message": error.args[1]}
        content = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def route(self, path: list[str], query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        match self.command, path:
            case "GET", ["registered_models"]:
                return 200, self.page("registered_models", "", query)
            case "GET", ["registered_models", number, "versions"]:
                return 200, self.page("model_versions", number, query)
            case "GET", ["model_versions", number, "artifacts"]:
                return 200, self.page("artifacts", number, query)
            case "POST", ["registered_models" | "model_versions" as kind]:
                return 201, self.things.make(kind, "", body)
            case "POST", ["model_versions", number, "artifacts"]:
                return 200, self.things.make("artifacts", number, body)
            case "PATCH", ["registered_models" | "model_versions" as kind, number]:
                return 200, self.things.change(kind, number, body)
            case "PATCH", ["model_artifacts", number]:
                return 200, self.things.change("artifacts", number, body)
        raise RefusedError(404, "page not found")

    def page(self, kind: str, parent: str, query: dict[str, list[str]]) -> dict[str, Any]:
        found = self.things.listed(kind, parent, query["filterQuery"][0])
        return {"items": found, "size": len(found), "pageSize": 0, "nextPageToken": ""}

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serves requests on a free port, and returns the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
