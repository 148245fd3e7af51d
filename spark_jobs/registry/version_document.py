"""The document of a version, version.json: what it must hold, and how damage to it is noticed.

Its ID is made of the time at which the model was evaluated and a hash of the files; `sha256` is that of all the rest of the document. Both
tell damage and a careless edit, and no forger, who calculates them anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from spark_jobs.errors import InputError
from spark_jobs.gate import is_finite

REGISTRY_VERSION = 1
"""Is raised when the code can no longer read the documents of the version before."""
VERSION_NAME = "version.json"
EXAMPLES_NAME = "examples.json"
"""Rows of the test set with Spark's probabilities, by which a server checks a version; the only file that the ID does not count, as a
version that is registered without Spark has none."""
SHA256 = "sha256"
HASH_DIGITS = 8
VERSION_ID = re.compile(rf"\d{{8}}-\d{{6}}-[0-9a-f]{{{HASH_DIGITS}}}")
LONGEST_PART, LONGEST_PATH = 255, 900
"""Bytes of a name that file systems allow, and of a path below a version that object stores do: 1,024 for all of it."""
KINDS: Mapping[str, Any] = {
    "name": str,
    "version": str,
    "created": str,
    "run": str,
    "label": str,
    "labels": list,
    "model.kind": str,
    "model.settings": dict | None,
    "metrics": list,
    "parameters": dict,
    "data.uri": str,
    "data.rows": int,
    "made_by": dict,
    "made_by.packages": dict | None,
    "files": list,
}
"""What readers rely on, by path in the document."""


def version_id(created: str, listed: Sequence[Mapping[str, Any]]) -> str:
    """Makes the ID of a version: the time in UTC and the first digits of a hash of its files.

    Args:
        created: when the model was evaluated, in the form of ISO 8601 with a zone.
        listed: the files, each with `path`, `size` and `sha256`.
    """
    counted = sorted((item["path"], item["size"], item["sha256"]) for item in listed if item["path"] != EXAMPLES_NAME)
    digest = hashlib.sha256(json.dumps([created, counted]).encode()).hexdigest()[:HASH_DIGITS]
    return f"{datetime.fromisoformat(created):%Y%m%d-%H%M%S}-{digest}"


def digest(document: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a document as JSON with sorted keys, without its own `sha256`."""
    counted = {key: value for key, value in document.items() if key != SHA256}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def to_json(document: Mapping[str, Any]) -> bytes:
    """Returns the content of version.json, with its `sha256`.

    Raises:
        InputError: a reader would refuse it.
    """
    where = f"{VERSION_NAME} of {document['name']} {document['version']}"
    try:
        content = _formatted({**document, SHA256: digest(document)})
    except ValueError as error:
        raise InputError(f"{where} cannot be written: {error}") from error
    parse(content, where)
    return content


def _formatted(document: Mapping[str, Any]) -> bytes:
    """Returns a document as JSON in UTF-8; raises ValueError for NaN and for half of a surrogate pair, which that cannot hold."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Parses a version.json, and checks that it can be used.

    Args:
        content: of the file.
        where: the file, for the error message.

    Raises:
        InputError: it is that of another release, lacks something, or was changed.
    """
    try:
        document = json.loads(content)
        if not isinstance(document, dict) or document.get("registry_version") != REGISTRY_VERSION:
            raise InputError(f"{where} is no version of a model, or that of another release of spark-kfp")
        _check(document)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is damaged: {error}; import the version again from another copy") from error
    return document


def _check(document: dict[str, Any]) -> None:
    """Raises ValueError if a reader could not rely on a document, or it is another one than was written."""
    _formatted(document)
    for path, kind in KINDS.items():
        value: Any = document
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise ValueError(f"it has no {path}" if value is None else f"{path} is {reprlib.repr(value)}")
    _check_metrics(document["metrics"])
    _check_files(document["files"])
    for key, values, kind in (
        ("labels", document["labels"], str),
        ("parameters", document["parameters"].values(), dict),
    ):
        if not all(isinstance(value, kind) for value in values):
            raise ValueError(f"{key} is {reprlib.repr(document[key])}")
    if datetime.fromisoformat(document["created"]).tzinfo is None:
        raise ValueError(f"created is {document['created']!r}, which has no time zone")
    if version_id(document["created"], document["files"]) != document["version"]:
        raise ValueError("its files do not fit its ID")
    if document.get(SHA256, expected := digest(document)) != expected:  # versions of earlier code have none
        raise ValueError(f"it was changed, as its {SHA256} is another one")


def _check_metrics(metrics: Sequence[Any]) -> None:
    if not metrics:
        raise ValueError("it has no metric")
    for item in metrics:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ValueError(f"a metric is {reprlib.repr(item)}")
        for key in ("value", "low", "high"):
            if not is_finite(item.get(key)):
                raise ValueError(f"{key} of {item['name']} is {reprlib.repr(item.get(key))}")


def _check_files(files: Sequence[Any]) -> None:
    for item in files:
        if not isinstance(item, dict) or [type(item.get(key)) for key in ("path", "size", SHA256)] != [str, int, str]:
            raise ValueError(f"a file is {reprlib.repr(item)}")
        parts = item["path"].split("/")
        too_long = len(item["path"].encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in parts)
        if any(part in ("", ".", "..") for part in parts) or not item["path"].isprintable() or too_long:
            raise ValueError(f"{reprlib.repr(item['path'])} is no path of a file below the version")
    paths = {item["path"] for item in files}
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if len(paths) < len(files) or VERSION_NAME in paths or paths & folders:
        raise ValueError("two of its files have one path")
