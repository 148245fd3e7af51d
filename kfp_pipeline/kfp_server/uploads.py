"""Compiles a pipeline and uploads it to a KFP server, once for each content.

On a KFP server a pipeline has versions. The description of a version that this module uploads holds the digest of the uploaded YAML, so
that the same content is found again under any version name.
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
from spark_jobs.contract import TRAINING, Pipeline
from spark_jobs.errors import InputError

DIGEST = "sha256:"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: name of the pipeline on the server.
        about: what the pipeline does, in one sentence.
        version_name: name of the version on the server.
        text: the pipeline's IR (intermediate representation) as YAML.
        digest: SHA-256 of the text.
        pipeline_name: name of the pipeline in the IR; KFP names the folder of its runs' outputs after it.
        inputs: the pipeline's inputs, name to `parameterType`, `defaultValue` and `isOptional`.
    """

    name: str
    about: str
    version_name: str
    text: str = field(repr=False)
    digest: str
    pipeline_name: str
    inputs: Mapping[str, Mapping[str, Any]]

    @property
    def description(self) -> str:
        """The description of the version; it holds the digest by which the content is found again."""
        return f"spark-kfp {version('spark-kfp')}, {DIGEST}{self.digest}"


@dataclass(frozen=True, kw_only=True)
class UploadedVersion:
    """A version of the pipeline on the server; `new` if this process uploaded it."""

    pipeline_id: str
    version_id: str
    version_name: str
    new: bool

    @property
    def reference(self) -> Document:
        """The reference to this version in the document of a run."""
        return {"pipeline_id": self.pipeline_id, "pipeline_version_id": self.version_id}


def compile_package(
    pipeline: Pipeline = TRAINING, platform: Platform | None = None, *, name: str = "", version_name: str = ""
) -> Package:
    """Compiles a pipeline.

    Args:
        pipeline: the pipeline.
        platform: settings of every task; None: the defaults.
        name: name of the pipeline on the server; empty: the name in its IR.
        version_name: name of the version; empty: the version of spark-kfp and the first digits of the digest.
    """
    with scratch_folder() as folder:
        path = folder / "pipeline.yaml"
        Compiler().compile(make_pipeline(pipeline.name, platform or Platform()), str(path))
        text = path.read_text(encoding="utf-8")
    document = next(yaml.safe_load_all(text))
    digest, pipeline_name = hashlib.sha256(text.encode()).hexdigest(), document["pipelineInfo"]["name"]
    return Package(
        name=name or pipeline_name,
        about=pipeline.about,
        version_name=version_name or f"{version('spark-kfp')}-{digest[:12]}",
        text=text,
        digest=digest,
        pipeline_name=pipeline_name,
        inputs=document["root"]["inputDefinitions"]["parameters"],
    )


def upload(server: Server, package: Package) -> UploadedVersion:
    """Uploads the pipeline, unless the server has a version with the same content.

    Raises:
        InputError: the name of the pipeline or of the version is taken by other content.
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
    """Returns the documents that an upload sends, without the IR."""
    version_ = {"name": package.version_name, "display_name": package.version_name, "description": package.description}
    return {"pipeline": _pipeline_body(package), "version": version_}


def _pipeline(server: Server, package: Package) -> Document:
    def find_existing() -> Document | None:
        found = server.list_by_name("pipelines", "pipelines", package.name)
        return found[0] if found else None

    body = _pipeline_body(package) | ({"namespace": server.namespace} if server.namespace else {})
    try:
        return find_existing() or server.create("pipelines", find_existing, body)
    except ConflictError as error:
        raise InputError(f"the name {package.name!r} is taken on {server.url}; give another one with --name") from error


def _pipeline_body(package: Package) -> Document:
    return {"name": package.name, "display_name": package.name, "description": package.about}


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
    """Parses the value of a pipeline's input. The type is checked here because the server accepts 42.5 for an integer.

    Raises:
        InputError: the pipeline has no such input, or the text is not a value of its type.
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
