"""Why `fake_kubernetes` does not answer as one would like: what a server refuses, in its own words, and faults told by a test."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

Document = dict[str, Any]
SPARK, CRDS, KUBEFLOW = "sparkoperator.k8s.io", "apiextensions.k8s.io", "kubeflow.org"
KINDS = {  # plural: (group, version, kind)
    "sparkapplications": (SPARK, "v1beta2", "SparkApplication"),
    "experiments": (KUBEFLOW, "v1beta1", "Experiment"),
    "trials": (KUBEFLOW, "v1beta1", "Trial"),
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
    "services": ("", "v1", "Service"),
}
CLUSTER_WIDE = ("customresourcedefinitions", "namespaces", "nodes")
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
WEBHOOK = f'admission webhook "validate-sparkoperator-k8s-io-v1beta2-sparkapplication.{SPARK}" denied the request: '
READ_FAULTS = ("429", "500", "503", "cut_before", "slow")
FAULTS = {  # kind of request: the faults that suit it
    "write": (*READ_FAULTS, "500_after", "503_after", "cut_after"),
    "get": (*READ_FAULTS, "stale"),
    "list": (*READ_FAULTS, "stale"),
    "log": (*READ_FAULTS, "log_cut"),
    "watch": (*READ_FAULTS, "410", "watch_gone", "watch_lost", "watch_twice", "watch_ends", "watch_cut", "watch_hangs"),
}


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
        self.body: Document = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
        }
        self.body |= ({"reason": reason} if reason else {}) | ({"details": details} if details else {}) | {"code": code}


def missing(plural: str, name: str) -> ApiError:
    group = KINDS[plural][0]
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    return ApiError(404, "NotFound", f'{f"{plural}.{group}" if group else plural} "{name}" not found', details)


def conflict(word: str, group: str, name: str, told: str) -> ApiError:
    """Args: word, the kind if a precondition is not met, its plural if the object has changed."""
    full = f"{word}.{group}" if group else word
    details = {"name": name, **({"group": group} if group else {}), "kind": word}
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {full} "{name}": {told}', details)


def bad_name(name: str) -> str:
    return (
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '
        "'-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        f"'{SUBDOMAIN}')"
    )


def invalid(plural: str, name: str, where: str, why: str, cause: str) -> ApiError:
    group, _, kind = KINDS[plural]
    full = f"{kind}.{group}" if group else kind
    causes = [{"reason": cause, "message": why, "field": where}]
    details = {**({"name": name} if name else {}), "group": group, "kind": kind, "causes": causes}
    return ApiError(422, "Invalid", f'{full} "{name}" is invalid: {where}: {why}', details)


def admit(name: str, ns: str, spec: Document) -> None:
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
        if advice := _forbidden(key, value, ns):
            why = why or f'sparkConf key "{key}" is not allowed: {advice}'
    templated = any((spec.get(role) or {}).get("template") is not None for role in ("driver", "executor"))
    if templated and not spec.get("sparkVersion"):
        why = why or "pod template feature requires Spark version 3.0.0 or higher"
    if why:
        raise ApiError(403, "Forbidden", WEBHOOK + why)
    if not isinstance(spec.get("mainApplicationFile"), str):
        told = 'Invalid value: "null": spec.mainApplicationFile in body must be of type string: "null"'
        raise invalid("sparkapplications", name, "spec.mainApplicationFile", told, "FieldValueTypeInvalid")
    if spec.get("type") and spec["type"] not in ("Java", "Python", "Scala", "R"):
        told = f'Unsupported value: "{spec["type"]}": supported values: "Java", "Python", "Scala", "R"'
        raise invalid("sparkapplications", name, "spec.type", told, "FieldValueNotSupported")


def _forbidden(key: str, value: str, ns: str) -> str:
    """What the webhook says to a sparkConf key; empty if it may be set."""
    if key == "spark.master":
        return "this value is managed by the operator"
    if re.fullmatch(r"spark\.kubernetes\.authenticate\.(driver|executor)\.serviceAccountName", key):
        return "configure the service account via the CRD spec instead"
    if re.fullmatch(r"spark\.kubernetes\.((driver|executor)\.)?container\.image", key):
        return "use the image field on the CRD instead"
    if key == "spark.kubernetes.namespace" and value != ns:
        return f'must equal the application namespace "{ns}", got "{value}"'
    return ""
