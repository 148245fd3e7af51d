"""A small Kubernetes API server with a Spark operator (`fake_operator`), over real HTTP, which misbehaves when told to.

    with FakeKubernetes() as server:
        server.operator.script("*", "success")
        server.faults.add("cut_after", method="POST", path="sparkapplications")
        config.load_kube_config(str(server.kubeconfig(tmp_path / "config")))

Answers follow a real server, 1.34 with Spark operator 2.5.2. Left out: paging, field validation, JSON patch, TLS, roles.
"""

from __future__ import annotations

import copy
import json
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

from fake_operator import CONTAINER, FakeOperator

Document = dict[str, Any]
Key = tuple[str, str, str]
SPARK, CRDS = "sparkoperator.k8s.io", "apiextensions.k8s.io"
KINDS = {  # plural: (group, version, kind)
    "sparkapplications": (SPARK, "v1beta2", "SparkApplication"),
    "leases": ("coordination.k8s.io", "v1", "Lease"),
    "customresourcedefinitions": (CRDS, "v1", "CustomResourceDefinition"),
    "pods": ("", "v1", "Pod"),
    "events": ("", "v1", "Event"),
    "configmaps": ("", "v1", "ConfigMap"),
    "secrets": ("", "v1", "Secret"),
    "serviceaccounts": ("", "v1", "ServiceAccount"),
    "resourcequotas": ("", "v1", "ResourceQuota"),
    "namespaces": ("", "v1", "Namespace"),
    "nodes": ("", "v1", "Node"),
}
CLUSTER_WIDE = ("customresourcedefinitions", "namespaces", "nodes")
PATH = re.compile(r"^/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)"
                  r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$")  # fmt: skip
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
WEBHOOK = f'admission webhook "validate-sparkoperator-k8s-io-v1beta2-sparkapplication.{SPARK}" denied the request: '
APPLICATION_QUOTA = f"count/sparkapplications.{SPARK}"
READ_FAULTS = ("429", "500", "503", "cut_before", "slow")
FAULTS = {  # kind of request: the faults that suit it
    "write": (*READ_FAULTS, "500_after", "503_after", "cut_after"),
    "get": (*READ_FAULTS, "stale"),
    "list": (*READ_FAULTS, "stale"),
    "log": (*READ_FAULTS, "log_cut"),
    "watch": (*READ_FAULTS, "410", "watch_gone", "watch_lost", "watch_twice", "watch_ends", "watch_cut", "watch_hangs"),
}


class Request(NamedTuple):
    """A request as it came in; `path` has the query with it."""

    method: str
    path: str
    time: float
    body: Document


@dataclass
class Fault:
    """One way to misbehave, for the next `times` requests of that method whose path `path` (an expression) is found in."""

    kind: str
    method: str = ""
    path: str = ""
    times: int = 1
    seconds: float = 0.0

    def suits(self, what: str, method: str, path: str) -> bool:
        return (
            self.times > 0
            and (self.kind in FAULTS[what] or self.kind in ("410", *READ_FAULTS))
            and self.method in ("", method)
            and re.search(self.path, path) is not None
        )


@dataclass
class Faults:
    """Faults told one by one, and besides a random plan, which for one seed is the same whatever the threads do.

    Attributes:
        seed: of the plan.
        rate: share of requests that the plan troubles.
        only: the plan's kinds of faults; empty for all that suit a request.
        most: how often in a row the plan troubles one path, so that patience pays.
        seconds: of a slow answer or a hanging watch of the plan; also what Retry-After says, rounded.
    """

    seed: int = 0
    rate: float = 0.0
    only: tuple[str, ...] = ()
    most: int = 3
    seconds: float = 0.3
    queue: list[Fault] = field(default_factory=list)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    _count: Counter[str] = field(default_factory=Counter)
    _row: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, *, method: str = "", path: str = "", times: int = 1, seconds: float = 0.0) -> None:
        """Queues a fault; see FAULTS for the kinds."""
        if not any(kind in kinds for kinds in FAULTS.values()):
            raise ValueError(f"no such fault: {kind}")
        self.queue.append(Fault(kind, method, path, times, seconds))

    def take(self, what: str, method: str, path: str) -> Fault:
        """The fault of this request; its kind is empty if there is none."""
        with self._lock:
            found = next((fault for fault in self.queue if fault.suits(what, method, path)), None)
            if found:
                found.times -= 1
            else:
                found = self._planned(what, f"{method} {path.partition('?')[0]}")
            if found.kind:
                self.done.append((found.kind, method, path))
            return found

    def _planned(self, what: str, request: str) -> Fault:
        self._count[request] += 1
        dice = Random(f"{self.seed} {request} {self._count[request]}")
        kinds = [kind for kind in FAULTS[what] if not self.only or kind in self.only]
        if not kinds or self._row[request] >= self.most or dice.random() >= self.rate:
            self._row[request] = 0
            return Fault("")
        self._row[request] += 1
        return Fault(dice.choice(kinds), seconds=self.seconds)


