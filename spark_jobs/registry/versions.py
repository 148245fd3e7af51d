"""The versions of a model: each is a folder that never changes once its version.json is there, which is written last.

`NAME/versions/ID/version.json` names every file of the version with its size and SHA-256. The ID is made of the time at which the model was
evaluated and a hash of its files: registering a run twice gives the same version, and two writers of one version write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from spark_jobs.arguments import Role
from spark_jobs.contract import ARGUMENTS, MODEL_NAME, Step
from spark_jobs.errors import InputError
from spark_jobs.registry.places import Place, Source, place_of
from spark_jobs.registry.version_document import (
    EXAMPLES_NAME,
    REGISTRY_VERSION,
    VERSION_NAME,
    parse,
    to_json,
    version_id,
)
from spark_jobs.result import RESULT_NAME, Result

MOST_DOCUMENT_BYTES = 16 << 20
"""Of a version.json; it has some kilobytes."""


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """The URIs of the outputs of a finished training run: the output of each step, and the file of the report."""

    load_uri: str
    preprocess_uri: str
    train_uri: str
    evaluate_uri: str

    @classmethod
    def of_evaluation(cls, evaluate_uri: str) -> RunOutputs:
        """Follows the output of evaluate back to those of the steps before it.

        Raises:
            InputError: one of the steps is not finished.
        """
        arguments = read_result(evaluate_uri).arguments
        preprocess_uri = str(arguments["preprocess_uri"])
        load_uri = str(read_result(preprocess_uri).arguments["load_uri"])
        train_uri = str(arguments["train_uri"])
        return cls(load_uri=load_uri, preprocess_uri=preprocess_uri, train_uri=train_uri, evaluate_uri=evaluate_uri)


@dataclass(frozen=True)
class Candidate:
    """A version that is not written yet: its document, and the content of its files by name."""

    document: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def version(self) -> str:
        return str(self.document["version"])


def read_result(uri: str) -> Result:
    """Reads the result document of a finished step.

    Raises:
        InputError: the step has not finished, or failed.
    """
    try:
        result = Result.from_json(place_of(uri).read(RESULT_NAME).decode())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{uri} holds no finished step ({RESULT_NAME} is missing); run the step first") from error
    except ValueError as error:
        raise InputError(f"{uri}/{RESULT_NAME}: {error}") from error
    if result.status != "succeeded":
        raise InputError(f"{uri}: step {result.step} failed there; run it again first")
    return result


def check_name(name: str) -> None:
    """Checks the name of a model, which is a folder of the registry and a part of the server's URLs.

    Raises:
        InputError: it has other characters than letters, digits, `_`, `-` and `.`, or is too long.
    """
    if not MODEL_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name of a model; allowed: up to 63 letters, digits, _, - and ., the first a letter or digit"
        )


def collect(name: str, outputs: RunOutputs, *, run_id: str = "", examples: bytes = b"") -> Candidate:
    """Reads what a run has made, and describes it as a version.

    Args:
        name: name of the model.
        outputs: the outputs of the run.
        run_id: name of the run, for whoever looks for it later.
        examples: the content of examples.json; empty: there are none.

    Raises:
        InputError: the name is not allowed, a step is not finished, or two outputs do not belong together.
    """
    check_name(name)
    results = {
        step: read_result(uri)
        for step, uri in (
            (Step.LOAD, outputs.load_uri),
            (Step.PREPROCESS, outputs.preprocess_uri),
            (Step.TRAIN, outputs.train_uri),
            (Step.EVALUATE, outputs.evaluate_uri),
        )
    }
    _check_that_they_belong_together(results, outputs)
    files = _files_of(outputs, results)
    evaluation = json.loads(files["evaluation.json"])
    if examples:
        files[EXAMPLES_NAME] = examples
    listed = [
        {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in sorted(files.items())
    ]
    evaluated_at = str(results[Step.EVALUATE].made_by.get("finished_at", ""))
    if not evaluated_at:
        raise InputError(
            f"{outputs.evaluate_uri}: an earlier release of spark-kfp wrote this result, without its time; run the pipeline again"
        )
    document = {
        "registry_version": REGISTRY_VERSION,
        "name": name,
        "version": version_id(evaluated_at, listed),
        "created": evaluated_at,
        "run": run_id,
        "label": evaluation["label"],
        "labels": evaluation["labels"],
        "positive": evaluation["positive"],
        "model": {**evaluation["model"]},
        "metrics": evaluation["metrics"],
        "parameters": {str(step): _settings(step, result) for step, result in results.items()},
        "data": {
            "uri": evaluation["data"]["uri"],
            "rows": evaluation["data"]["rows"],
            "sets": evaluation["split"]["rows"],
            "class_fractions": evaluation["split"]["class_fractions"],
        },
        "digests": {str(step): result.digest for step, result in results.items()},
        "made_by": dict(results[Step.TRAIN].made_by),
        "files": listed,
    }
    return Candidate(document, files)


def _check_that_they_belong_together(results: Mapping[Step, Result], outputs: RunOutputs) -> None:
    evaluated, preprocessed = results[Step.EVALUATE].inputs, results[Step.PREPROCESS].inputs
    for made_from, wanted, uri in (
        (evaluated.get("train_uri"), results[Step.TRAIN].digest, outputs.train_uri),
        (evaluated.get("preprocess_uri"), results[Step.PREPROCESS].digest, outputs.preprocess_uri),
        (preprocessed.get("load_uri"), results[Step.LOAD].digest, outputs.load_uri),
    ):
        if made_from != wanted:
            raise InputError(
                f"{outputs.evaluate_uri} was not made from {uri}, which another run has replaced; run the pipeline again"
            )


def _files_of(outputs: RunOutputs, results: Mapping[Step, Result]) -> dict[str, bytes]:
    """Reads all files of a version but examples.json and version.json."""
    trained, loaded = place_of(outputs.train_uri), place_of(outputs.load_uri)
    files = {name: trained.read(name) for name in trained.names("model")}
    if not any(name.startswith("model/metadata/") for name in files):
        raise InputError(f"{outputs.train_uri}/model holds no saved model; run train again")
    wanted = [
        (loaded, "specification.toml", "specification.toml"),
        (loaded, "profile.json", "profile.json"),
        (place_of(outputs.preprocess_uri), "features.json", "features.json"),
        (place_of(outputs.evaluate_uri), "evaluation.json", "evaluation.json"),
    ]
    there = [name for name in ("scorecard.json", "reference.json") if name in trained.names()]
    wanted += [(trained, name, name) for name in there]
    folder, _, report = str(results[Step.EVALUATE].uris["report"]).rpartition("/")
    wanted.append((place_of(folder), report, "report.html"))
    for place, source, name in wanted:
        try:
            files[name] = place.read(source)
        except FileNotFoundError as error:
            raise InputError(f"{place.uri}/{source} is missing; run the pipeline again") from error
    return files


def _settings(step: Step, result: Result) -> dict[str, Any]:
    names = ARGUMENTS[step].names(Role.SETTING)
    return {name: result.arguments[name] for name in names if name in result.arguments}


def write(registry: Place, candidate: Candidate) -> dict[str, Any]:
    """Writes a version, its version.json last; one that is there already stays as it is, unless it is damaged.

    Returns:
        The document of the version, as it stands in the registry.

    Raises:
        InputError: its document cannot be used; nothing is written then.
    """
    name, version = str(candidate.document["name"]), candidate.version
    described, document = to_json(candidate.document), f"{folder_of(name, version)}/{VERSION_NAME}"
    _, tag = registry.read_tagged(document)
    with suppress(InputError):
        if tag:
            return verify(registry, name, version)
    for path, content in candidate.files.items():
        registry.write(f"{folder_of(name, version)}/{path}", content)
    registry.swap(document, described, tag)  # if another process was first, its document counts
    return read(registry, name, version)


def folder_of(name: str, version: str) -> str:
    """Returns the folder of a version, relative to the registry."""
    return f"{name}/versions/{version}"


def names(registry: Source) -> list[str]:
    """Lists the models of a registry that have a version.

    Raises:
        InputError: there is no such registry.
    """
    try:
        paths = registry.names()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{registry.uri}: there is no such directory; check the path, or let `spark-kfp models promote NAME last` make it"
        ) from error
    return sorted({path.split("/")[0] for path in paths if re.fullmatch(r"[^/]+/versions/[^/]+/version\.json", path)})


def versions_of(registry: Source, name: str) -> list[str]:
    """Lists the versions of a model, oldest first; a folder without version.json is none."""
    paths = [path.split("/") for path in registry.names(f"{name}/versions")]
    return sorted(parts[2] for parts in paths if len(parts) == 4 and parts[3] == VERSION_NAME)


def read(registry: Source, name: str, version: str) -> dict[str, Any]:
    """Reads the document of a version.

    Raises:
        InputError: there is no such version, or its document is damaged.
    """
    path = f"{folder_of(name, version)}/{VERSION_NAME}"
    try:
        content = registry.read(path, MOST_DOCUMENT_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        known = ", ".join(versions_of(registry, name)[-5:]) or "none yet"
        raise InputError(f"{registry.uri}: model {name!r} has no version {version}; it has {known}") from error
    document = parse(content, f"{registry.uri}/{path}")
    if (document["name"], document["version"]) != (name, version):
        raise InputError(f"{registry.uri}/{path} is that of {document['name']!r} {document['version']}; remove it")
    return document


def read_file(registry: Source, document: Mapping[str, Any], path: str) -> bytes:
    """Reads a file of a version, and compares it with the version's document.

    Raises:
        InputError: it is missing or was changed.
    """
    where = f"{folder_of(document['name'], document['version'])}/{path}"
    item = next((item for item in document["files"] if item["path"] == path), None)
    try:
        if not item:
            raise FileNotFoundError(where)
        content = registry.read(where, item["size"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{registry.uri}/{where} is missing; import the version again from another copy") from error
    if (len(content), hashlib.sha256(content).hexdigest()) != (item["size"], item["sha256"]):
        raise InputError(
            f"{registry.uri}/{where} was changed: its SHA-256 is another one; import the version again from another copy"
        )
    return content


def find(registry: Place, name: str, version: str) -> str:
    """Returns the ID of a version that begins with a text, or the newest one for `latest`.

    Raises:
        InputError: there is none, or more than one.
    """
    known = versions_of(registry, name)
    if not known:
        others = ", ".join(names(registry)) or "no model"
        raise InputError(f"{registry.uri} has no model {name!r}; it has {others}")
    matching = known[-1:] if version == "latest" else [each for each in known if each.startswith(version)]
    if version in known:
        return version
    if len(matching) != 1:
        raise InputError(
            f"{len(matching)} versions of {name!r} match {version!r}; `spark-kfp models list {name}` shows those there are"
        )
    return matching[0]


def verify(registry: Place, name: str, version: str) -> dict[str, Any]:
    """Reads all files of a version and compares them with version.json; returns that document.

    Raises:
        InputError: a file is missing or was changed.
    """
    document = read(registry, name, version)
    for item in document["files"]:
        read_file(registry, document, item["path"])
    return document
