"""Reads the compiled pipeline and says what KFP's launcher would run for a task: command, arguments, executor input."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

OUTPUT_FILE = "/tmp/kfp/output_metadata.json"
SCRATCH = ("tmp", "minio", "s3", "gcs")
"""Folders that a task may write: KFP mounts scratch volumes where the local copies of artifacts would lie."""
MARK = "=== executor output ==="


@dataclass(frozen=True)
class CompiledTask:
    """One task of the compiled pipeline.

    Attributes:
        name: of the task.
        container: `image`, `command` and `args` of its executor.
        inputs: its inputs as the pipeline's root gives them.
        artifacts: name and type of each output artifact.
        secret_env, config_env: variable to (object, key), from the platform's part of the document.
    """

    name: str
    container: Mapping[str, Any]
    inputs: Mapping[str, Any]
    artifacts: Mapping[str, str]
    secret_env: Mapping[str, tuple[str, str]]
    config_env: Mapping[str, tuple[str, str]]


def read_tasks(path: Path) -> tuple[list[CompiledTask], dict[str, Any]]:
    """The tasks in the order in which they may run, and the defaults of the pipeline's inputs."""
    document, platform = yaml.safe_load_all(path.read_text())
    root = document["root"]
    tasks, done = [], set[str]()
    left = dict(root["dag"]["tasks"])
    while left:
        ready = next(name for name, task in left.items() if set(task.get("dependentTasks", [])) <= done)
        tasks.append(
            _task(ready, left.pop(ready), document, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])
        )
        done.add(ready)
    parameters = root["inputDefinitions"]["parameters"]
    return tasks, {name: item["defaultValue"] for name, item in parameters.items() if "defaultValue" in item}


def _task(name: str, task: Mapping[str, Any], document: Mapping[str, Any], platform: Mapping[str, Any]) -> CompiledTask:
    component = document["components"][task["componentRef"]["name"]]
    label = component["executorLabel"]
    artifacts = component.get("outputDefinitions", {}).get("artifacts", {})
    return CompiledTask(
        name=name,
        container=document["deploymentSpec"]["executors"][label]["container"],
        inputs=task["inputs"]["parameters"],
        artifacts={key: item["artifactType"]["schemaTitle"] for key, item in artifacts.items()},
        secret_env={
            pair["envVar"]: (item["secretName"], pair["secretKey"])
            for item in platform[label].get("secretAsEnv", [])
            for pair in item["keyToEnv"]
        },
        config_env={
            pair["envVar"]: (item["configMapName"], pair["configMapKey"])
            for item in platform[label].get("configMapAsEnv", [])
            for pair in item["keyToEnv"]
        },
    )


def executor_input(
    task: CompiledTask, given: Mapping[str, Any], outputs: Mapping[str, str], *, root: str, run_id: str
) -> str:
    """What the launcher hands to the task's program.

    Args:
        task: of the pipeline.
        given: the pipeline's inputs.
        outputs: what earlier tasks have returned.
        root: URI of the pipeline's root.
        run_id: of the run.
    """
    values: dict[str, Any] = {}
    for name, source in task.inputs.items():
        if "componentInputParameter" in source:
            values[name] = given[source["componentInputParameter"]]
        elif "taskOutputParameter" in source:
            values[name] = outputs[source["taskOutputParameter"]["producerTask"]]
        else:
            values[name] = str(source["runtimeValue"]["constant"]).replace("{{$.pipeline_job_uuid}}", run_id)
    place = f"{root}/{run_id}/{task.name}"
    artifacts = {
        name: {"artifacts": [{"name": name, "uri": f"{place}/{name}", "type": {"schemaTitle": kind}, "metadata": {}}]}
        for name, kind in task.artifacts.items()
    }
    return json.dumps(
        {
            "inputs": {"parameterValues": values},
            "outputs": {
                "parameters": {"Output": {"outputFile": "/tmp/kfp/outputs/Output"}},
                "artifacts": artifacts,
                "outputFile": OUTPUT_FILE,
            },
        }
    )


def pod_of(task: CompiledTask, name: str, document: str, *, service_account: str) -> dict[str, Any]:
    """A pod that runs a task's own command, as the launcher does, and then prints what the task has put out."""
    arguments = [word.replace("{{$}}", document) for word in task.container["args"]]
    program = shlex.join([*task.container["command"], *arguments])
    shown = f"{program}; code=$?; echo; echo '{MARK}'; cat {OUTPUT_FILE} 2>/dev/null; exit $code"
    environment = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": source, "key": key}}}
        for variable, (source, key) in task.secret_env.items()
    ] + [
        {"name": variable, "valueFrom": {"configMapKeyRef": {"name": source, "key": key}}}
        for variable, (source, key) in task.config_env.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"pipelines.kubeflow.org/v2_component": "true"}},
        "spec": {
            "restartPolicy": "Never",
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
                    "env": environment,
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
