"""The HTTP side of `fake_kubernetes`."""

from __future__ import annotations

import copy
import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

from fake_operator import CONTAINER
from fake_refusals import CLUSTER_WIDE, KINDS, ApiError, Document, Fault

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

PATH = re.compile(r"^/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)"
                  r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$")  # fmt: skip


class Request(NamedTuple):
    """A request as it came in; `path` has the query with it."""

    method: str
    path: str
    time: float
    body: Document


def _matcher(query: dict[str, str], plural: str) -> Callable[[Document], bool]:
    """Whether an object is selected by `labelSelector` and `fieldSelector`."""
    labels = [part for part in query.get("labelSelector", "").split(",") if part]
    parts = [part for part in query.get("fieldSelector", "").split(",") if part]
    fields = [(part.partition("=")[0].rstrip("!"), part.partition("=")[2].lstrip("="), "!=" in part) for part in parts]
    for path, *_ in fields:
        if plural == "sparkapplications" and path not in ("metadata.name", "metadata.namespace"):
            raise ApiError(400, "BadRequest", f"field label not supported: {path}")

    def label(item: Document, part: str) -> bool:
        found = item["metadata"].get("labels") or {}
        key, *value = re.split(r"!=|==|=", part, maxsplit=1)
        if not value:
            return key.removeprefix("!") in found if not key.startswith("!") else key[1:] not in found
        return bool((found.get(key) == value[0]) != ("!=" in part))

    def value_at(item: Document, path: str) -> Any:
        found: Any = item
        for name in path.split("."):
            found = (found or {}).get(name)
        return found or ""

    def match(item: Document) -> bool:
        return all(label(item, part) for part in labels) and all((value_at(item, p) == v) != no for p, v, no in fields)

    return match


def _merged(before: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _is_on(query: dict[str, str], name: str) -> bool:
    """As the real server reads it: the client writes True, kubectl 1, Go true."""
    return query.get(name, "false").lower() not in ("false", "0")


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    fake: FakeKubernetes

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _CutError(Exception):
    """The connection is to be cut."""


class HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer
    verbs: ClassVar[dict[str, str]] = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

    def log_message(self, *args: Any) -> None:
        """Nothing: tests read `requests`."""

    def do_GET(self) -> None:
        self.fake, self.streaming = self.server.fake, False
        try:
            size = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(size)
            try:
                self.body: Document = json.loads(raw) if raw else {}
            except ValueError:
                told = "the object provided is unrecognized: couldn't get version/kind; json parse error"
                raise ApiError(400, "BadRequest", told) from None
            self.fake.requests.append(Request(self.command, self.path, time.monotonic(), copy.deepcopy(self.body)))
            self._answer()
        except ApiError as error:
            self._send(error.code, error.body)
        except _CutError:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        found = PATH.match(url.path)
        plural, ns, name, sub = found.group("plural", "ns", "name", "sub") if found else ("", None, None, None)
        what = self._kind_of_request(name, sub, query)
        fault = self.fake.faults.take(what, self.command, self.path)
        self._misbehave_before(fault)
        served = found and (found["group"] or "", found["version"]) == KINDS.get(plural, ())[:2]
        if not served or sub not in (None, "log"):
            answer = self._other(url.path.rstrip("/"))
        else:
            verb = self.verbs.get(self.command) or {"log": "get", "get": "get", "list": "list", "watch": "watch"}[what]
            self.fake.check_rights(verb, f"{plural}/{sub}" if sub else plural, ns or "", name)
            if what == "watch":
                return self._watch(plural, ns, query, fault)
            if what == "log" and name:
                return self._log(ns or "", name, query, fault)
            answer = self._plain(plural, ns, name, query, stale=fault.kind == "stale")
        if fault.kind == "cut_after":
            raise _CutError
        if fault.kind in ("500_after", "503_after"):
            raise ApiError(
                int(fault.kind[:3]), "InternalError", "Internal error occurred: etcdserver: request timed out"
            )
        return self._send(*answer)

    def _kind_of_request(self, name: str | None, sub: str | None, query: dict[str, str]) -> str:
        if self.command != "GET":
            return "write"
        if sub == "log":
            return "log"
        if _is_on(query, "watch"):
            return "watch"
        return "get" if name else "list"

    def _misbehave_before(self, fault: Fault) -> None:
        if fault.kind == "slow":
            self.fake.stopped.wait(fault.seconds or self.fake.faults.seconds)
        elif fault.kind == "cut_before":
            raise _CutError
        elif fault.kind == "410":
            raise ApiError(410, "Expired", "The resourceVersion for the provided watch is too old.")
        elif fault.kind == "500":
            raise ApiError(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
        elif fault.kind == "503":
            told = "the server is currently unable to handle the request"
            raise ApiError(503, "ServiceUnavailable", told, {"retryAfterSeconds": 1})
        elif fault.kind == "429":
            raise ApiError(
                429, "TooManyRequests", "Too many requests, please try again later.", {"retryAfterSeconds": 1}
            )

    def _plain(
        self, plural: str, ns: str | None, name: str | None, query: dict[str, str], *, stale: bool
    ) -> tuple[int, Document]:
        fake, body = self.fake, self.body
        if self.command == "GET":
            if name:
                return 200, fake.read(plural, ns or "", name, stale=stale)
            return 200, fake.select(plural, ns, _matcher(query, plural), stale=stale)
        if self.command == "POST" and not name:
            return 201, fake.create(plural, ns or "", body, dry_run="dryRun" in query)
        if self.command == "PUT" and name:
            return 200, fake.replace(plural, ns or "", name, lambda _: body)
        if self.command == "PATCH" and name:
            if "merge-patch" not in self.headers.get("Content-Type", ""):
                raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
            return 200, fake.replace(plural, ns or "", name, lambda before: _merged(before, body))
        if self.command == "DELETE" and name:
            return 200, fake.delete(plural, ns or "", name, body)
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _other(self, path: str) -> tuple[int, Document | str]:
        if path in ("/readyz", "/healthz", "/livez"):
            return 200, "ok"
        if path == "/version":
            return 200, {"major": "1", "minor": "34", "gitVersion": "v1.34.4", "gitCommit": "", "gitTreeState": "",
                         "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "gc", "platform": "linux/amd64"}  # fmt: skip
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" and self.command == "POST":
            asked = self.body.get("spec", {}).get("resourceAttributes") or {}
            resource = "/".join(part for part in (asked.get("resource"), asked.get("subresource")) if part)
            allowed = (asked.get("verb"), resource) not in self.fake.denied
            head = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
            return 201, {**head, "spec": self.body.get("spec", {}), "status": {"allowed": allowed}}
        if path in self.fake.proxied:
            return 200, self.fake.proxied[path]
        groups: dict[str, str] = {group: version for group, version, _ in KINDS.values() if group}
        name = path.removeprefix("/apis").strip("/")
        if path.startswith("/apis") and (not name or name in groups):
            entries = [{"name": g, "versions": [e], "preferredVersion": e} for g, v in groups.items()
                       if not name or g == name for e in ({"groupVersion": f"{g}/{v}", "version": v},)]  # fmt: skip
            head = {"kind": "APIGroup" if name else "APIGroupList", "apiVersion": "v1"}
            return 200, {**head, **entries[0]} if name else {**head, "groups": entries}
        group, _, version = name.partition("/")
        if path.startswith("/api") and version == groups.get(group, "?"):
            found = [
                {"name": p, "kind": k[2], "namespaced": p not in CLUSTER_WIDE}
                for p, k in KINDS.items()
                if k[0] == group
            ]
            return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found}
        return 404, "404 page not found\n"

    def _watch(self, plural: str, ns: str | None, query: dict[str, str], fault: Fault) -> None:
        match, at = _matcher(query, plural), query.get("resourceVersion") or "0"
        if not at.isdecimal():
            told = f'resourceVersion: Invalid value: "{at}": strconv.ParseUint: parsing "{at}": invalid syntax'
            raise ApiError(500, "", told)
        seconds = fault.seconds if fault.kind == "watch_ends" else float(query.get("timeoutSeconds") or 1800)
        give_up = time.monotonic() + seconds
        self._begin("application/json")
        if fault.kind == "watch_hangs":
            self.fake.stopped.wait(fault.seconds or 3600)
            raise _CutError
        try:
            if fault.kind == "watch_gone":
                raise ApiError(410, "Expired", f"too old resource version: {at} ({int(at) + 1})")
            lost = fault.kind == "watch_lost"
            for change in self.fake.events_since(plural, ns, at):
                if change and match(change[2]):
                    if not lost:
                        self._event(change[1], change[2], fault)
                    at, lost = str(change[0]), False
                if time.monotonic() >= give_up:
                    break
            self._bookmark(plural, at, query)
        except ApiError as error:
            self._event("ERROR", error.body, Fault(""))
        self._chunk(b"")

    def _bookmark(self, plural: str, at: str, query: dict[str, str]) -> None:
        if _is_on(query, "allowWatchBookmarks") and at != "0":
            group, version, kind = KINDS[plural]
            head = {"kind": kind, "apiVersion": f"{group}/{version}".lstrip("/")}
            self._event("BOOKMARK", {**head, "metadata": {"resourceVersion": at}}, Fault(""))

    def _event(self, type_: str, item: Document, fault: Fault) -> None:
        line = json.dumps({"type": type_, "object": item}, separators=(",", ":")).encode() + b"\n"
        if fault.kind == "watch_cut":
            self._chunk(line[: len(line) // 2])
            raise _CutError
        self._chunk(line * 2 if fault.kind == "watch_twice" else line)

    def _log(self, ns: str, name: str, query: dict[str, str], fault: Fault) -> None:
        pod = self.fake.read("pods", ns, name)
        if query.get("container", CONTAINER) != CONTAINER:
            raise ApiError(400, "BadRequest", f"container {query['container']} is not valid for pod {name}")
        state = ((pod.get("status") or {}).get("containerStatuses") or [{}])[0].get("state", {})
        if not state:  # no node has taken it yet
            self.send_response(204)
            self.end_headers()
            return
        if "waiting" in state:
            why = state.get("waiting", {}).get("reason", "ContainerCreating")
            why = "image can't be pulled" if why in ("ErrImagePull", "ImagePullBackOff") else why
            raise ApiError(400, "BadRequest", f'container "{CONTAINER}" in pod "{name}" is waiting to start: {why}')
        stamped, since = (
            _is_on(query, "timestamps"),
            query.get("sinceTime", "")[:19],
        )  # whole seconds, as the kubelet
        tail, left = query.get("tailLines"), int(query.get("limitBytes") or 1 << 60)
        log, uid = self.fake.operator.log(pod["metadata"]["uid"]), pod["metadata"]["uid"]
        lines = [f"{at} {line}\n" if stamped else f"{line}\n" for at, line in log if at[:19] >= since]
        sent, lines = len(log), lines[-int(tail) :] if tail and int(tail) else [] if tail else lines
        self._begin("text/plain")
        while True:
            data = "".join(lines).encode()[:left]
            left -= len(data)
            if fault.kind == "log_cut" and data:
                self._chunk(data[: max(1, len(data) * 2 // 3)])
                raise _CutError
            if data:
                self._chunk(data)
            with self.fake.changed:
                ended = self.fake.operator.has_ended(uid)
                log = self.fake.operator.log(uid)
                if len(log) == sent:
                    if not _is_on(query, "follow") or ended or not left or self.fake.stopped.is_set():
                        break
                    self.fake.changed.wait(0.05)
                elif not _is_on(query, "follow"):
                    break
                lines = [f"{at} {line}\n" if stamped else f"{line}\n" for at, line in log[sent:]]
                sent = len(log)
        self._chunk(b"")

    def _begin(self, kind: str) -> None:
        self.streaming = True
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, code: int, body: Document | str) -> None:
        if self.streaming:
            raise _CutError
        data = (body if isinstance(body, str) else json.dumps(body) + "\n").encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(data)
