"""Reads the compiled pipeline and says what KFP's launcher would run for a task: command, arguments, executor input."""

from __future__ import annotations

import base64
import json
import re
import shlex
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
OUTPUT_FILE = "/tmp/kfp/output_metadata.json"
SCRATCH = ("tmp", "minio", "s3", "gcs")
"""Folders that a task may write: KFP mounts scratch volumes where the local copies of artifacts would lie."""
MARK = "=== executor output ==="
UPLOAD = "=== upload "
LABELS = {"pipelines.kubeflow.org/v2_component": "true"}
RUN_LABEL = "pipeline/runid"


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline: the specification, and what belongs to Kubernetes of each executor."""

    document: Document
    platform: Mapping[str, Document] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Compiled:
        """Reads the compiler's YAML."""
        document, *rest = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        kubernetes = rest[0]["platforms"]["kubernetes"] if rest else {}
        return cls(document, kubernetes.get("deploymentSpec", {}).get("executors", {}))

    @property
    def defaults(self) -> Document:
        """The defaults of the pipeline's inputs."""
        parameters = self.document["root"].get("inputDefinitions", {}).get("parameters", {})
        return {name: item["defaultValue"] for name, item in parameters.items() if "defaultValue" in item}

    def component(self, task: Mapping[str, Any]) -> Document:
        """The component of a task of some graph."""
        found: Document = self.document["components"][task["componentRef"]["name"]]
        return found

    def tasks(self) -> Iterator[CompiledTask]:
        """Every task that runs a container, of any graph."""
        graphs = [self.document["root"], *self.document["components"].values()]
        for graph in graphs:
            for name, task in graph.get("dag", {}).get("tasks", {}).items():
                if "executorLabel" in self.component(task):
                    yield self.task(name, task)

    def task(self, name: str, task: Mapping[str, Any]) -> CompiledTask:
        """A task that runs a container."""
        component = self.component(task)
        label = component["executorLabel"]
        return CompiledTask(
            name=name,
            title=task["taskInfo"]["name"],
            spec=task,
            component=component,
            container=self.document["deploymentSpec"]["executors"][label]["container"],
            kubernetes=self.platform.get(label, {}),
        )


@dataclass(frozen=True)
class CompiledTask:
    """One task that runs a container.

    Attributes:
        name: in its graph.
        title: to show.
        spec: the task in its graph: inputs, retries, cache.
        component: inputs and outputs with their types.
        container: `image`, `command` and `args` of its executor.
        kubernetes: what kfp-kubernetes has added: secrets, variables, time limit.
    """

    name: str
    title: str
    spec: Document
    component: Document
    container: Mapping[str, Any]
    kubernetes: Mapping[str, Any]

    @property
    def artifacts(self) -> dict[str, str]:
        """Name and type of each output artifact."""
        found = self.component.get("outputDefinitions", {}).get("artifacts", {})
        return {name: item["artifactType"]["schemaTitle"] for name, item in found.items()}

    @property
    def attempts(self) -> int:
        """How often KFP tries it."""
        return 1 + int(self.spec.get("retryPolicy", {}).get("maxRetryCount", 0))

    @property
    def cached(self) -> bool:
        """Whether KFP may take it over from an earlier run."""
        return bool(self.spec.get("cachingOptions", {}).get("enableCache"))

    def uri(self, artifact: str, root: str, run_id: str) -> str:
        """The URI that KFP gives an output artifact; the same for every attempt."""
        salt = uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{self.name}")
        return f"{root}/{run_id}/{self.name}/{salt}/{artifact}"

    def cache_key(self, values: Mapping[str, Any]) -> str:
        """What KFP's cache goes by: inputs, outputs, command and image; no variable, and nothing behind a URI."""
        kept = {name: value for name, value in values.items() if not self._is(name, "TASK_CONFIG")}
        outputs = self.component.get("outputDefinitions", {})
        container = [self.container.get(key) for key in ("image", "command", "args")]
        return json.dumps([kept, outputs, container], sort_keys=True)

    def _is(self, name: str, kind: str) -> bool:
        parameters = self.component.get("inputDefinitions", {}).get("parameters", {})
        return str(parameters.get(name, {}).get("parameterType")) == kind


