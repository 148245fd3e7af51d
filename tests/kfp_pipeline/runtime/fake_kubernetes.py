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
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from fake_http import HttpHandler, HttpServer, Request
from fake_operator import FakeOperator
from fake_refusals import (
    CLUSTER_WIDE,
    CRDS,
    KINDS,
    KUBEFLOW,
    SPARK,
    SUBDOMAIN,
    ApiError,
    Document,
    Faults,
    admit,
    bad_name,
    conflict,
    invalid,
    missing,
)

Key = tuple[str, str, str]
APPLICATION_QUOTA = f"count/sparkapplications.{SPARK}"


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
        self.proxied: dict[str, Document] = {}
        """What services answer through the proxy, by path."""
        self.changed = threading.Condition(threading.RLock())
        self.stopped = threading.Event()
        self.operator = FakeOperator(self, speed)
        self._objects: dict[Key, Document] = {}
        self._history: list[tuple[int, str, Key, Document]] = []
        self._version, self._oldest = 1000, 0
        self._http = HttpServer(("127.0.0.1", 0), HttpHandler)
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        for name in ("default", "kubeflow", namespace):
            self.put("namespaces", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        self.put("serviceaccounts", {"metadata": {"name": "default"}})
        versions = [{"name": "v1beta2", "served": True, "storage": True}]
        spec = {
            "group": SPARK,
            "scope": "Namespaced",
            "names": {"kind": "SparkApplication", "plural": "sparkapplications"},
            "versions": versions,
        }
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
        document: Document = {"apiVersion": "v1", "kind": "Config", "current-context": "fake"}
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
        """Forgets the past: a watch that begins at any version before now is answered with 410."""
        with self.changed:
            self._version += 1
            self._oldest = self._version

    def note(self, kind: str, name: str, type_: str, reason: str, message: str) -> None:
        """Records an event about an object."""
        found = self.get("pods" if kind == "Pod" else "sparkapplications", name) or {"metadata": {"uid": ""}}
        about = {"kind": kind, "name": name, "namespace": self.namespace, "uid": found["metadata"]["uid"]}
        source = "kubelet" if kind == "Pod" else "spark-application-controller"
        event: Document = {
            "metadata": {"name": f"{name}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": about,
            "type": type_,
        }
        event |= {"reason": reason, "message": message, "count": 1, "eventTime": None, "source": {"component": source}}
        self.put("events", event | {"firstTimestamp": _now(), "lastTimestamp": _now()})

    # What the HTTP side asks for.

    def create(self, plural: str, ns: str, body: Document, *, dry_run: bool) -> Document:
        group = KINDS[plural][0]
        with self.changed:
            metadata = body.setdefault("metadata", {})
            name = metadata.get("name") or ""
            if metadata.get("namespace", ns) != ns:
                told = "the namespace of the provided object does not match the namespace sent on the request"
                raise ApiError(400, "BadRequest", told)
            if self._key("namespaces", "", ns) not in self._objects:
                raise ApiError(404, "NotFound", f'namespaces "{ns}" not found', {"name": ns, "kind": "namespaces"})
            if not name or not re.fullmatch(SUBDOMAIN, name) or len(name) > 253:
                why = "Required value: name or generateName is required" if not name else bad_name(name)
                raise invalid(plural, name, "metadata.name", why, "FieldValueInvalid" if name else "FieldValueRequired")
            if plural == "sparkapplications":
                admit(name, ns, body.setdefault("spec", {}))
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
        return stored

    def read(self, plural: str, ns: str, name: str, *, stale: bool = False) -> Document:
        with self.changed:
            key = self._key(plural, ns, name)
            found = self._before(key) if stale else self._objects.get(key)
            if not found:
                raise missing(plural, name)
            return copy.deepcopy(found)

    def select(self, plural: str, ns: str | None, match: Callable[[Document], bool], *, stale: bool) -> Document:
        group, version, kind = KINDS[plural]
        with self.changed:
            keys = [key for key in sorted(self._objects) if key[0] == plural and ns in (None, key[1])]
            found = [self._before(key) if stale else self._objects[key] for key in keys]
            items = [copy.deepcopy(item) for item in found if item and match(item)]
            items = [
                {k: v for k, v in i.items() if group in (SPARK, CRDS, KUBEFLOW) or k not in ("kind", "apiVersion")}
                for i in items
            ]
            head = {"kind": f"{kind}List", "apiVersion": f"{group}/{version}".lstrip("/")}
            return {**head, "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def replace(self, plural: str, ns: str, name: str, change: Callable[[Document], Document]) -> Document:
        with self.changed:
            before = self.read(plural, ns, name)
            after = change(copy.deepcopy(before))
            given = after.setdefault("metadata", {}).get("resourceVersion")
            if not given and plural == "sparkapplications":
                why = "Invalid value: 0: must be specified for an update"
                raise invalid(plural, name, "metadata.resourceVersion", why, "FieldValueInvalid")
            if given and given != before["metadata"]["resourceVersion"]:
                told = "the object has been modified; please apply your changes to the latest version and try again"
                raise conflict(plural, KINDS[plural][0], name, told)
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
                    raise conflict(
                        KINDS[plural][2], group, name, f"{told} The object might have been deleted and then recreated"
                    )
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
                found["metadata"] |= {
                    "deletionTimestamp": _now(),
                    "deletionGracePeriodSeconds": 0,
                    "finalizers": ["foregroundDeletion"],
                }
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
                numbers = (("requested", 1), ("used", used), ("limited", hard))
                sums = ", ".join(f"{word}: {APPLICATION_QUOTA}={number}" for word, number in numbers)
                told = f'sparkapplications.{SPARK} "{name}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, {sums}'
                raise ApiError(403, "Forbidden", told, {"name": name, "group": SPARK, "kind": "sparkapplications"})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
