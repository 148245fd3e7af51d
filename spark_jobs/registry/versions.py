"""The versions of a model: each is a folder that never changes once its version.json is there, which is written last.

`NAME/versions/ID/version.json` names every file of the version with its size and SHA-256. The ID is made of the time at which the model was
evaluated and a hash of its files: registering a run twice gives the same version, and two writers of one version write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spark_jobs.arguments import Role
from spark_jobs.contract import ARGUMENTS, MODEL_NAME, Step
from spark_jobs.errors import InputError
from spark_jobs.registry.places import Place, place_of
from spark_jobs.result import RESULT_NAME, Result

REGISTRY_VERSION = 1
"""Is raised when the code can no longer read the documents of the version before."""
VERSION_NAME = "version.json"
EXAMPLES_NAME = "examples.json"
"""Rows of the test set with Spark's probabilities, by which a server checks a version; the only file that the ID does not count, as a
version that is registered without Spark has none."""
HASH_DIGITS = 8


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
    if "scorecard.json" in trained.names():
        wanted.append((trained, "scorecard.json", "scorecard.json"))
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


def version_id(created: str, listed: Sequence[Mapping[str, Any]]) -> str:
    """Makes the ID of a version: the time in UTC and the first digits of a hash of its files.

    Args:
        created: when the model was evaluated, in the form of ISO 8601 with a zone.
        listed: the files, each with `path`, `size` and `sha256`.
    """
    counted = sorted((item["path"], item["size"], item["sha256"]) for item in listed if item["path"] != EXAMPLES_NAME)
    digest = hashlib.sha256(json.dumps([created, counted]).encode()).hexdigest()[:HASH_DIGITS]
    return f"{datetime.fromisoformat(created):%Y%m%d-%H%M%S}-{digest}"


def write(registry: Place, candidate: Candidate) -> dict[str, Any]:
    """Writes a version, its version.json last; a version that is there already stays as it is.

    Returns:
        The document of the version, as it stands in the registry.
    """
    name, version = str(candidate.document["name"]), candidate.version
    if version in versions_of(registry, name):
        return read(registry, name, version)
    folder = folder_of(name, version)
    for path, content in candidate.files.items():
        registry.write(f"{folder}/{path}", content)
    text = json.dumps(candidate.document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    registry.swap(f"{folder}/{VERSION_NAME}", text.encode(), "")  # if another process was first, its document counts
    return read(registry, name, version)


def folder_of(name: str, version: str) -> str:
    """Returns the folder of a version, relative to the registry."""
    return f"{name}/versions/{version}"


def names(registry: Place) -> list[str]:
    """Lists the models of a registry that have a version."""
    return sorted(
        {path.split("/")[0] for path in registry.names() if re.fullmatch(r"[^/]+/versions/[^/]+/version\.json", path)}
    )


def versions_of(registry: Place, name: str) -> list[str]:
    """Lists the versions of a model, oldest first; a folder without version.json is none."""
    paths = [path.split("/") for path in registry.names(f"{name}/versions")]
    return sorted(parts[2] for parts in paths if len(parts) == 4 and parts[3] == VERSION_NAME)


def read(registry: Place, name: str, version: str) -> dict[str, Any]:
    """Reads the document of a version.

    Raises:
        InputError: there is no such version, or its document cannot be read.
    """
    where = f"{registry.uri}/{folder_of(name, version)}/{VERSION_NAME}"
    try:
        document = json.loads(registry.read(f"{folder_of(name, version)}/{VERSION_NAME}"))
    except (FileNotFoundError, NotADirectoryError) as error:
        known = ", ".join(versions_of(registry, name)[-5:]) or "none yet"
        raise InputError(f"{registry.uri}: model {name!r} has no version {version}; it has {known}") from error
    except ValueError as error:
        raise InputError(f"{where} is damaged ({error}); import the version again from a copy") from error
    return check_document(document, where)


def check_document(document: Any, where: str) -> dict[str, Any]:
    """Checks that a parsed version.json can be used: its release, and that its files fit its ID.

    Raises:
        InputError: it is not the document of a version.
    """
    if not isinstance(document, dict) or document.get("registry_version") != REGISTRY_VERSION:
        raise InputError(f"{where} is no version of a model, or that of another release of spark-kfp")
    try:
        fits = version_id(document["created"], document["files"]) == document["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged ({error!r}); import the version again from a copy") from error
    if not fits:
        raise InputError(f"{where} was changed: its files do not fit its ID; import the version again from a copy")
    for item in document["files"]:
        if any(part in ("", ".", "..") for part in str(item["path"]).split("/")):
            raise InputError(f"{where} names a file outside of its version: {item['path']!r}")
    return document


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
    document, folder = read(registry, name, version), folder_of(name, version)
    for item in document["files"]:
        where = f"{registry.uri}/{folder}/{item['path']}"
        try:
            content = registry.read(f"{folder}/{item['path']}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{where} is missing; import the version again from a copy") from error
        if (len(content), hashlib.sha256(content).hexdigest()) != (item["size"], item["sha256"]):
            raise InputError(f"{where} was changed: its SHA-256 is another one; import the version again from a copy")
    return document