def executor_input(task: CompiledTask, values: Mapping[str, Any], *, root: str, run_id: str) -> str:
    """What the launcher hands to the task's program.

    Args:
        task: of the pipeline.
        values: its inputs.
        root: URI of the pipeline's root.
        run_id: of the run.
    """
    artifacts = {
        name: {
            "artifacts": [
                {"name": name, "uri": task.uri(name, root, run_id), "type": {"schemaTitle": kind}, "metadata": {}}
            ]
        }
        for name, kind in task.artifacts.items()
    }
    parameters = task.component.get("outputDefinitions", {}).get("parameters", {})
    outputs = {
        "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in parameters},
        "artifacts": artifacts,
        "outputFile": OUTPUT_FILE,
    }
    return json.dumps({"inputs": {"parameterValues": dict(values)}, "outputs": outputs})


def environment_of(task: CompiledTask) -> list[Document]:
    """The variables of a task's container."""
    found = [{"name": item["name"], "value": item["value"]} for item in task.container.get("env", [])]
    for kind, name, key, reference in (
        ("secretAsEnv", "secretName", "secretKey", "secretKeyRef"),
        ("configMapAsEnv", "configMapName", "configMapKey", "configMapKeyRef"),
    ):
        for item in task.kubernetes.get(kind, []):
            for pair in item["keyToEnv"]:
                source = {reference: {"name": item[name], "key": pair[key]}}
                found.append({"name": pair["envVar"], "valueFrom": source})
    for item in task.kubernetes.get("fieldPathAsEnv", []):
        found.append({"name": item["name"], "valueFrom": {"fieldRef": {"fieldPath": item["fieldPath"]}}})
    return found


def pod_of(task: CompiledTask, name: str, document: str, *, run_id: str, service_account: str) -> Document:
    """A pod that runs a task's own command as the launcher does, then prints what the task has put out and what would be uploaded."""
    arguments = [word.replace("{{$}}", document) for word in task.container["args"]]
    program = shlex.join([*task.container["command"], *arguments])
    given = json.loads(document)["outputs"]["artifacts"].values()
    uploads = "".join(
        f"; [ -f {path_of(uri)} ] && echo && echo '{UPLOAD}'{uri} $(base64 -w0 {path_of(uri)})"
        for uri in (item["artifacts"][0]["uri"] for item in given)
    )
    shown = f"{program}; code=$?; echo; echo '{MARK}'; cat {OUTPUT_FILE} 2>/dev/null{uploads}; exit $code"
    limit = task.kubernetes.get("activeDeadlineSeconds")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {**LABELS, RUN_LABEL: run_id}},
        "spec": {
            "restartPolicy": "Never",
            **({"activeDeadlineSeconds": int(limit)} if limit else {}),
            "serviceAccountName": service_account,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": name, "emptyDir": {}} for name in SCRATCH],
            "containers": [
                {
                    "name": "main",
                    "image": task.container["image"],
                    "imagePullPolicy": "Never",
                    "command": ["bash", "-c", shown],
                    "env": environment_of(task),
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "128Mi"},
                        "limits": {"cpu": "1", "memory": "512Mi"},
                    },
                    "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in SCRATCH],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def path_of(uri: str) -> str:
    """Where KFP's launcher looks for the local copy of an artifact."""
    return re.sub(r"^(minio|s3|gs)://", lambda found: f"/{'gcs' if found[1] == 'gs' else found[1]}/", uri)


@dataclass(frozen=True)
class PodOutput:
    """What a pod of `pod_of` has printed.

    Attributes:
        log: of the task itself.
        output: the executor's output document.
        uploads: URI to content, of what the launcher would upload.
    """

    log: str
    output: Document
    uploads: Mapping[str, bytes]

    @classmethod
    def parse(cls, text: str) -> PodOutput:
        """Reads a pod's log."""
        log, _, rest = text.partition(MARK)
        document, *lines = rest.split(UPLOAD)
        pairs = [line.split() for line in lines]
        uploads = {uri: base64.b64decode(content) for uri, content in pairs}
        return cls(log, json.loads(document) if document.strip() else {}, uploads)