class ApiError(Exception):
    """An answer with a Status for its body."""

    def __init__(self, code: int, reason: str, message: str, details: Document | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
        self.body |= {"reason": reason} | ({"details": details} if details else {}) | {"code": code}


class FakeKubernetes:
    """The server; a context that runs it.

    Attributes:
        namespace: of the kubeconfig; `namespaces` are those that exist.
        operator: says what becomes of applications.
        faults: how the server misbehaves.
        requests: all that have come in.
        created: how often an application of a name was really made.
        denied: pairs of verb and resource, such as ("get", "pods/log"), that are forbidden.
        changed: guards all objects, and is notified of each change.
    """

    def __init__(self, *, namespace: str = "spark-kfp", speed: float = 100.0, faults: Faults | None = None) -> None:
        """Args: namespace; speed, by which the operator's time is divided (0: it moves by `operator.step` alone); faults."""
        self.namespace = namespace
        self.faults = faults or Faults()
        self.requests: list[Request] = []
        self.created: Counter[str] = Counter()
        self.denied: set[tuple[str, str]] = set()
        self.changed = threading.Condition(threading.RLock())
        self.stopped = threading.Event()
        self.operator = FakeOperator(self, speed)
        self._objects: dict[Key, Document] = {}
        self._history: list[tuple[int, str, Key, Document]] = []
        self._version, self._oldest = 1000, 0
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        for name in ("default", "kubeflow", namespace):
            self.put("namespaces", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        self.put("serviceaccounts", {"metadata": {"name": "default"}})
        versions = [{"name": "v1beta2", "served": True, "storage": True}]
        spec = {"group": SPARK, "names": {"kind": "SparkApplication", "plural": "sparkapplications"}, "versions": versions}
        self.put("customresourcedefinitions", {"metadata": {"name": f"sparkapplications.{SPARK}"}, "spec": spec})

    def __enter__(self) -> FakeKubernetes:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        with self.changed:
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig for this server and returns its path."""
        context = {"cluster": "fake", "user": "fake", "namespace": self.namespace}
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "fake"}
        document |= {
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "no-secret"}}],
            "contexts": [{"name": "fake", "context": context}],
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    @property
    def applications(self) -> dict[str, Document]:
        """Copies of the applications that are there, by name."""
        return {item["metadata"]["name"]: item for item in self.list("sparkapplications")}

    def list(self, plural: str) -> list[Document]:
        """Copies of all objects of a kind, in all namespaces."""
        with self.changed:
            return [copy.deepcopy(item) for key, item in sorted(self._objects.items()) if key[0] == plural]

    def get(self, plural: str, name: str) -> Document | None:
        """A copy of an object in the server's own namespace, or cluster-wide."""
        with self.changed:
            return copy.deepcopy(self._objects.get(self._key(plural, self.namespace, name)))

    def put(self, plural: str, body: Document) -> Document:
        """Makes or replaces an object, as whoever runs the cluster would."""
        with self.changed:
            key = self._key(plural, body["metadata"].get("namespace", self.namespace), body["metadata"]["name"])
            return self._store(key, body, "MODIFIED" if key in self._objects else "ADDED")

    def update(self, plural: str, name: str, change: Callable[[Document], object]) -> bool:
        """Changes an object in place, if it is there."""
        with self.changed:
            found = self.get(plural, name)
            if found:
                change(found)
                self._store(self._key(plural, self.namespace, name), found, "MODIFIED")
            return bool(found)

    def remove(self, plural: str, name: str, *, foreground: bool = False) -> None:
        """Deletes an object; what it owns goes with it, before it (`foreground`) or a moment after."""
        self._remove(self._key(plural, self.namespace, name), foreground)

    def limit_applications(self, hard: int) -> None:
        """Sets a quota on the number of applications; more are refused with 403."""
        status = {"hard": {APPLICATION_QUOTA: str(hard)}, "used": {APPLICATION_QUOTA: "0"}}
        self.put("resourcequotas", {"metadata": {"name": "quota"}, "spec": {"hard": status["hard"]}, "status": status})

    def compact(self) -> None:
        """Forgets the past: a watch from any version before now is answered with 410."""
        with self.changed:
            self._version += 1
            self._oldest, self._history = self._version, []

    def note(self, kind: str, name: str, type_: str, reason: str, message: str) -> None:
        """Records an event about an object."""
        found = self.get("pods" if kind == "Pod" else "sparkapplications", name) or {"metadata": {"uid": ""}}
        about = {"kind": kind, "name": name, "namespace": self.namespace, "uid": found["metadata"]["uid"]}
        source = "kubelet" if kind == "Pod" else "spark-application-controller"
        event = {"metadata": {"name": f"{name}.{uuid.uuid4().hex[:16]}"}, "involvedObject": about, "type": type_}
        event |= {"reason": reason, "message": message, "count": 1, "eventTime": None, "source": {"component": source}}
        self.put("events", event | {"firstTimestamp": _now(), "lastTimestamp": _now()})

    # What the HTTP side asks for.

    def create(self, plural: str, ns: str, body: Document, *, dry_run: bool) -> Document:
        group, _, kind = KINDS[plural]
        with self.changed:
            metadata = body.setdefault("metadata", {})
            name = metadata.get("name") or ""
            if self._key("namespaces", "", ns) not in self._objects:
                raise ApiError(404, "NotFound", f'namespaces "{ns}" not found', {"name": ns, "kind": "namespaces"})
            if not name or not re.fullmatch(SUBDOMAIN, name) or len(name) > 253:
                why = "Required value: name or generateName is required" if not name else _bad_name(name)
                raise _invalid(plural, name, "metadata.name", why, "FieldValueInvalid" if name else "FieldValueRequired")
            if plural == "sparkapplications":
                _admit(name, ns, body.setdefault("spec", {}))
                self._check_quota(name)
            key = self._key(plural, ns, name)
            if key in self._objects:
                full = f"{plural}.{group}" if group else plural
                details = {"name": name, "group": group, "kind": plural}
                raise ApiError(409, "AlreadyExists", f'{full} "{name}" already exists', details)
            for given in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
                metadata.pop(given, None)
            body.pop("status", None)  # a status is written by controllers alone
            if dry_run:
                return {**body, "metadata": {**metadata, "uid": str(uuid.uuid4()), "creationTimestamp": _now()}}
            stored = self._store(key, body, "ADDED")
            if plural == "sparkapplications":
                self.created[name] += 1
                self.operator.begin(name, stored["metadata"]["uid"])
        del kind
        return stored

    def read(self, plural: str, ns: str, name: str, *, stale: bool = False) -> Document:
        with self.changed:
            key = self._key(plural, ns, name)
            found = self._before(key) if stale else self._objects.get(key)
            if not found:
                raise _missing(plural, name)
            return copy.deepcopy(found)

    def select(self, plural: str, ns: str | None, match: Callable[[Document], bool], *, stale: bool) -> Document:
        group, version, kind = KINDS[plural]
        with self.changed:
            keys = [key for key in sorted(self._objects) if key[0] == plural and ns in (None, key[1])]
            found = [self._before(key) if stale else self._objects[key] for key in keys]
            items = [copy.deepcopy(item) for item in found if item and match(item)]
            items = [{k: v for k, v in i.items() if group or k not in ("kind", "apiVersion")} for i in items]
            head = {"kind": f"{kind}List", "apiVersion": f"{group}/{version}".lstrip("/")}
            return {**head, "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def replace(self, plural: str, ns: str, name: str, change: Callable[[Document], Document]) -> Document:
        with self.changed:
            before = self.read(plural, ns, name)
            after = change(copy.deepcopy(before))
            given = after.setdefault("metadata", {}).get("resourceVersion")
            if given and given != before["metadata"]["resourceVersion"]:
                told = "the object has been modified; please apply your changes to the latest version and try again"
                raise _conflict(plural, name, told)
            if after["metadata"].get("name", name) != name:
                raise ApiError(400, "BadRequest", "the name of the object does not match the name on the URL")
            after["metadata"] = {**after["metadata"], "name": name, "uid": before["metadata"]["uid"]}
            return self._store(self._key(plural, ns, name), after, "MODIFIED")

    def delete(self, plural: str, ns: str, name: str, options: Document) -> Document:
        group = KINDS[plural][0]
        with self.changed:
            found = self.read(plural, ns, name)
            for field_, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
                want, have = (options.get("preconditions") or {}).get(field_), found["metadata"][field_]
                if want and want != have:
                    told = f"the {label} in the precondition ({want}) does not match the {label} in record ({have})."
                    raise _conflict(plural, name, f"{told} The object might have been deleted and then recreated")
            foreground = options.get("propagationPolicy") == "Foreground"
            self._remove(self._key(plural, ns, name), foreground)
            if foreground:
                return self.read(plural, ns, name)
        details = {"name": name, "group": group, "kind": plural, "uid": found["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def events_since(self, plural: str, ns: str | None, version: str) -> Iterator[tuple[int, str, Document] | None]:
        """Changes from a version on; None now and then, while nothing happens."""
        with self.changed:
            first = version in ("", "0")
            at = self._version if first else int(version)
            if at < self._oldest:
                raise ApiError(410, "Expired", f"too old resource version: {version} ({self._oldest})")
            there = [(k, copy.deepcopy(i)) for k, i in sorted(self._objects.items())] if first else []
        for key, item in there:
            if key[0] == plural and ns in (None, key[1]):
                yield int(item["metadata"]["resourceVersion"]), "ADDED", item
        while not self.stopped.is_set():
            with self.changed:
                if at < self._oldest:  # a watch that runs is not hurt
                    at = max(at, self._oldest)
                news = [entry for entry in self._history if entry[0] > at]
                if not news:
                    self.changed.wait(0.05)
            for at, type_, key, item in news:
                if key[0] == plural and ns in (None, key[1]):
                    yield at, type_, copy.deepcopy(item)
            if not news:
                yield None

    def check_rights(self, verb: str, resource: str, ns: str, name: str | None) -> None:
        if (verb, resource) in self.denied:
            group = KINDS[resource.partition("/")[0]][0]
            full = f"{resource}.{group}" if group else resource
            user = f"system:serviceaccount:{ns}:spark-kfp-task"
            told = f'cannot {verb} resource "{resource}" in API group "{group}" in the namespace "{ns}"'
            subject = f'{full} "{name}"' if name else full
            details = {"name": name, "group": group, "kind": resource} if name else {"group": group, "kind": resource}
            raise ApiError(403, "Forbidden", f'{subject} is forbidden: User "{user}" {told}', details)

    def _key(self, plural: str, ns: str, name: str) -> Key:
        return (plural, "" if plural in CLUSTER_WIDE else ns, name)

    def _store(self, key: Key, body: Document, type_: str) -> Document:
        group, version, kind = KINDS[key[0]]
        stored = copy.deepcopy(body)
        self._version += 1
        old = self._objects.get(key, {"metadata": {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}})
        kept = {name: old["metadata"][name] for name in ("uid", "creationTimestamp")}
        stored["metadata"] = {**stored["metadata"], **kept, "name": key[2], "resourceVersion": str(self._version)}
        if key[1]:
            stored["metadata"]["namespace"] = key[1]
        stored |= {"kind": kind, "apiVersion": f"{group}/{version}".lstrip("/")}
        self._objects[key] = stored
        self._history.append((self._version, type_, key, copy.deepcopy(stored)))
        self.changed.notify_all()
        return copy.deepcopy(stored)

    def _remove(self, key: Key, foreground: bool) -> None:
        with self.changed:
            found = self._objects.get(key)
            if not found:
                return
            if foreground:
                found = copy.deepcopy(found)
                found["metadata"] |= {"deletionTimestamp": _now(), "finalizers": ["foregroundDeletion"]}
                self._store(key, found, "MODIFIED")
            else:
                self._drop(key)
            uid = found["metadata"]["uid"]
        self.operator.later(2.0, lambda: self._collect(key, uid))

    def _collect(self, owner: Key, uid: str) -> None:
        """What the garbage collector does."""
        with self.changed:
            for key, item in list(self._objects.items()):
                if any(o.get("uid") == uid for o in item["metadata"].get("ownerReferences") or []):
                    self._drop(key)
            if owner in self._objects and self._objects[owner]["metadata"]["uid"] == uid:
                self._drop(owner)

    def _drop(self, key: Key) -> None:
        self._version += 1
        gone = self._objects.pop(key)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, "DELETED", key, copy.deepcopy(gone)))
        self.changed.notify_all()

    def _before(self, key: Key) -> Document | None:
        """An object as it was before its last change."""
        seen = [entry for entry in self._history if entry[2] == key]
        return seen[-2][3] if len(seen) > 1 and seen[-2][1] != "DELETED" else None

    def _check_quota(self, name: str) -> None:
        used = len(self.applications)
        for quota in self.list("resourcequotas"):
            hard = quota.get("spec", {}).get("hard", {}).get(APPLICATION_QUOTA)
            if hard is not None and used >= int(hard):
                sums = ", ".join(f"{w}: {APPLICATION_QUOTA}={n}" for w, n in (("requested", 1), ("used", used), ("limited", hard)))  # fmt: skip
                told = f'sparkapplications.{SPARK} "{name}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, {sums}'
                raise ApiError(403, "Forbidden", told, {"name": name, "group": SPARK, "kind": "sparkapplications"})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _missing(plural: str, name: str) -> ApiError:
    group = KINDS[plural][0]
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    return ApiError(404, "NotFound", f'{f"{plural}.{group}" if group else plural} "{name}" not found', details)


def _conflict(plural: str, name: str, told: str) -> ApiError:
    group, _, kind = KINDS[plural]
    word = kind if plural == "sparkapplications" else plural
    full = f"{word}.{group}" if group else word
    details = {"name": name, **({"group": group} if group else {}), "kind": word}
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {full} "{name}": {told}', details)


def _bad_name(name: str) -> str:
    return (
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '
        "'-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        f"'{SUBDOMAIN}')"
    )


def _invalid(plural: str, name: str, where: str, why: str, cause: str) -> ApiError:
    group, _, kind = KINDS[plural]
    full = f"{kind}.{group}" if group else kind
    details = {"name": name, "group": group, "kind": kind}
    details["causes"] = [{"reason": cause, "message": why, "field": where}]
    return ApiError(422, "Invalid", f'{full} "{name}" is invalid: {where}: {why}', details)


def _admit(name: str, ns: str, spec: Document) -> None:
    """What the operator's webhook refuses, and the schema after it."""
    why = ""
    if len(name) > 63:
        why = f'invalid SparkApplication name "{name}": must be no more than 63 characters'
    elif not re.fullmatch(LABEL_1035, name):
        why = (
            f"invalid SparkApplication name \"{name}\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
            f"regex used for validation is '{LABEL_1035}')"
        )
    for key, value in (spec.get("sparkConf") or {}).items():
        advice = ""
        if key == "spark.master":
            advice = "this value is managed by the operator"
        elif re.fullmatch(r"spark\.kubernetes\.authenticate\.(driver|executor)?\.?serviceAccountName", key):
            advice = "configure the service account via the CRD spec instead"
        elif re.fullmatch(r"spark\.kubernetes\.((driver|executor)\.)?container\.image", key):
            advice = "use the image field on the CRD instead"
        elif key == "spark.kubernetes.namespace" and value != ns:
            advice = f'must equal the application namespace "{ns}", got "{value}"'
        why = why or (f'sparkConf key "{key}" is not allowed: {advice}' if advice else "")
    templated = any((spec.get(role) or {}).get("template") is not None for role in ("driver", "executor"))
    if templated and not spec.get("sparkVersion"):
        why = why or "pod template feature requires Spark version 3.0.0 or higher"
    if why:
        raise ApiError(403, "Forbidden", WEBHOOK + why)
    if not isinstance(spec.get("mainApplicationFile"), str):
        told = 'Invalid value: "null": spec.mainApplicationFile in body must be of type string: "null"'
        raise _invalid("sparkapplications", name, "spec.mainApplicationFile", told, "FieldValueTypeInvalid")
    if spec.get("type") and spec["type"] not in ("Java", "Python", "Scala", "R"):
        told = f'Unsupported value: "{spec["type"]}": supported values: "Java", "Python", "Scala", "R"'
        raise _invalid("sparkapplications", name, "spec.type", told, "FieldValueNotSupported")


def _matcher(query: dict[str, str], plural: str) -> Callable[[Document], bool]:
    """Whether an object is selected by `labelSelector` and `fieldSelector`."""
    labels = [part for part in query.get("labelSelector", "").split(",") if part]
    fields = [re.split(r"!=|==|=", part, maxsplit=1) + ["!=" in part] for part in query.get("fieldSelector", "").split(",") if part]  # fmt: skip
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    fake: FakeKubernetes

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _CutError(Exception):
    """The connection is to be cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
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
        plural, ns, name, sub = (found["plural"], found["ns"], found["name"], found["sub"]) if found else ("", None, None, None)  # fmt: skip
        watching = query.get("watch") in ("true", "1")
        what = "write" if self.command != "GET" else "log" if sub == "log" else "watch" if watching else "get" if name else "list"  # fmt: skip
        fault = self.fake.faults.take(what, self.command, self.path)
        self._misbehave_before(fault)
        if found is None or (found["group"] or "", found["version"]) != KINDS.get(plural, ("?", "?"))[:2] or sub not in (None, "log"):  # fmt: skip
            answer = self._other(url.path)
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
            raise ApiError(int(fault.kind[:3]), "InternalError", "Internal error occurred: etcdserver: request timed out")
        return self._send(*answer)

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
            raise ApiError(429, "TooManyRequests", "Too many requests, please try again later.", {"retryAfterSeconds": 1})

    def _plain(self, plural: str, ns: str | None, name: str | None, query: dict[str, str], *, stale: bool) -> tuple[int, Document]:  # fmt: skip
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
        groups: dict[str, str] = {group: version for group, version, _ in KINDS.values() if group}
        name = path.removeprefix("/apis").strip("/")
        if path.startswith("/apis") and (not name or name in groups):
            entries = [{"name": g, "versions": [e], "preferredVersion": e} for g, v in groups.items()
                       if not name or g == name for e in ({"groupVersion": f"{g}/{v}", "version": v},)]  # fmt: skip
            head = {"kind": "APIGroup" if name else "APIGroupList", "apiVersion": "v1"}
            return 200, {**head, **entries[0]} if name else {**head, "groups": entries}
        group, _, version = name.partition("/")
        if path.startswith("/api") and version == groups.get(group, "?"):
            found = [{"name": p, "kind": k[2], "namespaced": p not in CLUSTER_WIDE} for p, k in KINDS.items() if k[0] == group]
            return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found}
        return 404, "404 page not found\n"

    def _watch(self, plural: str, ns: str | None, query: dict[str, str], fault: Fault) -> None:
        match, version = _matcher(query, plural), query.get("resourceVersion", "")
        give_up = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        bookmarks, at = query.get("allowWatchBookmarks") in ("true", "1"), version or "0"
        changes = self.fake.events_since(plural, ns, version)
        self._begin("application/json")
        try:
            if fault.kind == "watch_gone":
                raise ApiError(410, "Expired", f"too old resource version: {version} ({int(version or 0) + 1})")
            if fault.kind == "watch_hangs":
                self.fake.stopped.wait(fault.seconds or 3600)
                raise _CutError
            if fault.kind == "watch_ends":
                give_up = min(give_up, time.monotonic() + fault.seconds)
            lost = fault.kind == "watch_lost"
            for change in changes:
                if change and match(change[2]):
                    at = str(change[0])
                    line = json.dumps({"type": change[1], "object": change[2]}, separators=(",", ":")).encode() + b"\n"
                    if fault.kind == "watch_cut":
                        self._chunk(line[: len(line) // 2])
                        raise _CutError
                    if not lost:
                        self._chunk(line * 2 if fault.kind == "watch_twice" else line)
                    lost = False
                if time.monotonic() >= give_up:
                    break
            if bookmarks and at != "0":
                group, api, kind = KINDS[plural]
                mark = {"kind": kind, "apiVersion": f"{group}/{api}".lstrip("/"), "metadata": {"resourceVersion": at}}
                self._chunk(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
        except ApiError as error:
            self._chunk(json.dumps({"type": "ERROR", "object": error.body}).encode() + b"\n")
        self._chunk(b"")

    def _log(self, ns: str, name: str, query: dict[str, str], fault: Fault) -> None:
        pod = self.fake.read("pods", ns, name)
        if query.get("container", CONTAINER) != CONTAINER:
            raise ApiError(400, "BadRequest", f"container {query['container']} is not valid for pod {name}")
        state = ((pod.get("status") or {}).get("containerStatuses") or [{}])[0].get("state", {})
        if not state or "waiting" in state:
            why = state.get("waiting", {}).get("reason", "ContainerCreating")
            why = "image can't be pulled" if why in ("ErrImagePull", "ImagePullBackOff") else why
            raise ApiError(400, "BadRequest", f'container "{CONTAINER}" in pod "{name}" is waiting to start: {why}')
        stamped, since = query.get("timestamps") == "true", query.get("sinceTime", "")[:19]  # whole seconds, as the kubelet
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
                    if query.get("follow") != "true" or ended or not left or self.fake.stopped.is_set():
                        break
                    self.fake.changed.wait(0.05)
                elif query.get("follow") != "true":
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
        self._headers_buffer.append(b"\r\n")  # so that head and body go out as one
        self._headers_buffer.append(data)
        self.flush_headers()
