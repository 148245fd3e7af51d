"""The training pipeline as a KFP server keeps it: compiled, and uploaded once.

A pipeline there has versions. The description of ours holds the digest of what was uploaded, so the same content is found again whatever
its version is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import yaml
from kfp.compiler import Compiler

from kfp_pipeline.graphs import make_pipeline
from kfp_pipeline.kfp_server.client import ConflictError, Document, Server
from kfp_pipeline.runtime.scratch import scratch_folder
from kfp_pipeline.task_settings import Platform
from spark_jobs.contract import TRAINING
from spark_jobs.errors import InputError

DIGEST = "sha256:"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: of the pipeline on the server.
        version_name: of this content of it.
        text: the IR as YAML.
        digest: SHA-256 of the text.
        own_name: the pipeline's name in its IR, after which the folder of its runs' outputs is called.
        inputs: name to description of its inputs: `parameterType`, `defaultValue`, `isOptional`.
    """

    name: str
    version_name: str
    text: str = field(repr=False)
    digest: str
    pipeline_name: str
    inputs: Mapping[str, Mapping[str, Any]]

    @property
    def description(self) -> str:
        """Of the version; the digest in it is how the content is found again."""
        return f"spark-kfp {version('spark-kfp')}, {DIGEST}{self.digest}"


@dataclass(frozen=True, kw_only=True)
class UploadedVersion:
    """A version on the server; `new` if this process has put it there."""

    pipeline_id: str
    version_id: str
    version_name: str
    new: bool

    @property
    def reference(self) -> Document:
        """How a run names it."""
        return {"pipeline_id": self.pipeline_id, "pipeline_version_id": self.version_id}


def compile_package(name: str = "", version_name: str = "", platform: Platform | None = None) -> Package:
    """Compiles the training pipeline.

    Args:
        name: on the server; empty: the pipeline's own.
        version_name: empty: the package's version and the beginning of the digest.
        platform: what every task gets; None: the defaults.
    """
    with scratch_folder() as folder:
        path = folder / "pipeline.yaml"
        Compiler().compile(make_pipeline(TRAINING.name, platform or Platform()), str(path))
        text = path.read_text(encoding="utf-8")
    document = next(yaml.safe_load_all(text))
    digest, own_name = hashlib.sha256(text.encode()).hexdigest(), document["pipelineInfo"]["name"]
    return Package(
        name=name or own_name,
        version_name=version_name or f"{version('spark-kfp')}-{digest[:12]}",
        text=text,
        digest=digest,
        pipeline_name=own_name,
        inputs=document["root"]["inputDefinitions"]["parameters"],
    )


def upload(server: Server, package: Package) -> UploadedVersion:
    """Makes sure that the content is on the server, once.

    Raises:
        InputError: the pipeline's or the version's name is taken by something else.
    """
    pipeline = _pipeline(server, package)
    identity = pipeline["pipeline_id"]
    found = _version(server, identity, package)
    if found:
        return _uploaded(found, new=False)
    query = {
        "name": package.version_name,
        "display_name": package.version_name,
        "description": package.description,
        "pipelineid": identity,
    }
    with scratch_folder() as folder:
        path = folder / "pipeline.yaml"
        path.write_text(package.text, encoding="utf-8")
        try:
            kept = server.create(
                "pipelines/upload_version", lambda: _version(server, identity, package), query=query, file=path
            )
        except ConflictError as error:
            raise InputError(
                f"the pipeline {package.name!r} has a version {package.version_name!r} with other content; "
                "give another name with --version, or none"
            ) from error
    return _uploaded(kept, new=True)


def request_bodies(package: Package) -> Document:
    """What an upload sends, without the IR."""
    version_ = {"name": package.version_name, "display_name": package.version_name, "description": package.description}
    return {"pipeline": _pipeline_body(package), "version": version_}


def _pipeline(server: Server, package: Package) -> Document:
    def look() -> Document | None:
        found = server.list_by_name("pipelines", "pipelines", package.name)
        return found[0] if found else None

    body = _pipeline_body(package) | ({"namespace": server.namespace} if server.namespace else {})
    try:
        return look() or server.create("pipelines", look, body)
    except ConflictError as error:
        raise InputError(f"the name {package.name!r} is taken on {server.url}; give another one with --name") from error


def _pipeline_body(package: Package) -> Document:
    about = "Trains and evaluates a Spark ML model."
    return {"name": package.name, "display_name": package.name, "description": about}


def _version(server: Server, pipeline_id: str, package: Package) -> Document | None:
    known = server.list_all(f"pipelines/{pipeline_id}/versions", "pipeline_versions", {})
    return next((item for item in known if DIGEST + package.digest in str(item.get("description", ""))), None)


def _uploaded(found: Document, *, new: bool) -> UploadedVersion:
    return UploadedVersion(
        pipeline_id=found["pipeline_id"],
        version_id=found["pipeline_version_id"],
        version_name=found["display_name"],
        new=new,
    )


def parse_parameter(package: Package, name: str, text: str) -> Any:
    """A parameter's value from its text, of the type that the pipeline wants: the server takes 42.5 for a whole number.

    Raises:
        InputError: the pipeline has no such input, or the text is not of its type.
    """
    if name not in package.inputs:
        raise InputError(f"--param={name}: the pipeline has no such input; it has: {', '.join(sorted(package.inputs))}")
    kind = str(package.inputs[name]["parameterType"])
    if kind == "STRING":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    kinds: dict[str, tuple[Any, str]] = {
        "NUMBER_INTEGER": (int, "a whole number"),
        "NUMBER_DOUBLE": ((int, float), "a number"),
        "BOOLEAN": (bool, "true or false"),
        "STRUCT": (dict, "a JSON object"),
        "LIST": (list, "a JSON list"),
    }
    wanted, label = kinds[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise InputError(f"--param={name}={text}: it must be {label}")
    return value
